"""Splits words into byte pairs in a graph (Sennrich et al. 2016, section 3.2).

A word begins as its characters, the last with `</w>`. Of the pairs of adjacent
symbols that can be merged, the one that was learned first is merged wherever it
occurs in the word, until none is left. Here every word of a batch does such a
step at once. The tables are constants of the graph, so that a SavedModel needs
neither assets nor lookup tables.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

END_OF_WORD = "</w>"
# Characters. A longer word is split into parts of this length, of which only
# the last ends with `</w>`: the number of steps grows with the word's length.
MAX_PART = 100

_NO_POINT, _NO_KEY = np.iinfo(np.int32).max, np.iinfo(np.int64).max


class Tokens(NamedTuple):
    """The tokens of W words: ragged (W, None) int32.

    starts, ends: bytes of the word that a token covers.
    """

    ids: tf.RaggedTensor
    starts: tf.RaggedTensor
    ends: tf.RaggedTensor


class BytePairs:
    """The merges of a vocabulary, as constants.

    ids: {symbol: id}; merges: pairs of symbols, in the order in which they were
    learned. Symbols that are not in `ids` are `unk_id`.
    """

    def __init__(
        self,
        ids: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        *,
        unk_id: int,
    ):
        points = sorted({ord(symbol[0]) for symbol in ids if symbol})
        inner = [ids.get(chr(p), unk_id) for p in points]
        last = [ids.get(f"{chr(p)}{END_OF_WORD}", unk_id) for p in points]
        self._radix = max(ids.values(), default=0) + 1
        pairs = np.array(
            [[ids[first], ids[second]] for first, second in merges], np.int64
        ).reshape(-1, 2)
        keys = pairs[:, 0] * self._radix + pairs[:, 1]
        order = np.argsort(keys)
        merged = [ids[first + second] for first, second in merges]
        # Create them outside of any graph, so that each graph has one constant
        # of each, however often it is called. The entry at the end is for what
        # is not in the table.
        with tf.init_scope(), tf.device("CPU"):
            self._points = _constant([*points, _NO_POINT], np.int32)
            self._inner = _constant([*inner, unk_id], np.int32)
            self._last = _constant([*last, unk_id], np.int32)
            self._keys = _constant([*keys[order], _NO_KEY])
            self._ranks = _constant([*order, len(merges)], np.int32)
            self._merged = _constant([*merged, unk_id], np.int32)
        self._unk_id = unk_id
        self._no_rank = len(merges)  # of pairs that cannot be merged

    def split(self, words: tf.Tensor) -> Tokens:
        """Splits words (W,) string, none of them empty."""
        points = tf.strings.unicode_decode(words, "UTF-8")
        symbols, parts = self._characters(points)
        index, symbols = self._merge(symbols, parts)

        sizes = _utf8_sizes(points.values)
        before = tf.cumsum(sizes, exclusive=True)  # bytes, over all words
        word = tf.gather(points.value_rowids(), index)
        first = tf.gather(before, tf.gather(points.row_starts(), word))
        starts = tf.gather(before, index)
        # Tokens follow each other without a gap.
        total = tf.reduce_sum(sizes)
        ends = tf.concat([starts[1:], total[tf.newaxis]], 0)[: tf.size(starts)]
        ids = tf.RaggedTensor.from_value_rowids(
            symbols, word, nrows=points.nrows(), validate=False
        )
        return Tokens(
            ids, ids.with_values(starts - first), ids.with_values(ends - first)
        )

    def _characters(self, points):
        """Returns each character's symbol and the number of its part, flat."""
        flat = points.values
        number = tf.range(tf.size(flat, tf.int64))
        word = points.value_rowids()
        offset = number - tf.gather(points.row_starts(), word)
        parts = tf.cumsum(tf.cast(offset % MAX_PART == 0, tf.int32)) - 1
        is_last = number + 1 == tf.gather(points.row_limits(), word)
        slot = tf.searchsorted(self._points, flat)
        symbols = tf.where(
            is_last, tf.gather(self._last, slot), tf.gather(self._inner, slot)
        )
        known = tf.gather(self._points, slot) == flat
        return tf.where(known, symbols, self._unk_id), parts

    def _merge(self, symbols, parts):
        """Merges the symbols (N,) of parts that are numbered by `parts` (N,).

        Returns the index (T,) of each token's first symbol, and its id (T,).
        Parts without anything to merge leave the loop.
        """
        size = tf.size(symbols)
        index = tf.range(size)
        none = tf.zeros([0], tf.int32)

        def step(index, symbols, parts, done_index, done_symbols):
            rank = self._ranks_of_pairs(symbols, parts)
            best = tf.gather(tf.math.segment_min(rank, parts), parts)
            done = best == self._no_rank
            done_index = tf.concat(
                [done_index, tf.boolean_mask(index, done)], 0
            )
            done_symbols = tf.concat(
                [done_symbols, tf.boolean_mask(symbols, done)], 0
            )
            merges = alternate((rank == best) & ~done)
            symbols = tf.where(merges, tf.gather(self._merged, best), symbols)
            kept = ~(done | tf.concat([[False], merges[:-1]], 0))
            return (
                tf.boolean_mask(index, kept),
                tf.boolean_mask(symbols, kept),
                tf.boolean_mask(parts, kept),
                done_index,
                done_symbols,
            )

        *_, index, symbols = tf.while_loop(
            lambda index, *_: tf.size(index) > 0,
            step,
            (index, symbols, parts, none, none),
            shape_invariants=(tf.TensorShape([None]),) * 5,
        )
        # Put the tokens into the order of the text.
        by_index = tf.tensor_scatter_nd_update(
            tf.fill([size], -1), index[:, tf.newaxis], symbols
        )
        index = tf.cast(tf.where(by_index >= 0)[:, 0], tf.int32)
        return index, tf.gather(by_index, index)

    def _ranks_of_pairs(self, symbols, parts):
        """Returns the rank of the pair that begins at each symbol, (N,)."""
        keys = tf.cast(symbols, tf.int64)
        keys = keys[:-1] * self._radix + keys[1:]
        slot = tf.searchsorted(self._keys, keys)
        found = (tf.gather(self._keys, slot) == keys) & (
            parts[:-1] == parts[1:]
        )
        rank = tf.where(found, tf.gather(self._ranks, slot), self._no_rank)
        return tf.concat([rank, [self._no_rank]], 0)[: tf.size(symbols)]


def _constant(values, dtype=np.int64):
    return tf.constant(np.asarray(values, dtype))


def alternate(matches: tf.Tensor) -> tf.Tensor:
    """Keeps the first, third, ... of adjacent matches (N,) bool.

    In "aaaaa" the pair "aa" begins at 0, 1, 2 and 3; it is merged at 0 and 2.
    """
    index = tf.range(tf.size(matches))
    # The index of the last other element before each.
    others = tf.concat([[-1], tf.boolean_mask(index, ~matches)], 0)
    before = tf.gather(others, tf.cumsum(tf.cast(~matches, tf.int32)))
    return matches & ((index - before) % 2 == 1)


def _utf8_sizes(points: tf.Tensor) -> tf.Tensor:
    """Returns how many bytes each code point (N,) has in UTF-8."""
    return 1 + tf.add_n(
        [tf.cast(points >= limit, tf.int32) for limit in (0x80, 0x800, 0x10000)]
    )
