"""Side by side with peers: each prints one table."""

from bert_keras import tensorflow_import

tensorflow_import.import_tensorflow()
