"""Where KerasHub's BERT keeps its tensors: h5 files, one or several shards.

A tensor is named by its file and its path in there: model/layers/dense/vars/0.
Layers are numbered by class, variables by order, and attention heads have an
axis of their own.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from bert_keras import config, errors
from bert_keras.formats import foreign

WORDS = "model/layers/reversible_embedding/vars/0"


def encoder(bert: config.BertConfig) -> Iterator[foreign.Place]:
    for name, part in (
        ("token", "reversible_embedding"),
        ("segment", "embedding"),
        ("position", "position_embedding"),
    ):
        yield foreign.Place(
            f"embeddings/{name}", (f"model/layers/{part}/vars/0",)
        )
    yield from _layer("embeddings/norm", "model/layers/layer_normalization")
    hidden, heads = bert.hidden_size, (bert.num_heads, bert.head_width)
    square = (hidden, hidden)
    for number in range(bert.num_layers):
        ours = f"block_{number}"
        block = "model/layers/transformer_encoder"
        block += f"_{number}" if number else ""
        attention = f"{block}/_self_attention_layer"
        yield from _layer(
            f"{ours}/attention/qkv",
            *(
                f"{attention}/{name}_dense"
                for name in ("query", "key", "value")
            ),
            shapes=((hidden, *heads), heads),
            flat=square,
        )
        yield from _layer(
            f"{ours}/attention/out",
            f"{attention}/output_dense",
            shapes=((*heads, hidden), ()),
            flat=square,
        )
        for name, part in (
            ("attention_norm", "self_attention_layer_norm"),
            ("feed_forward/inner", "feedforward_intermediate_dense"),
            ("feed_forward/outer", "feedforward_output_dense"),
            ("feed_forward_norm", "feedforward_layer_norm"),
        ):
            yield from _layer(f"{ours}/{name}", f"{block}/_{part}")
    yield from _layer("pooler", "model/layers/dense")


def classifier() -> Iterator[foreign.Place]:
    return _layer("label/score", "task/layers/dense")


def _layer(ours: str, *theirs: str, shapes=((), ()), flat=()):
    """Both variables of a Dense layer or a LayerNorm.

    shapes: of theirs, where they have more axes than ours, whose kernel is
    `flat`.
    """
    norm = ours.endswith("norm")
    names = ("gamma", "beta") if norm else ("kernel", "bias")
    for number, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        yield foreign.Place(
            f"{ours}/{name}",
            tuple(f"{layer}/vars/{number}" for layer in theirs),
            shape=shape,
            flat=flat[number:] if shape else (),
        )


def files(folder: str, part: str) -> dict[str, str]:
    """The tensors of "model" or "task": {name: the file it is in}."""
    paths = [f"{part}.weights.h5"]
    shards = os.path.join(folder, f"{part}.weights.json")
    if tf.io.gfile.exists(shards):
        mapping = foreign.read_json(shards)
        parts = foreign.field(mapping, "weight_map", dict, shards) or {}
        paths = foreign.check_shards(
            shards,
            (
                name
                for each in parts.values()
                for name in (each if isinstance(each, list) else [each])
            ),
        )
    found = {}
    for path in (os.path.join(folder, path) for path in paths):
        names: list[str] = []
        with _open(path) as file:
            file.visititems(
                lambda name, item, names=names: (
                    names.append(name) if hasattr(item, "shape") else None
                )
            )
        found |= {f"{part}/{name}": path for name in names}
    return found


def shape(path: str, name: str) -> tuple[int, ...]:
    """Of a tensor of a file."""
    with _open(path) as file:
        return (*file[_inside(name)].shape, 0)


def read(path: str, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """A tensor of a file, whose shape is known where reshaping would hide it.

    Raises InputError when it has another one.
    """
    with _open(path) as file:
        stored = file[_inside(name)]
        if shape and stored.shape != shape:
            raise errors.InputError(
                f"{path}: {name} is {stored.shape}, but config.json says "
                f"{shape}; are the two of one model?"
            )
        half = stored.attrs.get("dtype") == "bfloat16"  # h5 has no word for it
        if not half and stored.dtype.kind != "f":
            raise errors.InputError(
                f"{path}: {name} is of type {stored.dtype}; expected numbers "
                "with a fraction."
            )
        return np.array(stored, tf.bfloat16.as_numpy_dtype if half else None)


def fill(
    folder: str,
    places: Iterable[foreign.Place],
    values: Mapping[str, np.ndarray],
) -> None:
    """Puts our weights into local files that KerasHub has written."""
    import h5py

    for name, value in foreign.split(places, values).items():
        path = os.path.join(folder, f"{name.partition('/')[0]}.weights.h5")
        with h5py.File(path, "r+") as file:
            file[_inside(name)][...] = value


def _inside(name: str) -> str:
    return name.partition("/")[2]


@contextlib.contextmanager
def _open(path: str):
    """An h5 file, wherever it is."""
    import h5py

    try:
        with tf.io.gfile.GFile(path, "rb") as stream, h5py.File(stream) as file:
            yield file
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        raise errors.InputError(
            f"{path} is missing or damaged ({error}); copy the folder again."
        ) from None
