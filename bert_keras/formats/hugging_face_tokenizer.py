"""The WordPiece vocabulary and casing of a Hugging Face folder.

Their tokenizer can be set to do what ours, which is Google's, does not; each
such setting stops the load, for the ids would differ in silence. One
difference is left: a word of 101 to 200 characters is [UNK] there and is split
here, as Google does.
"""

import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from bert_keras import errors
from bert_keras.data import tokenizer as tokenizer_lib
from bert_keras.formats import foreign

VOCABULARY, FAST = "vocab.txt", "tokenizer.json"
SETTINGS, ADDED = "tokenizer_config.json", "added_tokens.json"

# Those that cut text as BERT does; BertJapaneseTokenizer is one that does not.
CLASSES = (
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "PreTrainedTokenizer",
    "TokenizersBackend",
)

# Tables are rounded up for the hardware: to multiples of 8, 64 or 128.
MOST_PADDING, PADDING_MULTIPLE = 127, 8


def read(
    folder: str, *, rows: int, lowercase: bool | None
) -> tokenizer_lib.Tokenizer:
    """The folder's tokenizer, with one entry for each row of the table.

    Tokens added to the vocabulary stand at their ids. A table that was
    rounded up keeps its rows: the vocabulary gets [unused_rowN] for each.

    Args:
      rows: of the embedding table.
      lowercase: overrides what the files say of case and accents.
    """
    settings, fast = _optional(folder, SETTINGS), _optional(folder, FAST)
    kind = str(settings.get("tokenizer_class") or CLASSES[0])
    if kind.removesuffix("Fast") not in CLASSES:
        raise errors.InputError(
            f"{folder}: its tokenizer is a {kind}; this one cuts text as "
            f"{', '.join(CLASSES)} do."
        )
    if lowercase is None:
        lowercase = _casing(folder, settings, fast)
    path = os.path.join(folder, VOCABULARY)
    if tf.io.gfile.exists(path):
        words = tokenizer_lib.Tokenizer.from_file(path, lowercase=lowercase)
    else:
        words = _from_fast(folder, fast, lowercase)
    added = _added(folder, settings, fast)
    entries = {**added, **dict(enumerate(words.vocabulary))}
    missing = rows - len(entries)
    if 0 < missing <= MOST_PADDING and rows % PADDING_MULTIPLE == 0:
        for row in set(range(rows)) - set(entries):
            entries[row] = f"[unused_row{row}]"
    if len(entries) > words.vocab_size:
        words = tokenizer_lib.Tokenizer(
            _in_order(folder, entries), lowercase=words.lowercase
        )
    foreign.same_size(words, rows, folder)
    _check_added(folder, words, added)
    return words


def settings_of(
    words: tokenizer_lib.Tokenizer, *, longest: int
) -> dict[str, Any]:
    """The tokenizer_config.json that makes theirs cut text as ours does."""
    pieces = {
        f"{name.strip('[]').lower()}_token": (
            name if name in words.vocabulary else None
        )
        for name in tokenizer_lib.SPECIAL_TOKENS
    }
    return {
        "tokenizer_class": CLASSES[0],
        "do_lower_case": words.lowercase,
        "strip_accents": None,  # follows the case
        "tokenize_chinese_chars": True,
        "model_max_length": longest,
        **pieces,
    }


def _optional(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    return foreign.read_json(path) if tf.io.gfile.exists(path) else {}


def _casing(folder: str, settings: Mapping, fast: Mapping) -> bool | None:
    """Whether case is folded, or None where no file says so."""
    normalizer = fast.get("normalizer") or {}
    said = {
        "lowercase": settings.get("do_lower_case", normalizer.get("lowercase")),
        "strip_accents": settings.get(
            "strip_accents", normalizer.get("strip_accents")
        ),
        "tokenize_chinese_chars": settings.get(
            "tokenize_chinese_chars", normalizer.get("handle_chinese_chars")
        ),
    }
    lowercase, accents = said["lowercase"], said["strip_accents"]
    if said["tokenize_chinese_chars"] is False or (
        None not in (lowercase, accents) and lowercase != accents
    ):
        raise errors.InputError(
            f"{folder}: its tokenizer has {said}. This one drops accents "
            "exactly where it folds case and splits Chinese characters; "
            "--lowercase or --nolowercase takes the place of what is said."
        )
    return lowercase


def _from_fast(
    folder: str, fast: Mapping, lowercase: bool | None
) -> tokenizer_lib.Tokenizer:
    """The WordPiece model inside tokenizer.json."""
    model = fast.get("model") or {}
    if model.get("type", "WordPiece") != "WordPiece" or "vocab" not in model:
        raise errors.InputError(
            f"{folder}: expected {VOCABULARY}, or a WordPiece vocabulary in "
            f"{FAST}; found {model.get('type', 'neither')}."
        )
    if lowercase is None:
        raise errors.InputError(
            f"{os.path.join(folder, FAST)} does not say whether it folds case; "
            "--lowercase or --nolowercase does."
        )
    entries = {index: piece for piece, index in model["vocab"].items()}
    return tokenizer_lib.Tokenizer(
        _in_order(folder, entries), lowercase=lowercase
    )


def _in_order(folder: str, entries: Mapping[int, str]) -> list[str]:
    """Pieces by id; raises InputError where an id has none."""
    holes = sorted(set(range(max(entries, default=0) + 1)) - set(entries))
    if holes:
        raise errors.InputError(
            f"{folder}: expected a piece for every id up to {max(entries)}; "
            f"its vocabulary has none for {holes[:5]}."
        )
    return [entries[index] for index in range(len(entries))]


def _added(folder: str, settings: Mapping, fast: Mapping) -> dict[int, str]:
    """Tokens by id that were added to the trained vocabulary."""
    names = _optional(folder, ADDED)
    decoder = settings.get("added_tokens_decoder", {})
    return {
        **{index: piece for piece, index in names.items()},
        **{
            item["id"]: item["content"] for item in fast.get("added_tokens", [])
        },
        **{int(index): item["content"] for index, item in decoder.items()},
    }


def _check_added(
    folder: str, words: tokenizer_lib.Tokenizer, added: Mapping[int, str]
) -> None:
    """Raises InputError for added tokens that this tokenizer would split.

    Theirs looks for them before it splits text. As with Google's, the five
    special ones are words between brackets here.
    """
    added = {
        index: piece
        for index, piece in added.items()
        if piece not in tokenizer_lib.SPECIAL_TOKENS
    }
    found = words(list(added.values())).to_list() if added else []
    split = [
        piece
        for (index, piece), ids in zip(added.items(), found, strict=True)
        if ids != [index]
    ]
    if split:
        raise errors.InputError(
            f"{folder}: its tokenizer finds the added tokens {split[:5]} in "
            "text; this one splits them. To have them split, name their rows "
            f"at the end of {VOCABULARY} ([unused1], ...) and remove them from "
            f"{ADDED}, {SETTINGS} and {FAST}."
        )
