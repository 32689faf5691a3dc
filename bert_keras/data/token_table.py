"""Numbers the distinct tokens of texts whose tokens are several ids each.

A word of ELMo is 50 ids of characters. Records store each distinct one once,
and its number for every token.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bert_keras.tokenizers import base


class TokenTable:
    """The distinct tokens met so far; a token's number is its row."""

    def __init__(self, tokens: Sequence[Sequence[int]] = ()):
        self._numbers: dict[bytes, int] = {}
        self._width = len(tokens[0]) if tokens else 0
        if tokens:
            for token in np.asarray(tokens, np.int32):
                self.numbers(token[np.newaxis])

    def numbers(self, ids: np.ndarray) -> np.ndarray:
        """Returns the numbers of tokens, (n, ids per token) -> (n,) int32."""
        self._width = ids.shape[1]
        ids = np.ascontiguousarray(ids, np.int32)
        keys = ids.view(np.dtype((np.void, 4 * self._width))).ravel()
        distinct, index = np.unique(keys, return_inverse=True)
        numbers = [
            self._numbers.setdefault(key.tobytes(), len(self._numbers))
            for key in distinct
        ]
        return np.array(numbers, np.int32)[index.ravel()]

    def rows(self) -> np.ndarray:
        """Returns the tokens by number, (tokens, ids per token) int32."""
        values = np.frombuffer(b"".join(self._numbers), np.int32)
        return values.reshape(len(self._numbers), self._width)


def compact(values: np.ndarray) -> np.ndarray:
    """Returns integers as uint16 if they fit, else as int32."""
    is_small = not values.size or (0 <= values.min() and values.max() < 1 << 16)
    return values.astype(np.uint16 if is_small else np.int32)


def numbered_frame(frame: base.Frame) -> base.Frame:
    """Returns a frame whose tokens are numbers in a table of its own tokens.

    The table is TokenTable(tokenizer.special_ids), whose tokens are in this
    order.
    """
    order = dict.fromkeys((*frame.start, *frame.between, *frame.end))
    number = {token: index for index, token in enumerate(order)}
    start, between, end = (
        tuple(number[token] for token in part) for part in frame[:3]
    )
    return base.Frame(start, between, end, frame.feature)


def has_several_ids(tokenizer: base.Tokenizer) -> bool:
    """Returns whether each token is several ids."""
    return any(isinstance(each, tuple) for each in tokenizer.special_ids)


def word_ids(tokenizer: base.Tokenizer, rows: np.ndarray) -> np.ndarray:
    """Returns the ids in `vocabulary` of the tokens in rows (n, ids)."""
    ids = tf.RaggedTensor.from_row_lengths(
        tf.constant(rows, tf.int32), [len(rows)]
    )
    return tokenizer.word_ids(ids).values.numpy()
