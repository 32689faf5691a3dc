"""Where and how a run computes: devices, precision, seeds, run folder."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator

import keras
import tensorflow as tf

from bert_keras import (
    checkpoint,
    console,
    errors,
    formats,
    locks,
    optimizers,
    options,
)
from bert_keras.training import cluster, run_folder
from bert_keras.training import step as step_lib

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
STRATEGIES = (
    "auto",
    "one_device",
    "mirrored",
    "multi_worker_mirrored",
    "tpu",
)

# What NVIDIA's containers and Keras 2 scripts set to ask for float16.
AUTO_MIXED = "TF_ENABLE_AUTO_MIXED_PRECISION"
_AUTO_MIXED_IS_ON = os.environ.get(AUTO_MIXED) == "1"


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """What pretraining and fine-tuning share."""

    output: str = options.option(
        "",
        "Folder of the run. Run again with the same folder, it goes on where "
        "it stopped.",
        identity=False,
    )
    batch_size: int = options.option(
        32,
        "Rows per update, over all replicas and accumulation steps.",
        least=1,
    )
    gradient_accumulation_steps: int = options.option(
        1,
        "Parts a batch is computed in, one after the other, to save memory.",
        least=1,
    )
    optimizer: str = options.option(
        "adamw",
        "The update rule; adam is adamw without decay.",
        tuple(optimizers.RULES),
    )
    bias_correction: bool = options.option(
        True,
        "Correction of the first steps of adamw, adam and lamb; Google's BERT "
        "and ALBERT go without.",
    )
    learning_rate: float = options.option(5e-5, "Its highest value.", least=0.0)
    warmup: float = options.option(
        0.1,
        "Steps in which the learning rate rises to --learning_rate; below 1: "
        "a share of all steps. After it the rate falls linearly to 0.",
        least=0.0,
    )
    weight_decay: float = options.option(
        0.01,
        "Decoupled decay of all weights but biases and LayerNorm.",
        least=0.0,
    )
    clip_norm: float = options.option(
        1.0,
        "Longest global gradient; longer is scaled down. 0: no limit.",
        least=0.0,
    )
    lowercase: bool | None = options.option(
        None,
        "Fold case and drop accents, for an --init of another format. Not "
        "said: what its files tell.",
        kind=bool,
    )
    allow_missing: str = options.option(
        "",
        "Regular expression of variables that an --init of another format may "
        "lack; they start at random.",
    )
    seed: int = options.option(
        1,
        "Order, masks, dropout and new weights.",
        least=0,
        most=options.MOST_SEED,
    )
    strategy: str = options.option(
        "auto",
        "Devices: auto takes the TPU of --tpu, else the workers of TF_CONFIG, "
        "else all GPUs, else the CPU.",
        STRATEGIES,
    )
    tpu: str = options.option(
        "", "Name or address of the TPU; `local` on its VM."
    )
    precision: str = options.option(
        "mixed_float16" if _AUTO_MIXED_IS_ON else "float32",
        "mixed_bfloat16 and mixed_float16 compute in 16 bits and keep weights "
        "in 32; float16 comes with loss scaling, and is the default where "
        f"{AUTO_MIXED}=1 is set.",
        PRECISIONS,
    )
    loss_scale: float = options.option(
        0.0,
        "Fixed factor of the loss for mixed_float16; 0: found while training.",
        least=0.0,
    )
    max_skipped: int = options.option(
        20,
        "Steps in a row without a finite gradient that end the run.",
        least=1,
    )
    deterministic: bool = options.option(
        False, "Bit-equal repetition on a GPU, at a cost in speed."
    )
    xla: bool = options.option(False, "Compile the step with XLA.")
    bucket_lengths: bool = options.option(
        True,
        "Put rows of similar length in a batch and pad it to one of a few "
        "lengths; off, rows meet by chance and all have the longest length.",
    )
    profile: bool = options.option(
        False,
        f"Write a trace of the steps {console.TRACED[0]} to "
        f"{console.TRACED[-1]} after this start to the folder profile of the "
        "run; TensorBoard shows it after `pip install xprof`.",
        identity=False,
    )
    save_every: int = options.option(
        1000, "Steps between checkpoints.", least=1, identity=False
    )
    keep: int = options.option(
        3,
        "Checkpoints that stay, besides the best one.",
        least=1,
        identity=False,
    )
    best_metric: str = options.option(
        "",
        "Score of the evaluation that picks the best checkpoint, a loss/... "
        "by its lowest value. Empty: the task's first.",
    )
    early_stopping: int = options.option(
        0,
        "Evaluations in a row without a better score that end the run; 0: "
        "never.",
        least=0,
    )
    break_lock: bool = options.option(False, locks.BREAK_LOCK, identity=False)
    log_every: int = options.option(
        20, "Steps between log lines.", least=1, identity=False
    )


def start(settings: TrainSettings) -> tf.distribute.Strategy:
    """Sets precision and determinism; returns the strategy to build under."""
    options.require("output", settings.output)
    keras.utils.set_random_seed(settings.seed)
    keras.config.set_dtype_policy(settings.precision)
    if _AUTO_MIXED_IS_ON and settings.precision == "mixed_float16":
        console.say(f"{AUTO_MIXED}=1: --precision=mixed_float16")
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    strategy = make_strategy(settings.strategy, settings.tpu)
    if not cluster.Workers(strategy).writes:
        console.be_quiet()
    shares = (
        strategy.num_replicas_in_sync * settings.gradient_accumulation_steps
    )
    if settings.batch_size < 1 or settings.batch_size % shares:
        raise errors.InputError(
            f"--batch_size={settings.batch_size} must be a multiple of "
            f"{shares}: {strategy.num_replicas_in_sync} replicas times "
            f"--gradient_accumulation_steps="
            f"{settings.gradient_accumulation_steps}."
        )
    return strategy


# One for the process: two mirrored strategies over the same devices give the
# same key to different collectives, and the second one's run fails.
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
        # Every library below has its own class for "no such TPU".
        raise errors.InputError(
            f"--tpu={name}: no TPU answers there ({error})."
        ) from None
    return tf.distribute.TPUStrategy(resolver)


def read_init(settings: TrainSettings, init: str) -> checkpoint.Checkpoint:
    """Whatever checkpoint the run starts from."""
    return formats.read(
        init,
        lowercase=settings.lowercase,
        allow_missing=settings.allow_missing,
    )


def make_optimizer(
    variables, settings: TrainSettings, total_steps: int
) -> optimizers.Optimizer:
    warmup = settings.warmup
    rule = optimizers.RULES[settings.optimizer]()
    if hasattr(rule, "bias_correction"):
        rule = dataclasses.replace(
            rule, bias_correction=settings.bias_correction
        )
    return optimizers.Optimizer(
        variables,
        rule=rule,
        schedule=optimizers.Schedule(
            peak=settings.learning_rate,
            warmup_steps=int(warmup * total_steps if warmup < 1 else warmup),
            total_steps=total_steps,
        ),
        weight_decay=0.0
        if settings.optimizer == "adam"
        else settings.weight_decay,
    )


def make_loss_scale(settings: TrainSettings) -> step_lib.LossScale:
    if settings.loss_scale:
        return step_lib.fixed_loss_scale(settings.loss_scale)
    if settings.precision == "mixed_float16":
        return step_lib.LossScale()
    return step_lib.fixed_loss_scale()


@contextlib.contextmanager
def one_writer(
    settings: TrainSettings, strategy: tf.distribute.Strategy
) -> Iterator[None]:
    """Lets no other run write into the run folder; the chief sees to it."""
    if cluster.Workers(strategy).writes:
        with locks.hold(settings.output, break_lock=settings.break_lock):
            yield
    else:
        yield


def claim(
    settings: TrainSettings,
    identity: run_folder.Identity,
    workers: cluster.Workers,
) -> None:
    """Makes the run folder this run's, or checks that it is.

    Raises InputError where the workers differ in what they run, or where the
    folder is another run's.
    """
    workers.require_same(
        "flags and inputs", identity.fingerprint, settings.output
    )
    run_folder.check(
        settings.output,
        identity,
        names=run_folder.TRAINING,
        begun=bool(checkpoint.steps(settings.output)),
    )
    workers.wait()  # nobody checks what the chief is writing
    if workers.writes:
        run_folder.take(settings.output, identity)
