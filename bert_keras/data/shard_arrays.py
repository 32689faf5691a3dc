"""The arrays of a shard of records: their names, features and consistency.

row_splits                (rows + 1,), offsets of the rows' tokens
row_splits:target_tokens  (rows + 1,), offsets of the rows' target tokens
row:FEATURE               (rows, ...), one value per row
token:FEATURE             (tokens, ...), one value per token
index:FEATURE             (tokens,), each token's index in table:FEATURE
table:FEATURE             (distinct values, ...)
target_token:FEATURE      (target tokens, ...), one value per target token
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

ROW_SPLITS = "row_splits"
TARGET_SPLITS = "row_splits:target_tokens"
# The part of an array's name before the feature's -> the row splits.
LAYOUTS = {
    "token": ROW_SPLITS,
    "table": ROW_SPLITS,
    "target_token": TARGET_SPLITS,
    "row": None,
}


class Feature(NamedTuple):
    """How a feature is stored: the dtype and the shape of a value.

    row_splits: ROW_SPLITS or TARGET_SPLITS if it has one value per token or per
    target token; None: one per row.
    """

    dtype: np.dtype
    row_splits: str | None
    shape: tuple[int, ...]

    def padded_shape(
        self, lengths: Mapping[str, int | None]
    ) -> tuple[Any, ...]:
        """Returns a row's shape in a batch; lengths: {row splits: length}."""
        if self.row_splits is None:
            return self.shape
        return (lengths[self.row_splits], *self.shape)


def features(shard: Mapping[str, np.ndarray]) -> dict[str, Feature]:
    """Returns the features that the arrays are of, by name."""
    features = {}
    for key, value in shard.items():
        layout, _, name = key.partition(":")
        if layout in LAYOUTS:
            features[name] = Feature(
                value.dtype, LAYOUTS[layout], value.shape[1:]
            )
    return features


class Values(NamedTuple):
    """Values of a feature; of one with a table, the indices of its rows."""

    name: str
    values: np.ndarray
    table: np.ndarray | None


def by_row_splits(
    shard: Mapping[str, np.ndarray], names: Iterable[str]
) -> dict[str | None, list[Values]]:
    """Returns the values of these features by their row splits."""
    groups: dict[str | None, list[Values]] = {}
    described = features(shard)
    for name in names:
        table = shard.get(f"table:{name}")
        layouts = ("index", "token", "target_token", "row")
        keys = [f"{layout}:{name}" for layout in layouts]
        values = next(shard[key] for key in keys if key in shard)
        group = groups.setdefault(described[name].row_splits, [])
        group.append(Values(name, values, table))
    return groups


def has_features_of(
    shard: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]
) -> bool:
    """Returns whether a shard has all features of another one, as there."""
    own = features(shard)
    return all(
        name in own
        and own[name].row_splits == feature.row_splits
        and own[name].shape == feature.shape
        for name, feature in features(other).items()
    )


def are_consistent(shard: Mapping[str, np.ndarray]) -> bool:
    """Returns whether a shard's arrays have consistent shapes."""
    splits = shard.get(ROW_SPLITS)
    if splits is None or not _are_row_splits(splits):
        return False
    tokens = [v for n, v in shard.items() if n.startswith(("token:", "index:"))]
    rows = [v for n, v in shard.items() if n.startswith("row:")]
    return (
        all(v.ndim and len(v) == splits[-1] for v in tokens)
        and all(v.ndim and len(v) == len(splits) - 1 for v in rows)
        and _has_valid_targets(shard, len(splits) - 1)
        and all(
            _is_index(shard.get(f"index:{name[6:]}"), value)
            for name, value in shard.items()
            if name.startswith("table:")
        )
        and all(
            f"table:{name[6:]}" in shard
            for name in shard
            if name.startswith("index:")
        )
    )


def _are_row_splits(splits: np.ndarray) -> bool:
    """Returns whether an array is (rows + 1,) offsets that begin at 0."""
    return (
        splits.ndim == 1
        and splits.dtype.kind in "iu"
        and len(splits) > 0
        and splits[0] == 0
        and bool((np.diff(splits.astype(np.int64)) >= 0).all())
    )


def _has_valid_targets(shard: Mapping[str, np.ndarray], rows: int) -> bool:
    """Returns whether all values of target tokens fit their row splits."""
    splits = shard.get(TARGET_SPLITS)
    values = [v for n, v in shard.items() if n.startswith("target_token:")]
    if splits is None or not values:
        return splits is None and not values
    return (
        _are_row_splits(splits)
        and len(splits) == rows + 1
        and all(v.ndim and len(v) == splits[-1] for v in values)
    )


def _is_index(index: np.ndarray | None, table: np.ndarray) -> bool:
    """Returns whether all of `index` are rows of the table."""
    return (
        index is not None
        and index.ndim == 1
        and index.dtype.kind in "iu"
        and table.ndim > 0
        and (not len(index) or 0 <= index.min() <= index.max() < len(table))
    )
