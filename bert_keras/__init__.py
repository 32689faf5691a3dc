"""BERT on Keras 3 and TensorFlow: from raw text to a served model.

>>> import bert_keras
>>> bert_keras.load("runs/sst2").predict(["a fine film"])

The public names below are imported when they are first used: TensorFlow takes
seconds, and `import bert_keras` takes none.
"""

import importlib
from typing import Any

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
