"""Joins short rows, so that several texts share a row of full length."""

import numpy as np

from bert_keras.data import records

_OPEN = 64  # rows that may still get a text
MASK = "inputs/padding_mask"


def join(columns: records.Columns, length: int) -> records.Columns:
    """Returns rows of up to `length` tokens, of one or more rows each.

    columns: rows without features per row. They get the feature padding_mask:
    k on the tokens of the k-th text of a row, which attends to no other.
    """
    if columns.per_row or columns.tables or columns.target_splits is not None:
        raise ValueError("rows with other features than per token")
    rows = fit(columns.lengths, length)
    order = np.array([text for row in rows for text in row], np.int64)
    sizes = columns.lengths[order]
    index = np.repeat(
        columns.row_splits[order] - np.cumsum(sizes) + sizes, sizes
    )
    index += np.arange(len(index))
    number = [k for row in rows for k in range(1, len(row) + 1)]
    counts = [sum(columns.lengths[row].tolist()) for row in rows]
    per_token = {
        name: values[index] for name, values in columns.per_token.items()
    }
    per_token[MASK] = np.repeat(np.array(number, np.uint16), sizes)
    return records.Columns(np.append(0, np.cumsum(counts)), per_token, {})


def fit(lengths: np.ndarray, most: int) -> list[list[int]]:
    """Returns the texts of each row, so that its length is `most` or less.

    Each text, in order, joins the fullest of 64 open rows that it fits into;
    otherwise it opens a new one, and the fullest open row is closed.
    """
    rows: list[list[int]] = []
    space = np.zeros(_OPEN, np.int64)  # of the open rows
    opened = np.full(_OPEN, -1)  # their indices
    for text, length in enumerate(lengths.tolist()):
        left = np.where(space >= length, space, most + 1)
        slot = int(left.argmin())
        if left[slot] > most:
            slot = int(space.argmin())
            opened[slot], space[slot] = len(rows), most
            rows.append([])
        rows[opened[slot]].append(text)
        space[slot] -= length
    return rows
