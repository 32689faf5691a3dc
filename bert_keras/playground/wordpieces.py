"""The tokens that a model reads of a text, frame included, for the page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bert_keras.predictor import Predictor
from bert_keras.tasks import base

MOST_TOKENS = 512  # more would fill pages


def read(
    predictor: Predictor, rows: Sequence[Mapping[str, str]]
) -> dict[str, Any] | None:
    """Tokenizes texts as the model does.

    Returns {"rows": the rows of the model, each a list of {"token", "id",
    "segment", "unknown"}, "count": of all tokens, "unknown": how many of them
    are [UNK]}, with at most MOST_TOKENS tokens in all rows together; None if
    the network does not read one id per token.
    """
    tokenizer, task = predictor.tokenizer, predictor.task
    raw = base.as_tensors(rows, task.text_columns)
    features = task.preprocess(raw, tokenizer)
    ids = np.asarray(features.get(tokenizer.feature))
    mask = np.asarray(features["padding_mask"])
    if ids.ndim != 2:
        return None
    # Texts that are packed into one row are numbered by the mask.
    segment = np.maximum(mask - 1, np.asarray(features.get("segment_ids", 0)))
    segment = np.broadcast_to(segment, ids.shape)
    shown, room = [], MOST_TOKENS
    for row in range(len(ids)):
        (real,) = np.nonzero(mask[row])
        real = real[:room]
        room -= len(real)
        row_ids = ids[row, real].tolist()
        shown.append(
            [
                {
                    "token": token,
                    "id": number,
                    "segment": int(part),
                    "unknown": number == tokenizer.unk_id,
                }
                for token, number, part in zip(
                    tokenizer.tokens(row_ids),
                    row_ids,
                    segment[row, real],
                    strict=True,
                )
            ]
        )
    is_unknown = (ids == tokenizer.unk_id) & (mask > 0)
    return {
        "rows": [row for row in shown if row],
        "count": int(np.count_nonzero(mask)),
        "unknown": int(np.count_nonzero(is_unknown)),
    }
