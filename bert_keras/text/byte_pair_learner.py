"""Learns byte pairs with `</w>` at the end of words (Sennrich et al. 2016).

The trainer of Hugging Face's `tokenizers` merges the words that
wordpiece_learner counts, from an alphabet that it selects.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from bert_keras.text import wordpiece_learner
from bert_keras.text.byte_pairs import END_OF_WORD


def learn(
    texts: Iterable[str],
    size: int,
    *,
    specials: Sequence[str],
    lowercase: bool,
    min_frequency: int = 2,
) -> tuple[list[str], list[tuple[str, str]]]:
    """Learns a vocabulary of exactly `size` tokens; returns it and its merges.

    texts: read once; memory grows with the number of distinct words only.
    specials: the first tokens of the vocabulary; characters follow.
    min_frequency: occurrences that a character or a pair needs to be included.
    """
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)

    def forms_of(character):
        last = f"{character}{END_OF_WORD}"
        if wordpiece_learner.is_separate(character, normalizer):
            return [last]
        return [last, character]

    learner = wordpiece_learner.learn_merges(
        wordpiece_learner.count_words(texts, normalizer),
        size,
        specials=specials,
        forms_of=forms_of,
        merge=_merge,
        min_frequency=min_frequency,
    )
    merges = json.loads(learner.to_str())["model"]["merges"]
    return (
        wordpiece_learner.vocabulary(learner),
        [(first, second) for first, second in merges],
    )


def _merge(
    words: Mapping[str, int],
    alphabet: Sequence[str],
    size: int,
    min_frequency: int,
) -> tokenizers.Tokenizer:
    """Merges an alphabet into longer tokens, up to `size` in total."""
    learner = tokenizers.Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        special_tokens=list(alphabet),
        limit_alphabet=0,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    # A word with a character that is not in the alphabet is not learned from.
    characters = {token.removesuffix(END_OF_WORD) for token in alphabet}
    learner.train_from_iterator(
        wordpiece_learner.repeat_words(words, characters), trainer
    )
    return learner
