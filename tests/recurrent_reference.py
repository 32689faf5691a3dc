"""Keras' own recurrent layers, for tests of ours."""

import keras
import numpy as np

from bert_keras import recurrent_layers


def in_keras(layer, width, **options):
    """Keras' layer with the weights of a Recurrent; width: of its inputs."""
    units = layer.units
    w = {v.name: v.numpy() for v in layer.weights}
    options |= {"return_sequences": True, "return_state": True}
    if isinstance(layer.cell, recurrent_layers.GruCell):
        other = keras.layers.GRU(units, reset_after=True, **options)
        other.build((None, None, width))
        recurrent_bias = np.pad(w["recurrent_bias"], (2 * units, 0))
        other.set_weights(
            [
                w["kernel"],
                w["recurrent_kernel"],
                np.stack([w["bias"], recurrent_bias]),
            ]
        )
        return other

    def reordered(weight):  # to input, forget, candidate, output
        enter, candidate, forget, leave = np.split(weight, 4, axis=-1)
        return np.concatenate([enter, forget, candidate, leave], axis=-1)

    other = keras.layers.LSTM(units, **options)
    other.build((None, None, width))
    bias = reordered(w["bias"])
    bias[units : 2 * units] += 1
    other.set_weights(
        [reordered(w["kernel"]), reordered(w["recurrent_kernel"]), bias]
    )
    return other
