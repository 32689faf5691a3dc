"""Adds tokens, removes tokens and resizes positions of a trained model.

Each function returns a new model, and a new tokenizer if the vocabulary
changes; its arguments are not modified. Weights without a row per token or
position are copied.
"""

import dataclasses
import itertools
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from bert_keras import checkpoint, errors, layers
from bert_keras import model as model_lib
from bert_keras.networks import base as networks
from bert_keras.networks import bert
from bert_keras.tasks import base, causal_lm, masked_lm
from bert_keras.text import text_cleaning
from bert_keras.tokenizers import base as tokenizers
from bert_keras.tokenizers import wordpiece

Resized = tuple[model_lib.BertModel, tokenizers.Tokenizer]
RowMap = Callable[[np.ndarray], np.ndarray]

# The weight `a` in resize_positions.
ALPHA = 0.4

TEXTS = 1024  # tokenized at once

_NO_CHANGES: Mapping[str, RowMap] = types.MappingProxyType({})

# Matches runs of one or more complete words: the tokenizer splits at white
# space, at punctuation and around Chinese characters.
_WORDS = re.compile(r"[^ \t\r\n!-/:-@\[-`{-~\u3400-\u4dbf\u4e00-\u9fff]+")


def add_tokens(
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
    words: Iterable[str],
) -> Resized:
    """Appends words to the vocabulary, so that each becomes one wordpiece.

    Words are normalised like text and skipped if they are
    in the vocabulary. The embedding of a new word is the mean of the embeddings
    of the wordpieces it was split into ([UNK] if it could not be split), and
    likewise its bias in a masked-LM head. Existing ids do not change: texts
    without a word that begins with a new one have the same ids and exactly the
    same hidden states.

    Raises InputError for a word that the tokenizer splits.
    """
    tokenizer = wordpiece.require(tokenizer, "Changing the vocabulary")
    existing = {"", *tokenizer.vocabulary}
    new = [word.strip() for word in words if word.strip() not in existing]
    cleaned = dict.fromkeys(_clean(tokenizer, tf.constant(new, tf.string)))
    new = [word for word in cleaned if word not in existing]
    grown = wordpiece.Tokenizer(
        (*tokenizer.vocabulary, *new), lowercase=tokenizer.lowercase
    )
    _check_not_split(grown, new)
    ids_of_words = _ids(tokenizer, new)

    def with_means(table):
        means = [
            table[ids].mean(axis=0, dtype=np.float64) for ids in ids_of_words
        ]
        means = np.reshape(means, (-1, *table.shape[1:]))
        return np.concatenate([table, means.astype(table.dtype)])

    return _with_vocabulary(model, grown, with_means), grown


def prune_tokens(
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
    texts: Iterable[str],
) -> Resized:
    """Removes all tokens that do not occur in the texts, except special ones.

    The order of the remaining ones is kept, and ids are renumbered. Answers on
    these texts do not change, but a masked LM predicts only remaining tokens.
    """
    tokenizer = wordpiece.require(tokenizer, "Changing the vocabulary")
    kept = np.array(sorted(_used(tokenizer, texts)))
    if len(kept) <= len(wordpiece.SPECIAL_TOKENS):
        raise errors.InputError(
            "expected texts with some of the vocabulary's wordpieces; found "
            "none. Are the texts empty, or is the vocabulary another "
            "language's?"
        )
    pruned = wordpiece.Tokenizer(
        tokenizer.tokens(kept), lowercase=tokenizer.lowercase
    )
    return _with_vocabulary(model, pruned, lambda table: table[kept]), pruned


def resize_positions(
    model: model_lib.BertModel, length: int
) -> model_lib.BertModel:
    """Truncates or extends the position table, at most to its length squared.

    With n positions, the embedding of position i·n + j becomes
    p[j] + a / (1 - a) · (p[i] - p[0]), so the first n do not change: the
    hierarchical decomposition of Su (https://kexue.fm/archives/7947, 2020) and
    bert4keras, with a = 0.4. For n = 512, position 1,034 = 2·512 + 10 becomes
    p[10] + 2/3 · (p[2] - p[0]). Su's RoBERTa predicted 55 % of the masks at 512
    tokens, 38 % at 1,536 without training, and 55 % again after 3,000 steps.
    Tiled copies of the table (Longformer, 2020) suit attention in windows; with
    full attention, positions n tokens apart would be indistinguishable.

    A task with rows longer than the new table gets a shorter seq_length.
    Raises InputError if its head has weights for each of its tokens.
    """
    config = model.encoder.config
    length_now = config.max_length
    if length_now is None:
        raise errors.InputError(
            "positions are computed here: there is no table to resize, and "
            "texts may have any length."
        )
    if not 1 < length <= length_now**2:
        raise errors.InputError(
            f"expected 2 to {length_now**2:,} positions ({length_now}²), got "
            f"{length:,}."
        )

    def resized(table):
        coarse, fine = np.divmod(np.arange(length), length_now)
        offset = ALPHA / (1 - ALPHA) * (table[coarse] - table[0])
        return (table[fine] + offset).astype(table.dtype)

    task = model.task
    if task is not None:
        short = min(task.seq_length, length)
        if (task.head_length or 0) > length:
            raise errors.InputError(
                f"{length} positions are too few for the head, which has "
                f"weights for each of {task.head_length} tokens; expected at "
                "least as many, or a head with another pooling."
            )
        task = task.with_settings(seq_length=short)
    return rebuild(
        model,
        dataclasses.replace(config, max_position_embeddings=length),
        task,
        {"embeddings/position": resized},
    )


def _with_vocabulary(
    model: model_lib.BertModel, tokenizer: wordpiece.Tokenizer, map_rows: RowMap
) -> model_lib.BertModel:
    task = model.task
    language_models = causal_lm.CausalLM, masked_lm.MaskedLM
    if task and isinstance(task.unwrapped, language_models):
        task = task.adapt([], tokenizer)  # ids of [MASK] and others
    return rebuild(
        model,
        dataclasses.replace(
            model.encoder.config, vocab_size=tokenizer.vocab_size
        ),
        task,
        {"embeddings/token": map_rows},
        head_changes={"masked_lm/bias": map_rows},
    )


def rebuild(
    model: model_lib.BertModel,
    config: networks.NetworkConfig,
    task: base.Task | None,
    changes: Mapping[str, RowMap] = _NO_CHANGES,
    head_changes: Mapping[str, RowMap] = _NO_CHANGES,
    source_of: Callable[[str], str] = str,
) -> model_lib.BertModel:
    """Builds a model with another config from the weights of `model`.

    changes, head_changes: map the path of a weight, of the encoder and of the
      heads, to a function of its values; all other weights are copied.
    source_of: returns the path in the encoder of `model` that a weight of the
      new encoder is copied from.
    """
    if not isinstance(config, bert.BertConfig):
        raise errors.InputError(
            "changing vocabulary, positions and layers: expected a BERT "
            f"network, found {config.name}."
        )
    with layers.skip_init():
        new = model_lib.BertModel(config.build_encoder(), task)
    models = [(model.encoder, new.encoder, changes, source_of)]
    if task is not None:
        models.append((model.head, new.head, head_changes, str))
    for source, target, own, origin in models:
        values = checkpoint.weights(source)
        for path, variable in checkpoint.weights(target).items():
            change = own.get(path, lambda value: value)
            value = change(values[origin(path)].numpy())
            if value.shape != tuple(variable.shape):
                raise errors.InputError(
                    f"{path} is {value.shape} in the model and "
                    f"{tuple(variable.shape)} in the changed network, whose "
                    f"{task.name if task else 'head'} depends on what changes. "
                    "Change the encoder that it was trained from, and train "
                    "again."
                )
            variable.assign(value)
    return new


def _check_not_split(tokenizer: wordpiece.Tokenizer, words: list[str]) -> None:
    """Raises InputError unless each word is tokenized to its own single id.

    The words are the last entries of the vocabulary.
    """
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
            "these words are split at white space, punctuation, Chinese "
            "characters or the limit of 200 characters: "
            f"{', '.join(split[:5])}{more}. Leave them out."
        )


def _used(tokenizer: wordpiece.Tokenizer, texts: Iterable[str]) -> set[int]:
    """Returns the ids of special tokens and of all that affect tokenization."""
    index = {piece: i for i, piece in enumerate(tokenizer.vocabulary)}
    used = {index[p] for p in wordpiece.SPECIAL_TOKENS if p in index}
    words: set[str] = set()
    for batch in _batches(texts):
        ids = tokenizer(batch)
        used.update(np.unique(ids.flat_values))
        has_unk = tf.reduce_any(ids == tokenizer.unk_id, axis=1)
        for text in _clean(tokenizer, tf.boolean_mask(batch, has_unk)):
            words.update(_WORDS.findall(text))
    # Also keep the wordpieces inside unknown words. Longest match failed where
    # no wordpiece fits; with these removed, a shorter match might succeed
    # and the word would no longer be [UNK].
    longest = max(map(len, tokenizer.vocabulary))
    for word, ids in zip(words, _ids(tokenizer, list(words)), strict=True):
        if tokenizer.unk_id not in ids:
            continue
        for start in range(len(word)):
            for end in range(start + 1, min(start + longest, len(word)) + 1):
                part = word[start:end]
                # A run can have several words, so a word may start anywhere.
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
    """Normalises texts (B,) as the tokenizer does before splitting words."""
    clean = text_cleaning.normalize(texts, lowercase=tokenizer.lowercase)
    return [text.decode() for text in clean.numpy()]
