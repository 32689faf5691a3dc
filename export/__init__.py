"""The exporters: python -m export.saved_model, export.tflite."""

from bert_keras import tensorflow_import

tensorflow_import.import_tensorflow()
