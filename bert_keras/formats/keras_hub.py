"""Reads and writes preset folders of KerasHub's BertBackbone.

    config.json  model.weights.h5 (or model.weights.json and its shards)
    tokenizer.json  assets/tokenizer/vocabulary.txt
    task.json  task.weights.h5  preprocessor.json    for a BertTextClassifier

KerasHub's backbone computes GELU by the tanh formula, has one dropout rate and
a LayerNorm epsilon of 1e-12; other networks cannot be written.

The head of a BertTextClassifier is the same as the native one and is read. That
of a BertMaskedLM is not: it uses the erf GELU and an epsilon of 1e-5. Such a
folder is read as an encoder without a head. Models with another head, also
multi-label classifiers and those with another pooling, are written as a
backbone.

KerasHub's `lowercase` keeps accents by default. The tokenizer here drops them,
as did the code that trained the published weights; so do folders written here.
"""

import dataclasses
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from bert_keras import checkpoint, errors
from bert_keras import files as files_lib
from bert_keras import model as model_lib
from bert_keras.formats import keras_h5, weight_mapping
from bert_keras.networks import bert
from bert_keras.tasks import classification
from bert_keras.tokenizers import base as tokenizers
from bert_keras.tokenizers import wordpiece

NAME = "keras_hub"

# BertConfig's field -> KerasHub's.
FIELDS = {
    "vocab_size": "vocabulary_size",
    "hidden_size": "hidden_dim",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
    "intermediate_size": "intermediate_dim",
    "max_position_embeddings": "max_sequence_length",
    "num_segments": "num_segments",
    "dropout": "dropout",
}
# Field of tokenizer.json -> the only value that is supported.
TOKENIZER = {"split": True, "suffix_indicator": "##", "oov_token": "[UNK]"}

MAX_CLASSES = 1_000_000

CONFIG, METADATA = "config.json", "metadata.json"
VOCABULARY = "assets/tokenizer/vocabulary.txt"
# The field of metadata.json for settings that KerasHub lacks. KerasHub writes
# the file and never reads it.
NATIVE = "bert_keras"


def has_weights(path: str) -> bool:
    """Returns whether a preset has weights, and not only a tokenizer."""
    names = ("model.weights.h5", "model.weights.json")
    paths = [os.path.join(path, name) for name in names]
    return any(map(tf.io.gfile.exists, paths))


def recognises(path: str) -> bool:
    """Returns whether `path` is a preset folder, of any network."""
    config_path = os.path.join(path, CONFIG)
    if not tf.io.gfile.exists(config_path):
        return False
    try:
        described = files_lib.read_json(config_path)
    except errors.InputError:
        # config.json is damaged. If the weights are KerasHub's, `read` says so.
        return has_weights(path)
    name = str(described.get("registered_name"))
    return name.startswith(("keras_hub>", "keras_nlp>"))


def read(
    path: str, *, lowercase: bool | None = None, allow_missing: str = ""
) -> weight_mapping.ExternalCheckpoint:
    """Reads a preset folder.

    Raises InputError if it is damaged or another network's.
    """
    config, tokenizer = _config(path), _tokenizer(path, lowercase)
    files = keras_h5.files(path, "model")
    if config.num_layers > len(files):
        raise errors.InputError(
            f"{path}: config.json has num_layers {config.num_layers:,}, and "
            f"the folder {len(files):,} tensors; are they of the same model?"
        )
    table = keras_h5.WORD_EMBEDDINGS
    if table in files:
        rows, *_ = keras_h5.shape(files[table], table)
        if rows != config.vocab_size:
            raise errors.InputError(
                f"{path}: config.json has vocabulary_size "
                f"{config.vocab_size:,}, and the embedding table {rows:,} "
                "rows; do the two belong to the same model?"
            )
        tokenizer = weight_mapping.fit_vocabulary(tokenizer, rows, path)
    task = _task(path, config)
    unsupported_head_reason = ""
    if task is None and tf.io.gfile.exists(os.path.join(path, "task.json")):
        unsupported_head_reason = (
            "of KerasHub's tasks, a BertTextClassifier of two or more classes "
            "with one right one is, and its task.json describes another"
        )
    encoder = list(keras_h5.map_encoder(config))
    head = []
    if task:
        head = list(keras_h5.map_classifier(config, len(task.labels)))
        files |= keras_h5.files(path, "task")
    matches = weight_mapping.match(
        encoder + head,
        files,
        folder=path,
        # The task file of KerasHub 0.25 repeats the backbone's weights.
        ignored="^task/(optimizer|layers/bert_backbone)/",
        allow_missing=allow_missing,
    )
    shapes = {
        name: mapping.source_shape
        for mapping in matches
        for name in mapping.source_names
    }
    return weight_mapping.ExternalCheckpoint.from_matches(
        path,
        matches=matches,
        encoder=encoder,
        config=config,
        task=task,
        words=tokenizer,
        tensor=lambda name: keras_h5.read(files[name], name, shapes[name]),
        allow_missing=allow_missing,
        unsupported_head_reason=unsupported_head_reason,
    )


def write(
    folder: str,
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
) -> None:
    """Writes a preset that `from_preset(folder)` of keras_nlp loads.

    Raises InputError for a model that KerasHub does not have.
    """
    tokenizer = wordpiece.require(tokenizer, "KerasHub's BERT")
    config = weight_mapping.config_of_bert(model.encoder)
    task = model.task
    arguments = _arguments(config)
    if tokenizer.mask_id is None:
        raise errors.InputError(
            "KerasHub's BertTokenizer needs [MASK] in the vocabulary; put it "
            "in place of an unused wordpiece."
        )
    import keras_nlp  # here, as it takes 8 seconds

    models = keras_nlp.models
    backbone = models.BertBackbone(**arguments, dtype="float32")
    words = models.BertTokenizer(
        list(tokenizer.vocabulary),
        lowercase=tokenizer.lowercase,
        strip_accents=tokenizer.lowercase,
    )
    # KerasHub writes a new model; then the weights in its files are replaced.
    with tempfile.TemporaryDirectory() as aside:
        mappings = keras_h5.map_encoder(config)
        values = checkpoint.weight_values(model.encoder)
        if weight_mapping.is_classifier(task):
            models.BertTextClassifier(
                backbone,
                num_classes=len(task.labels),
                dropout=config.dropout,
                preprocessor=models.BertTextClassifierPreprocessor(
                    words, sequence_length=task.seq_length
                ),
            ).save_to_preset(aside, max_shard_size=None)
            _write_metadata(aside, {"labels": task.labels, "pair": task.pair})
            head = keras_h5.map_classifier(config, len(task.labels))
            keras_h5.overwrite(
                aside, head, checkpoint.weight_values(model.head)
            )
        else:
            backbone.save_to_preset(aside, max_shard_size=None)
            words.save_to_preset(aside)
        keras_h5.overwrite(aside, mappings, values)
        weight_mapping.write_files(folder, _moves(aside))


def _config(folder: str) -> bert.BertConfig:
    path = os.path.join(folder, CONFIG)
    described = files_lib.read_json(path)
    name = _class_name(described)
    if name != "BertBackbone":
        raise errors.InputError(
            f"{folder} is a preset of {name}; of KerasHub's, only those of "
            "BertBackbone can be read."
        )
    values = weight_mapping.field(described, "config", dict, path) or {}
    weight_mapping.check_numbers(
        path,
        values,
        sizes=[name for name in FIELDS.values() if name != "dropout"],
        rates=["dropout"],
    )
    try:
        return _to_config(values)
    except errors.InputError as error:
        raise errors.InputError(f"{path}: {error}") from None


def _class_name(described: Mapping[str, Any]) -> str:
    """Returns the class that a file describes; it is never imported.

    The registered name is added if it is another one.
    """
    shown, name = weight_mapping.shown, described.get("class_name")
    registered = described.get("registered_name") or f"keras_hub>{name}"
    if registered in (f"keras_hub>{name}", f"keras_nlp>{name}"):
        return shown(name).strip("'")
    return f"{shown(name)} registered as {shown(registered)}"


def _to_config(values: Mapping[str, Any]) -> bert.BertConfig:
    return bert.BertConfig(
        **{field: values[key] for field, key in FIELDS.items()},
        activation="gelu_tanh",
        attention_dropout=values["dropout"],
        layer_norm_epsilon=1e-12,
    )


def _arguments(config: bert.BertConfig) -> dict[str, Any]:
    """Returns the arguments for BertBackbone.

    Raises InputError if they lose a setting other than initializer_range.
    """
    values = {key: getattr(config, field) for field, key in FIELDS.items()}
    after = dataclasses.replace(
        _to_config(values),
        initializer_range=config.initializer_range,
        # Equivalent to the defaults.
        num_hidden_groups=config.num_layers
        if config.num_hidden_groups
        else None,
        embedding_size=config.hidden_size if config.embedding_size else None,
    )
    lost = [
        f"{name} {value!r} (KerasHub: {getattr(after, name)!r})"
        for name, value in dataclasses.asdict(config).items()
        if value != getattr(after, name)
    ]
    if lost:
        raise errors.InputError(
            f"KerasHub's BertBackbone has no field for {', '.join(lost)}. "
            "Write another format."
        )
    return values


def _tokenizer(folder: str, lowercase: bool | None) -> wordpiece.Tokenizer:
    path = os.path.join(folder, "tokenizer.json")
    if not tf.io.gfile.exists(path):
        raise errors.InputError(
            f"{path} is missing; write it with `save_to_preset` of the model's "
            "BertTokenizer."
        )
    described = files_lib.read_json(path)
    name = _class_name(described)
    if name != "BertTokenizer":
        raise errors.InputError(
            f"{path} describes a {name}; of KerasHub's, only BertTokenizer can "
            "be read."
        )
    values = weight_mapping.field(described, "config", dict, path) or {}
    strange = {
        name: values[name]
        for name, only in TOKENIZER.items()
        if values.get(name, only) != only
    }
    if strange:
        raise errors.InputError(
            f"{folder}: expected a tokenizer with {TOKENIZER}; its "
            f"tokenizer.json says {strange}."
        )
    if lowercase is None:
        lowercase = (
            weight_mapping.field(values, "lowercase", bool, path) or False
        )
    return wordpiece.Tokenizer.from_file(
        os.path.join(folder, VOCABULARY), lowercase=lowercase
    )


def _task(
    folder: str, config: bert.BertConfig
) -> classification.Classification | None:
    """Returns the task of a single-label BertTextClassifier, else None."""
    if not tf.io.gfile.exists(os.path.join(folder, "task.json")):
        return None
    path = os.path.join(folder, "task.json")
    described = files_lib.read_json(path)
    values = weight_mapping.field(described, "config", dict, path) or {}
    classes = values.get("num_classes", 0)
    if (
        type(classes) is not int
        or _class_name(described) != "BertTextClassifier"
        or values.get("activation") not in ("linear", "softmax", None)
        or classes < 2
    ):
        return None
    preprocessor = (
        weight_mapping.field(values, "preprocessor", dict, path) or {}
    )
    settings = weight_mapping.field(preprocessor, "config", dict, path) or {}
    length = settings.get("sequence_length") or 512
    weight_mapping.check_numbers(
        path, {"sequence_length": length}, sizes=["sequence_length"]
    )
    metadata: Mapping[str, Any] = {}
    path = os.path.join(folder, METADATA)
    if tf.io.gfile.exists(path):
        metadata = (
            weight_mapping.field(files_lib.read_json(path), NATIVE, dict, path)
            or {}
        )
    labels = weight_mapping.field(metadata, "labels", list, path)
    if labels is None:
        labels = list(map(str, range(min(classes, MAX_CLASSES))))
    if len(labels) != classes or not all(isinstance(x, str) for x in labels):
        raise errors.InputError(
            f"{path}: expected a name for each of "
            f"{weight_mapping.shown(classes)} "
            f"classes, found {weight_mapping.shown(labels)}."
        )
    return classification.Classification(
        seq_length=min(length, config.max_position_embeddings),
        labels=tuple(labels),
        pair=weight_mapping.field(metadata, "pair", bool, path) or False,
    )


def _write_metadata(folder: str, metadata: Mapping[str, Any]) -> None:
    """Writes settings that KerasHub has no field for."""
    path = os.path.join(folder, METADATA)
    values = files_lib.read_json(path) | {NATIVE: metadata}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(values, file, indent=4)


def _moves(source: str) -> dict[str, Callable[[str], None]]:
    """Returns a function per file that moves it; config.json is the last."""

    def move(path, target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.move(path, target)

    paths = [
        os.path.join(where, name)
        for where, _, names in os.walk(source)
        for name in names
    ]
    moves = {
        os.path.relpath(path, source): functools.partial(move, path)
        for path in paths
    }
    return moves | {CONFIG: moves.pop(CONFIG)}
