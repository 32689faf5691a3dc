"""Distribution strategy, precision and determinism of a run."""

import contextlib
import functools
from collections.abc import Iterator

import keras
import tensorflow as tf

from bert_keras import console, errors, options
from bert_keras.training import cluster
from bert_keras.training import settings as settings_lib


@contextlib.contextmanager
def configured(
    settings: settings_lib.TrainSettings,
) -> Iterator[tf.distribute.Strategy]:
    """Sets seed, precision and determinism; yields the distribution strategy.

    Restores Keras' dtype policy on exit.
    """
    options.require("output", settings.output)
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
