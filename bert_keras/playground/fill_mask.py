"""The best tokens for each [MASK] of a text, with their probabilities."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from bert_keras.playground import blocks
from bert_keras.predictor import Predictor
from bert_keras.tokenizers import base as tokenizers

HEAD = "masked_lm"  # the output with the logits (B, P, V)
MOST_CANDIDATES = 8


class Candidates:
    """Computes the candidates of a text's masks; the answer has the best one.

    >>> Candidates(predictor)("The film is [MASK].")
    [[("good", 0.21), ("old", 0.07), ...]]
    """

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self._top = tf.function(
            self._in_graph, reduce_retracing=True, autograph=False
        )

    def __call__(self, text: str) -> list[list[tuple[str, float]]]:
        """Returns (token, probability), descending, for each mask of a text."""
        tokenizer = self.predictor.tokenizer
        features = self.predictor.task.preprocess(
            {"text": tf.constant([text])}, tokenizer
        )
        inputs = self.predictor.model.encoder.config.inputs
        ids, scores = self._top(**{name: features[name] for name in inputs})
        is_mask = features[tokenizer.feature][0] == tokenizer.mask_id
        masks = int(tf.math.count_nonzero(is_mask))
        return [
            list(zip(tokenizer.tokens(row_ids), row_scores, strict=True))
            for row_ids, row_scores in zip(
                ids.numpy().tolist()[:masks],
                scores.numpy().tolist()[:masks],
                strict=True,
            )
        ]

    def _in_graph(self, **inputs):
        """Returns ids and scores (P, candidates) of the first row."""
        features = self.predictor.task.add_derived_features(inputs)
        logits = self.predictor.model(features, training=False)[HEAD][0]
        scores, ids = tf.math.top_k(
            tf.nn.softmax(logits),
            min(MOST_CANDIDATES, self.predictor.tokenizer.vocab_size),
        )
        return ids, scores


def mask_token(tokenizer: tokenizers.Tokenizer) -> str:
    """Returns the text of a mask."""
    if tokenizer.mask_id is None:
        return "[MASK]"
    (token,) = tokenizer.tokens([tokenizer.mask_id])
    return token


def fill(
    text: str, mask: str, tokens: Sequence[str]
) -> tuple[str, list[dict[str, Any]]]:
    """Replaces masks by tokens; returns the text and the tokens' spans.

    A wordpiece loses its "##", so that it continues the word before it. Masks
    after the last token stay.

    >>> fill("a [MASK] film", "[MASK]", ["good"])
    ('a good film', [{'start': 2, 'end': 6, 'label': ''}])
    """
    first, *parts = text.split(mask)
    filled, spans = first, []
    for number, part in enumerate(parts):
        if number < len(tokens):
            token = tokens[number].removeprefix("##")
            end = len(filled) + len(token)
            spans.append(blocks.span(len(filled), end, ""))
        else:
            token = mask
        filled += token + part
    return filled, spans
