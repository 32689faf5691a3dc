"""What each head of an encoder attends to in a text, layer by layer.

Beside the attention there is the entropy of each head's distributions, with and
without the division of the scores by sqrt(d_k) (Vaswani et al. 2017, section
3.2.1), and what a masked LM head predicts from the hidden states of each layer.
"""

import dataclasses
import math
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, formats, predictor, token_vectors
from bert_keras.data import packing
from bert_keras.networks import base as networks
from bert_keras.networks import bert
from bert_keras.tasks import masked_lm
from bert_keras.tokenizers import base as tokenizers
from bert_keras.types import StrPath

_HEAD = "masked_lm"


@dataclasses.dataclass(frozen=True)
class MaskPredictions:
    """What each layer predicts for one [MASK].

    position: its index in the row. tokens: for each of the L + 1 layers the k
    most probable tokens, 0 is the embeddings. probabilities (L + 1, k) float32.
    """

    position: int
    tokens: tuple[tuple[str, ...], ...]
    probabilities: np.ndarray


@dataclasses.dataclass(frozen=True)
class SelfAttention:
    """The attention of each head in a text of S tokens.

    tokens: those of the row, with special tokens. segments: 0 or 1 for each.
    weights (L, N, S, S) float32: [layer, head, query, key]; rows add up to 1.
    entropy (L, N): the mean over the queries of the entropy of their weights,
      in nats; log(S) is that of equal weights.
    unscaled_entropy (L, N): the same of softmax(Q K'), without the division of
      the scores by sqrt(d_k).
    head_width: d_k.
    masks: one for each [MASK], if the model has a masked LM head.
    has_masked_lm: whether it has.
    """

    tokens: tuple[str, ...]
    segments: tuple[int, ...]
    weights: np.ndarray
    entropy: np.ndarray
    unscaled_entropy: np.ndarray
    head_width: int
    masks: tuple[MaskPredictions, ...]
    has_masked_lm: bool


def load(checkpoint: StrPath) -> predictor.Predictor:
    """Loads a checkpoint with its masked LM head, or without any head."""
    source = formats.read(os.fspath(checkpoint))
    if isinstance(source.task, masked_lm.MaskedLM):
        return predictor.load(checkpoint)
    # Its rows are not read: any length that every network has positions for.
    reader = token_vectors.TokenVectors(seq_length=_least(source.config))
    return predictor.load(checkpoint, task=reader)


def self_attention(
    model: predictor.Predictor,
    text: str,
    text_pair: str | None = None,
    *,
    top_k: int = 5,
) -> SelfAttention:
    """Runs a BERT network on a text or a pair of texts.

    text: [MASK] and other special tokens in it are read as such tokens.
    top_k: how many predictions for each [MASK].

    Raises InputError for another network, for a text without tokens or with
    more than the network has positions for, for a pair if the network has one
    segment, and for weights that give NaN.

    >>> from bert_keras import self_attention
    >>> model = bert_keras.load("runs/base")
    >>> found = self_attention.self_attention(model, "a fine [MASK]")
    >>> found.tokens
    ('[CLS]', 'a', 'fine', '[MASK]', '[SEP]')
    >>> found.weights.shape
    (2, 2, 5, 5)
    """
    encoder: Any = model.model.encoder
    if not isinstance(encoder, bert.BertEncoder):
        raise errors.InputError(
            "expected a BERT network, whose layers have heads of "
            f"self-attention; this one is {model.model.encoder.config.name}."
        )
    features = _row(model.tokenizer, encoder.config, text, text_pair)
    inputs = {name: features[name] for name in encoder.config.inputs}
    encoded = encoder(**inputs, attentions=True, training=False)
    weights = np.stack([np.asarray(each)[0] for each in encoded["attentions"]])
    if not np.isfinite(weights).all():
        raise errors.InputError(
            "the attention holds NaN or infinity: the weights are damaged."
        )
    unscaled = [
        _unscaled(encoder, layer, hidden)
        for layer, hidden in enumerate(encoded["hidden"][:-1])
    ]
    ids = features["token_ids"]
    has_head = isinstance(model.task.unwrapped, masked_lm.MaskedLM)
    return SelfAttention(
        tuple(
            token.decode()
            for token in model.tokenizer.token_texts(ids).numpy()[0]
        ),
        tuple(features["segment_ids"].numpy()[0].tolist()),
        weights,
        _entropy(weights),
        np.stack([_entropy(each) for each in unscaled]),
        encoder.config.head_width,
        _masks(model, encoded["hidden"], ids, top_k) if has_head else (),
        has_head,
    )


def _least(config: networks.NetworkConfig) -> int:
    return min(config.max_length or 128, 128)


def _row(
    tokenizer: tokenizers.Tokenizer,
    config: bert.BertConfig,
    text: str,
    text_pair: str | None,
) -> dict[str, tf.Tensor]:
    """Returns the network's inputs for the texts, as one row."""
    texts = [text] if text_pair is None else [text, text_pair]
    if text_pair is not None and config.num_segments < 2:
        raise errors.InputError(
            "text_pair: expected a network with two segments; this one has "
            "one. Leave it out.",
            argument="text_pair",
        )
    ids = [
        tokenizer(tf.constant([each]), special_tokens=True) for each in texts
    ]
    counts = [int(each.row_lengths()[0]) for each in ids]
    if not all(counts):
        empty = ("text", "text_pair")[counts.index(0)]
        raise errors.InputError(
            f"{empty}: expected a text with at least one token, found "
            f"{texts[counts.index(0)]!r}.",
            argument=empty,
        )
    special = -tokenizer.frame.capacity(0, len(texts))
    length, most = sum(counts) + special, config.max_length
    if most is not None and length > most:
        raise errors.InputError(
            f"the text has {length:,} tokens, special tokens included, and the "
            f"network positions for {most:,}; shorten it.",
            argument="text",
        )
    return packing.pack(ids, tokenizer.frame, seq_length=length)


def _unscaled(
    encoder: bert.BertEncoder, layer: int, hidden: tf.Tensor
) -> np.ndarray:
    """Returns softmax(Q K') of a layer's input (1, S, H) -> (N, S, S)."""
    config, block = encoder.config, encoder.blocks[layer]
    if config.norm_first:
        hidden = block.attention_norm(hidden)
    query, key = (
        np.asarray(keras.ops.cast(each[0], "float32"), np.float64)
        for each in block.attention.project(hidden)[:2]
    )  # (N, S, D)
    scores = query @ key.transpose(0, 2, 1)
    if config.causal:
        scores = np.where(np.tri(scores.shape[-1]) > 0, scores, -math.inf)
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _entropy(weights: np.ndarray) -> np.ndarray:
    """The mean entropy of distributions, (..., S, S) -> (...), in nats."""
    weights = weights.astype(np.float64)
    logs = np.log(np.where(weights > 0, weights, 1))
    return -(weights * logs).sum(axis=-1).mean(axis=-1)


def _masks(
    model: predictor.Predictor,
    hidden: list[tf.Tensor],
    ids: tf.Tensor,
    top_k: int,
) -> tuple[MaskPredictions, ...]:
    """Sends the states of each [MASK] in each layer through the LM head."""
    positions = np.flatnonzero(ids.numpy()[0] == model.tokenizer.mask_id)
    if not len(positions):
        return ()
    encoder: Any = model.model.encoder
    head: Any = model.model.head.by_name()[_HEAD]
    states = tf.stack([each[0] for each in hidden])  # (L + 1, S, H)
    if encoder.final_norm:  # the last layer is normalized already
        states = tf.concat([encoder.final_norm(states[:-1]), states[-1:]], 0)
    states = tf.gather(states, positions, axis=1)
    logits = head(states, None, encoder.token_table)  # (L + 1, P, V)
    top_k = min(top_k, model.tokenizer.vocab_size)
    best, tokens = tf.math.top_k(tf.nn.softmax(logits), top_k)
    names = model.tokenizer.token_texts(tokens).numpy()
    return tuple(
        MaskPredictions(
            int(position),
            tuple(
                tuple(token.decode() for token in layer[index])
                for layer in names
            ),
            best.numpy()[:, index],
        )
        for index, position in enumerate(positions)
    )
