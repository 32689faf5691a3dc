"""Converts config.json of Hugging Face's BERT, ALBERT and ERNIE, both ways."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from bert_keras import errors, files
from bert_keras.formats import weight_mapping
from bert_keras.networks import bert

CONFIG = "config.json"

# Hugging Face's field -> BertConfig's. A field that config.json lacks has the
# same default in both.
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
SIZES = tuple(FIELDS)[:7]
REQUIRED_SIZES = SIZES[:5]  # which have no default that fits most models
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob")
POSITIVE = ("initializer_range", "layer_norm_eps")

# Hugging Face's activation -> BertConfig's; if several map to one, `to_values`
# uses the first.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}

MAX_LABELS = 1_000_000

# All values of problem_type, for text classifiers; default: the first.
PROBLEMS = (
    "single_label_classification",
    "multi_label_classification",
    "regression",
)

# Fields, and the only value of each that this package can load, which is also
# the field's default.
BERT, ALBERT, ERNIE = "bert", "albert", "ernie"
BERTS = {
    "model_type": BERT,
    "position_embedding_type": "absolute",
    "add_cross_attention": False,
}
ALBERTS = BERTS | {
    "model_type": ALBERT,
    "is_decoder": False,
    "inner_group_num": 1,
}
ERNIES = BERTS | {"model_type": ERNIE}
# Fields that only ALBERT has, and its defaults, where they are not BERT's.
ALBERT_FIELDS = {
    "embedding_size": "embedding_size",
    "num_hidden_groups": "num_hidden_groups",
}
ALBERT_DEFAULTS: dict[str, Any] = {
    "num_hidden_groups": 1,
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
# Those of ERNIE, of which `use_task_id` must be true.
ERNIE_FIELDS = {"task_type_vocab_size": "num_task_types"}
ERNIE_DEFAULTS = {"task_type_vocab_size": 3}


def _require_bert(path: str, values: Mapping[str, Any]) -> None:
    """Raises InputError if the model is no BERT, or refers to custom code."""
    if "model_type" not in values:
        raise errors.InputError(
            f'{path} has no model_type; write "model_type": "bert" into it '
            "if the network is a BERT, or copy the folder again."
        )
    allowed = BERTS
    for each in (ALBERTS, ERNIES):
        if values["model_type"] == each["model_type"]:
            allowed = each
    for name, expected in allowed.items():
        if values.get(name, expected) != expected:
            raise errors.InputError(
                f"{path}: expected {name} {expected!r}, the only one that is "
                f"read; found {weight_mapping.shown(values[name])}."
            )
    if values.get("auto_map"):
        raise errors.InputError(
            f"{path}: auto_map {weight_mapping.shown(values['auto_map'])} "
            "refers to Python code. Code of a checkpoint is never executed. "
            "Remove auto_map if the network and the tokenizer are BERT's."
        )


def read(folder: str) -> tuple[bert.BertConfig, dict[str, Any]]:
    """Reads config.json; returns the network's config and all values.

    `classifier_dropout` is not supported and ignored: it only affects training.
    """
    path = os.path.join(folder, CONFIG)
    values = files.read_json(path)
    _require_bert(path, values)
    is_albert = values["model_type"] == ALBERT
    fields, required = FIELDS, REQUIRED_SIZES
    if is_albert:
        values = ALBERT_DEFAULTS | values
        fields, required = FIELDS | ALBERT_FIELDS, (*required, *ALBERT_FIELDS)
    elif _has_task_types(path, values):
        values = ERNIE_DEFAULTS | values
        fields, required = FIELDS | ERNIE_FIELDS, (*required, *ERNIE_FIELDS)
    activation = values.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise errors.InputError(
            f"{path}: expected hidden_act to be one of "
            f"{', '.join(ACTIVATIONS)}; found "
            f"{weight_mapping.shown(activation)}."
        )

    def present(names):
        return [name for name in names if name in values]

    weight_mapping.field(values, "is_decoder", bool, path)
    problem = weight_mapping.field(values, "problem_type", str, path)
    if problem and problem not in PROBLEMS:
        raise errors.InputError(
            f"{path}: expected problem_type to be one of "
            f"{', '.join(PROBLEMS)}; found {weight_mapping.shown(problem)}."
        )
    weight_mapping.check_numbers(
        path,
        values,
        sizes=dict.fromkeys((*required, *present(SIZES))),
        rates=present(RATES),
        positive=present(POSITIVE),
    )
    try:
        config = bert.BertConfig(
            activation=ACTIVATIONS[activation],
            **{
                field: values[key]
                for key, field in fields.items()
                if values.get(key) is not None
            },
        )
    except errors.InputError as error:
        raise errors.InputError(f"{path}: {error}") from None
    if is_albert and config.embedding_size == config.hidden_size:
        raise errors.InputError(
            f"{path}: embedding_size and hidden_size are both "
            f"{config.hidden_size}; ALBERT then still has a matrix between "
            "them, which the network here lacks."
        )
    return config, values


def _has_task_types(path: str, values: Mapping[str, Any]) -> bool:
    """Returns whether the model is an ERNIE with a table of task types."""
    if values["model_type"] != ERNIE:
        return False
    return bool(weight_mapping.field(values, "use_task_id", bool, path))


def to_values(
    config: bert.BertConfig,
    *,
    labels: Sequence[str] = (),
    model_type: str = BERT,
) -> dict[str, Any]:
    """Returns the values of config.json for a network and its labels.

    Raises InputError if Hugging Face's model of this type cannot be such a
    network.
    """
    _require_supported(config, model_type)
    values = {
        "model_type": model_type,
        "hidden_act": next(
            key
            for key, field in ACTIVATIONS.items()
            if field == config.activation
        ),
        "position_embedding_type": "absolute",
        **{key: getattr(config, field) for key, field in FIELDS.items()},
    }
    if model_type == ALBERT:
        values["embedding_size"] = config.embedding_width
        values["num_hidden_groups"] = (
            config.num_hidden_groups or config.num_layers
        )
        values["inner_group_num"] = 1
    if model_type == ERNIE:
        values["use_task_id"] = True
        values["task_type_vocab_size"] = config.num_task_types
    if labels:
        values["id2label"] = dict(enumerate(labels))
        values["label2id"] = {label: i for i, label in enumerate(labels)}
    return values


def _require_supported(config: bert.BertConfig, model_type: str) -> None:
    """Raises InputError if a model of this type cannot be such a network."""
    required: dict[str, tuple[Any, ...]] = {
        "norm_first": (False,),
        "embedding_norm": (True,),
        "pooler": (True,),
        "position": ("learned",),
        "token_rank": (None,),
        "embedding_sum": (True,),
        "residual": (True,),
        "shared_query_key": (False,),
        "shared_sublayers": ("all",),
        # ERNIE's is an argument of the call, whose default is 0.
        "task_type": (0,),
        "activation": tuple(ACTIVATIONS.values()),
    }
    if model_type != ERNIE:
        required["num_task_types"] = (0,)
    if model_type == ALBERT:
        required["causal"] = (False,)
    else:
        required["num_hidden_groups"] = (None, config.num_layers)
        required["embedding_size"] = (None, config.hidden_size)
    other = {
        name: getattr(config, name)
        for name, supported in required.items()
        if getattr(config, name) not in supported
    }
    if other:
        raise errors.InputError(
            f"a Hugging Face {model_type.upper()} has no "
            f"{', '.join(other)}; this network has "
            f"{other}."
        )
    if model_type == ALBERT:
        _require_narrow(config)


def _require_narrow(config: bert.BertConfig) -> None:
    if config.embedding_width == config.hidden_size:
        raise errors.InputError(
            "a Hugging Face ALBERT, the only network there with a vocabulary "
            "of SentencePiece or with shared blocks (num_hidden_groups), "
            "projects the embeddings to hidden_size; this network does not: "
            f"its embedding_size is {config.embedding_width}, too."
        )


def labels(folder: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the labels, by id.

    They are those of id2label, else of label2id, else LABEL_0, LABEL_1, ... for
    num_labels, whose default is 2 as in transformers. Raises InputError if the
    three contradict each other.
    """
    path = os.path.join(folder, CONFIG)
    names = weight_mapping.field(values, "id2label", dict, path)
    ids = weight_mapping.field(values, "label2id", dict, path)
    if not names and ids:
        names = {str(index): label for label, index in ids.items()}
        if len(names) < len(ids):
            raise errors.InputError(
                f"{path}: expected a different id for each label in "
                f"label2id, found {weight_mapping.shown(ids, 300)}."
            )
    if not names:
        count = values.get("num_labels", 2)
        weight_mapping.check_numbers(
            path, {"num_labels": count}, sizes=["num_labels"]
        )
        if count > MAX_LABELS:
            raise errors.InputError(
                f"{path}: expected num_labels up to {MAX_LABELS:,}, found "
                f"{weight_mapping.shown(count)}."
            )
        return tuple(f"LABEL_{index}" for index in range(count))
    ordered = [names.get(str(index)) for index in range(len(names))]
    if not all(isinstance(name, str | int) for name in ordered) or len(
        set(map(str, ordered))
    ) != len(ordered):
        raise errors.InputError(
            f"{path}: expected a different label for each id in "
            f"0..{len(names) - 1} of id2label, found "
            f"{weight_mapping.shown(names, 300)}."
        )
    numbers = {str(label): str(index) for index, label in enumerate(ordered)}
    if ids and numbers != {label: str(index) for label, index in ids.items()}:
        raise errors.InputError(
            f"{path}: id2label has {weight_mapping.shown(names, 300)} and "
            "label2id "
            f"{weight_mapping.shown(ids, 300)}; correct the one that is wrong, "
            "or "
            "remove label2id."
        )
    count = values.get("num_labels")
    if count is not None and count != len(ordered):
        raise errors.InputError(
            f"{path}: num_labels is {weight_mapping.shown(count)} and "
            f"{len(ordered)} "
            f"labels are named, {weight_mapping.shown(ordered, 300)}; correct "
            "the one "
            "that is wrong, or remove num_labels."
        )
    return tuple(map(str, ordered))
