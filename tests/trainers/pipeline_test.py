"""A pipeline makes the update of accumulation over as many micro-batches."""

import collections
import functools
import os
import re
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.networks import bert
from bert_keras.tasks import classification
from bert_keras.training import devices as run_devices
from bert_keras.training import pipeline, settings
from tests import (
    devices,  # noqa: F401 (two CPUs)
    tiny,
)
from tests.trainers.runs import Run, batches

MICRO_BATCHES = 4
NETWORK = {"num_layers": 4}


def trained(task_name, **options):
    """{"losses": (20,), path of a variable: its value}, with dropout."""
    run = Run(
        task_name,
        micro_batches=MICRO_BATCHES,
        network=dict(NETWORK),
        clip_norm=0.1,
        dropout=0.1,
        **options,
    )
    return {"losses": np.array(run.train()), **run.weights()}


accumulated = functools.cache(trained)


class PipelineTest(parameterized.TestCase):
    @parameterized.parameters(
        ("masked_lm", 2, "1f1b"),  # the last stage reads the first one's table
        ("masked_lm", 3, "gpipe"),
        ("tagging", 2, "gpipe"),
        ("wrapped", 2, "1f1b"),  # two calls of the encoder
        ("masked_lm", 4, "1f1b"),
        ("replaced_tokens", 3, "1f1b"),
        ("multiple_choice", 2, "1f1b"),
        ("sequence_to_sequence", 2, "1f1b"),
        ("causal_lm", 2, "1f1b"),
    )
    @pytest.mark.slow_after(4)
    def test_updates_are_those_of_accumulation(self, name, stages, schedule):
        expected = accumulated(name)
        found = trained(name, stages=stages, schedule=schedule)
        self.assertEqual(set(found), set(expected))
        for path, values in expected.items():
            np.testing.assert_allclose(
                found[path], values, rtol=0, atol=1e-6, err_msg=path
            )

    def test_weights_and_slots_are_on_the_device_of_their_stage(self):
        run = Run("masked_lm", network=dict(NETWORK), stages=2)
        for variable, slots in zip(
            run.optimizer.variables, run.optimizer.slots, strict=True
        ):
            layer = run.model.encoder.config.layer_index(variable.path)
            number = 0 if layer <= 2 else 1
            for each in (variable.value, *slots):
                self.assertEndsWith(each.device, f"CPU:{number}", variable.path)
        for variable in run.model.encoder.non_trainable_variables:
            layer = run.model.encoder.config.layer_index(variable.path)
            number = 0 if layer <= 2 else 1
            self.assertEndsWith(variable.value.device, f"CPU:{number}")

    def test_each_block_is_computed_on_the_device_of_its_stage(self):
        run = Run("masked_lm", network=dict(NETWORK), micro_batches=2, stages=2)
        (batch,) = batches(run.task, 1)
        function = run.step._function.get_concrete_function(batch)
        devices_of = collections.defaultdict(set)
        for each in function.graph.get_operations():
            block = re.search(r"block_(\d)", each.name)
            if block and "MatMul" in each.type:
                devices_of[int(block[1])].add(each.device[-5:])
        self.assertEqual(
            devices_of,
            {0: {"CPU:0"}, 1: {"CPU:0"}, 2: {"CPU:1"}, 3: {"CPU:1"}},
        )

    def test_states_that_the_loss_reads_get_its_gradient(self):
        # All layers, of which some are in the first stage.
        make = functools.partial(
            classification.Classification,
            labels=("bad", "good"),
            pooling="layers",
        )
        expected = trained("classification", task=make())
        found = trained("classification", task=make(), stages=2)
        for path, values in expected.items():
            np.testing.assert_allclose(
                found[path], values, rtol=0, atol=1e-6, err_msg=path
            )

    def test_outputs_are_those_of_the_encoder(self):
        names = [d.name for d in tf.config.list_logical_devices("CPU")]
        encoder = bert.BertEncoder(tiny.bert(num_layers=5, norm_first=True))
        stages = pipeline.split(encoder.config, [*names, *names][:3])
        with tf.GradientTape() as tape:
            staged = pipeline.StagedEncoder(encoder, stages, tape, [[]] * 3)
            found = staged(**tiny.inputs(), attentions=True)
        expected = encoder(**tiny.inputs(), attentions=True)
        for one, other in zip(
            tf.nest.flatten(found), tf.nest.flatten(expected), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)

    @parameterized.parameters(
        # The stage s of 3 waits for the micro-batch that is 3 - s before.
        ("1f1b", 0, [None, None, None]),
        ("1f1b", 1, [None, None, 0]),
        ("1f1b", 2, [None, 0, 1]),
        ("1f1b", 4, [1, 2, 3]),
        ("gpipe", 4, [None, None, None]),
    )
    def test_a_stage_waits_for_its_backward_pass(self, schedule, count, waits):
        step = mock.create_autospec(pipeline.PipelinedStep, instance=True)
        step.stages = pipeline.Stages(("a", "b", "c"), ())
        step.schedule = schedule
        done = [
            [[f"{number} {stage}"] for stage in range(3)]
            for number in range(count)
        ]
        self.assertEqual(
            pipeline.PipelinedStep._waits(step, done),
            [
                [] if number is None else [f"{number} {stage}"]
                for stage, number in enumerate(waits)
            ],
        )

    def test_an_encoder_with_a_call_of_its_own_is_refused(self):
        class Other(bert.BertEncoder):
            def call(self, **inputs):
                return super().call(**inputs)

        with self.assertRaisesRegex(errors.InputError, "Other has a `call`"):
            pipeline.StagedEncoder(Other(tiny.bert()), None, None, [])

    @parameterized.parameters(
        ({"pipeline_stages": 2}, "", 2, 4),
        ({"pipeline_stages": 2, "micro_batches": 8}, "", 2, 8),
        (
            {"pipeline_stages": 2, "gradient_accumulation_steps": 6},
            "",
            *(2, 6),
        ),
        ({"num_gpus": 3}, "1", 3, 6),
        ({"pipeline_stages": 2}, "1", 2, 4),
        ({}, "1", 1, 1),
        ({"gradient_accumulation_steps": 2}, "", 1, 2),
    )
    def test_numbers(self, changes, variable, stages, micro_batches):
        with mock.patch.dict(
            os.environ, TF_PIPELINE_PARALLELISM_ENABLED=variable
        ):
            run = settings.TrainSettings(**changes)
            self.assertEqual(run_devices.num_stages(run), stages)
            self.assertEqual(run_devices.micro_batches(run), micro_batches)

    @parameterized.parameters(
        ({"pipeline_stages": 2, "num_gpus": 1}, "", "num_gpus=1 is another"),
        ({"pipeline_stages": 2, "num_gpus": 3}, "1", "Give one of them"),
        ({"elastic_shards": 4, "num_gpus": 2}, "1", "with pipeline_stages=2"),
        ({"elastic_shards": 4, "micro_batches": 2}, "", "micro_batches=2"),
        ({"elastic_shards": 4, "xla": True}, "", "with xla=true"),
    )
    def test_numbers_that_clash_are_refused(self, changes, variable, message):
        with (
            mock.patch.dict(
                os.environ, TF_PIPELINE_PARALLELISM_ENABLED=variable
            ),
            self.assertRaisesRegex(errors.InputError, message),
        ):
            run_devices.micro_batches(settings.TrainSettings(**changes))

    def test_layers_are_divided_evenly(self):
        for layers, count, expected in (
            (12, 2, [6, 6]),
            (5, 2, [3, 2]),
            (7, 3, [3, 2, 2]),
            (4, 4, [1, 1, 1, 1]),
        ):
            config = tiny.bert(num_layers=layers)
            names = [f"GPU:{number}" for number in range(count)]
            stages = pipeline.split(config, names)
            self.assertEqual(list(map(len, stages.blocks)), expected)
            self.assertEqual(
                [number for numbers in stages.blocks for number in numbers],
                list(range(layers)),
            )
            self.assertLen(stages.of_layers, layers + 2)
            self.assertEqual(stages.of_layers[expected[0]], "GPU:0")
            self.assertEqual(stages.of_layers[expected[0] + 1], "GPU:1")

    def test_networks_that_cannot_be_divided_are_refused(self):
        for config, message in (
            (tiny.bert(num_layers=2), "a layer or more for each stage"),
            (tiny.bert(num_layers=6, num_hidden_groups=1), "layers 2 and 3"),
            (tiny.elmo(), "a network of blocks"),
        ):
            with self.assertRaisesRegex(errors.InputError, message):
                pipeline.split(config, ["GPU:0", "GPU:1", "GPU:2"])
        # Each stage has groups of its own.
        config = tiny.bert(num_layers=4, num_hidden_groups=2)
        pipeline.split(config, ["GPU:0", "GPU:1"])


if __name__ == "__main__":
    absltest.main()
