"""Samples pretraining instances, single segments or pairs, from documents.

The procedure is that of Devlin et al. 2019 (BERT), appendix A.2: gather
sentences up to a target length, and split them at a sentence boundary. What is
done with the two segments, and which class the pair has, is the sentence
objective's: see `bert_keras.sentence_objectives`.

An instance starts where the document's previous one ends, but documents are
independent: one step makes an instance of every document at once, on arrays. An
instance is two spans of offsets; token ids are not read. Two rules for long
sentences keep every token and both labels: a sentence longer than the target is
split there and its rest starts the next instance, and a single sentence is
split in its middle.
"""

from typing import Any, NamedTuple

import numpy as np

from bert_keras import errors
from bert_keras.sentence_objectives import base as objectives


class TokenizedDocuments(NamedTuple):
    """Concatenated documents; no document and no sentence is empty.

    token_ids (tokens,); sentence_ends (sentences,) and document_ends
    (documents,) int64: ascending offsets in token_ids, the last len(token_ids).
    table (distinct tokens, ids) int32: if a token is several ids, the tokens
    whose numbers the token_ids are. unit_starts (tokens,) uint8: the facts of
    word_boundaries.Finder, if they are stored.
    """

    token_ids: np.ndarray
    sentence_ends: np.ndarray
    document_ends: np.ndarray
    table: np.ndarray | None = None
    unit_starts: np.ndarray | None = None


class Pairs(NamedTuple):
    """Instances without special tokens, as offsets in the documents.

    first and second (rows, 2) int64: begin and end of a segment; the second is
    empty for the objective "none". labels (rows,) int32: indices of the
    objective's classes.
    """

    first: np.ndarray
    second: np.ndarray
    labels: np.ndarray


def sample_pairs(
    documents: TokenizedDocuments,
    *,
    max_tokens: int,
    objective: str,
    short_probability: float = 0.1,
    passes: int = 1,
    generator: np.random.Generator,
) -> list[Pairs]:
    """Samples the instances of each pass, in the order of the documents.

    max_tokens: the sequence length without special tokens.
    objective: the name of a sentence objective; it imports a user's module.
    short_probability: probability that an instance has a shorter target length,
      for every objective.
    """
    sampler = objectives.find(objective)
    if max_tokens < 2:
        raise errors.InputError(
            "Expected room for at least 2 tokens besides the special ones; "
            f"there is room for {max_tokens}. Use longer sequences."
        )
    boundaries = objectives.Boundaries(
        documents.sentence_ends, documents.document_ends
    )
    count = len(documents.document_ends)
    index = np.arange(passes * count)  # pass by pass, document by document
    begin = boundaries.begins[index % count]
    stop = boundaries.stops[index % count]
    samples = [(index[:0], *_NO_PAIRS)]
    # One token cannot be split into a pair.
    has_more = stop - begin > bool(sampler.class_names)
    while has_more.any():
        index, begin, stop = index[has_more], begin[has_more], stop[has_more]
        step = objectives.Step(
            boundaries,
            generator,
            index % count,
            begin,
            max_tokens=max_tokens,
            short_probability=short_probability,
        )
        sample = sampler.sample(step)
        num_classes = len(sampler.class_names)
        _check(sample, step, objective, num_classes, len(documents.token_ids))
        samples.append((index, *_pairs(sample, step, max_tokens)))
        begin = sample.next_begin
        has_more = stop - begin > bool(sampler.class_names)
    index, *pairs = map(np.concatenate, zip(*samples, strict=True))
    order = np.argsort(index, kind="stable")
    pass_ends = np.searchsorted(index[order], count * np.arange(1, passes))
    by_pass = [np.split(value[order], pass_ends) for value in pairs]
    return [Pairs(*arrays) for arrays in zip(*by_pass, strict=True)]


def _check(
    sample: objectives.Sample,
    step: objectives.Step,
    objective: str,
    num_classes: int,
    num_tokens: int,
) -> None:
    """Raises InputError for a sample that would be no pair or never end."""
    if not num_classes:
        return
    _check_arrays(sample, len(step.begin), objective)
    for name, value, low, high in (
        ("the begin of first", sample.first[0], 0, num_tokens),
        ("the end of first", sample.first[1], 0, num_tokens),
        ("the begin of second", sample.second[0], 0, num_tokens),
        ("the end of second", sample.second[1], 0, num_tokens),
        ("next_begin", sample.next_begin, step.begin + 1, step.stop),
        ("labels", sample.labels, 0, num_classes - 1),
        ("the length of first", np.subtract(*sample.first[::-1]), 1, np.inf),
        ("the length of second", np.subtract(*sample.second[::-1]), 1, np.inf),
    ):
        wrong = (value < low) | (value > high)
        if wrong.any():
            row = int(np.argmax(wrong))
            low, high = (np.broadcast_to(x, wrong.shape) for x in (low, high))
            raise errors.InputError(
                f"sentence_objective={objective}: expected {name} from "
                f"{low[row]} to {high[row]}, found {value[row]}.",
                argument="sentence_objective",
            )


def _check_arrays(sample: Any, rows: int, objective: str) -> None:
    """Raises InputError for a sample that is not of whole numbers (rows,)."""
    if not isinstance(sample, objectives.Sample):
        raise errors.InputError(
            f"sentence_objective={objective}: expected a Sample, found "
            f"{type(sample).__name__}.",
            argument="sentence_objective",
        )
    for name, value in sample._asdict().items():
        count = 2 if name in ("first", "second") else 1
        parts = value if isinstance(value, tuple) else (value,)
        if len(parts) != count or not all(
            isinstance(part, np.ndarray)
            and part.shape == (rows,)
            and part.dtype.kind in "biu"
            for part in parts
        ):
            found = ", ".join(
                f"{getattr(part, 'dtype', type(part).__name__)} "
                f"{np.shape(part)}"
                for part in parts
            )
            raise errors.InputError(
                f"sentence_objective={objective}: expected {name} of "
                f"{count} array{'s' * (count > 1)} of {rows} whole numbers, "
                f"found {found}.",
                argument="sentence_objective",
            )


def _pairs(
    sample: objectives.Sample, step: objectives.Step, max_tokens: int
) -> Pairs:
    """Truncates segments to max_tokens together, each at a random end.

    The longer one is truncated first: for max_tokens 10, lengths (8, 4) become
    (6, 4) and (8, 7) become (5, 5).
    """
    labels = sample.labels.astype(np.int32)
    sizes = [end - begin for begin, end in (sample.first, sample.second)]
    if not sizes[1].any():  # rows of one segment, which fit
        return Pairs(
            np.stack(sample.first, axis=1), np.stack(sample.second, 1), labels
        )
    shorter, longer = np.minimum(*sizes), np.maximum(*sizes)
    longer = np.minimum(
        longer, np.maximum(max_tokens - shorter, -(-max_tokens // 2))
    )
    shorter = np.minimum(shorter, max_tokens - longer)
    is_first_longer = sizes[0] > sizes[1]
    return Pairs(
        _truncate(
            sample.first, np.where(is_first_longer, longer, shorter), step
        ),
        _truncate(
            sample.second, np.where(is_first_longer, shorter, longer), step
        ),
        labels,
    )


def _truncate(
    span: objectives.Span, size: np.ndarray, step: objectives.Step
) -> np.ndarray:
    """Removes tokens at a random end of each span until it has `size`."""
    begin, end = span
    begin = np.where(step.coin(), begin, end - size)
    return np.stack([begin, begin + size], axis=1)


_NO_PAIRS = (
    np.zeros((0, 2), np.int64),
    np.zeros((0, 2), np.int64),
    np.zeros(0, np.int32),
)
