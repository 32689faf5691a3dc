"""config.json of a Hugging Face BERT and BertConfig, both ways."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from bert_keras import config as config_lib
from bert_keras import errors
from bert_keras.formats import foreign

CONFIG = "config.json"

# Theirs -> ours. What is absent has the same default in both.
FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "type_vocab_size": "num_segments",
    "is_decoder": "causal",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "initializer_range": "initializer_range",
    "layer_norm_eps": "layer_norm_epsilon",
}
SIZES = tuple(FIELDS)[:5]  # these differ from model to model

# Theirs -> ours; the first of each is written.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}

# Another value is another network. Absent: this one.
REQUIRED = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "add_cross_attention": False,
}


def read(folder: str) -> tuple[config_lib.BertConfig, dict[str, Any]]:
    """The network that config.json describes, and all that it says.

    `classifier_dropout` has no place here and is left out: it matters to
    training alone.
    """
    path = os.path.join(folder, CONFIG)
    values = foreign.read_json(path)
    for name, expected in REQUIRED.items():
        if values.get(name, expected) != expected:
            raise errors.InputError(
                f"{path}: expected {name} {expected!r}, the only one that is "
                f"read; found {values[name]!r}."
            )
    fields = {"hidden_act": "gelu"} | values
    if fields["hidden_act"] not in ACTIVATIONS:
        raise errors.InputError(
            f"{path}: expected hidden_act to be one of "
            f"{', '.join(ACTIVATIONS)}; found {fields['hidden_act']!r}."
        )
    wrong = {
        name: values.get(name)
        for name in FIELDS
        if (name in values or name in SIZES)
        and not _is_number(values.get(name), positive=name in SIZES)
    }
    if wrong:
        raise errors.InputError(f"{path}: expected numbers, found {wrong}.")
    config = config_lib.BertConfig(
        activation=ACTIVATIONS[fields["hidden_act"]],
        **{
            ours: values[theirs]
            for theirs, ours in FIELDS.items()
            if theirs in values
        },
    )
    return config, values


def write(
    config: config_lib.BertConfig, *, labels: Sequence[str] = ()
) -> dict[str, Any]:
    """Raises InputError when the network is none of theirs."""
    theirs = {
        "norm_first": (False,),
        "num_hidden_groups": (None, config.num_layers),
        "embedding_size": (None, config.hidden_size),
        "position": ("learned",),
    }
    other = {
        name: getattr(config, name)
        for name, values in theirs.items()
        if getattr(config, name) not in values
    }
    if other:
        raise errors.InputError(
            f"a Hugging Face BERT has no {', '.join(other)}; this network has "
            f"{other}."
        )
    written = {
        "model_type": "bert",
        "hidden_act": next(
            theirs
            for theirs, ours in ACTIVATIONS.items()
            if ours == config.activation
        ),
        "position_embedding_type": "absolute",
        **{theirs: getattr(config, ours) for theirs, ours in FIELDS.items()},
    }
    if labels:
        written["id2label"] = dict(enumerate(labels))
        written["label2id"] = {label: i for i, label in enumerate(labels)}
    return written


def labels(folder: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    """What id2label names, by id."""
    names = values.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    found = [names.get(str(index)) for index in range(len(names))]
    if None in found or len(set(found)) != len(found):
        raise errors.InputError(
            f"{os.path.join(folder, CONFIG)}: expected a label of its own for "
            f"each of 0..{len(names) - 1} in id2label, found {names}."
        )
    return tuple(map(str, found))


def _is_number(value: Any, *, positive: bool) -> bool:
    return isinstance(value, int | float) and (not positive or value > 0)
