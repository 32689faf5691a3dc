"""BERT on Keras 3 and TensorFlow: from raw text to a served model.

>>> import bert_keras
>>> bert_keras.load("runs/sst2").predict(["a fine film"])

The public names below are imported when they are first used: TensorFlow takes
seconds, and `import bert_keras` takes none.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # _PUBLIC for type checkers and editors
    from bert_keras.errors import InputError as InputError
    from bert_keras.model import BertModel as BertModel
    from bert_keras.networks.bert import BertConfig as BertConfig
    from bert_keras.networks.bert import BertEncoder as BertEncoder
    from bert_keras.predictor import Predictor as Predictor
    from bert_keras.predictor import load as load
    from bert_keras.tasks.base import Task as Task
    from bert_keras.tokenizers.wordpiece import Tokenizer as Tokenizer
    from bert_keras.training.evaluate import evaluate as evaluate
    from bert_keras.training.finetune import finetune as finetune
    from bert_keras.training.prepare import prepare as prepare
    from bert_keras.training.pretrain import pretrain as pretrain

_PUBLIC = {
    "BertConfig": "networks.bert",
    "BertEncoder": "networks.bert",
    "BertModel": "model",
    "InputError": "errors",
    "Predictor": "predictor",
    "Task": "tasks.base",
    "Tokenizer": "tokenizers.wordpiece",
    "evaluate": "training.evaluate",
    "finetune": "training.finetune",
    "load": "predictor",
    "prepare": "training.prepare",
    "pretrain": "training.pretrain",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_PUBLIC[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
