"""The commands: python -m trainers.prepare, pretrain, finetune, ..."""

from bert_keras import tensorflow_import

tensorflow_import.import_tensorflow()
