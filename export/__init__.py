"""The exporters: python -m export.saved_model, export.tflite."""

from bert_keras import quiet

quiet.import_tensorflow()
