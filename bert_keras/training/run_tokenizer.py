"""The tokenizer of a fine-tuning run, with what its task's targets need.

What a run learns, it learns once: a resumed run reads it from its own folder.
"""

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator

from bert_keras import checkpoint, errors, files
from bert_keras.data import records as records_lib
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers
from bert_keras.training import labelled_records, new_network, run_folder
from bert_keras.training import settings as settings_lib


def origin(
    settings: settings_lib.FinetuneSettings,
    task: base.Task,
    start: tokenizers.Tokenizer | None,
) -> str:
    """Returns a hash of everything that the run's tokenizer depends on.

    task: as requested, before `adapt`. start: that of `init`, if there is one.
    """
    vocabulary = [
        settings.tokenizer,
        settings.vocab and run_folder.contents_fingerprint(settings.vocab),
        settings.vocab_size,
        settings.model_type,
        settings.lowercase,
    ]
    values = {
        "start": vocabulary if start is None else start.fingerprint,
        "task": task.to_dict(),
        "options": run_folder.options_fingerprints(task),
        "train": run_folder.contents_fingerprint(
            *task.data_files(settings.train)
        ),
        "split": labelled_records.split_settings(settings),
    }
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(
    settings: settings_lib.FinetuneSettings,
    task: base.Task,
    start: tokenizers.Tokenizer | None,
    origin: str,
) -> tokenizers.Tokenizer:
    """Returns the tokenizer that the run was started with, or starts with.

    task: as requested, before `adapt`. start: that of `init`, if there is one.
    origin: see `origin`.
    """
    saved = _saved(settings.output, origin)
    if saved is not None and (start is None or saved.target is not saved):
        return saved  # something was learned

    def examples() -> Iterator[base.Example]:
        return labelled_records.training_examples(
            settings, task, task.read_examples(settings.train)
        )

    def texts() -> Iterator[str]:
        return itertools.chain.from_iterable(
            map(task.vocabulary_texts, examples())
        )

    if start is None:
        start = new_network.tokenizer(settings, texts)
    tokenizer = task.extend_tokenizer(start, examples)
    return tokenizer.with_frame() if task.reads_frame else tokenizer


def _saved(output: str, origin: str) -> tokenizers.Tokenizer | None:
    """Returns the tokenizer of the last checkpoint, else of the records.

    origin: of the records, if they belong to this run. Returns None if there is
    none, or none that is intact.
    """
    for step in reversed(checkpoint.steps(output)):
        folder = checkpoint.step_folder(output, step)
        with contextlib.suppress(errors.InputError):
            return checkpoint.read(folder).tokenizer()
    folder = os.path.join(output, "records")
    if not records_lib.is_complete(folder):
        return None
    with contextlib.suppress(errors.InputError):
        manifest = files.read_json(os.path.join(folder, records_lib.MANIFEST))
        if manifest.get(labelled_records.ORIGIN) == origin:
            tokenizer = records_lib.tokenizer_of(folder, manifest)
            if tokenizer.fingerprint == manifest["tokenizer"]:
                return tokenizer
    return None
