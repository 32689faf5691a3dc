"""Commands that export a model, check an export, and ask a server.

  bert-keras export-savedmodel --help
  python -m export.saved_model --help

The first form needs an installed project, the second runs in its sources, too.
"""

from bert_keras import tensorflow_import

tensorflow_import.import_tensorflow()
