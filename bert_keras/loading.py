"""Builds the model that a checkpoint describes and loads its weights."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from bert_keras import (
    checkpoint,
    commands,
    errors,
    layers,
    model_card,
    registry,
)
from bert_keras import model as model_lib
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

# The table of token embeddings, in every network that has token_ids.
_TOKEN_TABLE = "embeddings/token"
_NEW_TOKENS_STDDEV = 0.02  # Radford et al. 2018, section 4.1


def load_model(
    source: checkpoint.Checkpoint, task: base.Task | None = None
) -> model_lib.BertModel:
    """Loads the saved model, or the saved encoder with another task's heads.

    With another task, a saved head is reused if its signature is the same.

    Raises InputError if `task` is no task, if its texts can be longer than the
    network allows, or if a saved head that it reuses is for another seq_length.
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
    if source.task is not None and (head_names is None or head_names):
        check_head_length(task, source.task, source.folder)
    with _skip_init_if(source.is_complete):
        encoder = source.config.build_encoder()
    with _skip_init_if(source.is_complete and head_names is None):
        model = model_lib.BertModel(encoder, task)
    source.load_encoder(encoder)
    if head_names is None or head_names:
        source.load_head(model.head, head_names)
    return model


def with_frame(
    source: checkpoint.Checkpoint, task: base.Task | None
) -> checkpoint.Checkpoint:
    """Returns a checkpoint whose tokenizer has what the task's rows need.

    If the tokenizer lacks the special tokens of the frame, as that of a
    pretrained GPT does, they are added to it, and rows to the table of token
    embeddings, drawn from N(0, 0.02) with Keras' global seed. Otherwise returns
    the source.
    """
    if task is None:
        return source
    base.require_task(task)
    if not task.reads_frame:
        return source
    tokenizer = source.tokenizer()
    framed = tokenizer.with_frame()
    if framed is tokenizer:
        return source
    count = framed.vocab_size - tokenizer.vocab_size
    config: Any = source.config
    # If only the target of a pair gets tokens, there is nothing to add to.
    if count and config.vocab_size != tokenizer.vocab_size:
        raise errors.InputError(
            f"{source.folder}: the vocabulary has {tokenizer.vocab_size:,} "
            f"entries and the network {config.vocab_size:,} token embeddings; "
            "expected as many, to add special tokens at their end."
        )
    draw = keras.initializers.RandomNormal(stddev=_NEW_TOKENS_STDDEV)
    return _Framed(
        folder=source.folder,
        config=dataclasses.replace(
            config, vocab_size=config.vocab_size + count
        ),
        task=source.task,
        step=source.step,
        metadata=source.metadata,
        run=source.run,
        unknown_task_reason=source.unknown_task_reason,
        unsupported_head_reason=source.unsupported_head_reason,
        source=source,
        framed=framed,
        rows=keras.ops.convert_to_numpy(draw((count, _columns(config))))
        if count
        else np.zeros((0, 0)),
    )


def _columns(config: networks.NetworkConfig) -> int:
    """The columns of the token table."""
    return getattr(config, "token_rank", None) or config.embedding_width


def new_tokens(source: checkpoint.Checkpoint) -> tuple[str, ...]:
    """Returns the tokens that `with_frame` added, in the order of their ids."""
    if not isinstance(source, _Framed):
        return ()
    old = source.framed.vocab_size - len(source.rows)
    return tuple(source.framed.vocabulary[old:])


@dataclasses.dataclass(frozen=True)
class _Framed(checkpoint.Checkpoint):
    """A checkpoint with more tokens, at the end of its vocabulary."""

    source: checkpoint.Checkpoint = dataclasses.field(kw_only=True)
    framed: tokenizers.Tokenizer = dataclasses.field(kw_only=True)
    rows: np.ndarray = dataclasses.field(kw_only=True)  # of the new tokens

    def tokenizer(self) -> tokenizers.Tokenizer:
        return self.framed

    def encoder_values(self) -> Mapping[str, np.ndarray]:
        values = dict(self.source.encoder_values())
        if not len(self.rows):
            return values
        values[_TOKEN_TABLE] = np.concatenate(
            [values[_TOKEN_TABLE], self.rows.astype(np.float32)]
        )
        return values

    def head_values(self) -> Mapping[str, np.ndarray]:
        return self.source.head_values()

    def card(self) -> model_card.Card | None:
        return self.source.card()

    @property
    def is_complete(self) -> bool:
        return self.source.is_complete

    def check_shapes(self) -> None:
        self.source.check_shapes()

    def for_task(self, task: base.Task) -> checkpoint.Checkpoint:
        return dataclasses.replace(self, source=self.source.for_task(task))

    def _assign(
        self,
        name: str,
        variables: Mapping[str, Any],
        values: Mapping[str, np.ndarray],
    ) -> None:
        self.source._assign(name, variables, values)


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


def check_head_length(task: base.Task, trained: base.Task, name: str) -> None:
    """Raises InputError if the heads of two tasks are for other lengths.

    name: that of the trained model, for the message.
    """
    length = trained.head_length
    if length != task.head_length:
        raise errors.InputError(
            f"seq_length={task.seq_length}: the head of {name} has weights for "
            f"each of {length} tokens; set seq_length={length}, or train a "
            "head with another pooling.",
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
            "records, or fine-tune, with the network's `tokenizer`, which is "
            "characters for elmo.",
            argument="model",
        )


def _skip_init_if(is_read: bool) -> contextlib.AbstractContextManager[None]:
    """Skips random initialisation if all weights will be loaded."""
    return layers.skip_init() if is_read else contextlib.nullcontext()
