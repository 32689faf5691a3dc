"""The demo: python -m demo."""

from bert_keras import quiet

quiet.import_tensorflow()
