"""Keeps some layers of a trained model, such as every second one."""

import dataclasses
import re
from collections.abc import Sequence

from bert_keras import errors, vocabulary_surgery
from bert_keras import model as model_lib
from bert_keras.networks import bert

_BLOCK = re.compile(r"block_(\d+)/")


def keep_layers(
    model: model_lib.BertModel, layers: Sequence[int]
) -> model_lib.BertModel:
    """Returns a model of some of the layers, in their order; others are copied.

    DistilBERT starts like that, from every second layer of its teacher (Sanh et
    al. 2019, section 3). Its answers are bad until it is trained.

    layers: numbers from 0, ascending.
    """
    config = model.encoder.config
    if not isinstance(config, bert.BertConfig):
        raise errors.InputError(
            f"layers: expected a BERT network, found {config.name}.",
            argument="layers",
        )
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
    if not layers or list(layers) != sorted(
        {*layers} & {*range(config.num_layers)}
    ):
        raise errors.InputError(
            f"layers={','.join(map(str, layers))}: expected numbers from 0 to "
            f"{config.num_layers - 1}, ascending, such as 0,2,4.",
            argument="layers",
        )

    def source_of(path: str) -> str:
        return _BLOCK.sub(lambda block: f"block_{layers[int(block[1])]}/", path)

    return vocabulary_surgery.rebuild(
        model,
        dataclasses.replace(config, num_layers=len(layers)),
        task,
        source_of=source_of,
    )
