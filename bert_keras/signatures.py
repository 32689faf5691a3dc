"""Saves functions of a predictor as the signatures of a SavedModel."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from bert_keras import predictor as predictor_lib
from bert_keras.networks import base
from bert_keras.tasks import base as tasks

# Names of the signatures of a served model.
TEXT, TOKENS, CLASSIFY = "serving_default", "tokens", "classify"
# Text with the settings of each text, for tasks that have them.
WITH_SETTINGS = "with_settings"

# A function and the arguments to trace it with.
Signature = tuple[Callable[..., Any], Mapping[str, tf.TensorSpec]]


def save(
    predictor: predictor_lib.Predictor,
    folder: str,
    signatures: Mapping[str, Signature],
    *,
    tokenizer: Any = None,
) -> dict[str, dict[str, tf.TensorShape]]:
    """Writes functions of the predictor as a SavedModel without Python objects.

    tokenizer: the predictor's, if a function calls it. A tokenizer with
      resources is a tf.Module, so they are saved with the graphs.

    Returns the output shapes of each signature.
    """
    module = tf.Module()
    module.tokenizer = tokenizer
    graphs = {
        name: tf.function(function, autograph=False).get_concrete_function(
            **arguments
        )
        for name, (function, arguments) in signatures.items()
    }
    # Save the variables, not the model: with a keras.Model the TFLite converter
    # silently does not freeze them, and the TFLite model returns NaN. Those
    # that no function reads are for training, such as ELECTRA's generator.
    read = {v.ref() for graph in graphs.values() for v in graph.variables}
    weights = [v.value for v in predictor.model.variables]
    module.weights = [v for v in weights if v.ref() in read]
    tf.saved_model.save(module, folder, signatures=graphs)
    return {
        name: {key: v.shape for key, v in graph.structured_outputs.items()}
        for name, graph in graphs.items()
    }


def token_specs(
    config: base.NetworkConfig, rows: int | None, length: int
) -> dict[str, tf.TensorSpec]:
    """Returns the specs of the arguments of Predictor.tokens.

    Each is (rows, length, ...) int32.
    """
    return {
        name: tf.TensorSpec((rows, length, *shape), tf.int32, name=name)
        for name, shape in config.inputs.items()
    }


def padded(
    features: Mapping[str, tf.Tensor],
    config: base.NetworkConfig,
    length: int,
) -> dict[str, tf.Tensor]:
    """Selects the encoder's inputs and pads them to (W, length, ...)."""
    return {
        name: tf.pad(
            features[name],
            [
                [0, 0],
                [0, length - features[name].shape[1]],
                *([0, 0] for _ in shape),
            ],
        )
        for name, shape in config.inputs.items()
    }


def serialized_examples(raw: Mapping[str, Sequence[str]]) -> list[bytes]:
    """Serializes each row of texts as one tf.train.Example."""

    def feature(text: str) -> tf.train.Feature:
        value = tf.train.BytesList(value=[tf.compat.as_bytes(text)])
        return tf.train.Feature(bytes_list=value)

    rows = zip(*raw.values(), strict=True)
    return [
        tf.train.Example(
            features=tf.train.Features(
                feature=dict(zip(raw, map(feature, row), strict=True))
            )
        ).SerializeToString()
        for row in rows
    ]


def some_settings(task: tasks.Task, count: int) -> dict[str, tf.Tensor]:
    """Returns settings of `count` texts, others for each text."""
    numbers = tf.range(count) % 5
    return {
        # Temperatures and top_p from 0 to 1; top_k, seeds, ... from 0 to 4.
        name: tf.cast(numbers, dtype) / 4
        if tf.as_dtype(dtype).is_floating
        else tf.cast(numbers, dtype)
        for name, dtype in task.request_settings.items()
    }
