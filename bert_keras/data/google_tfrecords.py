"""Reads and writes Google's pretraining files, which contain fixed masks.

They are TFRecord files of tf.train.Example, as written by
create_pretraining_data.py of google-research/bert. Rows are padded with 0:

  input_ids, input_mask, segment_ids        (S,) int64
  masked_lm_positions, masked_lm_ids        (P,) int64
  masked_lm_weights                         (P,) float, 0 = padding
  next_sentence_labels                      (1,) int64, 1 = random sentence
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bert_keras import errors, files
from bert_keras.data import masking
from bert_keras.data import records as records_lib
from bert_keras.tokenizers import base as tokenizers

FEATURES = {
    "input_ids": tf.int64,
    "input_mask": tf.int64,
    "segment_ids": tf.int64,
    "masked_lm_positions": tf.int64,
    "masked_lm_ids": tf.int64,
    "masked_lm_weights": tf.float32,
    "next_sentence_labels": tf.int64,
}

# Rows per call: enough to hide the overhead of an op. 1,024 were faster than
# 35,000, which do not fit the CPU caches.
BLOCK = 1024

# Bytes that a TFRecord file adds to each record: its length, two checksums.
_RECORD_OVERHEAD = 16


def serialize(columns: Mapping[str, np.ndarray]) -> list[bytes]:
    """Serializes columns {name: (B, values)} as one tf.train.Example per row.

    Gives the same bytes as tf.train.Example with features in this order, but
    works on arrays of all rows, which is faster.
    """
    rows = len(next(iter(columns.values())))
    features = []
    for name, values in columns.items():
        if np.issubdtype(values.dtype, np.floating):
            value_list, payload = (
                _FLOAT_LIST,
                _fixed_width(values.astype("<f4")),
            )
        else:
            value_list, payload = _INT64_LIST, _varints(values)
        key = np.frombuffer(name.encode(), np.uint8)
        features += _message(
            _FEATURE,
            _message(_ENTRY_KEY, _fixed_width(np.tile(key, (rows, 1))))
            + _message(
                _ENTRY_VALUE,
                _message(value_list, _message(_LIST_VALUE, payload)),
            ),
        )
    parts = _message(_FEATURES, features)
    data = np.concatenate([part.data for part in parts], axis=1)
    is_used = np.concatenate([part.is_used for part in parts], axis=1)
    ends = np.cumsum(sum(part.length for part in parts)).tolist()
    flat = data[is_used].tobytes()
    return [flat[a:b] for a, b in itertools.pairwise([0, *ends])]


def write(
    path: str,
    rows: records_lib.Columns,
    *,
    seq_length: int,
    max_predictions: int,
    share: float,
    seed: int,
    number: int,
    tokenizer: tokenizers.Tokenizer,
) -> dict[str, Any]:
    """Masks rows and writes them; returns the file's manifest entry.

    Args:
      rows: "inputs/token_ids" and "inputs/segment_ids", at most seq_length
        tokens, and optionally "targets/next_sentence/labels", default 0.
      max_predictions: P, the maximum number of masks per row.
      share: fraction of a row's tokens to mask.
      seed, number: a row's masks depend on the seed, the file's number and the
        row's index in the file.
    """
    with files.aside(path) as written, tf.io.TFRecordWriter(written) as file:
        for start in range(0, len(rows.lengths), BLOCK):
            columns = _columns(
                rows,
                np.arange(start, min(start + BLOCK, len(rows.lengths))),
                _file_seed(seed, number),
                seq_length=seq_length,
                max_predictions=max_predictions,
                share=share,
                tokenizer=tokenizer,
            )
            for example in serialize(columns):
                file.write(example)
    return records_lib.entry(path, rows, files.checksum(path))


def read(
    paths: Iterable[str], *, vocab_size: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the rows of Google's files as records.

    A record: inputs/token_ids int32 and inputs/segment_ids uint8, without
    padding; inputs/positions int32, targets/masked_lm/labels int32 and
    targets/masked_lm/weights float32, all (P,); and the scalars
    targets/next_sentence/labels int32 and targets/next_sentence/weights
    float32, always 1, because the files do not mark rows without a pair.

    Raises InputError if a file has another format, is damaged, has other
    lengths than the first file, or has ids outside the `vocab_size` entries.
    """
    first = None
    for path in paths:
        num_rows = 0
        for columns in _blocks(path):
            sizes = _sizes(columns)
            first = first or (path, sizes)
            if sizes != first[1]:
                raise errors.InputError(
                    f"{path} has {sizes[0]} tokens and {sizes[1]} predictions "
                    f"per row, but {first[0]} has {first[1][0]} and "
                    f"{first[1][1]}; read them one by one."
                )
            _check(path, num_rows, columns, vocab_size)
            yield from _rows(columns)
            num_rows += len(columns["input_ids"])


_mask_tokens = tf.function(
    masking.mask_tokens, reduce_retracing=True, autograph=False
)

# Protobuf tags of length-delimited fields: field number << 3 | wire type 2.
# See feature.proto and example.proto of TensorFlow.
_FEATURES = 1 << 3 | 2  # Example.features
_FEATURE = 1 << 3 | 2  # Features.feature, a map
_ENTRY_KEY, _ENTRY_VALUE = 1 << 3 | 2, 2 << 3 | 2
_FLOAT_LIST, _INT64_LIST = 2 << 3 | 2, 3 << 3 | 2  # Feature
_LIST_VALUE = 1 << 3 | 2  # packed


class _Part(NamedTuple):
    """Bytes of B rows: the elements of `data` where `is_used` is true.

    Both are (B, bytes), so that rows of different lengths fit one array.
    """

    data: np.ndarray
    is_used: np.ndarray
    length: np.ndarray  # (B,), number of used bytes


def _fixed_width(values: np.ndarray) -> list[_Part]:
    """Encodes values (B, n) as their bytes in memory."""
    data = values.view(np.uint8)
    length = np.full(len(data), data.shape[1])
    return [_Part(data, np.ones(data.shape, bool), length)]


def _varints(values: np.ndarray) -> list[_Part]:
    """Encodes integers (B, n) as varints: 7 bits per byte, lowest first.

    The top bit of a byte is 1 if more bytes of the number follow.
    """
    width = max(1, -(-int(values.max(initial=0)).bit_length() // 7))
    if values.min(initial=0) < 0:
        width = 10  # bytes of a negative number, 64-bit two's complement
    if width == 1:
        return _fixed_width(values.astype(np.uint8))
    values = values.astype(np.uint32 if width < 5 else np.uint64)
    data = np.empty((*values.shape, width), np.uint8)
    is_used = np.empty(data.shape, bool)
    for byte in range(width):
        is_used[..., byte] = values > 0 if byte else True
        low = values.astype(np.uint8) & 0x7F
        values = values >> 7
        data[..., byte] = low | (values > 0) * np.uint8(0x80)
    is_used = is_used.reshape(len(values), -1)
    return [_Part(data.reshape(is_used.shape), is_used, is_used.sum(axis=1))]


def _message(tag: int, content: list[_Part]) -> list[_Part]:
    """Encodes a length-delimited field: tag, length, content."""
    lengths: Any = sum(part.length for part in content)
    length = lengths[:, np.newaxis]
    tags = np.full(length.shape, tag, np.uint8)
    return _fixed_width(tags) + _varints(length) + content


def _columns(
    rows: records_lib.Columns,
    numbers: np.ndarray,
    seed: np.int32,
    *,
    seq_length: int,
    max_predictions: int,
    share: float,
    tokenizer: tokenizers.Tokenizer,
) -> dict[str, np.ndarray]:
    """Returns the rows at the indices `numbers`, padded and masked.

    {name: (B, values)} of FEATURES.
    """
    mask = np.arange(seq_length) < rows.lengths[numbers][:, np.newaxis]
    values = slice(*rows.row_splits[[numbers[0], numbers[-1] + 1]])
    padded = {}
    for name in ("inputs/token_ids", "inputs/segment_ids"):
        padded[name] = np.zeros(mask.shape, np.int32)
        padded[name][mask] = rows.per_token[name][values]
    seeds = np.stack([np.full_like(numbers, seed), numbers], axis=1)
    masked = _mask_tokens(
        tf.constant(padded["inputs/token_ids"]),
        tf.constant(mask, tf.int32),
        tf.constant(seeds, tf.int32),
        share=share,
        mask_id=tokenizer.mask_id,
        special_ids=tokenizer.special_ids,
        vocab_size=tokenizer.vocab_size,
        num_masks=min(max_predictions, seq_length),
    )
    token_ids, positions, labels, weights = (value.numpy() for value in masked)
    padding = [(0, 0), (0, max(0, max_predictions - seq_length))]
    labels = labels * (weights > 0)  # 0 at padding, as in Google's files
    no_pairs = np.zeros(len(rows.lengths), np.int32)
    sentence = rows.per_row.get("targets/next_sentence/labels", no_pairs)
    return {
        "input_ids": token_ids,
        "input_mask": mask.astype(np.uint8),
        "segment_ids": padded["inputs/segment_ids"],
        "masked_lm_positions": np.pad(positions, padding),
        "masked_lm_ids": np.pad(labels, padding),
        "masked_lm_weights": np.pad(weights, padding),
        "next_sentence_labels": sentence[numbers][:, np.newaxis],
    }


def _file_seed(seed: int, number: int) -> np.int32:
    """Returns the seed of a file; a row's second seed is its index in it."""
    (file_seed,) = np.random.SeedSequence([seed, number]).generate_state(1)
    return file_seed.astype(np.int32)


def _blocks(path: str) -> Iterator[dict[str, np.ndarray]]:
    """Yields the parsed features of a file, BLOCK rows at a time."""
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        raise errors.InputError(f"{path} is not a file.")
    num_rows = num_bytes = 0
    features = None
    try:
        for examples in tf.data.TFRecordDataset(path).batch(BLOCK):
            features = features or _features(path, examples[:1])
            columns = tf.io.parse_example(examples, features)
            yield {name: value.numpy() for name, value in columns.items()}
            num_rows += len(examples)
            lengths = tf.strings.length(examples) + _RECORD_OVERHEAD
            num_bytes += int(tf.reduce_sum(lengths))
    except tf.errors.DataLossError:
        num_bytes = -1
    except tf.errors.InvalidArgumentError:
        raise errors.InputError(
            f"{path}: the row after row {num_rows} has other features or "
            "lengths than the first one; write the file again."
        ) from None
    # Compare sizes: TensorFlow's reader takes a truncated record header for the
    # end of the file.
    if not num_bytes or num_bytes != tf.io.gfile.stat(path).length:
        raise errors.InputError(
            f"{path} is not a TFRecord file, or is empty, damaged or "
            f"truncated after row {num_rows}; copy or write it again, "
            "uncompressed."
        )


def _features(path: str, example: tf.Tensor) -> dict[str, Any]:
    """Returns the features to parse, from a file's first row (1,) string."""
    ragged = {
        name: tf.io.RaggedFeature(dtype) for name, dtype in FEATURES.items()
    }
    try:
        row = tf.io.parse_example(example, ragged)
    # UnicodeDecodeError: the error message quotes bytes of an invalid Example.
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
        row = {}
    lengths = {name: value.values.shape[0] for name, value in row.items()}
    sizes = tuple(lengths.get(name, 0) for name in FEATURES)
    tokens, predictions = sizes[0], sizes[3]
    if sizes != (*[tokens] * 3, *[predictions] * 3, 1) or 0 in sizes:
        raise errors.InputError(
            f"{path} does not hold pretraining rows: expected tf.train.Example "
            f"with {', '.join(FEATURES)}, as create_pretraining_data.py writes "
            f"them; the first row has {lengths or 'other features'}."
        )
    return {
        name: tf.io.FixedLenFeature([length], FEATURES[name])
        for name, length in lengths.items()
    }


def _sizes(columns: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Returns (S, P)."""
    return (
        columns["input_ids"].shape[1],
        columns["masked_lm_positions"].shape[1],
    )


def _check(
    path: str,
    num_rows_before: int,
    columns: Mapping[str, np.ndarray],
    vocab_size: int | None,
) -> None:
    """Raises InputError for the first invalid row.

    num_rows_before: the number of rows in the file before these.
    """
    mask, positions = columns["input_mask"], columns["masked_lm_positions"]
    lengths = mask.sum(axis=1, keepdims=True)
    last = np.iinfo(np.int32).max if vocab_size is None else vocab_size - 1
    violations = {  # problem -> (B, values) bool
        "input_mask is not ones and then zeros": (
            mask != (np.arange(mask.shape[1]) < lengths)
        ),
        "masked_lm_positions are not within the row": (
            (positions < 0) | (positions >= np.maximum(lengths, 1))
        ),
        "next_sentence_labels is not 0 or 1": (
            columns["next_sentence_labels"] >> 1 != 0
        ),
        f"ids are not 0 to {last}; use the vocabulary of the file": (
            np.concatenate(
                [
                    (columns[name] < 0) | (columns[name] > last)
                    for name in ("input_ids", "masked_lm_ids")
                ],
                axis=1,
            )
        ),
    }
    for problem, is_violation in violations.items():
        if is_violation.any():
            row = num_rows_before + int(is_violation.any(axis=1).argmax())
            raise errors.InputError(f"{path}, row {row} from 0: {problem}.")


def _rows(columns: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    lengths = columns["input_mask"].sum(axis=1)
    token_ids = columns["input_ids"].astype(np.int32)
    segment_ids = columns["segment_ids"].astype(np.uint8)
    positions = columns["masked_lm_positions"].astype(np.int32)
    labels = columns["masked_lm_ids"].astype(np.int32)
    sentence = columns["next_sentence_labels"][:, 0].astype(np.int32)
    for row, length in enumerate(lengths):
        yield {
            "inputs/token_ids": token_ids[row, :length],
            "inputs/segment_ids": segment_ids[row, :length],
            "inputs/positions": positions[row],
            "targets/masked_lm/labels": labels[row],
            "targets/masked_lm/weights": columns["masked_lm_weights"][row],
            "targets/next_sentence/labels": sentence[row],
            "targets/next_sentence/weights": np.float32(1),
        }
