"""Distribution strategy, precision and determinism of a run."""

import contextlib
import functools
import os
import platform
import re
from collections.abc import Iterator

import keras
import tensorflow as tf

from bert_keras import console, errors, options
from bert_keras.tasks import base
from bert_keras.training import cluster
from bert_keras.training import settings as settings_lib

# Tells oneDNN that weights are constants, as those of a server are.
FROZEN_WEIGHTS = "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"


@contextlib.contextmanager
def configured(
    settings: settings_lib.TrainSettings,
) -> Iterator[tf.distribute.Strategy]:
    """Sets seed, precision and determinism; yields the distribution strategy.

    Restores Keras' dtype policy on exit.
    """
    options.require("output", settings.output)
    if os.environ.get(FROZEN_WEIGHTS, "0").lower() in ("1", "true"):
        raise errors.InputError(
            f"{FROZEN_WEIGHTS}={os.environ[FROZEN_WEIGHTS]} is set: TensorFlow "
            "then computes each step with the weights of the first one. Unset "
            "it to train."
        )
    before = keras.config.dtype_policy()
    keras.utils.set_random_seed(settings.seed)
    keras.config.set_dtype_policy(settings.precision)
    try:
        if settings.deterministic:
            tf.config.experimental.enable_op_determinism()
        yield _start(settings)
    finally:
        keras.config.set_dtype_policy(before)


def _start(settings: settings_lib.TrainSettings) -> tf.distribute.Strategy:
    if settings_lib.AUTO_MIXED_IS_ON and settings.precision == "mixed_float16":
        console.say(f"{settings_lib.AUTO_MIXED}=1: precision=mixed_float16")
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    strategy = make_strategy(settings.strategy, settings.tpu)
    if not cluster.Workers(strategy).is_chief:
        console.be_quiet()
    shares = (
        strategy.num_replicas_in_sync * settings.gradient_accumulation_steps
    )
    if settings.batch_size < 1 or settings.batch_size % shares:
        raise errors.InputError(
            f"batch_size={settings.batch_size} must be a multiple of "
            f"{shares}: {strategy.num_replicas_in_sync} replicas times "
            f"gradient_accumulation_steps="
            f"{settings.gradient_accumulation_steps}.",
            argument="batch_size",
        )
    return strategy


def require_complete_batches(
    settings: settings_lib.TrainSettings,
    task: base.Task,
    strategy: tf.distribute.Strategy,
) -> None:
    """Raises InputError for rows that read each other in divided batches.

    Also for a batch of one such row, which has nothing to learn from.
    """
    if not task.reads_batch:
        return
    if settings.batch_size < 2:
        raise errors.InputError(
            f"batch_size={settings.batch_size}: expected 2 or more, because "
            f"{task.name} compares a row with other rows of its batch here.",
            argument="batch_size",
        )
    accumulated = settings.gradient_accumulation_steps
    if strategy.num_replicas_in_sync == 1 and accumulated == 1:
        return
    raise errors.InputError(
        f"{task.name}: a row is compared with other rows of its batch, so "
        "expected one replica and gradient_accumulation_steps=1, found "
        f"{strategy.num_replicas_in_sync} and {accumulated}; use "
        "strategy=one_device, and lower `batch_size` if memory is short.",
        argument="gradient_accumulation_steps",
    )


# Cached: two mirrored strategies over the same devices give the same key to
# different collectives, and runs under the second one fail.
@functools.cache
def make_strategy(name: str, tpu: str = "") -> tf.distribute.Strategy:
    if name == "tpu" or (name == "auto" and tpu):
        return _tpu(tpu)
    if name == "multi_worker_mirrored" or (
        name == "auto" and cluster.in_cluster() > 1
    ):
        return cluster.make_strategy()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([d.name for d in devices])
    return tf.distribute.get_strategy()


def describe(strategy: tf.distribute.Strategy) -> str:
    """Describes the hardware of a run, as "2 CPU cores (Intel Xeon)"."""
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    if isinstance(strategy, tf.distribute.TPUStrategy):
        text = f"{strategy.num_replicas_in_sync} TPU cores"
    elif gpus:
        text = ", ".join(f"{gpus.count(name)} x {name}" for name in set(gpus))
    else:
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count()
        )
        text = f"{cores} CPU cores ({_cpu_name()})"
    machines = cluster.Workers(strategy).count
    if machines > 1:
        text += f" on each of {machines} machines"
    replicas = strategy.num_replicas_in_sync
    return text if replicas == 1 else f"{text}, {replicas} replicas"


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            match = re.search(r"model name\s*: *(.+)", file.read())
    except OSError:
        match = None
    return match[1].strip() if match else platform.machine()


def _tpu(name: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:
        # Each library below raises its own class for an unknown TPU.
        raise errors.InputError(
            f"tpu={name}: no TPU answers there ({error}).", argument="tpu"
        ) from None
    return tf.distribute.TPUStrategy(resolver)
