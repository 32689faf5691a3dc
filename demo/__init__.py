"""The demo of the whole pipeline: python -m demo."""

from bert_keras import tensorflow_import

tensorflow_import.import_tensorflow()
