"""The start of a fine-tuning run without a checkpoint: `model`.

The network has random weights, and its vocabulary is read, or learned from the
training rows.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable

from bert_keras import console, errors, loading, named_networks
from bert_keras.networks import base as networks
from bert_keras.tokenizers import base as tokenizers
from bert_keras.training import settings as settings_lib
from bert_keras.training import vocabulary_settings

# Settings of a vocabulary, which a checkpoint has, and of a checkpoint.
_WITH_MODEL = ("tokenizer", "vocab", "vocab_size", "model_type")
_WITH_INIT = ("from_scratch", "allow_missing")


def check(settings: settings_lib.FinetuneSettings) -> None:
    """Raises InputError unless there is one start, and settings that fit it."""
    if not (settings.init or settings.model):
        raise errors.InputError(
            "`init` is missing: give the checkpoint to start from, or a new "
            "network with `model`.",
            argument="init",
        )
    if settings.init and settings.model:
        raise errors.InputError(
            f"init={settings.init} and model={settings.model}: expected one of "
            "them, a checkpoint to start from or a new network.",
            argument="model",
        )
    for name in _WITH_MODEL if settings.init else _WITH_INIT:
        value = getattr(settings, name)
        if value == _default(name):
            continue
        if settings.init:
            raise errors.InputError(
                f"{name}={value} is for a new network, with `model`; `init` "
                "has its own vocabulary. Leave it out.",
                argument=name,
            )
        raise errors.InputError(
            f"{name}={value} is for `init`; a new network always has random "
            "weights. Leave it out.",
            argument=name,
        )
    if settings.vocab and settings.vocab_size:
        raise errors.InputError(
            f"vocab={settings.vocab} and vocab_size={settings.vocab_size}: "
            "expected one of them, a vocabulary to read or the size of one to "
            "learn.",
            argument="vocab_size",
        )
    vocabulary_settings.check(settings)
    if settings.model:  # refuse a wrong name before a vocabulary is learned
        named_networks.parse(
            settings.model, vocab_size=settings_lib.DEFAULT_VOCAB_SIZE
        )


def tokenizer(
    settings: settings_lib.FinetuneSettings,
    texts: Callable[[], Iterable[str]],
) -> tokenizers.Tokenizer:
    """Reads the tokenizer that the settings name, or learns it.

    texts: returns those of the training rows, anew each time.
    """
    cls = tokenizers.find(settings.tokenizer)
    if settings.vocab:
        return cls.from_vocab(settings.vocab, lowercase=settings.lowercase)
    arguments = vocabulary_settings.of_learner(settings, cls)
    if settings.vocab_size:
        learned = cls.learn(texts(), settings.vocab_size, **arguments)
    else:
        learned = cls.learn_up_to(
            texts, settings_lib.DEFAULT_VOCAB_SIZE, **arguments
        )
    console.say(
        f"learned a vocabulary of {learned.vocab_size:,} entries from the "
        f"training rows of {settings.train}"
    )
    return learned


def config(
    settings: settings_lib.FinetuneSettings, tokenizer: tokenizers.Tokenizer
) -> networks.NetworkConfig:
    """Returns the network that `model` names, for the tokenizer's ids."""
    network = named_networks.parse(
        settings.model, vocab_size=tokenizer.vocab_size
    )
    loading.check_inputs(tokenizer, network)
    return network


def describe(
    settings: settings_lib.FinetuneSettings, tokenizer: tokenizers.Tokenizer
) -> dict[str, str]:
    """Returns a row for summaries and model cards; none with `init`."""
    if settings.init:
        return {}
    source = "learned from the training rows"
    if settings.vocab:
        name = os.path.basename(os.path.abspath(settings.vocab))
        source = f"read from {name}"
    return {
        "start": "no checkpoint: random weights, and a vocabulary of "
        f"{tokenizer.vocab_size:,} entries {source}"
    }


def _default(name: str) -> object:
    fields = dataclasses.fields(settings_lib.FinetuneSettings)
    return next(field.default for field in fields if field.name == name)
