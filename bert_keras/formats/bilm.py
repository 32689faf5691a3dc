"""Reads and writes ELMo's weights in bilm-tf's files (Peters et al. 2018).

    *options.json     the network's shape
    *weights.hdf5     its weights; other .hdf5 files are not read
    vocab*.txt        optional: the words, one per line

Published folders have no vocabulary of words and no softmax: only vectors of
words are computed with them, for which neither is needed. A head is not
written, as the format has no place for it.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from bert_keras import checkpoint, errors, files
from bert_keras import model as model_lib
from bert_keras.formats import keras_h5, weight_mapping
from bert_keras.networks import elmo
from bert_keras.tokenizers import base as tokenizers
from bert_keras.tokenizers import characters

NAME = "bilm_tf"

OPTIONS, WEIGHTS = "options.json", "weights.hdf5"
# What `write` calls its files.
_WRITTEN = {"options": "elmo_options.json", "weights": "elmo_weights.hdf5"}

_MAX_LAYERS = 1000


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A native variable and where the file has it.

    start, stop: its rows in the file's tensor: an LSTM's matrix has the rows of
    the inputs, then those of the state.
    """

    name: str
    source: str
    shape: tuple[int, ...]  # of the file's tensor
    start: int = 0
    stop: int | None = None
    is_convolution: bool = False  # the file has an axis of size 1 before it

    def to_native(self, value: np.ndarray) -> np.ndarray:
        value = value[0] if self.is_convolution else value
        return np.asarray(value[self.start : self.stop], np.float32)


@dataclasses.dataclass(frozen=True)
class BilmCheckpoint(checkpoint.Checkpoint):
    """A folder of bilm-tf's; weights are read when they are needed."""

    words: characters.Characters
    weights_path: str

    def tokenizer(self) -> tokenizers.Tokenizer:
        return self.words

    def check_shapes(self) -> None:
        pass  # `encoder_values` compares each shape before it is read

    def encoder_values(self) -> Mapping[str, np.ndarray]:
        assert isinstance(self.config, elmo.ElmoConfig)
        sources = {each.source: each.shape for each in tensors(self.config)}
        values = {
            name: keras_h5.read(self.weights_path, f"bilm/{name}", shape)
            for name, shape in sources.items()
        }
        return {
            each.name: each.to_native(values[each.source])
            for each in tensors(self.config)
        }

    def head_values(self) -> Mapping[str, np.ndarray]:
        return {}


def tensors(config: elmo.ElmoConfig) -> Iterator[Tensor]:
    """Yields all variables of the encoder."""
    size, count = config.character_size, config.num_filters
    outer, inner = config.projection_size, config.lstm_size
    yield Tensor("characters/table", "char_embed", (261, size))
    for number, (width, filters) in enumerate(
        zip(config.filter_widths, config.filter_counts, strict=True)
    ):
        name = f"characters/conv_{number}"
        yield Tensor(
            f"{name}/kernel",
            f"CNN/W_cnn_{number}",
            (1, width, size, filters),
            is_convolution=True,
        )
        yield Tensor(f"{name}/bias", f"CNN/b_cnn_{number}", (filters,))
    for number in range(config.num_highways):
        for part in ("carry", "transform"):
            name = f"characters/highway_{number}/{part}"
            source = f"CNN_high_{number}/{{}}_{part}"
            yield Tensor(f"{name}/kernel", source.format("W"), (count, count))
            yield Tensor(f"{name}/bias", source.format("b"), (count,))
    if count != outer:
        name = "characters/project"
        yield Tensor(f"{name}/kernel", "CNN_proj/W_proj", (count, outer))
        yield Tensor(f"{name}/bias", "CNN_proj/b_proj", (outer,))
    for layer in range(config.num_layers):
        for number, direction in enumerate(("forward", "backward")):
            name = f"lstm_{layer}/{direction}"
            cell = f"RNN_{number}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            shape = (2 * outer, 4 * inner)
            for part, start in (("kernel", 0), ("recurrent_kernel", outer)):
                yield Tensor(
                    f"{name}/{part}",
                    f"{cell}/W_0",
                    shape,
                    start,
                    start + outer,
                )
            yield Tensor(f"{name}/bias", f"{cell}/B", (4 * inner,))
            if outer < inner:
                source, shape = f"{cell}/W_P_0", (inner, outer)
                yield Tensor(f"{name}/projection", source, shape)


def recognises(path: str) -> bool:
    """Returns whether `path` has options of a bilm-tf network with characters.

    Such options are a JSON object with the fields char_cnn and lstm.
    """
    if not tf.io.gfile.isdir(path):
        return False
    for name in _names(path, OPTIONS):
        try:
            options = files.read_json(os.path.join(path, name))
        except errors.InputError:
            continue
        if {"char_cnn", "lstm"} <= set(options):
            return True
    return False


def read(
    path: str, *, lowercase: bool | None = None, allow_missing: str = ""
) -> BilmCheckpoint:
    """Reads a folder of bilm-tf's.

    lowercase: whether text is lower-cased; None: false, as ELMo was trained.

    Raises InputError if it is damaged or lacks a file, and for allow_missing:
    the format has no optional weights.
    """
    if allow_missing:
        raise errors.InputError(
            f"allow_missing={allow_missing}: bilm-tf's files have all weights "
            "of a network. Leave it out.",
            argument="allow_missing",
        )
    options_path, weights_path = (
        os.path.join(path, _only(path, ending)) for ending in (OPTIONS, WEIGHTS)
    )
    tokenizer = _tokenizer(path, bool(lowercase))
    config = _config(options_path, tokenizer.vocab_size)
    _check_names(weights_path, config)
    return BilmCheckpoint(
        folder=path,
        config=config,
        task=None,
        step=0,
        metadata={},
        words=tokenizer,
        weights_path=weights_path,
    )


def write(
    folder: str, model: model_lib.BertModel, tokenizer: tokenizers.Tokenizer
) -> None:
    """Writes a folder that bilm-tf and AllenNLP read, without the head.

    Raises InputError for another network than ELMo.
    """
    config = model.encoder.config
    if not isinstance(config, elmo.ElmoConfig):
        raise errors.InputError(
            "expected an ELMo, the only network that bilm-tf's files can "
            f"store; the network is {config.name}. Write bert_keras' own "
            "format."
        )
    if not isinstance(tokenizer, characters.Characters) or tokenizer.lowercase:
        raise errors.InputError(
            "expected the tokenizer characters, without lowercase, as "
            "bilm-tf's code reads text; write bert_keras' own format."
        )
    values = checkpoint.weight_values(model.encoder)

    def write_weights(path: str) -> None:
        import h5py  # as in keras_h5: it takes long to import

        with h5py.File(path, "w") as file:
            for name, value in _external(config, values).items():
                file.create_dataset(name, data=value)

    words = "".join(f"{word}\n" for word in tokenizer.vocabulary)
    text = json.dumps(options_of(config), indent=1)
    writers: dict[str, Callable[[str], None]] = {
        characters.VOCABULARY: lambda path: files.write_text(path, words),
        _WRITTEN["weights"]: write_weights,
        _WRITTEN["options"]: lambda path: files.write_text(path, text),
    }
    weight_mapping.write_files(folder, writers)


def _external(
    config: elmo.ElmoConfig, values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the file's tensors by name."""
    external: dict[str, np.ndarray] = {}
    for each in tensors(config):
        value = external.setdefault(
            each.source, np.zeros(each.shape, np.float32)
        )
        value = value[0] if each.is_convolution else value
        value[each.start : each.stop] = values[each.name]
    return external


def options_of(config: elmo.ElmoConfig) -> dict[str, Any]:
    """Returns the content of options.json."""
    filters = zip(config.filter_widths, config.filter_counts, strict=True)
    return {
        "bidirectional": True,
        "dropout": config.dropout,
        "n_tokens_vocab": config.vocab_size,
        "lstm": {
            "dim": config.lstm_size,
            "projection_dim": config.projection_size,
            "n_layers": config.num_layers,
            "cell_clip": config.cell_clip or None,
            "proj_clip": config.projection_clip or None,
            "use_skip_connections": config.residual,
        },
        "char_cnn": {
            "activation": config.character_activation,
            "embedding": {"dim": config.character_size},
            "filters": [list(pair) for pair in filters],
            "max_characters_per_token": characters.MAX_CHARACTERS,
            "n_characters": characters.NUM_CHARACTERS,
            "n_highway": config.num_highways,
        },
    }


def _config(path: str, vocab_size: int) -> elmo.ElmoConfig:
    options = files.read_json(path)
    lstm, cnn = (
        weight_mapping.field(options, name, dict, path) or {}
        for name in ("lstm", "char_cnn")
    )
    embedding = weight_mapping.field(cnn, "embedding", dict, path) or {}
    _check_fixed(path, cnn)
    clips = {name: lstm.get(name) or 0.0 for name in ("cell_clip", "proj_clip")}
    numbers = {
        "dim": lstm.get("dim"),
        "projection_dim": lstm.get("projection_dim"),
        "n_layers": lstm.get("n_layers", 1),
        "embedding dim": embedding.get("dim"),
        "n_highway": cnn.get("n_highway") or 0,
        "dropout": options.get("dropout", 0.1),
        **{f"{name} + 1": _plus_one(value) for name, value in clips.items()},
    }
    weight_mapping.check_numbers(
        path,
        {**numbers, "n_highway": _plus_one(numbers["n_highway"])},
        sizes=("dim", "projection_dim", "n_layers", "embedding dim")
        + ("n_highway",),
        rates=("dropout",),
        positive=[f"{name} + 1" for name in clips],
    )
    widths, counts = _filters(path, cnn)
    residual = weight_mapping.field(lstm, "use_skip_connections", bool, path)
    activation = weight_mapping.field(cnn, "activation", str, path)
    try:
        return elmo.ElmoConfig(
            vocab_size=vocab_size,
            projection_size=numbers["projection_dim"],
            lstm_size=numbers["dim"],
            num_layers=numbers["n_layers"],
            character_size=numbers["embedding dim"],
            filter_widths=widths,
            filter_counts=counts,
            num_highways=numbers["n_highway"],
            character_activation=activation or "relu",
            cell_clip=float(clips["cell_clip"]),
            projection_clip=float(clips["proj_clip"]),
            residual=bool(residual),
            dropout=float(numbers["dropout"]),
        )
    except errors.InputError as error:
        raise errors.InputError(f"{path}: {error}") from None


def _plus_one(value: Any) -> Any:
    """Returns value + 1, so that 0 passes a check for what is positive."""
    return value + 1 if type(value) in (int, float) else value


def _check_fixed(path: str, cnn: Mapping[str, Any]) -> None:
    """Raises InputError for characters that are not bilm-tf's."""
    for name, allowed in (
        ("max_characters_per_token", (characters.MAX_CHARACTERS,)),
        # 261 in options of training, which did not count padding.
        (
            "n_characters",
            (characters.NUM_CHARACTERS, characters.NUM_CHARACTERS - 1),
        ),
    ):
        if cnn.get(name) not in allowed:
            raise errors.InputError(
                f"{path}: expected {' or '.join(map(str, allowed))} for {name},"
                f" found {weight_mapping.shown(cnn.get(name))}."
            )


def _filters(
    path: str, cnn: Mapping[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    filters = weight_mapping.field(cnn, "filters", list, path) or []
    if not filters or not all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(number) is int for number in pair)
        for pair in filters
    ):
        raise errors.InputError(
            f"{path}: expected pairs of a width and a number for filters, "
            f"found {weight_mapping.shown(filters)}."
        )
    widths, counts = zip(*filters, strict=True)
    return widths, counts


def _tokenizer(path: str, lowercase: bool) -> characters.Characters:
    names = [
        name
        for name in _names(path, ".txt")
        if name.startswith(("vocab", "vocabulary"))
    ]
    if len(names) > 1:
        raise errors.InputError(
            f"{path} has several vocabularies, {', '.join(names)}; leave the "
            "one of the network there."
        )
    if not names:
        return characters.Characters(
            characters.SPECIAL_WORDS, lowercase=lowercase
        )
    words = characters.read_words(os.path.join(path, names[0]))
    missing = [each for each in characters.SPECIAL_WORDS if each not in words]
    return characters.Characters((*missing, *words), lowercase=lowercase)


def _check_names(path: str, config: elmo.ElmoConfig) -> None:
    """Raises InputError if the file has other tensors than the network."""
    found = set()
    with keras_h5.open_file(path) as file:
        file.visititems(
            lambda name, item: (
                found.add(name) if hasattr(item, "shape") else None
            )
        )
    if config.num_layers > len(found):
        raise errors.InputError(
            f"{path} has {len(found)} tensors, and {OPTIONS} "
            f"{config.num_layers} layers; do the two belong to the same model?"
        )
    expected = {each.source for each in tensors(config)}
    if found != expected:
        raise errors.InputError(
            f"{path} does not fit {OPTIONS}: missing "
            f"{sorted(expected - found)[:5] or 'none'}, unexpected "
            f"{sorted(found - expected)[:5] or 'none'}."
        )


def _names(path: str, ending: str) -> list[str]:
    names = (name.rstrip("/") for name in tf.io.gfile.listdir(path))
    return sorted(name for name in names if name.endswith(ending))


def _only(path: str, ending: str) -> str:
    names = _names(path, ending)
    if len(names) != 1:
        raise errors.InputError(
            f"{path}: expected one file *{ending}, found "
            f"{', '.join(names) or 'none'}."
        )
    return names[0]
