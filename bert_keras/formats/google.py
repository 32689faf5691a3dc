"""Reads and writes Google's TensorFlow 1 checkpoints of BERT and ALBERT.

    bert_config.json or albert_config.json
    bert_model.ckpt.index, bert_model.ckpt.data-00000-of-00001
    vocab.txt

The files do not specify the meaning of a head. So classes are called "0", "1",
and so on; a classifier is assumed to read single texts, and a SQuAD head to be
for version 1.1; ALBERT's SQuAD heads are left out. Nor do they specify the
casing: `write` adds it to the configuration, where Google's code ignores it.
"""

import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from bert_keras import checkpoint, errors, files, named_tensors
from bert_keras import model as model_lib
from bert_keras.formats import google_weights, weight_mapping
from bert_keras.networks import bert
from bert_keras.tasks import (
    base,
    classification,
    masked_lm,
    question_answering,
)
from bert_keras.tokenizers import base as tokenizers
from bert_keras.tokenizers import wordpiece

NAME = "google"
BERT_CONFIG, ALBERT_CONFIG = "bert_config.json", "albert_config.json"
PREFIX, VOCABULARY = "bert_model.ckpt", "vocab.txt"
_LATEST = "checkpoint"  # TensorFlow 1's file that names the latest checkpoint

# Tensors that are skipped: slots and counters of Google's optimizers and of
# TensorFlow's Adam, and the heads of ALBERT's run_squad.
_IGNORED = (
    r"/(adam_[mv]|Adam|Adam_1)$|^(global_step|beta[12]_power)$"
    r"|^(start_logits|end_logits|answer_class)/"
)
# Tensors of heads that are reported as left out if no task has such a head.
_HEADS = r"^((start_logits|end_logits|answer_class)/|output_(weights|bias)$)"

# BertConfig's field -> Google's.
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "num_segments": "type_vocab_size",
}
_ALBERT_SIZES = {
    "embedding_size": "embedding_size",
    "num_hidden_groups": "num_hidden_groups",
}
_RATES = {
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "initializer_range": "initializer_range",
}
# BERT's and ALBERT's modeling.py both compute "gelu" by the tanh formula.
_ACTIVATIONS = {"gelu_tanh": "gelu", "relu": "relu"}
# Fields that are constants in Google's code.
_FIXED: dict[str, Any] = {
    "causal": False,
    "norm_first": False,
    "embedding_norm": True,
    "pooler": True,
    "position": "learned",
    "token_rank": None,
    "embedding_sum": True,
    "residual": True,
    "shared_query_key": False,
    "shared_sublayers": "all",
    "num_task_types": 0,
    "layer_norm_epsilon": 1e-12,
}


def recognises(path: str) -> bool:
    names = tf.io.gfile.listdir(path) if tf.io.gfile.isdir(path) else []
    return any(name in names for name in (BERT_CONFIG, ALBERT_CONFIG)) and any(
        name.endswith(".index") for name in names
    )


def read(
    path: str, *, lowercase: bool | None = None, allow_missing: str = ""
) -> weight_mapping.ExternalCheckpoint:
    """Reads the encoder, and the head if a task of the package has such a head.

    Only the index is read at once, so a checkpoint without its data file can be
    inspected. Tensors are read lazily.
    """
    names = tf.io.gfile.listdir(path)
    albert = BERT_CONFIG not in names
    config_path = os.path.join(path, ALBERT_CONFIG if albert else BERT_CONFIG)
    values = files.read_json(config_path)
    config = _read_config(values, config_path, albert=albert)
    tensors = _Tensors(os.path.join(path, _checkpoint_prefix(path, names)))
    if lowercase is None:
        # Google's files lack it; then it is inferred from the vocabulary.
        lowercase = weight_mapping.field(
            values, "do_lower_case", bool, config_path
        )
    tokenizer = wordpiece.Tokenizer.from_file(
        os.path.join(path, VOCABULARY), lowercase=lowercase
    )
    _check_layers(config, tensors, config_path)
    rows, *_ = tensors.shapes.get(google_weights.WORD_EMBEDDINGS) or (0,)
    if rows == config.vocab_size:
        tokenizer = weight_mapping.fit_vocabulary(tokenizer, rows, path)
    task = _read_task(tensors.shapes, tokenizer, config, albert=albert)
    encoder, head = (
        google_weights.map_encoder(config, albert=albert),
        google_weights.map_head(task, config),
    )
    matches = weight_mapping.match(
        encoder | head,
        _without_bookkeeping(tensors.shapes, encoder | head),
        folder=path,
        # A head with one output is a regression, which `_read_task` leaves out.
        ignored=_IGNORED if task else f"{_IGNORED}|^output_(weights|bias)$",
        allow_missing=allow_missing,
    )
    _check_shapes(encoder | head, tensors, config_path)
    return weight_mapping.ExternalCheckpoint.from_matches(
        path,
        matches=matches,
        encoder=encoder,
        config=config,
        task=task,
        words=tokenizer,
        tensor=tensors.read,
        allow_missing=allow_missing,
        unsupported_head_reason=""
        if task
        else _unsupported_head_reason(tensors.shapes),
    )


def write(
    folder: str,
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
) -> None:
    """Writes a name-based checkpoint for Google's code for TensorFlow 1.

    Tensors have ALBERT's names if layers are shared or embeddings are
    projected, else BERT's. Names of labels are lost: Google's code has them in
    its source, not in files.

    Raises InputError if Google's code would compute something else.
    """
    tokenizer = wordpiece.require(tokenizer, "Google's code")
    config = weight_mapping.config_of_bert(model.encoder)
    albert = (
        config.num_hidden_groups not in (None, config.num_layers)
        or config.embedding_width != config.hidden_size
    )
    config_name = ALBERT_CONFIG if albert else BERT_CONFIG
    values = _google_config(config, albert=albert)
    values["do_lower_case"] = tokenizer.lowercase
    tensors = weight_mapping.to_external(
        google_weights.map_encoder(config, albert=albert),
        checkpoint.weight_values(model.encoder),
    ) | weight_mapping.to_external(
        google_weights.map_head(model.task, config),
        checkpoint.weight_values(model.head),
    )
    index, data = f"{PREFIX}.index", f"{PREFIX}.data-00000-of-00001"
    with tempfile.TemporaryDirectory() as written:
        tf.raw_ops.SaveV2(
            prefix=os.path.join(written, PREFIX),
            tensor_names=list(tensors),
            shape_and_slices=[""] * len(tensors),
            tensors=list(tensors.values()),
        )

        def move(name):
            source = os.path.join(written, name)
            return functools.partial(shutil.move, source)

        weight_mapping.write_files(
            folder,
            {
                data: move(data),
                index: move(index),
                VOCABULARY: tokenizer.save_vocabulary,
                config_name: lambda path: files.write_json(
                    path, values, sort_keys=True
                ),
            },
        )


class _Tensors:
    """The tensors of a checkpoint; names and shapes are read at once.

    Values are read lazily.
    """

    def __init__(self, prefix: str):
        self.prefix = prefix
        self._reader = self._call(tf.train.load_checkpoint, prefix)
        self.shapes: dict[str, tuple[int, ...]] = {
            name: tuple(shape)
            for name, shape in self._call(
                self._reader.get_variable_to_shape_map
            ).items()
        }
        self._types = self._call(self._reader.get_variable_to_dtype_map)
        if "_CHECKPOINTABLE_OBJECT_GRAPH" in self.shapes:
            raise errors.InputError(
                f"{prefix} was written by TensorFlow 2, which names objects; "
                "expected a checkpoint of TensorFlow 1, with variable names "
                f"such as {google_weights.WORD_EMBEDDINGS}."
            )

    def read(self, name: str) -> np.ndarray:
        return self._call(self._reader.get_tensor, name)

    def is_float(self, name: str) -> bool:
        return self._types[name].is_floating

    def _call(self, function, *arguments):
        try:
            return function(*arguments)
        except (
            tf.errors.OpError,
            # TensorFlow's reader raises these, too; for a truncated file it is
            # IndexError.
            IndexError,
            NotImplementedError,
            ValueError,
        ) as error:
            reason = str(error).strip().partition("\n")[0]
            raise errors.InputError(
                f"{self.prefix}.index or .data-* is missing or damaged "
                f"({reason}); copy them again."
            ) from None


def _checkpoint_prefix(folder: str, names: list[str]) -> str:
    """Returns the prefix of the checkpoint to read, of possibly several."""
    prefixes = sorted(
        name.removesuffix(".index") for name in names if name.endswith(".index")
    )
    if _LATEST in names:
        latest = _latest(os.path.join(folder, _LATEST))
        if latest not in prefixes:
            raise errors.InputError(
                f"{os.path.join(folder, _LATEST)} names {latest}, which is not "
                f"in the folder (found: {', '.join(prefixes) or 'none'}); copy "
                f"it, or delete the file `{_LATEST}`."
            )
        return latest
    if PREFIX in prefixes:
        return PREFIX
    if len(prefixes) != 1:
        raise errors.InputError(
            f"{folder}: expected one checkpoint, {PREFIX}.index or another; "
            f"found {', '.join(prefixes) or 'none'}. Leave one, or write a "
            f'file `{_LATEST}` with the line model_checkpoint_path: "NAME".'
        )
    return prefixes[0]


def _latest(path: str) -> str:
    """Returns the name in TensorFlow 1's file `checkpoint`.

    Raises InputError if it has none.
    """
    reason = "it has none"
    try:
        state = tf.train.get_checkpoint_state(os.path.dirname(path))
    # The file has no name, or is not UTF-8.
    except ValueError as error:
        state, reason = None, weight_mapping.shown(str(error), 100)
    if state is None:
        raise errors.InputError(
            f'{path}: expected a line model_checkpoint_path: "NAME"; found '
            f"something else ({reason}). Write it, or delete the file "
            f"`{_LATEST}`."
        )
    # The path may be from the machine that wrote it.
    return os.path.basename(state.model_checkpoint_path)


def _read_config(
    values: Mapping[str, Any], path: str, *, albert: bool
) -> bert.BertConfig:
    sizes = _SIZES | (_ALBERT_SIZES if albert else {})
    *rates, positive = _RATES.values()
    weight_mapping.check_numbers(
        path,
        values,
        sizes=sizes.values(),
        rates=rates,
        positive=[positive],
    )
    if "hidden_act" not in values:
        raise errors.InputError(f"{path} lacks hidden_act.")
    activations = {key: name for name, key in _ACTIVATIONS.items()}
    activation = str(values["hidden_act"]).lower()  # as Google's code does
    if activation not in activations:
        raise errors.InputError(
            f"{path}: expected hidden_act {' or '.join(activations)}, got "
            f"{weight_mapping.shown(values['hidden_act'])}."
        )
    if values.get("inner_group_num", 1) != 1:
        raise errors.InputError(
            f"{path}: expected inner_group_num 1, got "
            f"{weight_mapping.shown(values['inner_group_num'])}; other values "
            "cannot be read."
        )
    settings = {name: values[key] for name, key in (sizes | _RATES).items()}
    # Drop ALBERT's fields if their values are BERT's defaults.
    if settings.get("embedding_size") == settings["hidden_size"]:
        del settings["embedding_size"]
    if settings.get("num_hidden_groups") == settings["num_layers"]:
        del settings["num_hidden_groups"]
    try:
        return bert.BertConfig(
            **settings, activation=activations[activation], **_FIXED
        )
    except errors.InputError as error:
        raise errors.InputError(f"{path}: {error}") from None


def _google_config(config: bert.BertConfig, *, albert: bool) -> dict[str, Any]:
    other = [
        f"{name}={getattr(config, name)!r}"
        for name, value in _FIXED.items()
        if getattr(config, name) != value
    ]
    if other:
        raise errors.InputError(
            f"Google's format cannot store {', '.join(other)}: its code always "
            f"has {', '.join(f'{name}={v!r}' for name, v in _FIXED.items())}."
        )
    if config.activation not in (*_ACTIVATIONS, "gelu"):
        raise errors.InputError(
            f"Google's format cannot store activation={config.activation!r}; "
            "keep the checkpoint in bert_keras' own format."
        )
    if config.activation not in _ACTIVATIONS:
        # An additional field cannot help: Google's code would ignore it and
        # silently give other answers.
        raise errors.InputError(
            f"Google's format cannot store activation={config.activation!r}: "
            'its "gelu" is bert_keras\' gelu_tanh. The two differ by less than '
            '0.0005; if that is close enough, write "activation": "gelu_tanh" '
            "in the checkpoint's config.json and evaluate it before converting "
            "it."
        )
    values = {
        key: getattr(config, field) for field, key in (_SIZES | _RATES).items()
    }
    values["hidden_act"] = _ACTIVATIONS[config.activation]
    if albert:
        values["embedding_size"] = config.embedding_width
        values["num_hidden_groups"] = google_weights.num_blocks(config)
        values["inner_group_num"] = 1
    return values


def _read_task(
    shapes: Mapping[str, tuple[int, ...]],
    tokenizer: wordpiece.Tokenizer,
    config: bert.BertConfig,
    *,
    albert: bool,
) -> base.Task | None:
    """Returns the task whose head the checkpoint has, or None."""

    def has(scope):
        return any(name.startswith(scope) for name in shapes)

    task: base.Task | None = None
    if has("cls/predictions/"):
        objective = "none"
        if has("cls/seq_relationship/"):
            # NSP and SOP have the same head (ALBERT, 3.1).
            objective = "sop" if albert else "nsp"
        task = masked_lm.MaskedLM(objective=objective).adapt([], tokenizer)
    elif has(google_weights.SPAN_PREFIX):
        # The max_seq_length of run_squad.py.
        task = question_answering.QuestionAnswering(seq_length=384)
    else:
        classes, *_ = shapes.get("output_weights") or (0,)
        if classes > 1:
            task = classification.Classification(
                labels=tuple(map(str, range(classes)))
            )
    return task and task.with_settings(
        seq_length=min(task.seq_length, config.max_position_embeddings)
    )


def _check_layers(
    config: bert.BertConfig, tensors: _Tensors, config_path: str
) -> None:
    """Raises InputError if there are fewer tensors than layers.

    Called before a mapping is created for each layer in a damaged config.
    """
    if config.num_layers > len(tensors.shapes):
        raise errors.InputError(
            f"{config_path} has num_hidden_layers {config.num_layers:,}, and "
            f"{tensors.prefix} has {len(tensors.shapes):,} tensors; do the two "
            "belong to the same model?"
        )


def _unsupported_head_reason(names: Iterable[str]) -> str:
    """Returns why a checkpoint's head is not read, or "" if it has none."""
    head_tensors = sorted(name for name in names if re.search(_HEADS, name))
    if not head_tensors:
        return ""
    return (
        f"{', '.join(head_tensors[:5])} are those of a regression or "
        "of ALBERT's SQuAD, which no task reads"
    )


def _without_bookkeeping(
    shapes: Mapping[str, tuple[int, ...]], mappings: google_weights.Mappings
) -> list[str]:
    """Returns all names except those of optimizers and loss scaling.

    A slot is named below its variable, with any optimizer. A scalar outside of
    the network is a counter or a loss scale: current_loss_scale, good_steps,
    beta1_power.
    """
    mapped_names = {
        name for mapping in mappings for name in mapping.source_names
    }

    def is_slot(name):
        scopes = name.split("/")
        return any(
            "/".join(scopes[:count]) in mapped_names
            for count in range(1, len(scopes))
        )

    return [
        name
        for name, shape in shapes.items()
        if name in mapped_names
        or not (
            is_slot(name)
            or (shape == () and not name.startswith(("bert/", "cls/")))
        )
    ]


def _check_shapes(
    mappings: google_weights.Mappings, tensors: _Tensors, config_path: str
) -> None:
    expected = {
        name: shape
        for mapping, shape in mappings.items()
        for name in mapping.source_names
        if name in tensors.shapes
    }
    stored = {name: tensors.shapes[name] for name in expected}
    if expected != stored:
        raise errors.InputError(
            f"{tensors.prefix} does not fit {config_path}: "
            + named_tensors.differences(expected, stored)
        )
    for name in expected:
        if not tensors.is_float(name):
            raise errors.InputError(
                f"{tensors.prefix}: expected floating-point numbers in {name}."
            )
