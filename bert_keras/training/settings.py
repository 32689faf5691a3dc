"""The settings that pretraining and fine-tuning share."""

import dataclasses
import os

from bert_keras import locks, optimizers, options
from bert_keras.training import profiler

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
AUTO_MIXED_IS_ON = os.environ.get(AUTO_MIXED) == "1"


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
        "mixed_float16" if AUTO_MIXED_IS_ON else "float32",
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
        f"Write a trace of the steps {profiler.TRACED[0]} to "
        f"{profiler.TRACED[-1]} after this start to the folder profile of the "
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
