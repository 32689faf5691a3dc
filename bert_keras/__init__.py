"""BERT on Keras 3 and TensorFlow: from raw text to a served model.

>>> import bert_keras
>>> bert_keras.load("runs/sst2").predict(["a fine film"])
"""

import keras as _keras

if _keras.backend.backend() != "tensorflow":
    raise ImportError(
        "bert_keras needs Keras' TensorFlow backend, but the backend is "
        f"{_keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow."
    )

from bert_keras.config import BertConfig  # noqa: E402
from bert_keras.data.tokenizer import Tokenizer  # noqa: E402
from bert_keras.encoder import BertEncoder  # noqa: E402
from bert_keras.errors import InputError  # noqa: E402
from bert_keras.model import BertModel  # noqa: E402
from bert_keras.predictor import Predictor, load  # noqa: E402

__all__ = [
    "BertConfig",
    "BertEncoder",
    "BertModel",
    "InputError",
    "Predictor",
    "Tokenizer",
    "load",
]
