"""Distribution strategy, precision and determinism of a run."""

import contextlib
import functools
import os
import platform
import re
from collections.abc import Iterator

import keras
import tensorflow as tf

from bert_keras import console, errors, options, placement
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.training import cluster, cluster_hosts, pipeline
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
    stages = num_stages(settings)
    if stages > 1:
        _require_pipeline_alone(settings, stages)
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
    if num_stages(settings) > 1:
        strategy = tf.distribute.get_strategy()
        names = pipeline_devices(settings)
        if os.environ.get(settings_lib.PIPELINE) == "1":
            console.say(
                f"{settings_lib.PIPELINE}=1: pipeline_stages={len(names)}, "
                f"micro_batches={micro_batches(settings)}"
            )
    else:
        if os.environ.get(settings_lib.PIPELINE) == "1":
            console.say(
                f"{settings_lib.PIPELINE}=1 has no effect on one device; give "
                "`num_gpus`"
            )
        strategy = make_strategy(
            settings.strategy, settings.tpu, settings.num_gpus
        )
    if not cluster.Workers(strategy).is_chief:
        console.be_quiet()
    parts = micro_batches(settings, strategy.num_replicas_in_sync)
    shares = strategy.num_replicas_in_sync * parts
    if settings.batch_size < 1 or settings.batch_size % shares:
        raise errors.InputError(
            f"batch_size={settings.batch_size} must be a multiple of "
            f"{shares}: {strategy.num_replicas_in_sync} replicas times {parts} "
            "micro-batches (`gradient_accumulation_steps`, or "
            "`micro_batches`).",
            argument="batch_size",
        )
    return strategy


def num_stages(settings: settings_lib.TrainSettings) -> int:
    """Returns the number of pipeline stages, 1 without a pipeline."""
    stages, gpus = settings.pipeline_stages, settings.num_gpus
    if os.environ.get(settings_lib.PIPELINE) == "1":
        found = gpus or len(tf.config.list_physical_devices("GPU")) or stages
        if stages not in (1, found):
            raise errors.InputError(
                f"{settings_lib.PIPELINE}=1 makes a stage of each of {found} "
                f"GPUs; found pipeline_stages={stages}. Give one of them.",
                argument="pipeline_stages",
            )
        return found
    if stages > 1 and gpus not in (0, stages):
        raise errors.InputError(
            f"pipeline_stages={stages} takes a GPU for each stage, and "
            f"num_gpus={gpus} is another number; leave it out.",
            argument="num_gpus",
        )
    return stages


def micro_batches(
    settings: settings_lib.TrainSettings, replicas: int = 1
) -> int:
    """Returns the number of micro-batches of a replica's part of a batch."""
    if settings.elastic_shards:
        return _shards_of_replica(settings, replicas)
    stages, given = num_stages(settings), settings.micro_batches
    accumulated = settings.gradient_accumulation_steps
    if stages == 1:
        if given:
            raise errors.InputError(
                f"micro_batches={given} has no effect without "
                "`pipeline_stages`; give gradient_accumulation_steps.",
                argument="micro_batches",
            )
        return accumulated
    if given and accumulated not in (1, given):
        raise errors.InputError(
            f"micro_batches={given} and gradient_accumulation_steps="
            f"{accumulated}: with `pipeline_stages` they are the same; give "
            "one of them.",
            argument="micro_batches",
        )
    return given or (accumulated if accumulated > 1 else 2 * stages)


def _shards_of_replica(
    settings: settings_lib.TrainSettings, replicas: int
) -> int:
    shards = settings.elastic_shards
    others = {
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "micro_batches": settings.micro_batches,
        "pipeline_stages": num_stages(settings),
        "xla": settings.xla,
    }
    for name, value in others.items():
        if value > 1 or (name in ("micro_batches", "xla") and value):
            value = str(value).lower()
            raise errors.InputError(
                f"elastic_shards={shards} is how a batch is divided, and "
                f"cannot be combined with {name}={value}; leave one of them "
                "out.",
                argument="elastic_shards",
            )
    if shards & (shards - 1) or replicas & (replicas - 1) or shards < replicas:
        raise errors.InputError(
            f"elastic_shards={shards} on {replicas} replicas: expected two "
            "powers of two, and a shard or more for each replica.",
            argument="elastic_shards",
        )
    return shards // replicas


def _require_pipeline_alone(
    settings: settings_lib.TrainSettings, stages: int
) -> None:
    """Raises InputError for what a pipeline cannot be combined with."""
    several = settings.strategy not in ("auto", "one_device")
    clash = ""
    if settings.tpu or several:
        clash = f"strategy={settings.strategy}"
        if settings.tpu:
            clash = f"tpu={settings.tpu}"
    elif settings.strategy == "auto" and cluster.in_cluster() > 1:
        clash = f"the workers of {cluster_hosts.TF_CONFIG}"
    elif settings.xla:
        clash = "xla=true"
    if clash:
        raise errors.InputError(
            f"pipeline_stages={stages} is one replica on the devices of one "
            f"machine, without XLA, and cannot be combined with {clash}; leave "
            "one of them out.",
            argument="pipeline_stages",
        )


def pipeline_devices(settings: settings_lib.TrainSettings) -> tuple[str, ...]:
    """Returns the devices of the pipeline stages, GPUs or parts of the CPU."""
    count = num_stages(settings)
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return _parts_of_cpu(count)
    if len(gpus) < count:
        raise errors.InputError(
            f"pipeline_stages={count}: expected a GPU for each stage, found "
            f"{len(gpus)}.",
            argument="pipeline_stages",
        )
    devices = tf.config.list_logical_devices("GPU")[:count]
    return tuple(device.name for device in devices)


def _parts_of_cpu(count: int) -> tuple[str, ...]:
    """Returns so many logical CPUs, which share the threads of the CPU."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) < count:
        try:
            tf.config.set_logical_device_configuration(cpu, parts)
        except RuntimeError:  # TensorFlow runs already
            raise errors.InputError(
                f"pipeline_stages={count}: no GPU is here, and the CPU can be "
                "divided only before TensorFlow runs; start a new process.",
                argument="pipeline_stages",
            ) from None
    devices = tf.config.list_logical_devices("CPU")[:count]
    return tuple(device.name for device in devices)


def stages_of(
    settings: settings_lib.TrainSettings, config: networks.NetworkConfig
) -> pipeline.Stages | None:
    """Returns the pipeline stages of a network; None without a pipeline."""
    if num_stages(settings) == 1:
        return None
    return pipeline.split(config, pipeline_devices(settings))


@contextlib.contextmanager
def placed(
    settings: settings_lib.TrainSettings,
    config: networks.NetworkConfig,
    strategy: tf.distribute.Strategy,
) -> Iterator[None]:
    """Models that are made inside have their weights where they train."""
    stages = stages_of(settings, config)
    devices = stages.of_layers if stages else ()
    with strategy.scope(), placement.on_devices(devices):
        yield


def require_complete_batches(
    settings: settings_lib.TrainSettings,
    task: base.Task,
    strategy: tf.distribute.Strategy,
) -> None:
    """Raises InputError for rows that read each other in divided batches.

    Also for a batch of one such row, which has nothing to learn from.
    """
    task = task.unwrapped
    if settings.elastic_shards and task.separates_texts:
        raise errors.InputError(
            f"elastic_shards={settings.elastic_shards}: {task.name} computes "
            "texts at the length of the longest one on a replica, so that "
            "other replicas round in another way; leave it out.",
            argument="elastic_shards",
        )
    if not task.reads_batch:
        return
    if settings.batch_size < 2:
        raise errors.InputError(
            f"batch_size={settings.batch_size}: expected 2 or more, because "
            f"{task.name} compares a row with other rows of its batch here.",
            argument="batch_size",
        )
    replicas = strategy.num_replicas_in_sync
    parts = micro_batches(settings, replicas)
    if replicas == 1 and parts == 1:
        return
    raise errors.InputError(
        f"{task.name}: a row is compared with other rows of its batch, so "
        f"expected one replica and one micro-batch, found {replicas} and "
        f"{parts}; use strategy=one_device and neither "
        "gradient_accumulation_steps, pipeline_stages nor elastic_shards, and "
        "lower `batch_size` if memory is short.",
        argument="gradient_accumulation_steps",
    )


# Cached: two mirrored strategies over the same devices give the same key to
# different collectives, and runs under the second one fail.
@functools.cache
def make_strategy(
    name: str, tpu: str = "", num_gpus: int = 0
) -> tf.distribute.Strategy:
    """Makes the strategy of a setting; num_gpus: how many to use, 0 = all."""
    is_tpu = name == "tpu" or (name == "auto" and bool(tpu))
    are_several = name == "multi_worker_mirrored" or (
        name == "auto" and cluster.in_cluster() > 1
    )
    if num_gpus and (is_tpu or are_several):
        raise errors.InputError(
            f"num_gpus={num_gpus} is for one machine, whose GPUs are divided; "
            "a worker takes those that CUDA_VISIBLE_DEVICES names.",
            argument="num_gpus",
        )
    if is_tpu:
        return _tpu(tpu)
    if are_several:
        return cluster.make_strategy()
    gpus = tf.config.list_logical_devices("GPU")
    if num_gpus > len(gpus):
        raise errors.InputError(
            f"num_gpus={num_gpus}: expected at most the number of GPUs here, "
            f"{len(gpus)}.",
            argument="num_gpus",
        )
    gpus = gpus[: num_gpus or None]
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
