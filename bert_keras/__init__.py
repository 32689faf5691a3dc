"""BERT on Keras 3 and TensorFlow: from raw text to a served model.

>>> import bert_keras
>>> bert_keras.load("runs/sst2").predict(["a fine film"])
[{'label': 'positive', 'score': 0.9..., 'scores': [...], 'truncated': False}]

The public names below are imported when they are first used: TensorFlow takes
seconds, and `import bert_keras` takes none.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from bert_keras import keras_backend, tensorflow_import

if TYPE_CHECKING:  # _MODULES and _PUBLIC for type checkers and editors
    from bert_keras import checkpoint as checkpoint
    from bert_keras import formats as formats
    from bert_keras import tasks as tasks
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
    from bert_keras.training.keras_dataset import to_dataset as to_dataset
    from bert_keras.training.prepare import prepare as prepare
    from bert_keras.training.pretrain import pretrain as pretrain

__version__ = "0.2.0"  # pyproject.toml reads it from here

_MODULES = ("checkpoint", "formats", "tasks")

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
    "to_dataset": "training.keras_dataset",
}

__all__ = ["__version__", *_MODULES, *_PUBLIC]

# The console command answers --help and --version with any backend, and leaves
# the check to `trainers` and `export`, which print one line.
if not keras_backend.in_console_command():
    keras_backend.require_tensorflow()


def __getattr__(name: str) -> Any:
    if name not in _MODULES and name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if "ipykernel" in sys.modules and "tensorflow" not in sys.modules:
        # A notebook's cell would show the log lines that the import prints.
        tensorflow_import.import_tensorflow()
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    module = importlib.import_module(f"{__name__}.{_PUBLIC[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_PUBLIC})
