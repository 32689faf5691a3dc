"""Commands that export a model, check an export, and ask a server.

  bert-keras export-savedmodel --help
  python -m export.saved_model --help

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
