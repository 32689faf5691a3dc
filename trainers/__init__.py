"""The commands: python -m trainers.prepare, pretrain, finetune, ..."""

from bert_keras import quiet

quiet.import_tensorflow()
