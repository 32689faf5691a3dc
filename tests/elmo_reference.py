"""ELMo's equations in NumPy float64, for tests (Peters et al. 2018).

From the papers: Kim et al. 2016, section 3 (convolutions, highways), Sak et al.
2014, section 2 (an LSTM whose state is projected), Peters et al. 2018, section
3. Clipping, the order of the gates and the forget gate's 1 are TensorFlow 1's
LSTMCell. Weights are named as bilm-tf's files name them.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def random_weights(config, seed=0, scale=0.5):
    """Weights by name in bilm-tf's files, float64 and in float32's range."""
    random = np.random.default_rng(seed)
    filters = list(zip(config.filter_widths, config.filter_counts, strict=True))
    count = sum(config.filter_counts)
    size, outer = config.character_size, config.projection_size
    inner = config.lstm_size
    shapes = {"char_embed": (261, size)}
    for i, (width, number) in enumerate(filters):
        shapes[f"CNN/W_cnn_{i}"] = (1, width, size, number)
        shapes[f"CNN/b_cnn_{i}"] = (number,)
    for i in range(config.num_highways):
        for part in ("carry", "transform"):
            shapes[f"CNN_high_{i}/W_{part}"] = (count, count)
            shapes[f"CNN_high_{i}/b_{part}"] = (count,)
    if count != outer:
        shapes["CNN_proj/W_proj"] = (count, outer)
        shapes["CNN_proj/b_proj"] = (outer,)
    for direction in range(2):
        for layer in range(config.num_layers):
            cell = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            shapes[f"{cell}/W_0"] = (2 * outer, 4 * inner)
            shapes[f"{cell}/B"] = (4 * inner,)
            if outer != inner:
                shapes[f"{cell}/W_P_0"] = (inner, outer)
    return {
        name: random.normal(0, scale, shape).astype(np.float32).astype(float)
        for name, shape in shapes.items()
    }


def word_vector(config, weights, characters):
    """The vector of a word of 50 characters, before any context."""
    table = np.vstack(
        [np.zeros((1, config.character_size))] + [weights["char_embed"]]
    )
    letters = table[characters]
    maxima = []
    for i, width in enumerate(config.filter_widths):
        kernel, bias = weights[f"CNN/W_cnn_{i}"][0], weights[f"CNN/b_cnn_{i}"]
        windows = [
            np.einsum("wd,wdn->n", letters[start : start + width], kernel)
            + bias
            for start in range(len(letters) - width + 1)
        ]
        maxima.append(np.max(windows, axis=0))
    x = np.concatenate(maxima)
    relu = config.character_activation == "relu"
    x = np.maximum(x, 0) if relu else np.tanh(x)
    for i in range(config.num_highways):
        name = f"CNN_high_{i}"
        gate = x @ weights[f"{name}/W_carry"] + weights[f"{name}/b_carry"]
        new = x @ weights[f"{name}/W_transform"]
        new = np.maximum(new + weights[f"{name}/b_transform"], 0)
        x = sigmoid(gate) * new + (1 - sigmoid(gate)) * x
    if "CNN_proj/W_proj" in weights:
        x = x @ weights["CNN_proj/W_proj"] + weights["CNN_proj/b_proj"]
    return x


def clip(x, limit):
    return np.clip(x, -limit, limit) if limit else x


def lstm(config, weights, cell_name, inputs):
    state = np.zeros(config.projection_size)
    cell = np.zeros(config.lstm_size)
    states = []
    for x in inputs:
        gates = np.concatenate([x, state]) @ weights[f"{cell_name}/W_0"]
        i, j, f, o = np.split(gates + weights[f"{cell_name}/B"], 4)
        cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(j)
        cell = clip(cell, config.cell_clip)
        state = sigmoid(o) * np.tanh(cell)
        if f"{cell_name}/W_P_0" in weights:
            state = state @ weights[f"{cell_name}/W_P_0"]
            state = clip(state, config.projection_clip)
        states.append(state)
    return states


def layers(config, weights, characters):
    """All layers of one text: L + 1 of (words, 2 P)."""
    words = [word_vector(config, weights, each) for each in characters]
    directions = []
    for number, order in enumerate((1, -1)):
        x, outputs = words[::order], [words]
        for layer in range(config.num_layers):
            name = f"RNN_{number}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            y = lstm(config, weights, name, x)
            if config.residual and layer:
                y = [a + b for a, b in zip(x, y, strict=True)]
            x = y
            outputs.append(y[::order])
        directions.append(outputs)
    return [
        np.concatenate(pair, axis=-1) for pair in zip(*directions, strict=True)
    ]


def write(path, weights):
    """Writes weights as bilm-tf's file."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, value in weights.items():
            file.create_dataset(name, data=value.astype(np.float32))
