"""The settings of preparation, pretraining and fine-tuning."""

import collections
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from bert_keras import errors, locks, named_networks, optimizers, options
from bert_keras.data import corpus_chunks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers
from bert_keras.training import metric_writer, profiler
from bert_keras.wrappers import base as wrappers

T = TypeVar("T")

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
STRATEGIES = (
    "auto",
    "one_device",
    "mirrored",
    "multi_worker_mirrored",
    "tpu",
)

DEFAULT_VOCAB_SIZE = 8000  # that fine-tuning learns, at most

# NVIDIA's containers and Keras 2 scripts set this variable for mixed float16.
AUTO_MIXED = "TF_ENABLE_AUTO_MIXED_PRECISION"
AUTO_MIXED_IS_ON = os.environ.get(AUTO_MIXED) == "1"

# Makes `num_gpus` the number of pipeline stages.
PIPELINE = "TF_PIPELINE_PARALLELISM_ENABLED"
# When a stage computes which micro-batch: each as soon as it can, or one
# forward and one backward pass in turns (Narayanan et al. 2021, section 2.2).
# The stage s of n then keeps the states of at most n - s micro-batches.
GPIPE, ONE_BY_ONE = "gpipe", "1f1b"
SCHEDULES = (ONE_BY_ONE, GPIPE)

FORMER_WARMUP = 0.01  # the default of pretraining before


def _warmup(value: Any) -> dict[str, Any]:
    """Translates the former `warmup`: below 1 a ratio, else a number of steps.

    value: a number, or its text in a flagfile.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 1 <= number < math.inf:  # what is no number is refused as a ratio
        none = "0" if isinstance(value, str) else 0
        return {"warmup_ratio": value, "warmup_steps": none}
    steps = int(number)
    return {"warmup_steps": str(steps) if isinstance(value, str) else steps}


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """Settings that pretraining and fine-tuning share."""

    output: str = options.option(
        "",
        "Folder of the run. Run again with the same folder, it continues "
        "where it stopped.",
        identity=False,
    )
    batch_size: int = options.option(
        32,
        "Rows per update, over all replicas and accumulation steps.",
        minimum=1,
    )
    gradient_accumulation_steps: int = options.option(
        1,
        "Micro-batches that a batch is computed in, to save memory.",
        minimum=1,
        identity=False,
    )
    pipeline_stages: int = options.option(
        1,
        "Devices that hold a part of the layers each, where a network is too "
        "large for one; they work on several micro-batches at a time.",
        minimum=1,
        identity=False,
    )
    micro_batches: int = options.option(
        0,
        "Micro-batches of `pipeline_stages`; 0: "
        "`gradient_accumulation_steps`, or 2 for each stage.",
        minimum=0,
        identity=False,
    )
    pipeline_schedule: str = options.option(
        ONE_BY_ONE,
        "1f1b: a stage computes one forward and one backward pass in turns, "
        "and keeps the states of few micro-batches; gpipe: all forward passes "
        "first.",
        SCHEDULES,
        identity=False,
    )
    elastic_shards: int = options.option(
        0,
        "Parts of a batch that are computed apart and added in a fixed order: "
        "a run is then bit-equal on 1, 2, 4, ... replicas up to that number, a "
        "power of two; 0: off.",
        minimum=0,
    )
    num_gpus: int = options.option(
        0,
        "Number of GPUs to use, the first ones; 0: all. Where "
        f"{PIPELINE}=1 is set, the number of pipeline stages.",
        minimum=0,
        identity=False,
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
    learning_rate: float = options.option(
        5e-5, "Peak learning rate.", minimum=0.0
    )
    warmup_ratio: float = options.option(
        0.1,
        "Share of all steps in which the learning rate rises linearly to "
        "`learning_rate`; after them it decays linearly to 0.",
        minimum=0.0,
        maximum=1.0,
        formerly=("warmup",),
        translate=_warmup,
    )
    warmup_steps: int = options.option(
        0, "The same as a number of steps; 0: see `warmup_ratio`.", minimum=0
    )
    head_learning_rate: float = options.option(
        0.0,
        "Peak learning rate of the heads, which are new where the network is "
        "pretrained (Liu & Lapata 2019); 0: `learning_rate`.",
        minimum=0.0,
    )
    head_warmup_ratio: float | None = options.option(
        None,
        "Share of all steps in which the learning rate of the heads rises. "
        "Default: as that of the network.",
        minimum=0.0,
        maximum=1.0,
        value_type=float,
    )
    weight_decay: float = options.option(
        0.01,
        "Decoupled decay of all weights but biases and LayerNorm.",
        minimum=0.0,
    )
    clip_norm: float = options.option(
        1.0,
        "Maximum global gradient norm; 0 disables clipping.",
        minimum=0.0,
    )
    modules: str = options.option("", options.MODULES, identity=False)
    lowercase: bool | None = options.option(
        None,
        "Fold case and drop accents, for an `init` of another format. "
        "Default: inferred from its files.",
        value_type=bool,
    )
    allow_missing: str = options.option(
        "",
        "Regular expression of variables that an `init` of another format may "
        "lack; they start at random.",
    )
    freeze: str = options.option(
        "",
        "What stays as it is: encoder = the network, so that only heads are "
        "trained, on what it computes without dropout; embeddings = its layer "
        "0. Empty: nothing.",
        ("", "encoder", "embeddings"),
    )
    seed: int = options.option(
        1,
        "Seed of shuffling, masking, dropout and initialisation.",
        minimum=0,
        maximum=options.MAX_SEED,
    )
    strategy: str = options.option(
        "auto",
        "Devices: auto takes the TPU of `tpu`, else the workers of TF_CONFIG, "
        "of srun or of WORKER_HOSTS, else all GPUs, else the CPU.",
        STRATEGIES,
        identity=False,
    )
    tpu: str = options.option(
        "", "Name or address of the TPU; `local` on its VM.", identity=False
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
        "Fixed loss scale for mixed_float16; 0: dynamic loss scaling.",
        minimum=0.0,
    )
    max_skipped: int = options.option(
        20,
        "Steps in a row without a finite gradient that end the run.",
        minimum=1,
    )
    deterministic: bool = options.option(
        False, "Bit-equal repetition on a GPU, at a cost in speed."
    )
    xla: bool = options.option(False, "Compile the step with XLA.")
    bucket_lengths: bool = options.option(
        True,
        "Batch rows of similar length and pad them to one of a few lengths; "
        "if false, batches are random and padded to the longest length.",
    )
    profile: bool = options.option(
        False,
        f"Write a trace of the steps {profiler.TRACED[0]} to "
        f"{profiler.TRACED[-1]} after this start to the folder profile of the "
        "run; TensorBoard shows it after `pip install xprof`.",
        identity=False,
    )
    save_every: int = options.option(
        1000, "Steps between checkpoints.", minimum=1, identity=False
    )
    max_checkpoints_to_keep: int = options.option(
        3,
        "Number of newest checkpoints to keep, besides the best one.",
        minimum=1,
        identity=False,
        formerly=("keep",),
    )
    best_metric: str = options.option(
        "",
        "Metric of the evaluation that picks the best checkpoint; of a "
        "loss/... the lowest value is best. Empty: the task's first metric.",
    )
    early_stopping: int = options.option(
        0,
        "Evaluations without an improvement after which the run ends; 0: "
        "never.",
        minimum=0,
    )
    break_lock: bool = options.option(False, locks.BREAK_LOCK, identity=False)
    log_every: int = options.option(
        20, "Steps between log lines.", minimum=1, identity=False
    )
    report_to: str = options.option(
        "tensorboard",
        "What shows the metrics beside log.jsonl: tensorboard, mlflow, or "
        "both with a comma between; empty: nothing.",
        identity=False,
    )
    card_language: str = options.option(
        "",
        "For the model card: the language of the texts, as `de`, or several "
        "with commas between. Empty: that of the card of `init`, if `init` is "
        "a checkpoint of this project.",
        identity=False,
    )
    card_license: str = options.option(
        "",
        "For the model card: the license of the model, as `apache-2.0`.",
        identity=False,
    )
    card_dataset: str = options.option(
        "",
        "For the model card: the name of the data set, as `stanfordnlp/sst2`. "
        "Empty: the name of the file with the dev rows.",
        identity=False,
    )


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
    """Settings of preparing pretraining records."""

    input: str = options.option(
        "", "Files, folders or globs, with commas between.", reads=True
    )
    output: str = options.option("", "Folder of the records.", identity=False)
    # Published corpora call it text, content, body, article or abstract.
    text_field: str = options.option(
        "text", "Field of JSON lines, or column of Parquet, with the text."
    )
    tokenizer: str = options.option(
        "wordpiece",
        f"How text is split: one of {', '.join(tokenizers.names())}, or the "
        "dotted name of a module of yours.",
    )
    modules: str = options.option("", options.MODULES, identity=False)
    vocab: str = options.option(
        "",
        "The tokenizer's vocabulary; empty: learn one. wordpiece: a vocab.txt; "
        "bpe: the folder of vocab.json and merges.txt; sentencepiece: a model "
        "file.",
        reads=True,
    )
    vocab_size: int = options.option(
        0,
        "Entries to learn from the input, where `vocab` is not given.",
        minimum=0,
    )
    model_type: str = options.option(
        "unigram",
        "Of a sentencepiece model to learn: unigram (Kudo 2018) or bpe.",
        ("unigram", "bpe"),
    )
    lowercase: bool | None = options.option(
        None,
        "Fold case and drop accents. Default: inferred from the entries of "
        "`vocab`; true for a learned vocabulary.",
        value_type=bool,
    )
    seq_length: int = options.option(
        128, "Tokens in a row, at most.", minimum=8
    )
    sentence_objective: str = options.option(
        "nsp",
        "Pairs: nsp = next sentence or a random one, sop = in order or "
        "swapped, nsp_sop = next, previous or random, none = complete rows of "
        "one document; or the dotted name of a module of yours.",
        formerly=("objective",),
    )
    packing: str = options.option(
        "segments",
        "Rows: segments = see `sentence_objective`; documents = several short "
        "ones of `sentence_objective` none in a row, which do not attend to "
        "each other; full = seq_length tokens each, across documents and "
        "without special tokens, for causal_lm; sentences = one sentence each, "
        "for bidirectional_lm.",
        ("segments", "documents", "full", "sentences"),
    )
    word_boundaries: str = options.option(
        "none",
        "What is stored of words, so that they can be masked completely: none; "
        "tokenizer = words as white space separates them, and Chinese "
        "characters; jieba = Chinese words, too.",
        ("none", "tokenizer", "jieba"),
    )
    phrases: str = options.option(
        "",
        "A file with a phrase a line; each is stored as one unit, with "
        "`word_boundaries`.",
        reads=True,
    )
    entities: str = options.option(
        "", "The same with names, for a later stage of masking.", reads=True
    )
    entity_tagger: str = options.option(
        "",
        "A checkpoint of tagging that finds the names, in place of `entities`: "
        "the texts that it marks twice or more.",
        reads=True,
    )
    dupe_factor: int = options.option(
        1,
        "Number of times that pairs are sampled from the text; masks are "
        "sampled anew while training in any case.",
        minimum=1,
        formerly=("passes",),
    )
    deduplicate: bool = options.option(
        True, "Leave out documents that came before, word for word."
    )
    format: str = options.option(
        "records",
        "records, whose masks are drawn anew while training, or the TFRecord "
        "files of Google's create_pretraining_data.py.",
        ("records", "google"),
    )
    masked_lm_prob: float = options.option(
        0.15,
        "For format=google: share of the tokens that are masked.",
        minimum=0.01,
        maximum=0.9,
        formerly=("masked_share",),
    )
    max_predictions_per_seq: int = options.option(
        20,
        "For format=google: maximum number of masks in a row.",
        minimum=1,
        formerly=("max_predictions",),
    )
    dev_fraction: float = options.option(
        0.01,
        "Share of the documents that are held out for evaluation.",
        minimum=0.0,
        maximum=0.5,
        formerly=("held_out",),
    )
    shard_mb: float = options.option(
        corpus_chunks.CHUNK_BYTES / 1e6,
        "Text in a shard, in MB; random sentences come from the same shard.",
        minimum=0.001,
    )
    seed: int = options.option(
        1, "Pairs and random sentences.", minimum=0, maximum=options.MAX_SEED
    )
    workers: int = options.option(
        0,
        "Processes; 0: one for each core, fewer for a small input.",
        minimum=0,
        identity=False,
    )
    runner: str = options.option(
        "",
        "Runner of Apache Beam (DirectRunner, FlinkRunner, SparkRunner, "
        "DataflowRunner) in place of processes here.",
        identity=False,
    )
    runner_options: str = options.option(
        "",
        "The runner's own options, as on a command line.",
        identity=False,
    )
    break_lock: bool = options.option(False, locks.BREAK_LOCK, identity=False)


@dataclasses.dataclass(frozen=True)
class PretrainSettings(TrainSettings):
    """Settings of pretraining on prepared records."""

    records: str = options.option("", "Folder of prepared records.", reads=True)
    objective: str = options.option(
        "masked_lm",
        "What is predicted: the name of a task that learns from records, such "
        "as masked_lm, or the dotted name of a module of yours.",
    )
    model: str = options.option(
        "base",
        f"One of {', '.join(named_networks.NAMES)}, or a JSON file with "
        "the fields of BertConfig, or those of another network and its name.",
        reads=True,
    )
    init: str = options.option(
        "", "A checkpoint of any format that training starts from.", reads=True
    )
    steps: int = options.option(100_000, "Updates.", minimum=1)
    batch_size: int = options.option(
        256,
        "Rows per update, over all replicas and accumulation steps.",
        minimum=1,
    )
    learning_rate: float = options.option(
        1e-4, "Peak learning rate.", minimum=0.0
    )
    warmup_ratio: float | None = options.option(  # type: ignore[assignment]
        None,
        "Share of all steps in which the learning rate rises linearly to "
        "`learning_rate`; after them it decays linearly to 0. Default: that "
        "of 1,000 steps, but from 0.01 to 0.1.",
        minimum=0.0,
        maximum=1.0,
        formerly=("warmup",),
        translate=_warmup,
        value_type=float,
        absent=FORMER_WARMUP,
    )
    evaluate_every: int = options.option(
        5000, "Steps between evaluations on the held-out records.", minimum=0
    )
    evaluate_batches: int = options.option(
        100, "Batches of held-out records that an evaluation reads.", minimum=1
    )


@dataclasses.dataclass(frozen=True)
class FinetuneSettings(TrainSettings):
    """Settings of fine-tuning on labelled examples."""

    init: str = options.option(
        "",
        "The checkpoint to start from: a run or step folder, a folder in "
        "Google's, Hugging Face's or KerasHub's format, or the name of a model "
        "that huggingface_hub or kagglehub downloaded.",
        reads=True,
    )
    model: str = options.option(
        "",
        "Without `init`: a new network with random weights, one of "
        f"{', '.join(named_networks.NAMES)}, or a JSON file with the fields of "
        "BertConfig, or those of another network and its name.",
        reads=True,
    )
    tokenizer: str = options.option(
        "wordpiece",
        "With `model`: how text is split: one of "
        f"{', '.join(tokenizers.names())}, or the dotted name of a module of "
        "yours.",
    )
    vocab: str = options.option(
        "",
        "With `model`: the tokenizer's vocabulary; empty: learn one from the "
        "texts of the training rows. wordpiece: a vocab.txt; bpe: the folder "
        "of vocab.json and merges.txt; sentencepiece: a model file.",
        reads=True,
    )
    vocab_size: int = options.option(
        0,
        "With `model`: entries to learn. 0: "
        f"{DEFAULT_VOCAB_SIZE:,}, or all that occur twice in the texts if "
        "they are fewer.",
        minimum=0,
    )
    model_type: str = options.option(
        "unigram",
        "Of a sentencepiece model to learn: unigram (Kudo 2018) or bpe.",
        ("unigram", "bpe"),
    )
    lowercase: bool | None = options.option(
        None,
        "Fold case and drop accents, for an `init` of another format, or for "
        "`model`. Default: inferred from the files; true for a learned "
        "vocabulary.",
        value_type=bool,
    )
    train: str = options.option("", "Labelled rows to learn from.", reads=True)
    dev: str = options.option(
        "", "Labelled rows to score on; empty: none.", reads=True
    )
    dev_fraction: float = options.option(
        0.0,
        "Without `dev`: share of the rows of `train`, of each label, that is "
        "scored on and not learned from.",
        minimum=0.0,
        maximum=0.5,
    )
    epochs: int = options.option(3, "Passes over the training rows.", minimum=1)
    from_scratch: bool = options.option(
        False,
        "Train from randomly initialised weights, with the shape and the "
        "vocabulary of `init`: the baseline without pretraining.",
        formerly=("random_start",),
    )


def check(settings: Any, task: base.Task) -> None:
    """Raises InputError for invalid, clashing or unserialisable settings."""
    inner, around = wrappers.unwrap(task)
    options.check(settings, inner)
    metric_writer.parse(settings.report_to)
    for name in ("card_language", "card_license", "card_dataset"):
        if not getattr(settings, name).isprintable():
            raise errors.InputError(
                f"{name}={getattr(settings, name)!r}: expected a name, on one "
                "line.",
                argument=name,
            )
    for wrapper in around:
        wrappers.check(wrapper)
    names = collections.Counter(
        field.name
        for each in (settings, inner)
        for field in dataclasses.fields(each)
        if "help" in field.metadata
    )
    for wrapper in around:
        names.update(wrappers.own_options(type(wrapper)).keys())
    for name, count in names.items():
        if count > 1:
            raise errors.InputError(
                f"{name} is a setting of two among the run, its task and its "
                "wrappers; give the one of yours another name."
            )
    task.to_dict()  # Raises if a checkpoint could not be loaded again.


def from_keywords(
    cls: type[T],
    task: str | base.Task,
    keywords: Mapping[str, Any],
    *,
    without: Sequence[str] = (),
) -> tuple[T, base.Task]:
    """Splits the keywords of a call into settings, task and wrappers.

    If `task` is a name, its fields are taken from the keywords; a Task object
    has them already. The keyword `wrappers` names wrappers, whose settings are
    keywords too. Fields in `without` cannot be set.

    Raises InputError for an unknown keyword.
    """
    keywords = dict(keywords)
    classes = wrappers.parse(keywords.pop("wrappers", ()))
    fields = {
        name: field
        for each in classes
        for name, field in wrappers.own_options(each).items()
    }
    if fields:
        keywords = options.current_keywords(keywords, fields)
    of_wrappers = {
        name: options.plain(keywords.pop(name), field)
        for name, field in fields.items()
        if name in keywords
    }
    if not isinstance(task, (str, base.Task)):
        description = task.__name__ if isinstance(task, type) else repr(task)
        raise errors.InputError(
            f"task={description}: expected the name of a task, such as "
            f'"classification", or an object: Classification(seq_length=64).',
            argument="task",
        )
    chosen, task = _divided(cls, task, keywords, without, tuple(fields))
    return chosen, wrappers.wrap(task, classes, of_wrappers)


def _divided(
    cls: type[T],
    task: str | base.Task,
    keywords: Mapping[str, Any],
    without: Sequence[str],
    others: Sequence[str],
) -> tuple[T, base.Task]:
    if isinstance(task, str):
        named = base.find(task)
        own, of_task = options.divide(
            keywords, cls, named, without=without, others=others
        )
        return cls(**own), named(**of_task)
    for each in wrappers.all_of(task):
        for field in dataclasses.fields(each):
            if field.name in keywords:
                raise errors.InputError(
                    f"{field.name} is a field of the task: set it in the "
                    f"{type(each).__name__} that is given as task."
                )
    (own,) = options.divide(keywords, cls, others=others)
    return cls(**own), task
