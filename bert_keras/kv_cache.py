"""Key-value cache: a causal BERT reads a prompt once, then token by token.

A token of a causal network attends to itself and earlier ones only. So the keys
and values of a prompt stay the same when tokens are added, and a new token
costs one position instead of all.

`encoder` is a BertEncoder, or one whose own methods `read_prompts` and `step`
are called instead, as a recurrent network's.

Shapes: B batch, S prompt, T cache, H hidden, N heads, D width of a head.
"""

from typing import Any

from keras import ops

from bert_keras.types import Tensor

# {"layers": keys and values (B, N, T, D) of each layer; "position": (B,) int32,
# that of the next token}, or what the encoder's own method returns.
State = Any


def read_prompts(
    encoder: Any,
    *,
    token_ids: Tensor,
    padding_mask: Tensor,
    max_new_tokens: int,
) -> tuple[Tensor, State]:
    """Reads prompts of any lengths >= 1; returns their last tokens and a state.

    token_ids, padding_mask (B, S) int32, padding at the end -> ids (B,) int32.
    `step` takes both first. The cache has room for S + max_new_tokens tokens.
    """
    if hasattr(encoder, "read_prompts"):
        return encoder.read_prompts(
            token_ids=token_ids,
            padding_mask=padding_mask,
            max_new_tokens=max_new_tokens,
        )
    ones = ops.cast(ops.greater(padding_mask, 0), "int32")
    last = ops.maximum(ops.sum(ones, axis=1) - 1, 0)
    x, mask = encoder.start(
        token_ids=token_ids,
        padding_mask=ones,
        segment_ids=_segments(encoder, token_ids),
    )
    caches = []
    for block in encoder.blocks:
        x, cache = block.with_cache(x, mask)
        room = [[0, 0], [0, 0], [0, max_new_tokens], [0, 0]]
        caches.append(tuple(ops.pad(each, room) for each in cache))
    here = ops.equal(
        ops.arange(ops.shape(token_ids)[1], dtype="int32"),
        ops.expand_dims(last, 1),
    )
    ids = ops.sum(ops.where(here, token_ids, 0), axis=1)
    return ids, {"layers": caches, "position": last}


def step(encoder: Any, ids: Tensor, state: State) -> tuple[Tensor, State]:
    """Reads one more token of each row: ids (B,) -> hidden (B, 1, H), state.

    hidden: that of the last layer, as the encoder itself computes it.
    """
    if hasattr(encoder, "step"):
        return encoder.step(ids, state)
    position = state["position"]
    token_ids = ops.expand_dims(ids, 1)
    x = encoder.embeddings(
        token_ids,
        _segments(encoder, token_ids),
        ops.expand_dims(position, 1),
    )
    keys, _ = state["layers"][0]
    positions = ops.arange(ops.shape(keys)[2], dtype="int32")
    mask = ops.less_equal(positions, ops.expand_dims(position, 1))  # (B, T)
    mask = ops.expand_dims(mask, 1)
    caches = []
    for block, cache in zip(encoder.blocks, state["layers"], strict=True):
        x, cache = block.with_cache(x, mask, cache, position)
        caches.append(cache)
    if encoder.final_norm:
        x = encoder.final_norm(x)
    return x, {"layers": caches, "position": position + 1}


def _segments(encoder, token_ids):
    """Returns segment 0 for all tokens; None in a network of one segment."""
    if encoder.config.num_segments == 1:
        return None
    return ops.zeros_like(token_ids)
