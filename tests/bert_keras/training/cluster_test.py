"""Which worker writes."""

import json
import os
from unittest import mock

import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras.training import cluster


class WorkersTest(parameterized.TestCase):
    def index(self, hosts, job, number):
        """Of a process that TF_CONFIG describes; no other one is there."""
        config = {
            "cluster": hosts,
            "task": {"type": job, "index": number},
        }
        with mock.patch.dict(os.environ, TF_CONFIG=json.dumps(config)):
            strategy = mock.create_autospec(
                tf.distribute.MultiWorkerMirroredStrategy, instance=True
            )
            strategy.cluster_resolver = (
                tf.distribute.cluster_resolver.TFConfigClusterResolver()
            )
            workers = cluster.Workers(strategy)
            self.assertEqual(workers.is_chief, workers.index == 0)
            return workers.index

    def test_the_first_worker_is_chief_where_none_is_named(self):
        hosts = {"worker": ["a:1", "b:1", "c:1"]}
        indices = [self.index(hosts, "worker", n) for n in range(3)]
        self.assertEqual(indices, [0, 1, 2])

    def test_a_named_chief_comes_before_the_workers(self):
        hosts = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
        self.assertEqual(self.index(hosts, "chief", 0), 0)
        indices = [self.index(hosts, "worker", n) for n in range(2)]
        self.assertEqual(indices, [1, 2])

    def test_a_process_alone_is_chief(self):
        workers = cluster.Workers(tf.distribute.get_strategy())
        self.assertTrue(workers.is_chief)
        self.assertEqual(workers.count, 1)


if __name__ == "__main__":
    absltest.main()
