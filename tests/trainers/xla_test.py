"""The step of every task compiles under XLA, which needs static shapes.

`python -m tests.trainers.xla_test --table` prints the differences.
"""

import sys
import time

import keras
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from tests import devices  # noqa: F401 (two CPUs)
from tests.trainers import runs

STEPS = 2
NETWORKS = {
    "albert": {"num_hidden_groups": 1, "embedding_size": 8},
    "pre-LN, swiglu": {"norm_first": True, "activation": "swiglu"},
    "sinusoidal, no segments": {"position": "sinusoidal", "num_segments": 1},
}
# Tasks on BERT, and some of them on its relatives. ELMo's and the recurrent
# networks have tasks of their own in `runs.TASKS`.
CASES = (
    *((name, "") for name in runs.TASKS),
    *(
        (name, network)
        for name in ("masked_lm", "tagging", "sequence_to_sequence")
        for network in NETWORKS
    ),
    *((name, "mixed_bfloat16") for name in ("masked_lm", "classification")),
)


def losses(task_name, network, *, xla):
    options = {}
    if network in NETWORKS:
        options["network"] = dict(NETWORKS[network])
    run = runs.Run(task_name, xla=xla, **options)
    return np.array(run.train(stop=STEPS)), run.weights()


def difference(task_name, network):
    """The largest difference of losses and weights that XLA makes."""
    policy = network if network.startswith("mixed") else "float32"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        plain, compiled = (
            losses(task_name, network, xla=xla) for xla in (False, True)
        )
    finally:
        keras.config.set_dtype_policy(before)
    loss = np.abs(plain[0] - compiled[0]).max()
    weights = max(
        np.abs(value - compiled[1][path]).max()
        for path, value in plain[1].items()
    )
    return loss, weights


class XlaTest(parameterized.TestCase):
    @parameterized.parameters(*CASES)
    @pytest.mark.slow
    def test_the_compiled_step_is_the_same(self, task_name, network):
        loss, weights = difference(task_name, network)
        limit = 2e-2 if network.startswith("mixed") else 1e-5
        self.assertLess(loss, limit)
        # A gradient near 0 may have another sign: two steps of up to 4e-5.
        self.assertLess(weights, 2e-4)


def table():
    print(f"{'task':22} {'network':24} {'loss':>8} {'weights':>8} seconds")
    for task_name, network in CASES:
        began = time.perf_counter()
        loss, weights = difference(task_name, network)
        print(
            f"{task_name:22} {network:24} {loss:8.1e} {weights:8.1e} "
            f"{time.perf_counter() - began:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["--table"]:
        table()
    else:
        absltest.main()
