"""Builds pretraining records from raw text; can also learn the vocabulary."""

import collections
import dataclasses
import functools
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from bert_keras import (
    commands,
    console,
    errors,
    files,
    locks,
    options,
    predictor,
    registry,
)
from bert_keras.data import (
    corpus,
    corpus_chunks,
    import_tfrecords,
    pretraining_records,
    word_boundaries,
)
from bert_keras.data import records as records_lib
from bert_keras.sentence_objectives import base as objectives
from bert_keras.tokenizers import base as tokenizers
from bert_keras.training import (
    found_entities,
    parallel_map,
    preparation_report,
    run_folder,
    vocabulary_settings,
)
from bert_keras.training import settings as settings_lib
from bert_keras.types import StrPath

# Bytes of text per worker process: less does not repay importing TensorFlow,
# which takes seconds.
BYTES_PER_PROCESS = 30_000_000
# Values of `packing` that make the rows of masked LM.
MASKED = ("segments", "documents")
TOKENIZER = "tokenizer_settings.json"  # what `Tokenizer.to_dict` returns


def prepare(
    input: StrPath | Sequence[StrPath], *, output: StrPath, **settings: Any
) -> dict[str, Any]:
    """Builds records from raw text; returns the rows of the printed summary.

    >>> report = bert_keras.prepare(
    ...     "corpus.txt", output="mine", vocab="vocab.txt", seq_length=32)
    mine
    ...
    >>> report["training rows"] > 0
    True

    With vocab_size=8000 in place of `vocab`, the vocabulary is learned.

    Args:
      input: files, folders or globs, in a list or separated by commas.
      output: the folder of the records. The same call again resumes an
        interrupted one; other settings are an error.
      settings: the fields of PrepareSettings.
    """
    if not isinstance(input, (str, os.PathLike)):
        input = ",".join(os.fspath(path) for path in input)
    values = {"input": input, "output": output} | settings
    (chosen,) = options.divide(values, settings_lib.PrepareSettings)
    return run(settings_lib.PrepareSettings(**chosen))


def run(settings: settings_lib.PrepareSettings) -> dict[str, Any]:
    """Writes records to `output`/train and `output`/dev."""
    options.check(settings)
    options.require("input", settings.input)
    options.require("output", settings.output)
    if bool(settings.vocab) == bool(settings.vocab_size):
        raise errors.InputError("give one of `vocab` and `vocab_size`.")
    vocabulary_settings.check(settings)
    _check_packing(settings)
    _check_objective(settings)
    _check_boundaries(settings)
    registry.import_modules(settings.modules)
    paths = corpus.files(settings.input.split(","))
    for path in paths:
        run_folder.refuse_inputs_inside(settings.output, input=path)
    run_folder.refuse_inputs_inside(settings.output, vocab=settings.vocab)
    with locks.hold(settings.output, break_lock=settings.break_lock):
        summary = _run(settings, paths)
    console.table(settings.output, summary)
    return summary


def _check_packing(settings: settings_lib.PrepareSettings) -> None:
    """Raises InputError for settings that belong to rows of segments."""
    if settings.packing == "segments":
        return
    if settings.packing == "documents":
        wanted = {"sentence_objective": "none", "format": "records"}
        for name, value in wanted.items():
            if getattr(settings, name) != value:
                raise errors.InputError(
                    "packing=documents: expected rows of single texts, "
                    f"{name}={value}, found {getattr(settings, name)}.",
                    argument=name,
                )
        return
    if (
        settings.sentence_objective not in ("nsp", "none")
        or settings.format == "google"
    ):
        raise errors.InputError(
            f"packing={settings.packing} makes rows of one segment, without "
            "masks: leave out `sentence_objective` and `format`.",
            argument="packing",
        )


def _check_objective(settings: settings_lib.PrepareSettings) -> None:
    """Raises InputError for an objective that does not exist or fit."""
    objectives.find(settings.sentence_objective)
    if settings.format == "google":
        _require_google_objective(settings, "writes")


def _require_google_objective(
    settings: settings_lib.PrepareSettings, verb: str
) -> None:
    """Raises InputError for an objective that Google's format cannot hold."""
    allowed = (*objectives.BINARY, "none")
    if settings.sentence_objective not in allowed:
        raise errors.InputError(
            f"sentence_objective={settings.sentence_objective}: expected one "
            f"of {', '.join(allowed)}, as `prepare` {verb} Google's TFRecord "
            "files here, whose labels are 0 or 1.",
            argument="sentence_objective",
        )


def _check_boundaries(settings: settings_lib.PrepareSettings) -> None:
    """Raises InputError for boundaries that would not be stored."""
    if settings.word_boundaries == "none":
        for name in ("phrases", "entities", "entity_tagger"):
            if getattr(settings, name):
                raise errors.InputError(
                    f"{name}={getattr(settings, name)} has no effect without "
                    "`word_boundaries`; give it, or leave this out.",
                    argument=name,
                )
        return
    if settings.entities and settings.entity_tagger:
        raise errors.InputError(
            f"entities={settings.entities} and entity_tagger="
            f"{settings.entity_tagger}: expected one list of names; leave one "
            "out.",
            argument="entity_tagger",
        )
    for name, needed in (
        ("packing", MASKED),
        ("format", ("records",)),
    ):
        if getattr(settings, name) not in needed:
            raise errors.InputError(
                f"word_boundaries={settings.word_boundaries}: expected "
                f"{name}={' or '.join(needed)}, the rows of masked LM, found "
                f"{getattr(settings, name)}.",
                argument="word_boundaries",
            )


def _boundaries(
    settings: settings_lib.PrepareSettings,
) -> word_boundaries.Settings | None:
    if settings.word_boundaries == "none":
        return None
    lexicons = (
        word_boundaries.read_lexicon(path) if path else ()
        for path in (settings.phrases, settings.entities)
    )
    return word_boundaries.Settings(settings.word_boundaries, *lexicons)


def _report_unknown(
    settings: settings_lib.PrepareSettings,
    boundaries: word_boundaries.Settings,
    tokenizer: tokenizers.Tokenizer,
) -> None:
    """Prints how many phrases have tokens that the vocabulary lacks."""
    for path, phrases in (
        (settings.phrases, boundaries.phrases),
        (settings.entities, boundaries.entities),
    ):
        if missing := word_boundaries.unknown(phrases, tokenizer):
            console.say(
                f"{path}: {len(missing):,} of {len(phrases):,} phrases have "
                "tokens that the vocabulary lacks, and are never found; the "
                f"first is {missing[0]!r}"
            )


def _objective(settings: settings_lib.PrepareSettings) -> str:
    """Returns the name of the sentence objective of the rows."""
    if settings.packing not in MASKED:
        return "none"
    return objectives.canonical_name(
        objectives.find(settings.sentence_objective)
    )


def _classes(settings: settings_lib.PrepareSettings) -> dict[str, list[str]]:
    """Returns the manifest's field of the objective's classes, if it has it."""
    objective = _objective(settings)
    if objective == "none" or objective in objectives.BINARY:
        return {}
    return {objectives.CLASSES: list(objectives.find(objective).class_names)}


def _run(
    settings: settings_lib.PrepareSettings, paths: Sequence[str]
) -> dict[str, Any]:
    tagger, names = None, run_folder.PREPARATION
    if settings.entity_tagger:
        tagger = found_entities.load_tagger(settings.entity_tagger)
        names = (*names, found_entities.NAME)
    identity = run_folder.Identity(
        "prepare",
        (settings,),
        _fingerprints(settings, paths, tagger),
    )
    train = os.path.join(settings.output, "train")
    same = run_folder.check(
        settings.output,
        identity,
        names=names,
        has_results=_has_results(settings.output),
    )
    run_folder.write_identity(settings.output, identity)
    if records_lib.is_complete(train):
        return {"already there": train}
    began = time.monotonic()
    tokenizer = _tokenizer(settings, paths, same=same)
    then = _next_command(settings.output, settings.packing, tokenizer)
    if all(path.endswith((".tfrecord", ".tf_record")) for path in paths):
        _check_tfrecords(settings)
        rows, longest = import_tfrecords.import_google_tfrecords(
            paths,
            tokenizer,
            output=settings.output,
            objective=_objective(settings),
            held_out=settings.dev_fraction,
            input=settings.input,
        )
        return {
            "rows": rows,
            "longest": longest,
            "masks": "as the files have them",
            "next": then,
        }
    if tagger:
        found = _find_entities(settings, paths, tagger, same=same)
        settings = dataclasses.replace(settings, entities=found)
    boundaries = _boundaries(settings)
    if boundaries:
        _report_unknown(settings, boundaries, tokenizer)
    partition = _write(settings, boundaries, paths, tokenizer)
    summary = preparation_report.make(
        settings.output,
        partition,
        tokenizer,
        time.monotonic() - began,
    )
    files.write_text(
        os.path.join(settings.output, "report.json"),
        json.dumps(summary, indent=1, ensure_ascii=False),
    )
    return summary | ({"next": then} if settings.format == "records" else {})


def _check_tfrecords(settings: settings_lib.PrepareSettings) -> None:
    """Raises InputError for settings of rows, which TFRecord files have."""
    _require_google_objective(settings, "reads")
    for name, value in (
        ("word_boundaries", "none"),
        ("packing", "segments"),
    ):
        if getattr(settings, name) != value:
            raise errors.InputError(
                f"{name}={getattr(settings, name)}: expected text as "
                "`input`, found TFRecord files, whose rows are fixed; "
                "leave it out.",
                argument=name,
            )


def _fingerprints(
    settings: settings_lib.PrepareSettings,
    paths: Sequence[str],
    tagger: predictor.Predictor | None,
) -> dict[str, Any]:
    """Returns the fingerprints of the files that the records are made of."""
    of = run_folder.contents_fingerprint
    lexicons = {
        name: of(path)
        for name in ("phrases", "entities")
        if (path := getattr(settings, name))
    }
    if tagger:
        lexicons["entity_tagger"] = found_entities.fingerprint(tagger)
    vocab = settings.vocab and of(settings.vocab)
    return {"input": [of(path) for path in paths], "vocab": vocab, **lexicons}


def _next_command(
    output: str, packing: str, tokenizer: tokenizers.Tokenizer
) -> str:
    """Returns the command line that pretrains on the records."""
    command = (
        f"{commands.command_line('pretrain')} --records={output} "
        "--output=runs/base"
    )
    objective, model = "", "tiny"
    if tokenizer.feature == "characters":
        objective, model = "bidirectional_lm", "elmo_tiny"
    elif packing not in MASKED:
        objective, model = "causal_lm", "gpt_mini"
    if objective:
        command += f" --objective={objective}"
    devices = tf.config.list_logical_devices()
    if {device.device_type for device in devices} == {"CPU"}:
        # The default is BERT-base in batches of 256: minutes a step on a CPU.
        command += f" --model={model} --batch_size=32 --steps=2000"
    return command


def _write(
    settings: settings_lib.PrepareSettings,
    boundaries: word_boundaries.Settings | None,
    paths: Sequence[str],
    tokenizer: tokenizers.Tokenizer,
) -> corpus_chunks.Partition:
    """Writes the records; returns the partition, with counts of the corpus."""
    shard_settings = pretraining_records.ShardSettings(
        folder=settings.output,
        tokenizer=tokenizer,
        seq_length=settings.seq_length,
        objective=_objective(settings),
        packing=settings.packing,
        text_field=settings.text_field,
        passes=settings.dupe_factor,
        seed=settings.seed,
        masks=pretraining_records.MaskSettings(
            settings.masked_lm_prob, settings.max_predictions_per_seq
        )
        if settings.format == "google"
        else None,
        boundaries=boundaries,
    )
    size = _size(paths)
    position = corpus.Position()
    partition = corpus_chunks.Partition(
        corpus.scan(paths, text_field=settings.text_field, position=position),
        held_out=settings.dev_fraction,
        deduplicate=settings.deduplicate,
        chunk_bytes=int(settings.shard_mb * 1e6),
    )
    results: dict[str, list[dict[str, Any]]] = {"train": [], "dev": []}
    with console.Progress("preparing", total=size / 1e6, unit="MB") as progress:
        for split, done, result in _write_chunks(
            settings, shard_settings, partition, position, size
        ):
            results[split].append(result)
            progress.update(done / 1e6)
    if not any(chunk["shards"] for chunk in results["train"]):
        raise errors.InputError(
            f"{settings.input} gives no training row; is it empty?"
        )
    # Training records last: their manifest marks the preparation as complete.
    for split in ("dev", "train"):
        if any(chunk["shards"] for chunk in results[split]):
            _finish(settings, boundaries, split, results[split], tokenizer)
    return partition


def _has_results(output: str) -> bool:
    """Returns whether `output` contains any records."""
    return any(
        tf.io.gfile.glob(os.path.join(output, split, name))
        for split in ("train", "dev")
        for name in ("shard-*", "chunk-*.json", records_lib.MANIFEST)
    )


@dataclasses.dataclass
class _TrackedChunks:
    """Yields a partition's chunks and tracks their offsets in the input."""

    partition: corpus_chunks.Partition
    position: corpus.Position
    # (split, input bytes read so far) of each chunk without a result yet.
    origins: collections.deque[tuple[str, int]] = dataclasses.field(
        default_factory=collections.deque
    )

    def __iter__(self) -> Iterator[corpus_chunks.Chunk]:
        for chunk in self.partition:
            self.origins.append((chunk.split, self.position.bytes))
            yield chunk


def _write_chunks(
    settings: settings_lib.PrepareSettings,
    shard_settings: pretraining_records.ShardSettings,
    partition: corpus_chunks.Partition,
    position: corpus.Position,
    size: int,
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Writes all chunks; yields (split, input bytes read so far, result)."""
    write_shards = functools.partial(
        pretraining_records.write_shards, settings=shard_settings
    )
    if settings.runner:
        # Pass chunks in files: a partition may exceed a runner's size limits.
        paths = list(_write_partition(settings.output, partition))
        write_listed = functools.partial(
            write_shards_of_file, settings=shard_settings
        )
        parallel_map.in_pipeline(
            write_listed, paths, settings.runner, settings.runner_options
        )
        for path in paths:
            yield _read_chunk(path).split, size, write_listed(path)
            tf.io.gfile.remove(path)
        return
    processes = settings.workers or min(
        os.cpu_count() or 1, max(1, size // BYTES_PER_PROCESS)
    )
    chunks = _TrackedChunks(partition, position)
    for result in parallel_map.in_order(write_shards, chunks, processes):
        yield *chunks.origins.popleft(), result


def write_shards_of_file(
    path: str, *, settings: pretraining_records.ShardSettings
) -> dict[str, Any]:
    """Writes the records of the chunk in a file; called by Beam workers."""
    return pretraining_records.write_shards(_read_chunk(path), settings)


def _write_partition(
    folder: str, partition: corpus_chunks.Partition
) -> Iterator[str]:
    for number, chunk in enumerate(partition):
        path = os.path.join(folder, "plan", f"{number:05d}.json")
        files.write_text(path, json.dumps(chunk))
        yield path


def _read_chunk(path: str) -> corpus_chunks.Chunk:
    with tf.io.gfile.GFile(path) as file:
        split, number, documents = json.loads(file.read())
    scanned = [corpus.Document(*document) for document in documents]
    return corpus_chunks.Chunk(split, number, scanned)


def _size(paths: Sequence[str]) -> int:
    return sum(tf.io.gfile.stat(path).length for path in paths)


def _tokenizer(
    settings: settings_lib.PrepareSettings, paths: Sequence[str], *, same: bool
) -> tokenizers.Tokenizer:
    """Loads or learns the vocabulary and saves it in the output folder."""
    cls = tokenizers.find(settings.tokenizer)
    copy = os.path.join(settings.output, TOKENIZER)
    if settings.vocab:
        tokenizer = cls.from_vocab(settings.vocab, lowercase=settings.lowercase)
    elif same and tf.io.gfile.exists(copy):  # learned before a kill
        tokenizer = tokenizers.from_dict(files.read_json(copy), settings.output)
    else:
        tokenizer = _learn(settings, paths, cls)
    if tokenizer.mask_id is None and settings.packing in MASKED:
        other = "causal LM, give `packing`=full"
        if tokenizer.feature == "characters":
            other = "bidirectional LM, give `packing`=sentences"
        raise errors.InputError(
            f"{settings.vocab or 'the vocabulary'} has no entry [MASK], which "
            f"masked LM needs; for {other}."
        )
    tokenizer.save(settings.output)
    files.write_text(copy, json.dumps(tokenizer.to_dict()))
    # Load the saved copy: worker processes rebuild the tokenizer from it.
    return cls.from_folder(settings.output, **tokenizer.settings)


def _learn(
    settings: settings_lib.PrepareSettings,
    paths: Sequence[str],
    cls: type[tokenizers.Tokenizer],
) -> tokenizers.Tokenizer:
    arguments = vocabulary_settings.of_learner(settings, cls)
    progress = console.Progress(
        "learning words", total=_size(paths) / 1e6, unit="MB"
    )
    with progress:
        return cls.learn(
            _texts(paths, settings.text_field, progress),
            settings.vocab_size,
            **arguments,
        )


def _find_entities(
    settings: settings_lib.PrepareSettings,
    paths: Sequence[str],
    tagger: predictor.Predictor,
    *,
    same: bool,
) -> str:
    """Returns the path of a tagger's names, which a killed run keeps."""
    path = os.path.join(settings.output, found_entities.NAME)
    if same and tf.io.gfile.exists(path):
        return path
    progress = console.Progress(
        "finding entities", total=_size(paths) / 1e6, unit="MB"
    )
    with progress:
        texts = _texts(paths, settings.text_field, progress)
        return found_entities.write(settings.output, tagger, texts)


def _texts(
    paths: Sequence[str], text_field: str, progress: console.Progress
) -> Iterator[str]:
    position = corpus.Position()
    for document in corpus.documents(
        paths, text_field=text_field, position=position
    ):
        yield from document
        progress.update(position.bytes / 1e6)


def _finish(
    settings: settings_lib.PrepareSettings,
    boundaries: word_boundaries.Settings | None,
    split: str,
    results: Sequence[Mapping[str, Any]],
    tokenizer: tokenizers.Tokenizer,
) -> None:
    folder = os.path.join(settings.output, split)
    shards = list(itertools.chain(*(chunk["shards"] for chunk in results)))
    kept = {entry["name"] for entry in shards}
    others = [
        path
        for path in tf.io.gfile.glob(os.path.join(folder, "shard-*"))
        if os.path.basename(path) not in kept
    ]
    if others:
        console.say(f"not part of the records: {', '.join(others)}")
    tokenizer.save(folder)
    records_lib.write_manifest(
        folder,
        shards,
        seq_length=settings.seq_length,
        objective=_objective(settings),
        **_classes(settings),
        **records_lib.tokenizer_metadata(tokenizer),
        seed=settings.seed,
        input=settings.input,
        **(
            {"packing": settings.packing}
            if settings.packing != "segments"
            else {}
        ),
        **({word_boundaries.UNITS: boundaries.units} if boundaries else {}),
        **(
            {"format": records_lib.GOOGLE}
            if settings.format == "google"
            else {}
        ),
        report=pretraining_records.add_reports(
            [chunk["report"] for chunk in results]
        ),
    )
    pretraining_records.remove_results(folder, len(results))
