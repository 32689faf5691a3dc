"""The settings of how tasks answer: no options of training, but of commands.

`predict`, the exports and `bert_keras.load(path, settings=...)` take them; a
task has those among its fields.
"""

import dataclasses
from collections.abc import Iterator

from bert_keras import exits, generation, mask_filling, vector_files

KINDS = (
    generation.SequenceSettings,
    mask_filling.Settings,
    vector_files.Settings,
    exits.Settings,
)


def fields() -> Iterator[dataclasses.Field]:
    """Yields the fields of all kinds; the default of each is None."""
    for kind in KINDS:
        yield from dataclasses.fields(kind)
