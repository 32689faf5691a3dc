"""Finds the names in a corpus by a tagger, as a list for masked LM."""

import collections
import os
from collections.abc import Iterable

from bert_keras import console, errors, files, predictor
from bert_keras.tasks import tagging
from bert_keras.training import run_folder

NAME = "entities.txt"  # in the folder of the records
# How often a name occurs at least: one that a tagger finds once is often wrong.
MIN_COUNT = 2


def load_tagger(path: str) -> predictor.Predictor:
    """Loads a tagger; InputError if the checkpoint is of another task."""
    model = predictor.load(path)
    if not isinstance(model.task, tagging.Tagging):
        raise errors.InputError(
            f"entity_tagger={path}: expected a checkpoint of tagging, found "
            f"one of {model.task.name}.",
            argument="entity_tagger",
        )
    return model


def fingerprint(model: predictor.Predictor) -> str:
    """Returns a fingerprint of what determines a tagger's answers."""
    weights = run_folder.weights_fingerprint(model.model, None)
    return f"{weights} {model.tokenizer.fingerprint}"


def write(folder: str, model: predictor.Predictor, texts: Iterable[str]) -> str:
    """Writes the names that occur in texts, the most frequent first.

    A name is a text that the tagger marks MIN_COUNT times or more, whatever the
    type. Texts are read as a stream; only the distinct names are in memory.

    Returns the path of the file, with a name a line.
    """
    counts: collections.Counter[str] = collections.Counter()
    truncated = 0
    for answer in model.stream(texts):
        counts.update(" ".join(text.split()) for text in answer["text"])
        truncated += answer["truncated"]
    names = [name for name, n in counts.most_common() if n >= MIN_COUNT]
    if not names:
        raise errors.InputError(
            f"entity_tagger: expected names that it marks {MIN_COUNT} times or "
            f"more in the input, found none among {len(counts):,} names. Use "
            "another tagger or more text, or give a list as `entities`.",
            argument="entity_tagger",
        )
    path = os.path.join(folder, NAME)
    files.write_text(path, "".join(f"{name}\n" for name in names))
    console.say(
        f"{path}: {len(names):,} of {len(counts):,} names occur {MIN_COUNT} "
        "times or more"
    )
    if truncated:
        console.say(
            f"{truncated:,} texts are longer than the tagger's seq_length; "
            "their ends were not read"
        )
    return path
