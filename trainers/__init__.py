"""Commands that prepare, train, evaluate and convert.

  bert-keras finetune --help
  python -m trainers.finetune --help

The first form needs an installed project, the second runs in its sources, too.
"""

from bert_keras import tensorflow_import

tensorflow_import.import_tensorflow()
