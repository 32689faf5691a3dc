"""Learns a WordPiece vocabulary from text, deterministically.

This module counts words; the trainer of Hugging Face's `tokenizers` merges
them. By default it iterates over hash maps, so the ids of single characters,
and with them the order of merges of equally frequent pairs, change from run to
run. Therefore it gets the characters in sorted order, as special tokens with
fixed ids.
"""

import collections
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from bert_keras import errors
from bert_keras.tokenizers import wordpiece

# The rarest characters, 1 in 50,000 of the text, become [UNK]. 17 MB of English
# keep 76 of 149 characters; 12 MB of Chinese all that occur twice.
COVERAGE = 0.99998

# Maximum share of characters in a small vocabulary, as long as there are longer
# wordpieces of the same frequency: Chinese must not crowd out English.
ALPHABET_SHARE = 0.75

_CHUNK = 1 << 16  # characters passed to the trainer at a time

# Splits text only where the pre-tokenizer splits it, too. The strings between
# are counted first, so that each distinct string is normalized once.
_CHINESE = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df"
_PUNCTUATION = r"!-/:-@\[-`{-~"
_CUT = re.compile(f"[{_CHINESE}{_PUNCTUATION}]|[^\\s{_CHINESE}{_PUNCTUATION}]+")

_PRE_TOKENIZER = pre_tokenizers.BertPreTokenizer()


def learn(
    texts: Iterable[str],
    size: int,
    *,
    lowercase: bool,
    min_frequency: int = 2,
) -> list[str]:
    """Learns a vocabulary of exactly `size` wordpieces.

    texts: read once; memory grows with the number of distinct words only.
    min_frequency: occurrences that a character or a pair needs to be included.

    The order: special tokens, characters, characters that continue a word, then
    longer wordpieces by descending frequency.
    """
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    words = _count_words(texts, normalizer)
    characters = _count_characters(words, min_frequency)
    room = size - len(wordpiece.SPECIAL_TOKENS)
    if not characters or room < 1:
        raise errors.InputError(
            f"Expected a size above {len(wordpiece.SPECIAL_TOKENS)}, the "
            "special tokens, and a text to fill it; got size "
            f"{size} and a text in which {len(characters)} characters occur "
            f"{min_frequency} times."
        )
    forms = {c: _forms(c, normalizer) for c in characters}
    taken = min(
        sum(len(forms[c]) for c in _covering(characters)),
        max(1, int(room * ALPHABET_SHARE)),
    )
    while True:
        kept = _fitting(forms, taken)
        left = [n for c, n in characters.items() if c not in kept]
        # Longer wordpieces must be as frequent as the best dropped character.
        last = not left or taken == room
        pieces = _merge(
            words,
            [
                *wordpiece.SPECIAL_TOKENS,
                *sorted(kept),
                *sorted(form for c in kept for form in forms[c][1:]),
            ],
            size,
            min_frequency if last else left[0],
        )
        missing = size - len(pieces)
        if not missing:
            return pieces
        if last:
            raise errors.InputError(
                f"Expected text for {size} wordpieces; this one gives "
                f"{len(pieces)} that occur {min_frequency} times. Ask for "
                f"{len(pieces)} or fewer, or give more text."
            )
        taken = min(room, taken + max(missing, room // 20))


def _count_words(
    texts: Iterable[str], normalizer: normalizers.Normalizer
) -> collections.Counter[str]:
    """Counts the normalized words."""
    raw: collections.Counter[str] = collections.Counter()
    for text in texts:
        raw.update(_CUT.findall(text))
    words: collections.Counter[str] = collections.Counter()
    for string, count in raw.items():
        for word in _split(string, normalizer):
            words[word] += count
    return words


def _count_characters(
    words: Mapping[str, int], min_frequency: int
) -> dict[str, int]:
    """Counts the characters, in descending order of frequency."""
    counts: collections.Counter[str] = collections.Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    frequent = [(c, n) for c, n in counts.items() if n >= min_frequency]
    return dict(sorted(frequent, key=lambda item: (-item[1], item[0])))


def _covering(characters: Mapping[str, int]) -> Iterator[str]:
    """Yields the most frequent characters that make up COVERAGE of the text."""
    missing = COVERAGE * sum(characters.values())
    for character, count in characters.items():
        if missing <= 0:
            return
        missing -= count
        yield character


def _forms(character: str, normalizer: normalizers.Normalizer) -> list[str]:
    """Returns a character's forms: c, and ##c if it can continue a word."""
    alone = len(_split(f"a{character}a", normalizer)) > 1
    return [character] if alone else [character, f"##{character}"]


def _fitting(forms: Mapping[str, Sequence[str]], taken: int) -> set[str]:
    """Selects the most frequent characters with at most `taken` wordpieces."""
    kept = set()
    for character, pieces in forms.items():
        if len(pieces) <= taken:
            taken -= len(pieces)
            kept.add(character)
    return kept


def _merge(
    words: Mapping[str, int],
    base_pieces: Sequence[str],
    size: int,
    min_frequency: int,
) -> list[str]:
    """Merges the base pieces into longer ones, up to `size` in total."""
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        special_tokens=list(base_pieces),
        limit_alphabet=0,
        show_progress=False,
    )
    learner.train_from_iterator(_repeated(words, set(base_pieces)), trainer)
    vocabulary = learner.get_vocab(with_added_tokens=False)
    return sorted(vocabulary, key=lambda piece: vocabulary[piece])


def _repeated(words: Mapping[str, int], base_pieces: set[str]) -> Iterator[str]:
    """Repeats each word by its count, because the trainer takes no counts.

    Skips words of one character, which have no pair to merge, and words that
    will be [UNK]: those with an unknown character, and those that are too long,
    whose training time would be quadratic in their length.
    """
    for word, count in words.items():
        if len(word) < 2 or len(word) > wordpiece.MAX_WORD_LENGTH:
            continue
        if not base_pieces.issuperset(word):
            continue
        most = max(1, _CHUNK // len(word))
        for start in range(0, count, most):
            yield f"{word} " * min(most, count - start)


def _split(text: str, normalizer: normalizers.Normalizer) -> list[str]:
    clean = normalizer.normalize_str(text)
    return [word for word, _ in _PRE_TOKENIZER.pre_tokenize_str(clean)]
