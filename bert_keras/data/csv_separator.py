"""Infers the separator of a .csv file: a comma, a semicolon or a TAB.

Where the comma is the decimal mark, as in Germany, Excel writes semicolons.
"""

import csv
import itertools
from collections.abc import Collection, Sequence

from bert_keras.data import text_lines

NAMES = {",": "','", ";": "';'", "\t": "TAB"}

_LINES = 50  # read to infer the separator


def infer(path: str, *, indices: Collection[int] = ()) -> str:
    """Returns the separator that fits the first lines; a comma if none does.

    indices: of the columns to read, in a file without a header.

    With a header it is the first of NAMES that splits the header in two or
    more fields. The texts of a file without a header may have separators in
    them: it is the one with which most rows have as many fields as the first,
    and the first has the columns to read.
    """
    lines = [
        f"{text_lines.decode_loosely(line)}\n"
        for line in itertools.islice(text_lines.read(path), _LINES)
    ]
    shares = {}
    for separator in NAMES:
        rows = _rows(lines, separator)
        rows = rows if indices else rows[:1]
        shares[separator] = _share(rows, max((1, *indices)) + 1)
    best = max(shares, key=lambda separator: shares[separator])
    return best if shares[best] > 0.5 else ","


def _rows(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Returns the rows before the first malformed or incomplete one."""
    rows = []
    try:
        for row in csv.reader(lines, delimiter=separator, strict=True):
            if row:
                rows.append(row)
    except csv.Error:
        pass
    return rows


def _share(rows: Sequence[Sequence[str]], least: int) -> float:
    """Returns the share of rows as wide as the first; 0 if below `least`."""
    if not rows or len(rows[0]) < least:
        return 0.0
    return sum(len(row) == len(rows[0]) for row in rows) / len(rows)
