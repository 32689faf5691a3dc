"""Exporters: python -m export.saved_model and python -m export.tflite."""

from bert_keras import tensorflow_import

tensorflow_import.import_tensorflow()
