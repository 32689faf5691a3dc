"""Surgery on vocabulary and positions: the same model for other ids.

Each function gives a new model, and a new tokenizer where pieces change; what
it was given stays as it is. Weights that have no row per piece or per position
are copied.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from bert_keras import checkpoint, errors, layers, text_cleaning
from bert_keras import model as model_lib
from bert_keras.networks import base as networks
from bert_keras.networks import bert
from bert_keras.tasks import base, masked_lm
from bert_keras.tokenizers import base as tokenizers
from bert_keras.tokenizers import wordpiece

Resized = tuple[model_lib.BertModel, tokenizers.Tokenizer]
RowMap = Callable[[np.ndarray], np.ndarray]

# The weight of the coarse position beside the fine one (Su 2020, see below).
ALPHA = 0.4

TEXTS = 1024  # that go through the tokenizer at once

# Runs in which the tokenizer may find one word or several, but never part of a
# word: it splits at white space, at punctuation and around Chinese.
_WORDS = re.compile(r"[^ \t\r\n!-/:-@\[-`{-~\u3400-\u4dbf\u4e00-\u9fff]+")


def add_tokens(
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
    words: Iterable[str],
) -> Resized:
    """Appends words, which then are one piece each.

    A word is cleaned as text is (lower case, accents) and passed over when it
    is a piece. Its row starts as the mean of the rows of the pieces it was
    split into (those of [UNK] if it could not be), its bias in a masked-LM
    head likewise. Every id keeps its meaning: texts without a word that begins
    with a new one have the same ids and exactly the same hidden states.

    Raises InputError for a word that text is split within.
    """
    tokenizer = wordpiece.require(tokenizer, "Changing the vocabulary")
    existing = {"", *tokenizer.vocabulary}
    new = [word.strip() for word in words if word.strip() not in existing]
    cleaned = dict.fromkeys(_clean(tokenizer, tf.constant(new, tf.string)))
    new = [word for word in cleaned if word not in existing]
    grown = wordpiece.Tokenizer(
        (*tokenizer.vocabulary, *new), lowercase=tokenizer.lowercase
    )
    _check_whole(grown, new)
    pieces = _ids(tokenizer, new)

    def with_means(table):
        means = [table[ids].mean(axis=0, dtype=np.float64) for ids in pieces]
        means = np.reshape(means, (-1, *table.shape[1:]))
        return np.concatenate([table, means.astype(table.dtype)])

    return _with_pieces(model, grown, with_means), grown


def prune_tokens(
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
    texts: Iterable[str],
) -> Resized:
    """Keeps the special tokens and the pieces that occur in the texts.

    They stay in their order, so ids are mapped. Answers on these texts are
    unchanged; a masked LM can of course guess only pieces that are left.
    """
    tokenizer = wordpiece.require(tokenizer, "Changing the vocabulary")
    kept = np.array(sorted(_used(tokenizer, texts)))
    if len(kept) <= len(wordpiece.SPECIAL_TOKENS):
        raise errors.InputError(
            "expected texts with some of the vocabulary's wordpieces; found "
            "none. Are the texts empty, or is the vocabulary another "
            "language's?"
        )
    trimmed = wordpiece.Tokenizer(
        tokenizer.tokens(kept), lowercase=tokenizer.lowercase
    )
    return _with_pieces(model, trimmed, lambda table: table[kept]), trimmed


def resize_positions(
    model: model_lib.BertModel, length: int
) -> model_lib.BertModel:
    """Cuts the position table, or extends it to at most its length squared.

    With n positions, the vector of position i·n + j becomes
    p[j] + a / (1 - a) · (p[i] - p[0]), which leaves the first n exactly equal:
    the hierarchical decomposition of Su (https://kexue.fm/archives/7947, 2020)
    and bert4keras, a = 0.4. His RoBERTa guessed 55 % of the masks at 512
    tokens, 38 % at 1,536 without training, and 55 % again after 3,000 steps.
    Tiled copies of the table (Longformer, 2020) are for attention in windows;
    where every token sees all others, n tokens apart would look the same.

    A task whose rows are longer than a cut table reads shorter rows.
    """
    config = model.encoder.config
    here = config.max_length
    if here is None:
        raise errors.InputError(
            "positions are computed here: there is no table to resize, and "
            "texts may have any length."
        )
    if not 1 < length <= here**2:
        raise errors.InputError(
            f"expected 2 to {here**2:,} positions ({here}²), got {length:,}."
        )

    def resized(table):
        coarse, fine = np.divmod(np.arange(length), here)
        moved = ALPHA / (1 - ALPHA) * (table[coarse] - table[0])
        return (table[fine] + moved).astype(table.dtype)

    task = model.task
    if task is not None:
        short = min(task.seq_length, length)
        task = task.with_settings(seq_length=short)
    return _remade(
        model,
        dataclasses.replace(config, max_position_embeddings=length),
        task,
        {"embeddings/position": resized},
    )


def _with_pieces(
    model: model_lib.BertModel, tokenizer: wordpiece.Tokenizer, map_rows: RowMap
) -> model_lib.BertModel:
    task = model.task
    if task and isinstance(task.unwrapped, masked_lm.MaskedLM):
        task = task.adapt([], tokenizer)  # ids of [MASK] and others
    return _remade(
        model,
        dataclasses.replace(
            model.encoder.config, vocab_size=tokenizer.vocab_size
        ),
        task,
        {"embeddings/token": map_rows, "masked_lm/bias": map_rows},
    )


def _remade(
    model: model_lib.BertModel,
    config: networks.NetworkConfig,
    task: base.Task | None,
    changes: dict[str, RowMap],
) -> model_lib.BertModel:
    """A model of another shape with the weights of `model`.

    changes: what becomes of a weight, by path; the others are copied.
    """
    if not isinstance(config, bert.BertConfig):
        raise errors.InputError(
            "vocabulary and positions can be changed in a BERT; the network "
            f"is {config.name}."
        )
    with layers.skip_init():
        new = model_lib.BertModel(config.build_encoder(), task)
    models = [(model.encoder, new.encoder)]
    if task is not None:
        models.append((model.head, new.head))
    for source, target in models:
        values = checkpoint.weights(source)
        for path, variable in checkpoint.weights(target).items():
            change = changes.get(path, lambda value: value)
            variable.assign(change(values[path].numpy()))
    return new


def _check_whole(tokenizer: wordpiece.Tokenizer, words: list[str]) -> None:
    """Raises InputError unless each word, the last pieces, gives one id."""
    ids = _ids(tokenizer, words)
    own = range(tokenizer.vocab_size - len(words), tokenizer.vocab_size)
    split = [
        repr(word)
        for word, index, ids_of_word in zip(words, own, ids, strict=True)
        if ids_of_word != [index]
    ]
    if split:
        more = f" and {len(split) - 5} more" if len(split) > 5 else ""
        raise errors.InputError(
            "expected words that text is not split within; white space, "
            "punctuation, Chinese characters or the limit of 200 characters "
            f"split {', '.join(split[:5])}{more}. Leave them out."
        )


def _used(tokenizer: wordpiece.Tokenizer, texts: Iterable[str]) -> set[int]:
    """Ids of the special tokens, and all that the texts' ids depend on."""
    index = {piece: i for i, piece in enumerate(tokenizer.vocabulary)}
    used = {index[p] for p in wordpiece.SPECIAL_TOKENS if p in index}
    words: set[str] = set()
    for batch in _batches(texts):
        ids = tokenizer(batch)
        used.update(np.unique(ids.flat_values))
        lost = tf.reduce_any(ids == tokenizer.unk_id, axis=1)
        for text in _clean(tokenizer, tf.boolean_mask(batch, lost)):
            words.update(_WORDS.findall(text))
    # An unknown word was split up to where no piece goes on. Without those
    # pieces a shorter one might lead further, and to other ids.
    longest = max(map(len, tokenizer.vocabulary))
    for word, ids in zip(words, _ids(tokenizer, list(words)), strict=True):
        if tokenizer.unk_id not in ids:
            continue
        for start in range(len(word)):
            for end in range(start + 1, min(start + longest, len(word)) + 1):
                part = word[start:end]
                # A run that is several words has a beginning in its middle.
                for piece in (part, f"##{part}"):
                    if piece in index:
                        used.add(index[piece])
    return used


def _batches(texts: Iterable[str]) -> Iterator[tf.Tensor]:
    texts = iter(texts)
    while batch := list(itertools.islice(texts, TEXTS)):
        yield tf.constant(batch)


def _ids(
    tokenizer: wordpiece.Tokenizer, words: Sequence[str]
) -> list[list[int]]:
    return tokenizer(tf.constant(words, tf.string)).to_list()


def _clean(tokenizer: wordpiece.Tokenizer, texts: tf.Tensor) -> list[str]:
    """Texts (B,) as they are when they are split into words."""
    clean = text_cleaning.normalize(texts, lowercase=tokenizer.lowercase)
    return [text.decode() for text in clean.numpy()]
