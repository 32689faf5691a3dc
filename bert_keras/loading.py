"""Builds the model that a checkpoint describes and loads its weights."""

import contextlib

from bert_keras import checkpoint, commands, errors, layers, registry
from bert_keras import model as model_lib
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers


def load_model(
    source: checkpoint.Checkpoint, task: base.Task | None = None
) -> model_lib.BertModel:
    """Loads the saved model, or the saved encoder with another task's heads.

    With another task, a saved head is reused if its signature is the same.

    Raises InputError if `task` is no task, or if its texts can be longer than
    the network allows.
    """
    if task is not None:
        base.require_task(task)
        check_length(task, source.config)
    elif source.unknown_task_reason:
        raise registry.UnknownNameError(
            f"{source.folder}: {source.unknown_task_reason}"
        )
    task = task or source.task
    if task is None:
        reason = (
            source.unsupported_head_reason
            and f" that can be read: {source.unsupported_head_reason}"
        )
        raise errors.InputError(
            f"{source.folder} holds an encoder without a head{reason}; "
            f"fine-tune it with `{commands.command_line('finetune')}`."
        )
    source = source.for_task(task)
    source.check_shapes()
    head_names = source.matching_heads(task)
    with _skip_init_if(source.is_complete):
        encoder = source.config.build_encoder()
    with _skip_init_if(source.is_complete and head_names is None):
        model = model_lib.BertModel(encoder, task)
    source.load_encoder(encoder)
    if head_names is None or head_names:
        source.load_head(model.head, head_names)
    return model


def check_length(task: base.Task, network: networks.NetworkConfig) -> None:
    """Raises InputError if a row can be longer than the network allows."""
    longest = network.max_length
    if longest is not None and task.num_positions > longest:
        raise errors.InputError(
            f"seq_length={task.seq_length} makes texts of "
            f"{task.num_positions} tokens, but the network has {longest} "
            "positions; lower it.",
            argument="seq_length",
        )


def check_inputs(
    tokenizer: tokenizers.Tokenizer, network: networks.NetworkConfig
) -> None:
    """Raises InputError if the network does not read the tokenizer's ids."""
    if tokenizer.feature not in network.inputs:
        raise errors.InputError(
            f"the network {network.name} reads {', '.join(network.inputs)}, "
            f"and the tokenizer's ids are {tokenizer.feature}; prepare the "
            "records with the network's `tokenizer`, which is characters for "
            "elmo.",
            argument="model",
        )


def _skip_init_if(is_read: bool) -> contextlib.AbstractContextManager[None]:
    """Skips random initialisation if all weights will be loaded."""
    return layers.skip_init() if is_read else contextlib.nullcontext()
