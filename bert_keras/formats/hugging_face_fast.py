"""Reads tokenizer.json of Hugging Face's `tokenizers`, if it is BERT's.

The file can describe any tokenizer, by the parts normalizer, pre_tokenizer,
model and post_processor. If a part would give other ids than the tokenizer
here, an error names it. An absent part is assumed to be BERT's; null means that
there is none.
"""

import collections
import os
from collections.abc import Iterator, Mapping
from typing import Any

from bert_keras import errors
from bert_keras.formats import weight_mapping

FAST = "tokenizer.json"

# A word is [UNK] from 101 characters on, with Google's code from 201 on.
_MODEL = {
    "type": ("WordPiece",),
    "unk_token": ("[UNK]",),
    "continuing_subword_prefix": ("##",),
    "max_input_chars_per_word": (100, 200),
}

# The tokens and texts in the post_processor's template, with their segments.
_PAIR = [("[CLS]", 0), ("A", 0), ("[SEP]", 0), ("B", 1), ("[SEP]", 1)]


def check(folder: str, fast: Mapping[str, Any]) -> None:
    """Raises InputError naming the part of the file that is not BERT's."""
    path = os.path.join(folder, FAST)
    for name, fits, berts in (
        ("normalizer", _is_berts_normalizer, "BertNormalizer with clean_text"),
        ("pre_tokenizer", _is_berts_pre_tokenizer, "BertPreTokenizer"),
        (
            "post_processor",
            _is_berts_post_processor,
            "[CLS] A [SEP] and [CLS] A [SEP] B [SEP]",
        ),
    ):
        if name in fast and not fits(fast[name]):
            raise errors.InputError(
                f"{path}: expected the {name} of BERT, {berts}; found "
                f"{_described(fast[name])}, which gives other ids."
            )
    model = weight_mapping.field(fast, "model", dict, path) or {}
    for name, allowed in _MODEL.items():
        if model.get(name, allowed[0]) not in allowed:
            raise errors.InputError(
                f"{path}: expected a model with {name} "
                f"{' or '.join(map(repr, allowed))}, BERT's WordPiece; found "
                f"{weight_mapping.shown(model[name])}."
            )


def normalizer(fast: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the settings of the BertNormalizer, or {} if there is none."""
    return _step(fast.get("normalizer"))


def vocabulary(folder: str, fast: Mapping[str, Any]) -> dict[int, str] | None:
    """Returns the tokens by id, or None if there is no vocabulary."""
    path = os.path.join(folder, FAST)
    model = weight_mapping.field(fast, "model", dict, path) or {}
    ids = weight_mapping.field(model, "vocab", dict, path)
    if ids is None:
        return None
    for piece, index in ids.items():
        if type(index) is not int or not 0 <= index < 1 << 31:
            raise errors.InputError(
                f"{path}: expected an id for each wordpiece, found "
                f"{weight_mapping.shown(index)} for "
                f"{weight_mapping.shown(piece)}."
            )
    for index, count in collections.Counter(ids.values()).most_common(1):
        if count > 1:
            raise errors.InputError(
                f"{path}: expected one wordpiece for each id, found {count} "
                f"with the id {index}."
            )
    return {index: piece for piece, index in ids.items()}


def added(folder: str, fast: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yields (id, token) of tokens that were added to the vocabulary."""
    path = os.path.join(folder, FAST)
    for item in weight_mapping.field(fast, "added_tokens", list, path) or []:
        item = item if isinstance(item, dict) else {}
        yield item.get("id"), item.get("content")


def framing(fast: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yields (id, token) of the special tokens around texts."""
    step = _step(fast.get("post_processor"))
    for name in ("cls", "sep"):
        if isinstance(step.get(name), list) and len(step[name]) == 2:
            token, index = step[name]
            yield index, token
    tokens = step.get("special_tokens")
    for token, item in (tokens if isinstance(tokens, dict) else {}).items():
        ids = item.get("ids") if isinstance(item, dict) else None
        yield ids[0] if isinstance(ids, list) and len(ids) == 1 else ids, token


def _steps(part: Any) -> list[Any]:
    """Returns the steps of a part; nested Sequences are flattened."""
    left, steps = [part], []
    while left:
        step = left.pop()
        for name in ("normalizers", "pretokenizers", "processors"):
            if isinstance(step, dict) and isinstance(step.get(name), list):
                left += reversed(step[name])
                break
        else:
            steps.append(step)
    return steps


def _step(part: Any) -> Mapping[str, Any]:
    """Returns the only step of a part, or {} if there is not exactly one."""
    steps = _steps(part)
    return steps[0] if len(steps) == 1 and isinstance(steps[0], dict) else {}


def _is_berts_normalizer(part: Any) -> bool:
    step = _step(part)
    return (
        bool(step)
        and step.get("type", "BertNormalizer") == "BertNormalizer"
        and step.get("clean_text", True) is True
    )


def _is_berts_pre_tokenizer(part: Any) -> bool:
    return _step(part).get("type") == "BertPreTokenizer"


def _is_berts_post_processor(part: Any) -> bool:
    step = _step(part)
    if step.get("type") == "BertProcessing":
        return [token for _, token in framing({"post_processor": part})] == [
            "[CLS]",
            "[SEP]",
        ]
    return (
        step.get("type") == "TemplateProcessing"
        and _template(step.get("single")) == _PAIR[:3]
        and _template(step.get("pair")) == _PAIR
    )


def _template(items: Any) -> list[tuple[Any, Any]]:
    return [
        (part.get("id"), part.get("type_id"))
        for item in (items if isinstance(items, list) else [])
        for part in (item.values() if isinstance(item, dict) else [])
        if isinstance(part, dict)
    ]


def _described(part: Any) -> str:
    steps = _steps(part)
    if part is None:
        return "null, none"
    if len(steps) == 1:
        return weight_mapping.shown(steps[0], 200)
    names = [
        str(step.get("type"))
        if isinstance(step, dict)
        else weight_mapping.shown(step)
        for step in steps
    ]
    return f"a Sequence of {', '.join(names) or 'nothing'}"
