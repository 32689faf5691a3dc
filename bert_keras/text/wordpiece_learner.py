"""Learns a WordPiece vocabulary from text, deterministically.

This module counts words; the trainer of Hugging Face's `tokenizers` merges
them. By default it iterates over hash maps, so the ids of single characters,
and with them the order of merges of equally frequent pairs, change from run to
run. Therefore it gets the characters in sorted order, as special tokens with
fixed ids.
"""

import collections
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from bert_keras import errors
from bert_keras.text import text_cleaning

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# The rarest characters, 1 in 50,000 of the text, become [UNK]. 17 MB of English
# keep 76 of 149 characters; 12 MB of Chinese all that occur twice.
COVERAGE = 0.99998

# Maximum fraction of characters in a small vocabulary, as long as there are
# longer wordpieces of the same frequency: Chinese must not crowd out English.
MAX_ALPHABET_FRACTION = 0.75

_CHARACTERS_PER_CALL = 1 << 16  # passed to the trainer at a time

# Splits text only where the pre-tokenizer splits it, too. The strings between
# are counted first, so that each distinct string is normalized once.
_CHINESE = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df"
_PUNCTUATION = r"!-/:-@\[-`{-~"
_PRE_SPLIT = re.compile(
    f"[{_CHINESE}{_PUNCTUATION}]|[^\\s{_CHINESE}{_PUNCTUATION}]+"
)

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

    def forms_of(character):
        if is_separate(character, normalizer):
            return [character]
        return [character, f"##{character}"]

    learner = learn_merges(
        count_words(texts, normalizer),
        size,
        specials=SPECIAL_TOKENS,
        forms_of=forms_of,
        merge=_merge,
        min_frequency=min_frequency,
    )
    return vocabulary(learner)


def learn_merges(
    words: Mapping[str, int],
    size: int,
    *,
    specials: Sequence[str],
    forms_of: Callable[[str], list[str]],
    merge: Callable[..., tokenizers.Tokenizer],
    min_frequency: int = 2,
) -> tokenizers.Tokenizer:
    """Selects the characters of the vocabulary, and merges them to `size`.

    words: {word: count}.
    forms_of: character -> its tokens, of which the first is of the beginning or
      of words of one character.
    merge: (words, special tokens and tokens of characters, size, minimum
      frequency of a pair) -> the trained tokenizer.
    """
    characters = count_characters(words, min_frequency)
    room = size - len(specials)
    if not characters or room < 1:
        raise errors.InputError(
            f"Expected a size above {len(specials)}, the "
            f"number of special tokens, and enough text; got size {size} and a "
            f"text in which {len(characters)} characters occur "
            f"{min_frequency} times."
        )
    forms = {c: forms_of(c) for c in characters}
    alphabet_size = min(
        sum(len(forms[c]) for c in covering(characters)),
        max(1, int(room * MAX_ALPHABET_FRACTION)),
    )
    while True:
        alphabet = _select_characters(forms, alphabet_size)
        dropped = [n for c, n in characters.items() if c not in alphabet]
        # Longer tokens must be as frequent as the best dropped character.
        is_last_try = not dropped or alphabet_size == room
        learner = merge(
            words,
            [
                *specials,
                *sorted(forms[c][0] for c in alphabet),
                *sorted(form for c in alphabet for form in forms[c][1:]),
            ],
            size,
            min_frequency if is_last_try else dropped[0],
        )
        learned = learner.get_vocab_size(with_added_tokens=False)
        missing = size - learned
        if not missing:
            return learner
        if is_last_try:
            raise errors.TooLittleTextError(
                f"Expected text for {size} tokens; this one gives "
                f"{learned} that occur at least {min_frequency} times. "
                f"Request {learned} or fewer, or give more text.",
                most=learned,
            )
        alphabet_size = min(room, alphabet_size + max(missing, room // 20))


def vocabulary(learner: tokenizers.Tokenizer) -> list[str]:
    """Returns the tokens of a trained tokenizer, by id."""
    ids = learner.get_vocab(with_added_tokens=False)
    return sorted(ids, key=lambda token: ids[token])


def count_words(
    texts: Iterable[str], normalizer: normalizers.Normalizer
) -> collections.Counter[str]:
    """Counts the normalized words."""
    raw: collections.Counter[str] = collections.Counter()
    for text in texts:
        raw.update(_PRE_SPLIT.findall(text))
    words: collections.Counter[str] = collections.Counter()
    for string, count in raw.items():
        for word in _split(string, normalizer):
            words[word] += count
    return words


def count_characters(
    words: Mapping[str, int], min_frequency: int
) -> dict[str, int]:
    """Counts the characters, in descending order of frequency."""
    counts: collections.Counter[str] = collections.Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    frequent = [(c, n) for c, n in counts.items() if n >= min_frequency]
    return dict(sorted(frequent, key=lambda item: (-item[1], item[0])))


def covering(characters: Mapping[str, int]) -> Iterator[str]:
    """Yields the most frequent characters that make up COVERAGE of the text."""
    missing = COVERAGE * sum(characters.values())
    for character, count in characters.items():
        if missing <= 0:
            return
        missing -= count
        yield character


def is_separate(character: str, normalizer: normalizers.Normalizer) -> bool:
    """Returns whether a character is always a word of its own."""
    return len(_split(f"a{character}a", normalizer)) > 1


def _select_characters(
    forms: Mapping[str, Sequence[str]], count: int
) -> set[str]:
    """Selects the most frequent characters, with at most `count` forms."""
    selected = set()
    for character, character_forms in forms.items():
        if len(character_forms) <= count:
            count -= len(character_forms)
            selected.add(character)
    return selected


def _merge(
    words: Mapping[str, int],
    alphabet: Sequence[str],
    size: int,
    min_frequency: int,
) -> tokenizers.Tokenizer:
    """Merges an alphabet into longer wordpieces, up to `size` in total.

    alphabet: special tokens and forms of characters.
    """
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        special_tokens=list(alphabet),
        limit_alphabet=0,
        show_progress=False,
    )
    learner.train_from_iterator(repeat_words(words, set(alphabet)), trainer)
    return learner


def repeat_words(words: Mapping[str, int], alphabet: set[str]) -> Iterator[str]:
    """Repeats each word by its count, because the trainer takes no counts.

    Skips words of one character, which have no pair to merge, and words that
    will be [UNK]: those with an unknown character, and those that are too long,
    whose training time would be quadratic in their length.
    """
    for word, count in words.items():
        if len(word) < 2 or len(word) > text_cleaning.MAX_WORD_LENGTH:
            continue
        if not alphabet.issuperset(word):
            continue
        per_call = max(1, _CHARACTERS_PER_CALL // len(word))
        for start in range(0, count, per_call):
            yield f"{word} " * min(per_call, count - start)


def _split(text: str, normalizer: normalizers.Normalizer) -> list[str]:
    clean = normalizer.normalize_str(text)
    return [word for word, _ in _PRE_TOKENIZER.pre_tokenize_str(clean)]
