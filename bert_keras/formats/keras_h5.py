"""Reads and overwrites the h5 files of KerasHub's BERT, also if sharded.

A tensor is named by its file and its path in it: model/layers/dense/vars/0.
Layers are numbered per class, variables by order. Attention kernels have an
axis for the heads.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bert_keras import errors
from bert_keras import files as files_lib
from bert_keras.formats import weight_mapping
from bert_keras.networks import bert

WORD_EMBEDDINGS = "model/layers/reversible_embedding/vars/0"


def map_encoder(
    config: bert.BertConfig,
) -> Iterator[weight_mapping.WeightMapping]:
    """Yields the mappings of the encoder's variables."""
    hidden_size, heads = (
        config.hidden_size,
        (config.num_heads, config.head_width),
    )
    inner = config.intermediate_size
    for name, part, rows in (
        ("token", "reversible_embedding", config.vocab_size),
        ("segment", "embedding", config.num_segments),
        ("position", "position_embedding", config.max_position_embeddings),
    ):
        yield _mapping(
            f"embeddings/{name}",
            [f"model/layers/{part}/vars/0"],
            (rows, hidden_size),
        )
    norm = ((hidden_size,), (hidden_size,))
    yield from _layer("embeddings/norm", ["layer_normalization"], norm)
    square = ((hidden_size, hidden_size), (hidden_size,))
    for index in range(config.num_layers):
        target = f"block_{index}"
        block = "transformer_encoder" + (f"_{index}" if index else "")
        attention = f"{block}/_self_attention_layer"
        yield from _layer(
            f"{target}/attention/qkv",
            [f"{attention}/{name}_dense" for name in ("query", "key", "value")],
            ((hidden_size, *heads), heads),
            target_shapes=square,
        )
        yield from _layer(
            f"{target}/attention/out",
            [f"{attention}/output_dense"],
            ((*heads, hidden_size), (hidden_size,)),
            target_shapes=square,
        )
        for name, part, shapes in (
            ("attention_norm", "self_attention_layer_norm", norm),
            (
                "feed_forward/inner",
                "feedforward_intermediate_dense",
                ((hidden_size, inner), (inner,)),
            ),
            (
                "feed_forward/outer",
                "feedforward_output_dense",
                ((inner, hidden_size), (hidden_size,)),
            ),
            ("feed_forward_norm", "feedforward_layer_norm", norm),
        ):
            yield from _layer(f"{target}/{name}", [f"{block}/_{part}"], shapes)
    yield from _layer("pooler", ["dense"], square)


def map_classifier(
    config: bert.BertConfig, classes: int
) -> Iterator[weight_mapping.WeightMapping]:
    """Yields the mappings of a classification head's variables."""
    shapes = ((config.hidden_size, classes), (classes,))
    return _layer("label/score", ["dense"], shapes, part="task")


Shape = tuple[int, ...]


def _layer(
    target: str,
    source_layers: Sequence[str],
    shapes: tuple[Shape, Shape],
    *,
    target_shapes: tuple[Shape, Shape] | None = None,
    part: str = "model",
) -> Iterator[weight_mapping.WeightMapping]:
    """Yields mappings of the two variables of a dense layer or a LayerNorm.

    shapes: their shapes in the file.
    target_shapes: those in the model, if different.
    """
    is_norm = target.endswith("norm")
    names = ("gamma", "beta") if is_norm else ("kernel", "bias")
    for index, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        tensors = [
            f"{part}/layers/{layer}/vars/{index}" for layer in source_layers
        ]
        yield _mapping(
            f"{target}/{name}",
            tensors,
            shape,
            (target_shapes or shapes)[index],
        )


def _mapping(
    target: str,
    sources: Sequence[str],
    source_shape: Shape,
    target_shape: Shape = (),
) -> weight_mapping.WeightMapping:
    return weight_mapping.WeightMapping(
        target,
        tuple(sources),
        source_shape=source_shape,
        target_shape=target_shape or source_shape,
    )


def files(folder: str, part: str) -> dict[str, str]:
    """Returns the tensors of `part`, "model" or "task": {name: file}."""
    paths = [f"{part}.weights.h5"]
    shards = os.path.join(folder, f"{part}.weights.json")
    if tf.io.gfile.exists(shards):
        index = files_lib.read_json(shards)
        weight_map = (
            weight_mapping.field(index, "weight_map", dict, shards) or {}
        )
        paths = weight_mapping.check_shards(
            shards,
            (
                name
                for each in weight_map.values()
                for name in (each if isinstance(each, list) else [each])
            ),
        )
    tensor_paths: dict[str, Any] = {}
    for path in (os.path.join(folder, path) for path in paths):
        items: dict[str, Any] = {}
        with open_file(path) as file:
            file.visititems(
                lambda name, item, items=items: (
                    items.update({name: item})
                    if hasattr(item, "shape")
                    else None
                )
            )
            for name, item in items.items():
                check_stored_inline(path, name, item)
        tensor_paths |= {f"{part}/{name}": path for name in items}
    return tensor_paths


def shape(path: str, name: str) -> tuple[int, ...]:
    """Returns the shape of a tensor in a file, with a 0 appended."""
    with open_file(path) as file:
        return (*file[_path_in_file(name)].shape, 0)


def read(path: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Reads a tensor from a file.

    Raises InputError if its shape is not `shape`. That is checked before
    reading, as a small damaged file can declare a tensor of any size.
    """
    with open_file(path) as file:
        stored = file[_path_in_file(name)]
        check_stored_inline(path, name, stored)
        if stored.shape != shape:
            raise errors.InputError(
                f"{path}: {name} is {stored.shape}, but config.json specifies "
                f"{shape}; do the two belong to the same model?"
            )
        # h5 has no bfloat16: Keras stores it as bytes with this attribute.
        is_bfloat16 = stored.attrs.get("dtype") == "bfloat16"
        if not is_bfloat16 and stored.dtype.kind != "f":
            raise errors.InputError(
                f"{path}: {name} is of type {stored.dtype}; expected "
                "floating-point numbers."
            )
        dtype = tf.bfloat16.as_numpy_dtype if is_bfloat16 else None
        return np.array(stored, dtype)


def overwrite(
    folder: str,
    mappings: Iterable[weight_mapping.WeightMapping],
    values: Mapping[str, np.ndarray],
) -> None:
    """Overwrites the weights in local files that KerasHub has written.

    values: the native variables, by path.
    """
    import h5py

    for name, value in weight_mapping.to_external(mappings, values).items():
        path = os.path.join(folder, f"{name.partition('/')[0]}.weights.h5")
        with h5py.File(path, "r+") as file:
            file[_path_in_file(name)][...] = value


def check_stored_inline(path: str, name: str, item: Any) -> None:
    """Raises InputError for a tensor whose values are in another file."""
    if item.shape is None:
        raise errors.InputError(
            f"{path}: {weight_mapping.shown(name)} is empty; expected numbers. "
            "Copy the folder again."
        )
    if item.external or item.is_virtual:
        raise errors.InputError(
            f"{path}: {weight_mapping.shown(name)} has its numbers in another "
            "file, which is not opened; expected all of them in this one."
        )


def _path_in_file(name: str) -> str:
    return name.partition("/")[2]


@contextlib.contextmanager
def open_file(path: str) -> Iterator[Any]:
    """Opens an h5 file on any tf.io.gfile path."""
    import h5py

    try:
        with tf.io.gfile.GFile(path, "rb") as stream, h5py.File(stream) as file:
            yield file
    except errors.InputError:
        raise
    # h5py raises any of these for a damaged file.
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        tf.errors.OpError,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise errors.InputError(
            f"{path} is missing or damaged ({reason}); copy the folder again."
        ) from None
