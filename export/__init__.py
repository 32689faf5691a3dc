"""Commands that export a model, check an export, and ask a server.

bert-keras export-savedmodel --help   once this project is installed
python -m export.saved_model --help   in a folder of its sources
"""

from bert_keras import tensorflow_import

tensorflow_import.import_tensorflow()
