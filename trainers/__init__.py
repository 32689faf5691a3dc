"""Commands that prepare, train, evaluate and convert.

bert-keras finetune --help          once this project is installed
python -m trainers.finetune --help  in a folder of its sources
"""

from bert_keras import tensorflow_import

tensorflow_import.import_tensorflow()
