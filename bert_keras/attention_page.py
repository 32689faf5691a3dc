"""A web page of the attention in a text: one file, nothing loaded."""

import base64
import importlib.resources
import json
import math

import numpy as np
import tensorflow as tf

from bert_keras import errors, self_attention

# More tokens would make files of tens of megabytes: the page has the first.
MAX_TOKENS = 128
_GENERATOR = '<meta name="generator" content="bert_keras">'
_PLACEHOLDER = "{{data}}"


def render(found: self_attention.SelfAttention, *, title: str) -> str:
    """Returns the page of an attention as HTML.

    Weights have 16 bits, so they are within 1 / 131070 of the model's. Of more
    than MAX_TOKENS tokens the page has the first; entropies and predictions are
    those of the complete text.
    """
    shown = min(len(found.tokens), MAX_TOKENS)
    weights = found.weights[:, :, :shown, :shown]
    numbers = np.rint(weights * 65535).astype("<u2")
    data = {
        "title": title,
        "tokens": found.tokens[:shown],
        "count": len(found.tokens),
        "segments": found.segments[:shown],
        "layers": weights.shape[0],
        "heads": weights.shape[1],
        "headWidth": found.head_width,
        "entropy": found.entropy.round(4).tolist(),
        "unscaled": found.unscaled_entropy.round(4).tolist(),
        "uniform": math.log(len(found.tokens)),
        "hasMaskedLM": found.has_masked_lm,
        "masks": [
            {
                "position": mask.position,
                "tokens": mask.tokens,
                "probabilities": mask.probabilities.round(5).tolist(),
            }
            for mask in found.masks
        ],
        "weights": base64.b64encode(numbers.tobytes()).decode(),
    }
    # A token such as </script> must not end the element.
    text = json.dumps(data).replace("<", "\\u003c")
    page = importlib.resources.files(__package__).joinpath(
        "attention_page.html"
    )
    return page.read_text(encoding="utf-8").replace(_PLACEHOLDER, text)


def check_output(path: str) -> None:
    """Raises InputError if `path` is no .html file, or another program's."""
    if not path.endswith((".html", ".htm")):
        raise errors.InputError(
            f"output={path}: expected the name of an .html file.",
            argument="output",
        )
    if not tf.io.gfile.exists(path):
        return
    with tf.io.gfile.GFile(path, "rb") as file:
        if _GENERATOR.encode() not in file.read(1000):
            raise errors.InputError(
                f"{path} exists and was not written by bert_keras; choose "
                "another `output`.",
                argument="output",
            )
