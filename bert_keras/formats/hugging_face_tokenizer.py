"""Reads the WordPiece vocabulary and casing of a Hugging Face folder.

A Hugging Face tokenizer has settings that the tokenizer here, which is
Google's, does not support. Loading fails on each of them, as ids would silently
differ. One difference remains: a word of 101 to 200 characters is [UNK] with
Hugging Face, and is split here, as Google's code does.

Class names in the files are compared with the names below and never imported.
"""

import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from bert_keras import errors, files
from bert_keras.formats import hugging_face_fast as fast_lib
from bert_keras.formats import weight_mapping
from bert_keras.tokenizers import wordpiece

VOCABULARY, FAST = "vocab.txt", fast_lib.FAST
SETTINGS, ADDED = "tokenizer_config.json", "added_tokens.json"
SPECIAL = "special_tokens_map.json"

# Classes that split text as BERT does; BertJapaneseTokenizer, for example, does
# not. The last two do what tokenizer.json describes.
CLASSES = (
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "PreTrainedTokenizer",
    "TokenizersBackend",
)
DESCRIBED = CLASSES[3:]

# Settings with the only values that give the same ids; they are also the
# defaults, for absent ones and null.
BERTS = {
    "do_basic_tokenize": True,
    "do_word_tokenize": True,
    "do_subword_tokenize": True,
    "word_tokenizer_type": "basic",
    "subword_tokenizer_type": "wordpiece",
    "never_split": [],
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}

# Fields for further tokens, which Hugging Face finds in texts before splitting.
ONE, SEVERAL = (
    ("bos_token", "eos_token"),
    ("additional_special_tokens", "extra_special_tokens"),
)


def read(
    folder: str,
    *,
    rows: int,
    lowercase: bool | None,
    config: Mapping[str, Any] | None = None,
) -> wordpiece.Tokenizer:
    """Reads the folder's tokenizer, with one entry per row of the table.

    Added tokens have their ids.

    Args:
      rows: number of rows of the embedding table.
      lowercase: overrides the files' settings of case and accents.
      config: config.json, which names the tokenizer if tokenizer_config.json
        does not.
    """
    settings, fast = _optional(folder, SETTINGS), _optional(folder, FAST)
    special = _optional(folder, SPECIAL)
    name = _check_settings(folder, settings, special, config or {})
    fast_lib.check(folder, fast)
    if lowercase is None:
        described = fast and name.removesuffix("Fast") in DESCRIBED
        lowercase = _casing(folder, {} if described else settings, fast)
    path = os.path.join(folder, VOCABULARY)
    if tf.io.gfile.exists(path):
        words = wordpiece.Tokenizer.from_file(path, lowercase=lowercase)
    else:
        words = _from_fast(folder, fast, lowercase)
    added = _added(folder, settings, fast)
    _check_same_ids(folder, words, fast, added)
    words = weight_mapping.fit_vocabulary(words, rows, folder, added)
    named = {
        piece: file
        for file, values in ((SETTINGS, settings), (SPECIAL, special))
        for piece in _named(os.path.join(folder, file), values)
    }
    _check_added(folder, words, added, named)
    return words


def settings_of(words: wordpiece.Tokenizer, *, longest: int) -> dict[str, Any]:
    """Returns a tokenizer_config.json for the same ids in transformers."""
    pieces = {
        f"{name.strip('[]').lower()}_token": (
            name if name in words.vocabulary else None
        )
        for name in wordpiece.SPECIAL_TOKENS
    }
    return {
        "tokenizer_class": CLASSES[0],
        "do_lower_case": words.lowercase,
        "strip_accents": None,  # null: as do_lower_case
        "tokenize_chinese_chars": True,
        "model_max_length": longest,
        **pieces,
    }


def _optional(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    return files.read_json(path) if tf.io.gfile.exists(path) else {}


def _check_settings(
    folder: str,
    settings: Mapping[str, Any],
    special: Mapping[str, Any],
    config: Mapping[str, Any],
) -> str:
    """Returns the tokenizer's class; raises InputError if it is not BERT's.

    The class is checked first, so that an error names it and not one of its
    settings. Every setting in the tokenizer's files must be BERT's; config.json
    is used only for settings that they lack.
    """
    names = ("tokenizer_class", *BERTS, "auto_map")
    said = [
        (name, file, values.get(name))
        for name in names
        for file, values in ((SETTINGS, settings), (SPECIAL, special))
        if file == SETTINGS or name.endswith("_token")
    ]
    declared = {name for name, _, value in said if value is not None}
    for name, file, value in said:
        if name not in declared and name != "auto_map":
            file, value = "config.json", config.get(name)
        if isinstance(value, dict) and name.endswith("_token"):
            value = value.get("content")
        if name == "tokenizer_class":
            class_name = (
                CLASSES[0] if value is None else weight_mapping.shown(value)
            )
            class_name = value if isinstance(value, str) else class_name
            if class_name.removesuffix("Fast") not in CLASSES:
                raise errors.InputError(
                    f"{folder}: its tokenizer is a {class_name} ({file}); this "
                    f"one splits text as {', '.join(CLASSES)} do."
                )
        elif name == "auto_map" and value:
            raise errors.InputError(
                f"{folder}: {name} {weight_mapping.shown(value)} in {file} "
                "refers to Python code of the tokenizer. Code of a checkpoint "
                f"is never executed. Remove {name} if the tokenizer is BERT's."
            )
        elif name in BERTS and value is not None and value != BERTS[name]:
            raise errors.InputError(
                f"{folder}: {file} has {name} {weight_mapping.shown(value)}; "
                "this "
                f"tokenizer has {BERTS[name]!r}, and would give other ids."
            )
    return class_name


def _casing(
    folder: str, settings: Mapping[str, Any], fast: Mapping[str, Any]
) -> bool | None:
    """Returns whether text is lower-cased, or None if no file specifies it."""
    normalizer = fast_lib.normalizer(fast)
    said = {}
    for setting, key, name in (
        ("lowercase", "do_lower_case", "lowercase"),
        ("strip_accents", "strip_accents", "strip_accents"),
        (
            "tokenize_chinese_chars",
            "tokenize_chinese_chars",
            "handle_chinese_chars",
        ),
    ):
        value = weight_mapping.field(
            settings, key, bool, f"{folder}/{SETTINGS}"
        )
        if value is None:
            value = weight_mapping.field(
                normalizer, name, bool, f"{folder}/{FAST}"
            )
        said[setting] = value
    lowercase, accents = said["lowercase"], said["strip_accents"]
    if said["tokenize_chinese_chars"] is False or (
        None not in (lowercase, accents) and lowercase != accents
    ):
        raise errors.InputError(
            f"{folder}: its tokenizer has {said}. This one drops accents "
            "exactly where it folds case and splits Chinese characters; "
            "`lowercase`, true or false, takes the place of that."
        )
    return lowercase


def _from_fast(
    folder: str, fast: Mapping[str, Any], lowercase: bool | None
) -> wordpiece.Tokenizer:
    """Builds the tokenizer from the WordPiece model in tokenizer.json."""
    entries = fast_lib.vocabulary(folder, fast)
    if entries is None:
        raise errors.InputError(
            f"{folder}: expected {VOCABULARY}, or a WordPiece vocabulary in "
            f"{FAST}; found neither."
        )
    if lowercase is None:
        raise errors.InputError(
            f"{os.path.join(folder, FAST)} does not say whether it folds case; "
            "`lowercase`, true or false, does."
        )
    return wordpiece.Tokenizer(_in_order(folder, entries), lowercase=lowercase)


def _in_order(folder: str, entries: Mapping[int, str]) -> list[str]:
    """Returns a list of tokens by id; raises InputError if an id has none."""
    largest = max(entries, default=0)
    if largest + 1 > len(entries):
        # List only five: one entry may have an id of billions.
        holes = itertools.islice(
            (i for i in range(largest + 1) if i not in entries), 5
        )
        raise errors.InputError(
            f"{folder}: expected a wordpiece for every id up to "
            f"{weight_mapping.shown(largest)}; its vocabulary has none for "
            f"{list(holes)}."
        )
    return [entries[index] for index in range(len(entries))]


def _added(
    folder: str, settings: Mapping[str, Any], fast: Mapping[str, Any]
) -> dict[int, str]:
    """Returns the tokens that were added to the vocabulary, by id."""
    path = os.path.join(folder, SETTINGS)
    decoder = (
        weight_mapping.field(settings, "added_tokens_decoder", dict, path) or {}
    )
    tokens: dict[int, str] = {}
    for file, index, piece in itertools.chain(
        ((ADDED, i, piece) for piece, i in _optional(folder, ADDED).items()),
        ((FAST, *item) for item in fast_lib.added(folder, fast)),
        ((SETTINGS, *item) for item in _decoded(decoder)),
    ):
        if (
            type(index) is not int
            or not 0 <= index < 1 << 31
            or not isinstance(piece, str)
        ):
            raise errors.InputError(
                f"{os.path.join(folder, file)}: expected added tokens with "
                f"their ids, found {weight_mapping.shown(piece)} with the id "
                f"{weight_mapping.shown(index)}."
            )
        if tokens.setdefault(index, piece) != piece:
            raise errors.InputError(
                f"{os.path.join(folder, file)} has {piece!r} as the added "
                f"token {index}, and another file {tokens[index]!r}; copy both "
                "from one model."
            )
    return tokens


def _decoded(decoder: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    for index, item in decoder.items():
        yield (
            int(index) if index.isdecimal() and len(index) < 12 else index,
            item.get("content") if isinstance(item, dict) else item,
        )


def _check_same_ids(
    folder: str,
    words: wordpiece.Tokenizer,
    fast: Mapping[str, Any],
    added: Mapping[int, str],
) -> None:
    """Raises InputError if two files have different ids for a token."""
    entries = dict(enumerate(words.vocabulary))
    vocabulary = fast_lib.vocabulary(folder, fast)
    if vocabulary is not None:
        fast_entries, vocabulary_entries = (
            {**added, **vocabulary},
            {**added, **entries},
        )
        for index in sorted(fast_entries.keys() | vocabulary_entries.keys()):
            if fast_entries.get(index) != vocabulary_entries.get(index):
                raise errors.InputError(
                    f"{folder}: {VOCABULARY} has "
                    f"{vocabulary_entries.get(index)!r} as entry {index} and "
                    f"{FAST} has {fast_entries.get(index)!r}; copy both from "
                    "one model."
                )
    for index, piece in (*added.items(), *fast_lib.framing(fast)):
        if piece in wordpiece.SPECIAL_TOKENS and piece in words.vocabulary:
            if type(index) is not int or entries.get(index) != piece:
                raise errors.InputError(
                    f"{folder}: {piece} is entry "
                    f"{words.vocabulary.index(piece)} of the vocabulary and "
                    f"has the id {weight_mapping.shown(index)} elsewhere in "
                    "the "
                    "tokenizer's files; copy all of them from one model."
                )


def _named(path: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yields the special tokens that a file lists by purpose, without ids."""
    items = [values.get(name) for name in ONE]
    for name in SEVERAL:
        value = values.get(name)
        if isinstance(value, dict):  # {name: token}
            value = list(value.values())
        if value is not None and not isinstance(value, list):
            raise errors.InputError(
                f"{path}: expected a list of tokens for {name}, found "
                f"{weight_mapping.shown(value)}."
            )
        items += value or []
    for item in items:
        piece = item.get("content") if isinstance(item, dict) else item
        if isinstance(piece, str) and piece:
            yield piece
        elif item is not None:
            raise errors.InputError(
                f"{path}: expected special tokens as strings, found "
                f"{weight_mapping.shown(item)}."
            )


def _check_added(
    folder: str,
    words: wordpiece.Tokenizer,
    added: Mapping[int, str],
    named: Mapping[str, str],
) -> None:
    """Raises InputError for added tokens that this tokenizer would split.

    Hugging Face finds added tokens in a text before it splits the text. Here,
    as in Google's code, the five special tokens are ordinary text.

    Args:
      added: added tokens by id.
      named: further tokens, each with the file that names it; their ids are
        those of the vocabulary.
    """
    ids = {piece: index for index, piece in enumerate(words.vocabulary)}
    expected = {piece: ids.get(piece) for piece in named}
    expected |= {piece: index for index, piece in added.items()}
    pieces = [p for p in expected if p not in wordpiece.SPECIAL_TOKENS]
    for piece in pieces:
        if expected[piece] is None:
            raise errors.InputError(
                f"{folder}: {named[piece]} names the special token "
                f"{weight_mapping.shown(piece)}, and the vocabulary has no "
                "such "
                "entry; copy all of the tokenizer's files from one model."
            )
    piece_ids = words(pieces).to_list() if pieces else []
    split = [
        piece
        for piece, ids_of_piece in zip(pieces, piece_ids, strict=True)
        if ids_of_piece != [expected[piece]]
    ]
    if split:
        names = dict.fromkeys(named[p] for p in split if p in named)
        raise errors.InputError(
            f"{folder}: its tokenizer finds the added tokens "
            f"{weight_mapping.shown(split[:5], 300)} in text; this one splits "
            "them. "
            "To have them split, name their rows at the end of "
            f"{VOCABULARY} ([unused1], ...) and remove them from "
            f"{', '.join(dict.fromkeys((ADDED, SETTINGS, *names)))} and {FAST}."
        )
