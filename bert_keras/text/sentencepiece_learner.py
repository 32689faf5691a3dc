"""Learns a SentencePiece model with the library `sentencepiece`.

Pieces never contain the blank between words, so the model is learned from the
distinct words and their counts: memory grows with these only.
"""

import collections
import io
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from bert_keras import errors
from bert_keras.text import sentencepiece_model, wordpiece_learner

PAD, UNK = "<pad>", "<unk>"
CONTROLS = ("[CLS]", "[SEP]", "[MASK]")  # the ids 2, 3 and 4
SPECIAL_TOKENS = (PAD, UNK, *CONTROLS)
MODEL_TYPES = ("unigram", "bpe")

_TEXTS_PER_CALL = 4000
_LEAST_COVERAGE = 0.98  # what the trainer accepts
_THREADS = 4  # a constant: the sums of floats depend on it
# Characters. Longer runs without a blank, as of Chinese, are learned from in
# parts: the trainer would skip them.
_MAX_WORD_LENGTH = 1000


def learn(
    texts: Iterable[str],
    size: int,
    *,
    normalize: Callable[[tf.Tensor], tf.Tensor],
    model_type: str = "unigram",
) -> bytes:
    """Learns a model of exactly `size` pieces; returns the file's content.

    texts: read once.
    normalize: text (B,) -> (B,), done before SentencePiece's own nmt_nfkc.
    """
    import sentencepiece

    words = _count_words(texts, normalize)
    characters = wordpiece_learner.count_characters(words, 1)
    if not characters or size <= len(SPECIAL_TOKENS) + 1:
        raise errors.InputError(
            f"Expected a size above {len(SPECIAL_TOKENS) + 1}, the number of "
            f"special tokens and the blank, and enough text; got size {size} "
            f"and a text of {len(characters)} distinct characters."
        )
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "words.tsv")
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            for word, count in words.items():
                file.write(f"{word}\t{count}\n")
        try:
            sentencepiece.SentencePieceTrainer.train(
                input=path,
                input_format="tsv",
                model_writer=model,
                model_type=model_type,
                vocab_size=size,
                character_coverage=_coverage(characters, size),
                max_sentence_length=8 * _MAX_WORD_LENGTH,
                pad_id=0,
                pad_piece=PAD,
                unk_id=1,
                unk_piece=UNK,
                bos_id=-1,
                eos_id=-1,
                control_symbols=list(CONTROLS),
                num_threads=_THREADS,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            raise _explained(size, str(error)) from None
    # Equal texts give equal files.
    return sentencepiece_model.without_paths(model.getvalue())


def _explained(size: int, message: str) -> errors.InputError:
    """Returns an error that says what to do about one of the trainer."""
    if most := re.search(r"value <= (\d+)", message):
        return errors.TooLittleTextError(
            f"Expected text for {size} pieces; this one gives {most[1]}. "
            f"Request {most[1]} or fewer, or give more text.",
            most=int(most[1]),
        )
    if least := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return errors.InputError(
            f"Expected a size above {least[1]}: so many pieces are special or "
            f"single characters, which make up {_LEAST_COVERAGE:.0%} of the "
            f"text; got {size}."
        )
    return errors.InputError(
        f"SentencePiece cannot learn {size} pieces from this text: {message}"
    )


def _count_words(
    texts: Iterable[str], normalize: Callable[[tf.Tensor], tf.Tensor]
) -> dict[str, int]:
    words: collections.Counter[str] = collections.Counter()
    for batch in _batches(texts):
        for text in normalize(tf.constant(batch, tf.string)).numpy():
            for word in text.decode().replace("\0", "").split():
                for start in range(0, len(word), _MAX_WORD_LENGTH):
                    words[word[start : start + _MAX_WORD_LENGTH]] += 1
    # In a fixed order, as the trainer's ties depend on it.
    return dict(sorted(words.items()))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = iter(texts)
    while batch := list(itertools.islice(texts, _TEXTS_PER_CALL)):
        yield batch


def _coverage(characters: dict[str, int], size: int) -> float:
    """Returns the fraction of the text whose characters become pieces.

    characters: {character: count}, the most frequent first.
    """
    room = size - len(SPECIAL_TOKENS) - 1
    most = max(1, int(room * wordpiece_learner.MAX_ALPHABET_FRACTION))
    covered = sum(itertools.islice(characters.values(), most))
    fraction = covered / sum(characters.values())
    return min(wordpiece_learner.COVERAGE, max(_LEAST_COVERAGE, fraction))
