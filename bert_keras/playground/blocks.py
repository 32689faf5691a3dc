"""The parts of an answer that the page draws.

A view returns a list of blocks. page.html has a function of the same name for
each of them, and shows all strings as text, never as markup.
"""

from collections.abc import Sequence
from typing import Any

Block = dict[str, Any]


def headline(caption: str, text: str, score: float | None = None) -> Block:
    """The answer in large letters, with its score."""
    return {
        "block": "headline",
        "caption": caption,
        "text": text,
        "score": score,
    }


def bar(
    label: str,
    value: float,
    *,
    best: bool = False,
    tag: str = "",
    span: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A row of `bars`.

    value: the length of the bar, from 0 to 1; smaller values have no length.
    best: whether the row is emphasized.
    tag: a short text before the label, such as the type of an entity.
    span: one of `span`; the row becomes a button that shows it in the text.
    """
    return {
        "label": label,
        "value": value,
        "best": best,
        "tag": tag,
        "span": span,
    }


def bars(
    caption: str, rows: Sequence[dict[str, Any]], *, shown: int = 10
) -> Block:
    """Labels with scores, in the given order.

    shown: how many rows are shown; the others can be unfolded.
    """
    return {
        "block": "bars",
        "caption": caption,
        "rows": list(rows),
        "shown": shown,
    }


def span(start: int, end: int, label: str) -> dict[str, Any]:
    """The part text[start:end] of a text, in code points, with a label."""
    return {"start": start, "end": end, "label": label}


def marked_text(
    caption: str, text: str, spans: Sequence[dict[str, Any]]
) -> Block:
    """A text in which spans are highlighted; they may overlap."""
    return {
        "block": "marked_text",
        "caption": caption,
        "text": text,
        "spans": list(spans),
    }


def scale(caption: str, value: float, *, low: float, high: float) -> Block:
    """A number on a scale with two ends."""
    return {
        "block": "scale",
        "caption": caption,
        "value": value,
        "low": low,
        "high": high,
    }


def message(text: str) -> Block:
    """A sentence about the answer."""
    return {"block": "message", "text": text}
