"""Which devices a name of --strategy stands for."""

import os
from unittest import mock

import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.training import cluster, devices
from bert_keras.training import settings as settings_lib


class EnvironmentTest(absltest.TestCase):
    def test_weights_that_are_taken_for_constants_are_refused(self):
        settings = settings_lib.FinetuneSettings(output="runs/x")
        with mock.patch.dict(os.environ, {devices.FROZEN_WEIGHTS: "1"}):
            with self.assertRaisesRegex(errors.InputError, "Unset it"):
                with devices.configured(settings):
                    pass


class DevicesTest(parameterized.TestCase):
    def chosen(self, name, *, tpu="", workers=0, gpus=0):
        """What is made; TPUs, workers and GPUs are not here, so by name."""
        logical = [mock.Mock() for _ in range(gpus)]
        for number, gpu in enumerate(logical):
            gpu.name = f"gpu {number}"
        with (
            mock.patch.object(devices, "_tpu", return_value="TPU"),
            mock.patch.object(cluster, "in_cluster", return_value=workers),
            mock.patch.object(cluster, "make_strategy", return_value="workers"),
            mock.patch.object(
                tf.config, "list_logical_devices", lambda kind: logical
            ),
            mock.patch.object(
                tf.distribute, "MirroredStrategy", lambda names: names
            ),
            mock.patch.object(
                tf.distribute, "get_strategy", return_value="one"
            ),
        ):
            return devices.make_strategy.__wrapped__(name, tpu)

    def test_auto_takes_the_tpu_then_the_workers_then_the_gpus(self):
        everything = {"tpu": "here", "workers": 2, "gpus": 2}
        self.assertEqual(self.chosen("auto", **everything), "TPU")
        everything["tpu"] = ""
        self.assertEqual(self.chosen("auto", **everything), "workers")
        for few in (0, 1):
            everything["workers"] = few
            chosen = self.chosen("auto", **everything)
            self.assertEqual(chosen, ["gpu 0", "gpu 1"])
        for few in (0, 1):
            self.assertEqual(self.chosen("auto", gpus=few), "one")

    @parameterized.parameters(
        ("tpu", "TPU"),
        ("multi_worker_mirrored", "workers"),
        ("mirrored", ["gpu 0"]),
        ("one_device", "one"),
    )
    def test_a_name_is_taken_whatever_else_is_there(self, name, expected):
        self.assertEqual(self.chosen(name, gpus=1), expected)
        others = {"workers": 2, "gpus": 1}
        if name != "tpu":
            others["tpu"] = "here"
        self.assertEqual(self.chosen(name, **others), expected)

    def test_a_tpu_that_does_not_answer_is_named(self):
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver
        with mock.patch.object(
            resolver, "__init__", side_effect=ValueError("no such host")
        ):
            with self.assertRaisesRegex(
                errors.InputError, "tpu=far: no TPU answers there .no such host"
            ):
                devices.make_strategy.__wrapped__("tpu", "far")


if __name__ == "__main__":
    absltest.main()
