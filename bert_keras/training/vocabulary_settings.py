"""The settings of a vocabulary that is read or learned, for all commands."""

import inspect
from typing import Any

from bert_keras import errors
from bert_keras.tokenizers import base as tokenizers
from bert_keras.training import settings as settings_lib

Settings = settings_lib.PrepareSettings | settings_lib.FinetuneSettings

_MODEL_TYPE = settings_lib.PrepareSettings.model_type  # the default


def check(settings: Settings) -> None:
    """Raises InputError if a setting is for learning and `vocab` is given."""
    if settings.vocab and settings.model_type != _MODEL_TYPE:
        raise errors.InputError(
            f"model_type={settings.model_type} is for learning, with "
            "`vocab_size`; a model that is read has its own type. Leave it "
            "out.",
            argument="model_type",
        )


def of_learner(
    settings: Settings, cls: type[tokenizers.Tokenizer]
) -> dict[str, Any]:
    """Returns the arguments of `cls.learn` besides the texts and the size.

    Raises InputError for a setting that the tokenizer does not have.
    """
    arguments: dict[str, Any] = {"lowercase": settings.lowercase is not False}
    if settings.model_type != _MODEL_TYPE:
        if "model_type" not in inspect.signature(cls.learn).parameters:
            raise errors.InputError(
                f"model_type={settings.model_type} is for "
                f"`tokenizer`=sentencepiece, got {settings.tokenizer}.",
                argument="model_type",
            )
        arguments["model_type"] = settings.model_type
    return arguments
