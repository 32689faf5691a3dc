"""Finds special tokens that are written out in a text, such as [MASK]."""

import re
from collections.abc import Callable, Mapping

import tensorflow as tf
import tensorflow_text as tf_text

from bert_keras.text import text_cleaning


def tokenize(
    text: tf.Tensor,
    specials: Mapping[str, int],
    tokenize_text: Callable[[tf.Tensor], tf.RaggedTensor],
) -> tf.RaggedTensor:
    """Tokenizes text (B,) in which special tokens may be written out.

    specials: {token: id}. A token becomes its id, `tokenize_text` (P,) ->
    ragged (P, None) int32 converts the parts between. Returns ragged (B, None)
    int32. For example "a [MASK] b" has the parts "a ", "[MASK]" and " b".
    """
    if not specials:
        return tokenize_text(text)
    pattern = "|".join(re.escape(token) for token in specials)
    # Drop control characters first: for regex_split, NUL ends the text.
    text = text_cleaning.without_controls(text)
    parts = tf_text.regex_split(text, pattern, pattern)  # (B, parts)
    flat = parts.flat_values
    special_ids = tf.fill(tf.shape(flat), -1)
    for token, index in specials.items():
        special_ids = tf.where(flat == token, index, special_ids)
    special = special_ids >= 0
    ids = tf.concat(
        [
            tokenize_text(tf.where(special, "", flat)),
            tf.RaggedTensor.from_row_lengths(
                tf.boolean_mask(special_ids, special),
                tf.cast(special, tf.int64),
                validate=False,
            ),
        ],
        axis=1,
    )
    return parts.with_flat_values(ids).merge_dims(1, 2)
