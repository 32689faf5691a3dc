"""Fills the [MASK]s of a text with words that are given.

A word may have several tokens, so a mask becomes as many masks as the word has
tokens. A text is read once for each number of tokens among the words: its rows.

Shapes: T texts, L numbers of tokens, W = T L rows, P predicted masks of a row,
C words, V vocabulary.
"""

import dataclasses

import tensorflow as tf

from bert_keras import errors, options
from bert_keras.tokenizers import base as tokenizers


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a masked language model answers."""

    candidates: str | None = options.option(
        None,
        "For a masked language model: the words that a mask may stand for, "
        "with commas between; a word may have several tokens. Default: the "
        "entries of the vocabulary.",
        value_type=str,
    )
    masked: bool | None = options.option(
        None,
        "For token_scores: whether each token is masked in turn; false: the "
        "text is read once, as it is. Default: true.",
        value_type=bool,
    )


def words(candidates: str) -> tuple[str, ...]:
    """Returns the words of `Settings.candidates`, each once."""
    split = (word.strip() for word in candidates.replace("，", ",").split(","))
    return tuple(dict.fromkeys(filter(None, split)))


class Candidates:
    """Words, by their tokens.

    tokens: C tuples of ids. counts: the L numbers of tokens, ascending.

    Raises InputError if there is no word, or one has no token or an unknown
    one.
    """

    def __init__(self, candidates: str, tokenizer: tokenizers.Tokenizer):
        self.words = words(candidates)
        if not self.words:
            raise errors.InputError(
                f"candidates={candidates!r}: expected words with commas "
                "between.",
                argument="candidates",
            )
        with tf.init_scope():
            ids = tokenizer(tf.constant(self.words)).to_list()
        self.tokens = [tuple(each) for each in ids]
        for word, each in zip(self.words, self.tokens, strict=True):
            if not each or tokenizer.unk_id in each:
                raise errors.InputError(
                    f"candidates: expected words of the vocabulary's tokens, "
                    f"found {word!r}, which has "
                    f"{'an unknown token' if each else 'none'}.",
                    argument="candidates",
                )
        self.counts = sorted(set(map(len, self.tokens)))

    def expand(self, ids: tf.RaggedTensor, mask_id: int) -> tf.RaggedTensor:
        """Repeats the masks of texts: (T, None) -> (T L, None).

        Row t L + l is text t, in which counts[l] masks stand for each.
        """
        counts = tf.constant(self.counts, ids.row_splits.dtype)
        size = len(self.counts)
        row = tf.repeat(tf.range(ids.nrows()), size)
        rows = tf.gather(ids, row)
        times = tf.gather(tf.tile(counts, [ids.nrows()]), rows.value_rowids())
        times = tf.where(rows.values == mask_id, times, 1)
        lengths = tf.math.segment_sum(times, rows.value_rowids())
        # A text at the end may have no tokens.
        missing = rows.nrows() - tf.size(lengths, lengths.dtype)
        return tf.RaggedTensor.from_row_lengths(
            tf.repeat(rows.values, times), tf.pad(lengths, [[0, missing]])
        )

    def answered(self, valid: tf.Tensor) -> tf.Tensor:
        """Returns which masks of the texts all words are scored at: (T, P).

        valid (T L, P): which masks the rows of `expand` have. A row that is
        truncated, or has more than P masks, has a part of them only.
        """
        size, places = len(self.counts), valid.shape[1]
        valid = tf.reshape(valid, [-1, size, places])
        complete = []
        for index, number in enumerate(self.counts):
            # The last of the masks that stand for one.
            last = valid[:, index, number - 1 :: number]
            missing = places - places // number
            complete.append(tf.pad(last, [[0, 0], [0, missing]]))
        return tf.reduce_all(complete, axis=0)

    def score(self, log_probs: tf.Tensor) -> tf.Tensor:
        """Returns the probability of each word at each mask: (T, P, C).

        log_probs (T L, P, V): those of the rows of `expand`. It is the product
        of the tokens' probabilities when all masks of the row are read
        together; 0 for masks beyond the P of a row.
        """
        size, places = len(self.counts), log_probs.shape[1]
        log_probs = tf.reshape(
            log_probs, [-1, size, places, log_probs.shape[2]]
        )
        scores = []
        for tokens in self.tokens:
            number = len(tokens)
            own = log_probs[:, self.counts.index(number)]
            masks = places // number
            sums = tf.add_n(
                [
                    own[:, offset : masks * number : number, token]
                    for offset, token in enumerate(tokens)
                ]
            )
            scores.append(tf.pad(tf.exp(sums), [[0, 0], [0, places - masks]]))
        return tf.stack(scores, axis=2)
