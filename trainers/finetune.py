"""Fine-tunes a checkpoint on labelled rows.

  python -m trainers.finetune --task=classification --init=runs/base \\
      --train=train.tsv --dev=dev.tsv --output=runs/sst2 \\
      --epochs=3 --batch_size=32 --learning_rate=5e-5

Files are .tsv, .csv or .jsonl, each also .gz; --columns names their columns.
For --task=tagging they are CoNLL's: a word and its tag a line, a blank line
between sentences.
The task is scored on --dev after every epoch and the best epoch is kept.
The same command goes on where the run stopped.
"""

import collections
import dataclasses
import hashlib
import itertools
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from bert_keras import checkpoint, console, errors, files, options, predictor
from bert_keras import model as model_lib
from bert_keras.data import batches, corpus
from bert_keras.data import records as records_lib
from bert_keras.tasks import base
from bert_keras.tokenizers import wordpiece
from bert_keras.training import (
    cluster,
    devices,
    run_folder,
    scoring,
)
from bert_keras.training import input_pipeline as inputs
from bert_keras.training import settings as settings_lib
from bert_keras.training import trainer as trainer_lib
from trainers import flags

ROWS_PER_BATCH = 1000  # rows that are tokenised in one call
ROWS_PER_SHARD = 100_000


@dataclasses.dataclass(frozen=True)
class Settings(settings_lib.TrainSettings):
    init: str = options.option(
        "",
        "The checkpoint to start from: a run or step folder, or a folder of "
        "Google's, Hugging Face's or KerasHub's.",
        reads=True,
    )
    train: str = options.option("", "Labelled rows to learn from.", reads=True)
    dev: str = options.option(
        "", "Labelled rows to score on; empty: none.", reads=True
    )
    dev_fraction: float = options.option(
        0.0,
        "Without --dev: share of the rows of --train, of each label, that is "
        "scored on and not learned from.",
        least=0.0,
        most=0.5,
    )
    epochs: int = options.option(3, "Times every row is seen.", least=1)
    random_start: bool = options.option(
        False,
        "Take shape and vocabulary from --init, but new random weights: what "
        "would there be without pretraining?",
    )


def finetune(settings: Settings, task: base.Task) -> dict[str, float]:
    """Trains for `epochs`; returns the last dev scores."""
    options.check(settings, task)
    base.require_findable(type(task))
    options.require("init", settings.init)
    options.require("train", settings.train)
    options.require("output", settings.output)
    if settings.dev and settings.dev_fraction:
        console.say(
            f"--dev is given: --dev_fraction={settings.dev_fraction} holds "
            "nothing out"
        )
    run_folder.refuse_inputs_inside(
        settings.output,
        init=settings.init,
        train=settings.train,
        dev=settings.dev,
    )
    strategy = devices.start(settings)
    with run_folder.one_writer(settings, strategy):
        return _finetune(settings, task, strategy)


def _finetune(
    settings: Settings, asked: base.Task, strategy: tf.distribute.Strategy
) -> dict[str, float]:
    start = inputs.read_init(settings, settings.init)
    tokenizer = start.tokenizer()
    rows = asked.read_examples(settings.train)
    training = training_rows(settings, rows)
    first = list(itertools.islice(training, 1))
    if not first:
        if settings.dev or not settings.dev_fraction:
            raise errors.InputError(
                f"{settings.train}: expected rows to learn from, found none. "
                "The file has no rows."
            )
        raise errors.InputError(
            f"--dev_fraction={settings.dev_fraction}: expected rows to learn "
            f"from, found none in {settings.train}; all are held out. Give a "
            "file with --dev, or more articles."
        )
    task = asked.adapt(itertools.chain(first, training), tokenizer)
    inputs.fits(task, start.config)
    inputs.say_note(rows)
    dev = []
    if settings.dev or settings.dev_fraction:
        rows = task.read_examples(settings.dev or settings.train)
        dev = list(dev_rows(settings, rows))
        if settings.dev:
            inputs.say_note(rows)
        if settings.dev and not dev:
            raise errors.InputError(
                f"{settings.dev}: expected rows to score on, found none. The "
                "file has no rows."
            )
        if not dev:
            raise errors.InputError(
                f"--dev_fraction={settings.dev_fraction}: expected rows to "
                f"score on, found none in {settings.train}: it has too few "
                "articles, or rows of each label. Give a larger fraction, or "
                "a file with --dev."
            )
    dev_counts: collections.Counter[str] = collections.Counter()
    try:
        for _ in encode(task, tokenizer, dev, dev_counts):
            pass  # a label that training does not know stops here, not later
    except errors.InputError as error:
        where = settings.dev or (
            f"{settings.train}, of which --dev_fraction holds a part out (a "
            "label needs rows in both; give them with --dev)"
        )
        raise errors.InputError(f"{where}: {error}") from None
    with strategy.scope():
        if settings.random_start:
            network = start.config.build_encoder()
            model = model_lib.BertModel(network, task)
        else:
            model = start.model(task)
    workers = cluster.Workers(strategy)
    identity = run_folder.Identity(
        "finetune",
        (settings, asked),
        {
            "network": start.config.to_dict(),
            "tokenizer": tokenizer.fingerprint,
            "train": run_folder.content(settings.train),
            "dev": settings.dev and run_folder.content(settings.dev),
            "init": ""
            if settings.random_start
            else run_folder.of_start(model, start.parts(task)),
        },
    )
    run_folder.claim(settings, identity, workers)
    if workers.is_chief:
        write_training_records(settings, task, tokenizer)
    workers.barrier()
    records = records_lib.Records(os.path.join(settings.output, "records"))
    truncated = _truncated(task, records.manifest, dev_counts)
    if truncated:
        console.say(f"truncated: {truncated}")

    plan = batches.Plan(
        records.lengths,
        settings.batch_size,
        seed=settings.seed,
        buckets=inputs.buckets(settings, task.seq_length),
    )
    total = plan.steps_per_epoch * settings.epochs
    trainer = trainer_lib.Trainer(settings, strategy, model, tokenizer, total)
    answers = predictor.Predictor(model, tokenizer)

    def evaluate():
        if not workers.is_chief:
            return {}, {}
        return scoring.score(task, answers.predict(dev), dev)

    trainer.train(
        inputs.batches(
            strategy,
            task,
            records,
            plan,
            start_step=trainer.state.step,
            stop_step=total,
        ),
        evaluate=evaluate if dev else None,
        evaluate_every=plan.steps_per_epoch,
    )
    trainer.report(
        {
            "rows learned from": len(records),
            "malformed rows left out": records.manifest["skipped"],
            "rows scored on": len(dev),
            **({"rows truncated": truncated} if truncated else {}),
            "next": "python -m trainers.predict "
            f"--checkpoint={settings.output}",
        }
    )
    return trainer.state.metrics


def _truncated(
    task: base.Task, manifest: Mapping[str, Any], dev: Mapping[str, int]
) -> str:
    """How many examples lose tokens, of those learned from and scored on."""
    parts = []
    for counts, what in ((manifest, "learned from"), (dev, "scored on")):
        if counts.get("truncated"):
            parts.append(
                f"{counts['truncated']:,} of {counts['examples']:,} {what}"
            )
    return f"{', '.join(parts)}, at {task.seq_length} tokens" if parts else ""


def training_rows(
    settings: Settings, rows: Iterable[base.Row]
) -> Iterator[base.Row]:
    """Those of the rows of --train that are learned from."""
    fraction = 0.0 if settings.dev else settings.dev_fraction
    for row, is_dev in split(rows, fraction, settings.seed):
        if not is_dev:
            yield row


def dev_rows(
    settings: Settings, rows: Iterable[base.Row]
) -> Iterator[base.Row]:
    """The rows of --dev, or those held out of --train."""
    if settings.dev:
        yield from rows
        return
    for row, is_dev in split(rows, settings.dev_fraction, settings.seed):
        if is_dev:
            yield row


def split(
    rows: Iterable[base.Row], fraction: float, seed: int
) -> Iterator[tuple[base.Row, bool]]:
    """Each row, and whether it is held out: `fraction` of every label.

    Known row by row, so no file is held in memory; the seed says where among
    the rows of a label the first one lies. Rows of a group go where its first
    one goes.
    """
    counts: dict[str, int] = {}
    groups: dict[str, bool] = {}
    for row in rows:
        group = row.get("group")
        if group in groups:
            yield row, groups[group]
            continue
        label = "" if group else str(row.get("label", ""))
        number = counts.get(label, 0)
        counts[label] = number + 1
        first = zlib.crc32(f"{seed} {label}".encode()) / 2**32
        before = number * fraction + first
        is_dev = int(before + fraction) > int(before)
        if group:
            groups[group] = is_dev
        yield row, is_dev


def write_training_records(
    settings: Settings,
    task: base.Task,
    tokenizer: wordpiece.Tokenizer,
) -> None:
    """The training rows as records in the run folder, written once."""
    folder = os.path.join(settings.output, "records")
    if "://" in folder:
        raise errors.InputError(
            f"--output={settings.output}: the rows are mapped into memory, so "
            "fine-tuning needs a local folder. Copy the run when it is done."
        )
    part = f"{settings.seed} {settings.dev_fraction}" * (not settings.dev)
    fingerprint = _fingerprint(settings.train, task, tokenizer, part)
    if records_lib.is_complete(folder):
        found = records_lib.Records(folder)
        if found.manifest["fingerprint"] == fingerprint:
            return
        if checkpoint.steps(settings.output):
            raise errors.InputError(
                f"{settings.train} or the task has changed since "
                f"{settings.output} was begun; choose another --output."
            )
    _clear(folder)
    found = task.read_examples(settings.train)
    counts: collections.Counter[str] = collections.Counter()
    rows = encode(task, tokenizer, training_rows(settings, found), counts)
    shards = [
        records_lib.write_shard(
            os.path.join(folder, records_lib.shard_name(number)),
            records_lib.columns_of(block, per_token=_per_token(task)),
        )
        for number, block in enumerate(_blocks(rows, ROWS_PER_SHARD))
    ]
    tokenizer.save(os.path.join(folder, checkpoint.VOCABULARY))
    skipped = getattr(found, "skipped", 0)
    records_lib.write_manifest(
        folder,
        shards,
        fingerprint=fingerprint,
        skipped=skipped,
        examples=counts["examples"],
        truncated=counts["truncated"],
    )


def _clear(folder: str) -> None:
    """Removes records that this run wrote before, and nothing else."""
    if not os.path.exists(folder):
        return
    names = sorted(os.listdir(folder))
    # The manifest first: a folder without it is not complete.
    names.sort(key=lambda name: name != records_lib.MANIFEST)
    own = re.compile(
        r"(shard-\d+\.safetensors|manifest\.json|vocab\.txt)(\.\d+\.tmp)?"
    )
    others = [name for name in names if not own.fullmatch(name)]
    if others:
        raise errors.InputError(
            f"{folder} holds {', '.join(others[:5])}, which no run has "
            "written; choose another --output."
        )
    for name in names:
        os.remove(os.path.join(folder, name))


def encode(
    task: base.Task,
    tokenizer: wordpiece.Tokenizer,
    rows: Iterable[base.Row],
    counts: collections.Counter[str] | None = None,
) -> Iterator[records_lib.Row]:
    """Labelled rows -> record rows without padding.

    counts: "examples" are counted in, and of these the "truncated" ones.
    """
    make_inputs = tf.function(
        lambda raw: task.preprocess(raw, tokenizer),
        reduce_retracing=True,
        autograph=False,
    )
    for block in _blocks(rows, ROWS_PER_BATCH):
        raw = {
            name: tf.constant([row[name] for row in block]) for name in block[0]
        }
        inputs = make_inputs({name: raw[name] for name in task.text_columns})
        if counts is not None:
            cut = tf.boolean_mask(inputs["example_index"], inputs["truncated"])
            counts["examples"] += len(block)
            counts["truncated"] += len(set(cut.numpy().tolist()))
        lengths = _lengths(task, inputs["padding_mask"].numpy())
        arrays = {f"inputs/{name}": inputs[name] for name in _stored(task)}
        for term, (labels, weights) in task.make_targets(raw, inputs).items():
            arrays[f"targets/{term}/labels"] = labels
            arrays[f"targets/{term}/weights"] = weights
        arrays = {
            name: _storable(task, name, value.numpy())
            for name, value in arrays.items()
        }
        per_token = _per_token(task)
        for number, length in enumerate(lengths):
            yield {
                name: value[number, :length]
                if name in per_token
                else value[number]
                for name, value in arrays.items()
            }


def _stored(task: base.Task) -> set[str]:
    """Names in `task.preprocess` that a record keeps."""
    return {"token_ids", "segment_ids", *task.stored_features}


def _lengths(task: base.Task, mask: np.ndarray) -> np.ndarray:
    """Tokens of each row; raises where records would lose some of `mask`."""
    lengths = (mask > 0).sum(axis=1)
    if (mask[:, ::-1].cumsum(axis=1) > 0).sum() != lengths.sum():
        raise errors.InputError(
            f"{task.name}: expected padding at the end of each row, but "
            "padding_mask has a 0 before the last token."
        )
    if mask.max(initial=0) > 1 and "padding_mask" not in task.stored_features:
        raise errors.InputError(
            f"{task.name}: padding_mask numbers several texts in a row, which "
            'records would not keep. Name "padding_mask" in the task\'s '
            "stored_features."
        )
    return lengths


def _storable(task: base.Task, name: str, value: np.ndarray) -> np.ndarray:
    """As int32 or float32, the types that batches have."""
    if np.issubdtype(value.dtype, np.floating):
        return value.astype(np.float32)
    if np.issubdtype(value.dtype, np.integer):
        small = value.astype(np.int32)
        if (small == value).all():
            return small
    raise errors.InputError(
        f"{task.name}: {name} has type {value.dtype}; expected numbers that "
        "int32 or float32 can hold."
    )


def _per_token(task: base.Task) -> set[str]:
    """Names of the record features that are as long as their row."""
    names = {f"inputs/{name}" for name in _stored(task)}
    for term in task.target_axes:
        names |= {f"targets/{term}/labels", f"targets/{term}/weights"}
    return names


def _blocks(rows: Iterable[base.Row], size: int) -> Iterator[list[base.Row]]:
    block = []
    for row in rows:
        block.append(row)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _fingerprint(path, task, tokenizer, part) -> str:
    digest = hashlib.sha256()
    facts = f"{tokenizer.fingerprint} {task.to_dict()} {part}"
    if task.stored_features:
        facts += f" {sorted(task.stored_features)}"
    digest.update(facts.encode())
    for each in corpus.files([path]):
        digest.update(files.checksum(each).encode())
    return digest.hexdigest()[:16]


_task: list[type[base.Task]] = []


def define_flags() -> None:
    _task.append(flags.define_task("classification"))
    flags.define(Settings)


def read_flags() -> tuple[Settings, base.Task]:
    return flags.read(Settings), flags.read(_task[0])


def main() -> None:
    finetune(*read_flags())


if __name__ == "__main__":
    flags.run(main, define_flags)
