"""Pipeline stages: the layers of a network on several devices.

A batch is computed in micro-batches. While the second stage computes one, the
first computes the next (GPipe, Huang et al. 2019). A stage has a gradient tape
of its own, and its variables and their slots are on its device.
"""

import contextlib
import dataclasses
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from bert_keras import errors
from bert_keras.networks import base as networks
from bert_keras.networks import bert
from bert_keras.training import settings as settings_lib
from bert_keras.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class Stages:
    """Which layers are on which devices; see `split`.

    devices: one of each stage.
    blocks: the numbers of each stage's blocks.
    """

    devices: tuple[str, ...]
    blocks: tuple[range, ...]

    @property
    def of_layers(self) -> tuple[str, ...]:
        """The device of each layer index, from the embeddings to the heads."""
        return (
            self.devices[0],
            *(
                device
                for device, numbers in zip(
                    self.devices, self.blocks, strict=True
                )
                for _ in numbers
            ),
            self.devices[-1],
        )


def split(config: networks.NetworkConfig, devices: Sequence[str]) -> Stages:
    """Divides the layers evenly among the devices.

    The embeddings are on the first device, the heads on the last, and this one
    has fewer blocks if they cannot be divided evenly.

    InputError for a network that cannot be divided.
    """
    count, layers = len(devices), config.num_layers
    wanted = f"pipeline_stages={count}: expected"
    if not isinstance(config, bert.BertConfig):
        raise errors.InputError(
            f"{wanted} a network of blocks, such as BERT; "
            f"{config.describe()} has none.",
            argument="pipeline_stages",
        )
    if count > layers:
        raise errors.InputError(
            f"{wanted} a layer or more for each stage; the network has "
            f"{layers}.",
            argument="pipeline_stages",
        )
    starts = [-(-stage * layers // count) for stage in range(count + 1)]
    blocks = tuple(map(range, starts[:-1], starts[1:]))
    shared = [
        layer
        for layer in starts[1:-1]
        if config.group(layer) == config.group(layer - 1)
    ]
    if shared:
        raise errors.InputError(
            f"{wanted} layers with weights of their own; here layers "
            f"{shared[0]} and {shared[0] + 1} share them and would be on two "
            "devices.",
            argument="pipeline_stages",
        )
    return Stages(tuple(devices), blocks)


@dataclasses.dataclass
class _Part:
    """What a stage, but the last, has computed of one call of the encoder.

    source: the output of the stage before; zero, and not read, in the first.
    outputs: hidden states and attention distributions, by name.
    given: copies of `outputs` that the last stage reads.
    """

    stage: int
    tape: tf.GradientTape
    source: tf.Tensor
    outputs: dict[str, tf.Tensor]
    given: dict[str, tf.Tensor]
    last: str  # the output that the next stage reads


class StagedEncoder:
    """Calls an encoder stage by stage, each but the last under its own tape.

    A task's `forward` may get it in place of the encoder, under `tape`, which
    sees the last stage and the heads alone. `gradients` then goes back through
    all stages. It may be called several times. What a task reads of the encoder
    in another way, such as its embeddings, is computed under `tape`, too.

    wait_for: for each stage, tensors that it waits for.
    """

    def __init__(
        self,
        encoder: keras.Model,
        stages: Stages,
        tape: tf.GradientTape,
        wait_for: Sequence[Sequence[tf.Tensor]],
    ):
        if type(encoder).call is not bert.BertEncoder.call:
            raise errors.InputError(
                f"{type(encoder).__name__} has a `call` of its own, which "
                "pipeline stages would not run; leave them out.",
                argument="pipeline_stages",
            )
        self._encoder = encoder
        self._stages = stages
        self._tape = tape
        self._wait_for = wait_for
        self._parts: list[list[_Part]] = []  # of each call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def __call__(
        self,
        *,
        positions_read: tf.Tensor | None = None,
        attentions: bool = False,
        training: bool | None = None,
        **inputs: Any,
    ) -> dict[str, Any]:
        with self._tape.stop_recording():
            parts, mask = self._run_first(inputs, training)
        self._parts.append(parts)
        given: dict[str, tf.Tensor] = {}
        for part in parts:
            self._tape.watch(list(part.given.values()))
            given |= part.given
        hidden = [given[name] for name in given if name.startswith("hidden")]
        weights = [given[name] for name in given if name.startswith("attent")]
        numbers = self._stages.blocks[-1]
        with self._on(len(self._stages.devices) - 1):
            more, distributions = self._encoder.run_blocks(
                hidden[-1], mask, numbers[:-1], training=training
            )
            encoded, attention = self._encoder.run_last(
                [*hidden, *more],
                mask,
                inputs["padding_mask"],
                positions_read,
                training=training,
            )
        if attentions:
            encoded["attentions"] = [*weights, *distributions, attention]
        return encoded

    def _run_first(self, inputs, training):
        """Runs all stages but the last: their parts and the attention mask."""
        parts: list[_Part] = []
        mask, x = None, tf.constant(0.0)
        for stage, numbers in enumerate(self._stages.blocks[:-1]):
            outputs = {}
            with self._on(stage), tf.GradientTape() as tape:
                source = x = tf.identity(x)
                tape.watch(source)
                if stage == 0:
                    x, mask = self._encoder.start(**inputs, training=training)
                    outputs["hidden 0"] = x
                hidden, distributions = self._encoder.run_blocks(
                    x, mask, numbers, training=training
                )
            x = hidden[-1]
            for number, state, weights in zip(
                numbers, hidden, distributions, strict=True
            ):
                outputs[f"hidden {number + 1}"] = state
                outputs[f"attention {number + 1}"] = weights
            with tf.device(self._stages.devices[-1]):
                given = {k: tf.identity(v) for k, v in outputs.items()}
            last = f"hidden {numbers[-1] + 1}"
            parts.append(_Part(stage, tape, source, outputs, given, last))
        return parts, mask

    @contextlib.contextmanager
    def _on(self, stage: int) -> Iterator[None]:
        with (
            tf.device(self._stages.devices[stage]),
            tf.control_dependencies(self._wait_for[stage]),
        ):
            yield

    def gradients(
        self, total: tf.Tensor, variables: Sequence[tf.Variable]
    ) -> list[list[tf.Tensor | None]]:
        """Returns each stage's gradients of `total` by the variables.

        Of the last stage first: the order in which they are computed.
        """
        given = [part.given for parts in self._parts for part in parts]
        with tf.device(self._stages.devices[-1]):
            own, into = self._tape.gradient(total, [list(variables), given])
        by_stage = {len(self._stages.devices) - 1: [own]}
        remaining = iter(into)
        for parts in self._parts:
            found = [next(remaining) for _ in parts]
            for stage, gradients in self._back(parts, found, variables):
                by_stage.setdefault(stage, []).append(gradients)
        return [
            [_sum(each) for each in zip(*calls, strict=True)]
            for _, calls in sorted(by_stage.items(), reverse=True)
        ]

    def _back(self, parts, found, variables):
        """Yields (stage, gradients by the variables) of one call.

        found: for each part the gradients of what it gave to the last stage.
        """
        from_next = None
        for part, into in reversed(list(zip(parts, found, strict=True))):
            with tf.device(self._stages.devices[part.stage]):
                into = dict(into)
                into[part.last] = _sum([into[part.last], from_next])
                reached = [k for k, v in into.items() if v is not None]
                gradients, from_next = part.tape.gradient(
                    [part.outputs[name] for name in reached],
                    [list(variables), part.source],
                    output_gradients=[into[name] for name in reached],
                )
            yield part.stage, gradients


def _sum(gradients: Sequence[Any]) -> Any:
    """Adds up gradients where there are some; None if there is none."""
    present = [g for g in gradients if g is not None]
    if len(present) < 2:
        return present[0] if present else None
    return tf.add_n([tf.convert_to_tensor(g) for g in present])


@dataclasses.dataclass(eq=False)
class PipelinedStep(step_lib.TrainStep):
    """A TrainStep whose micro-batches go through stages.

    It computes what accumulation over as many micro-batches computes, in the
    same order.
    """

    stages: Stages = Stages((), ())
    schedule: str = settings_lib.ONE_BY_ONE

    def _accumulate(self, batch, terms, term_factors, first_micro_batch):
        parts = self._micro_batches(batch)
        variables = [v.value for v in self.optimizer.variables]
        totals: list[tf.Tensor | None] = [None] * len(variables)
        sums = tf.zeros(len(terms) + 1)
        done: list[list[list[tf.Tensor]]] = []  # of micro-batches, of stages
        for index in range(self.accumulation_steps):
            micro_batch = tf.nest.map_structure(
                operator.itemgetter(index), parts
            )
            self._seed_dropout(batch["step"], first_micro_batch + index)
            with tf.GradientTape() as tape:
                encoder = StagedEncoder(
                    self.model.encoder, self.stages, tape, self._waits(done)
                )
                with tf.device(self.stages.devices[-1]):
                    total, losses = self._losses(
                        micro_batch, terms, term_factors, encoder
                    )
            by_stage = encoder.gradients(total, variables)
            for gradients in by_stage:
                self._add(totals, gradients)
            done.append(
                [[g for g in each if g is not None] for each in by_stage[::-1]]
            )
            sums += losses
        self.has_gradient[:] = [total is not None for total in totals]
        return [
            tf.zeros(v.shape) if total is None else total
            for total, v in zip(totals, variables, strict=True)
        ], sums

    def _waits(self, done):
        """Returns, by stage, what the next micro-batch waits for.

        done: the gradients of the micro-batches before, by stage.
        """
        count = len(self.stages.devices)
        is_one_by_one = self.schedule == settings_lib.ONE_BY_ONE
        waits = []
        for stage in range(count):
            before = len(done) - (count - stage)
            waits_here = is_one_by_one and before >= 0
            waits.append(done[before][stage] if waits_here else [])
        return waits

    def _add(self, totals, gradients):
        """Adds gradients to `totals`, each on its variable's device."""
        for index, gradient in enumerate(gradients):
            if gradient is None:
                continue
            with self.optimizer.on_device_of(index):
                gradient = self._dense(gradient, index)
                before = totals[index]
                if before is not None:
                    gradient = before + gradient
                totals[index] = gradient
