"""Commands that prepare, train, evaluate and convert.

  bert-keras finetune --help
  python -m trainers.finetune --help

The first form needs an installed project, the second runs in its sources, too.
"""

import sys

try:
    from bert_keras import keras_backend, tensorflow_import

    keras_backend.require_tensorflow()
except ImportError as error:
    if error.name != "KERAS_BACKEND":
        raise
    sys.exit(f"error: {error}")  # the user can fix it: one line, exit code 1

tensorflow_import.import_tensorflow()
