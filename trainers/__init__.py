"""Commands: python -m trainers.prepare, trainers.pretrain, and so on."""

from bert_keras import tensorflow_import

tensorflow_import.import_tensorflow()
