"""Makes a trained network smaller: fewer layers, fewer units, fewer numbers.

Each function returns a new model, whose answers are worse until it is trained.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np

from bert_keras import checkpoint, errors, layers, vocabulary_surgery
from bert_keras import model as model_lib
from bert_keras.networks import bert

_BLOCK = re.compile(r"block_(\d+)/")
_TABLE, _MAP = "embeddings/token", "embeddings/token_map"


def keep_layers(
    model: model_lib.BertModel, kept: Sequence[int]
) -> model_lib.BertModel:
    """Returns a model of some of the layers, in their order; others are copied.

    DistilBERT starts like that, from every second layer of its teacher (Sanh et
    al. 2019, section 3).

    kept: numbers from 0, ascending.
    """
    config = _transformer(model, "layers")
    if config.num_hidden_groups is not None:
        raise errors.InputError(
            "layers: the network's layers share their weights, so that fewer "
            "are a matter of num_layers alone.",
            argument="layers",
        )
    task = model.task
    if task is not None and task.unwrapped is not task:
        raise errors.InputError(
            f"layers: a model of {task.name} has weights for each of its "
            "layers; keep layers of the one that it was trained from.",
            argument="layers",
        )
    if not kept or list(kept) != sorted({*kept} & {*range(config.num_layers)}):
        raise errors.InputError(
            f"layers={','.join(map(str, kept))}: expected numbers from 0 to "
            f"{config.num_layers - 1}, ascending, such as 0,2,4.",
            argument="layers",
        )

    def source_of(path: str) -> str:
        return _BLOCK.sub(lambda block: f"block_{kept[int(block[1])]}/", path)

    return vocabulary_surgery.rebuild(
        model,
        dataclasses.replace(config, num_layers=len(kept)),
        task,
        source_of=source_of,
    )


def keep_units(model: model_lib.BertModel, size: int) -> model_lib.BertModel:
    """Returns a model with `size` units in each feed-forward layer.

    Those are kept whose weights are largest: by the product of the norms of
    what goes into a unit and of what comes out of it. Dense layers of fewer
    units are really smaller, unlike heads, whose number decides their width.
    """
    config = _transformer(model, "intermediate_size")
    if not 1 <= size <= config.intermediate_size:
        raise errors.InputError(
            f"intermediate_size={size}: expected 1 to "
            f"{config.intermediate_size:,}, what the network has.",
            argument="intermediate_size",
        )
    halves = 2 if config.activation in layers.GATED else 1
    values = checkpoint.weights(model.encoder)
    changes: dict[str, vocabulary_surgery.RowMap] = {}
    for path, outer in values.items():
        if not path.endswith("feed_forward/outer/kernel"):
            continue
        inner = path.replace("/outer/", "/inner/")
        into = values[inner].numpy().reshape(-1, halves, outer.shape[0])
        norms = np.linalg.norm(into, axis=(0, 1))
        norms = norms * np.linalg.norm(outer.numpy(), axis=1)
        kept = np.sort(np.argsort(-norms, kind="stable")[:size])
        columns = np.concatenate(
            [kept + half * outer.shape[0] for half in range(halves)]
        )
        changes[path] = functools.partial(np.take, indices=kept, axis=0)
        for name in (inner, inner.replace("kernel", "bias")):
            changes[name] = functools.partial(np.take, indices=columns, axis=-1)
    return vocabulary_surgery.rebuild(
        model,
        dataclasses.replace(config, intermediate_size=size),
        model.task,
        changes,
    )


def factorize_tokens(
    model: model_lib.BertModel, rank: int
) -> model_lib.BertModel:
    """Returns a model whose token table (V, E) is a product (V, R) (R, E).

    The product is the nearest one of this rank, by singular values (Eckart &
    Young 1936). ALBERT learns its small table from the start (Lan et al. 2020,
    section 3.1), and also has narrow segments and positions, which these are
    not.
    """
    config = _transformer(model, "token_rank")
    if config.token_rank is not None:
        raise errors.InputError(
            f"token_rank: the table is a product of rank {config.token_rank} "
            "already.",
            argument="token_rank",
        )
    if not 1 <= rank < config.embedding_width:
        raise errors.InputError(
            f"token_rank={rank}: expected 1 to {config.embedding_width - 1}, "
            "less than the width of the embeddings.",
            argument="token_rank",
        )
    table = checkpoint.weights(model.encoder)[_TABLE].numpy()
    if not np.isfinite(table).all():
        raise errors.InputError(
            "token_rank: the token table holds NaN or infinity: the weights "
            "are damaged."
        )
    # The right singular vectors, those of the largest values last.
    _, vectors = np.linalg.eigh(np.float64(table.T) @ table)
    vectors = vectors[:, -rank:].astype(np.float32)  # (E, R)
    return vocabulary_surgery.rebuild(
        model,
        dataclasses.replace(config, token_rank=rank),
        model.task,
        {
            _TABLE: lambda value: value @ vectors,
            _MAP: lambda value: vectors.T,
        },
        source_of=lambda path: _TABLE if path == _MAP else path,
    )


def _transformer(model: model_lib.BertModel, argument: str) -> bert.BertConfig:
    config = model.encoder.config
    if not isinstance(config, bert.BertConfig):
        raise errors.InputError(
            f"{argument}: expected a BERT network, found {config.name}.",
            argument=argument,
        )
    return config
