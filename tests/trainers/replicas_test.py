"""Replicas, accumulation steps and processes give one and the same update.

`python -m tests.trainers.replicas_test --table` prints the differences.
"""

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from tests import devices  # noqa: F401 (two CPUs)
from tests.trainers.runs import Run

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")

TASK_NAMES = (
    "masked_lm",
    "causal_lm",
    "classification",
    "wrapped",
    "sampled",
    "elmo_tagging",
    "sequence_to_sequence",
    "bilstm_tagging",
    "gru_causal_lm",
)
# Their draws are of the row, too; two processes add nothing to that.
OBJECTIVES = ("replaced_tokens", "token_order", "all_of_masks")
# Strategy, its replicas, accumulation steps.
SHAPES = (
    ("one_device", 1, 4),
    ("mirrored", 2, 1),
    ("mirrored", 2, 2),
    ("multi_worker_mirrored", 2, 1),
    ("multi_worker_mirrored", 2, 2),
)

TWO_BY_TWO = ("mirrored", 2, 2)
OF_PROCESSES = SHAPES[3:]


def trained(task_name, strategy, micro_batches):
    """{"losses": (20,), path of a variable: its value}, with clipping."""
    run = Run(task_name, strategy, micro_batches, clip_norm=0.1)
    losses = np.array(run.train())
    return {"losses": losses, **run.weights()}


def addresses(count):
    """Ports of this machine that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    names = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return names


def start_workers(arguments, count=2):
    """The same command in `count` processes that know of each other."""
    hosts = addresses(count)
    return [
        subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=os.environ
            | {
                "TF_CONFIG": json.dumps(
                    {
                        "cluster": {"worker": hosts},
                        "task": {"type": "worker", "index": index},
                    }
                )
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


@functools.cache
def of_two_processes():
    """{(task_name, micro_batches): what each of two workers has in the end}."""
    with tempfile.TemporaryDirectory() as folder:
        workers = start_workers(["tests.trainers.replicas_test", folder])
        for worker in workers:
            _, error = worker.communicate()
            if worker.returncode:
                raise AssertionError(error)
        return {
            (task_name, micro_batches): [
                dict(
                    np.load(
                        os.path.join(
                            folder, f"{task_name}-{micro_batches}-{i}.npz"
                        )
                    )
                )
                for i in range(2)
            ]
            for task_name in TASK_NAMES
            for micro_batches in (1, 2)
        }


def worker(folder):
    """One of the two processes."""
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    for task_name in TASK_NAMES:
        for micro_batches in (1, 2):
            values = trained(task_name, "multi_worker_mirrored", micro_batches)
            path = os.path.join(
                folder, f"{task_name}-{micro_batches}-{index}.npz"
            )
            np.savez(path, **values)


alone = functools.cache(lambda task_name: trained(task_name, "one_device", 1))


def differences(task_name, strategy, micro_batches):
    """Largest of the losses and of the weights after 20 steps."""
    if strategy == "multi_worker_mirrored":
        values = of_two_processes()[task_name, micro_batches][0]
    else:
        values = trained(task_name, strategy, micro_batches)
    largest = {
        name: np.abs(value - values[name]).max()
        for name, value in alone(task_name).items()
    }
    loss = largest.pop("losses")
    return loss, max(largest.values())


class ReplicasTest(parameterized.TestCase):
    # Losses with random numbers on two replicas, and all of two processes:
    # another test needs these in any case.
    @parameterized.parameters(
        ("causal_lm", *SHAPES[0]),
        *((kind, *TWO_BY_TWO) for kind in ("masked_lm", "sampled", "wrapped")),
        ("drawn_labels", *TWO_BY_TWO),
        *((kind, *shape) for kind in TASK_NAMES for shape in OF_PROCESSES),
    )
    @pytest.mark.slow_after(1)
    def test_the_update_is_that_of_one_replica(
        self, task_name, strategy, replicas, micro_batches
    ):
        self.check(task_name, strategy, replicas, micro_batches)

    @parameterized.parameters(
        *((kind, *shape) for kind in TASK_NAMES for shape in SHAPES),
        *((kind, *shape) for kind in OBJECTIVES for shape in SHAPES[:3]),
    )
    @pytest.mark.slow
    def test_every_update_is_that_of_one_replica(
        self, task_name, strategy, replicas, micro_batches
    ):
        self.check(task_name, strategy, replicas, micro_batches)

    def check(self, task_name, strategy, replicas, micro_batches):
        del replicas
        loss, weights = differences(task_name, strategy, micro_batches)
        self.assertLess(loss, 1e-6)
        self.assertLess(weights, 1e-6)

    @pytest.mark.slow
    def test_both_workers_hold_the_same_bits(self):
        for (task_name, micro_batches), (
            one,
            two,
        ) in of_two_processes().items():
            for name, value in one.items():
                np.testing.assert_array_equal(
                    value, two[name], f"{task_name} {micro_batches} {name}"
                )


def table():
    print("task, strategy, replicas, accumulation steps, loss, weights")
    for task_name in TASK_NAMES:
        for strategy, replicas, micro_batches in SHAPES:
            loss, weights = differences(task_name, strategy, micro_batches)
            print(
                f"{task_name:15} {strategy:22} {replicas} {micro_batches} "
                f"{loss:.1e} {weights:.1e}"
            )


if __name__ == "__main__":
    if "TF_CONFIG" in os.environ:
        worker(sys.argv[1])
    elif sys.argv[1:] == ["--table"]:
        table()
    else:
        absltest.main()
