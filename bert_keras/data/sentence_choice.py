"""Chooses the best sentences of texts in a TensorFlow graph."""

import tensorflow as tf

from bert_keras.data import sentence_splitter


def choose(
    scores: tf.Tensor,
    is_sentence: tf.Tensor,
    sentences: tf.Tensor,
    *,
    count: int,
    ngram_size: int = 0,
) -> tf.Tensor:
    """Returns which sentences are the `count` best: (T, N) bool.

    Args:
      scores: (T, N) float32, at least 0; of equal ones the first is better.
      is_sentence: (T, N) bool, false at padding.
      sentences: (T, N) strings.
      ngram_size: with n > 0, a sentence is left out if it has n consecutive
        words of a better one that is chosen (trigram blocking with n = 3:
        Paulus et al. 2018, section 2.5; Liu and Lapata 2019, section 4.3).
        Words are those of `words`.

    If a text has fewer sentences, or too many are left out, fewer are chosen.
    """
    blocker = _Blocker(sentences, ngram_size) if ngram_size else None
    available, chosen = is_sentence, tf.zeros_like(is_sentence)
    for _ in range(count):
        best = tf.argmax(tf.where(available, scores, -1.0), axis=1)
        is_best = tf.one_hot(best, tf.shape(scores)[1], True, False)
        is_best &= available
        chosen |= is_best
        available &= ~is_best
        if blocker:
            available &= ~blocker.repeats(is_best)
    return chosen


def words(text: tf.Tensor) -> tf.RaggedTensor:
    """Splits texts (T,) as `metrics.generation.tokens`: ragged (T, None).

    Words are lower-case; a Chinese character is a word of its own.
    """
    text = tf.strings.lower(text, "utf-8")
    text = tf.strings.regex_replace(
        text, f"[{sentence_splitter.HAN}〇]", r" \0 "
    )
    # 〇 is a number of another category than digits.
    text = tf.strings.regex_replace(text, r"[^\pL\pM\p{Nd}〇]+", " ")
    return tf.strings.split(text)


class _Blocker:
    """Finds sentences that have an n-gram of a chosen sentence.

    Of each text every different n-gram has an id.
    """

    def __init__(self, sentences: tf.Tensor, size: int):
        self.shape = tf.shape(sentences)
        ngrams = tf.strings.ngrams(
            words(tf.reshape(sentences, [-1])), size, separator=" "
        )
        self.sentence = ngrams.value_rowids()  # of each n-gram
        text = self.sentence // tf.cast(self.shape[1], tf.int64)
        names = tf.strings.join(
            [tf.strings.as_string(text), ngrams.values], " "
        )
        unique, self.ids = tf.unique(names)
        self.num_ids = tf.size(unique)

    def repeats(self, is_chosen: tf.Tensor) -> tf.Tensor:
        """Returns which sentences have an n-gram of the chosen: (T, N) bool."""
        has = tf.gather(tf.reshape(is_chosen, [-1]), self.sentence)
        is_taken = _any(has, self.ids, self.num_ids)
        repeats = _any(
            tf.gather(is_taken, self.ids),
            self.sentence,
            tf.reduce_prod(self.shape),
        )
        return tf.reshape(repeats, self.shape)


def _any(values: tf.Tensor, index: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns whether a value of each segment is true: (count,) bool."""
    values = tf.cast(values, tf.int32)
    return tf.math.unsorted_segment_max(values, index, count) > 0
