"""Side by side with peers: each prints one table."""

from bert_keras import quiet

quiet.import_tensorflow()
