"""Exporters: python -m export.saved_model and python -m export.tflite."""

import sys

try:
    from bert_keras import tensorflow_import
except ImportError as error:
    if error.name != "KERAS_BACKEND":
        raise
    sys.exit(f"error: {error}")  # the user can fix it: one line, exit code 1

tensorflow_import.import_tensorflow()
