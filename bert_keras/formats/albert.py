"""What Hugging Face's ALBERT folders have in place of BERT's.

    config.json              "model_type": "albert"
    model.safetensors        or model.safetensors.index.json and its shards
    spiece.model             or vocab.txt, as of Chinese models
    tokenizer_config.json    casing

The network is a BERT with shared blocks and narrow embeddings (Lan et al.
2020). `hugging_face` reads and writes these folders with the names below.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from bert_keras import errors, files
from bert_keras.formats import hugging_face_config as configs
from bert_keras.formats import hugging_face_tokenizer as wordpieces
from bert_keras.formats import weight_mapping
from bert_keras.networks import bert
from bert_keras.tokenizers import base as tokenizer_lib
from bert_keras.tokenizers import sentencepiece, wordpiece

MODEL_TYPE = configs.ALBERT
CLASSES = ("AlbertTokenizer", "PreTrainedTokenizer", "TokenizersBackend")

# BERT's names of tensors -> ALBERT's; the first match counts.
_LAYER = r"^encoder\.layer\.(\d+)\."
_GROUP = r"encoder.albert_layer_groups.\1.albert_layers.0."
_NAMES = (
    (_LAYER + r"attention\.self\.", _GROUP + "attention."),
    (_LAYER + r"attention\.output\.", _GROUP + "attention."),
    (_LAYER + r"intermediate\.dense\.", _GROUP + "ffn."),
    (_LAYER + r"output\.dense\.", _GROUP + "ffn_output."),
    (_LAYER + r"output\.LayerNorm\.", _GROUP + "full_layer_layer_norm."),
    (r"^pooler\.dense\.", "pooler."),
    (r"^cls\.predictions\.(transform\.)?", "predictions."),
    (r"^cls\.seq_relationship\.", "sop_classifier.classifier."),
)

# Settings of a tokenizer with the only values that give the same ids.
_SETTINGS = {
    "remove_space": True,
    "add_prefix_space": True,
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def is_albert(values: Mapping[str, Any]) -> bool:
    """Returns whether a config.json is that of ALBERT."""
    return values.get("model_type") == MODEL_TYPE


def writes(
    network: bert.BertConfig, tokenizer: tokenizer_lib.Tokenizer
) -> bool:
    """Returns whether a model is written as ALBERT and not as BERT."""
    return (
        isinstance(tokenizer, sentencepiece.SentencePieceTokenizer)
        or network.embedding_width != network.hidden_size
        or network.num_hidden_groups not in (None, network.num_layers)
    )


def tensor_name(name: str) -> str:
    """Returns ALBERT's name of a tensor that has the given name in BERT."""
    for pattern, replacement in _NAMES:
        changed, count = re.subn(pattern, replacement, name)
        if count:
            return changed
    return name


def read_tokenizer(
    folder: str,
    *,
    rows: int,
    lowercase: bool | None,
    config: Mapping[str, Any],
) -> tokenizer_lib.Tokenizer:
    """Reads spiece.model, or BERT's WordPiece if there is a vocab.txt."""
    path = os.path.join(folder, sentencepiece.MODEL)
    if not tf.io.gfile.exists(path):
        if tf.io.gfile.exists(os.path.join(folder, wordpieces.VOCABULARY)):
            return wordpieces.read(
                folder, rows=rows, lowercase=lowercase, config=config
            )
        raise errors.InputError(
            f"{folder}: expected {sentencepiece.MODEL} or "
            f"{wordpieces.VOCABULARY}, found neither. {wordpieces.FAST} alone "
            "is not read: copy the other file of the same model."
        )
    said = _casing(folder)
    tokenizer = sentencepiece.SentencePieceTokenizer.from_vocab(
        path, lowercase=said if lowercase is None else lowercase
    )
    size = tokenizer.vocab_size
    if size > rows:
        raise errors.InputError(
            f"{folder}: the vocabulary has {size:,} entries, and the embedding "
            f"table {rows:,} rows; are both of one model?"
        )
    if size == rows:
        return tokenizer
    unused = [f"{sentencepiece.UNUSED}_row{row}]" for row in range(size, rows)]
    weight_mapping.warn(
        f"{folder}: the embedding table has {rows:,} rows and the vocabulary "
        f"{size:,} entries; the others are kept as {unused[0]} and so on, "
        "which no text is split into."
    )
    return tokenizer.with_unused(unused)


def _casing(folder: str) -> bool:
    """Returns whether the folder's tokenizer folds case and drops accents.

    Raises InputError for settings with which it would give other ids.
    """
    path = os.path.join(folder, wordpieces.SETTINGS)
    settings: dict[str, Any] = {}
    if tf.io.gfile.exists(path):
        settings = files.read_json(path)
    name = weight_mapping.field(settings, "tokenizer_class", str, path)
    if (name or CLASSES[0]).removesuffix("Fast") not in CLASSES:
        raise errors.InputError(
            f"{folder}: its tokenizer is a {name}; expected {CLASSES[0]}."
        )
    if settings.get("auto_map"):
        raise errors.InputError(
            f"{path}: auto_map refers to Python code of the tokenizer. Code of "
            "a checkpoint is never executed. Remove auto_map if the tokenizer "
            "is ALBERT's."
        )
    for key, expected in _SETTINGS.items():
        value = settings.get(key)
        if isinstance(value, dict):
            value = value.get("content")
        if value is not None and value != expected:
            raise errors.InputError(
                f"{path}: expected {key} {expected!r}, with which the ids are "
                f"equal; found {weight_mapping.shown(value)}."
            )
    lowercase, keeps = (
        weight_mapping.field(settings, key, bool, path)
        for key in ("do_lower_case", "keep_accents")
    )
    lowercase = lowercase is not False
    if lowercase == bool(keeps):
        raise errors.InputError(
            f"{path}: do_lower_case is {lowercase} and keep_accents "
            f"{bool(keeps)}; the tokenizer here drops accents exactly where it "
            "folds case. `lowercase`, true or false, takes the place of both "
            "if they are removed from the file."
        )
    return lowercase


def tokenizer_writers(
    tokenizer: tokenizer_lib.Tokenizer, *, longest: int
) -> dict[str, Any]:
    """Returns {file name: function that writes it}."""
    if not isinstance(tokenizer, sentencepiece.SentencePieceTokenizer):
        words = wordpiece.require(tokenizer, "Hugging Face's ALBERT")
        settings = wordpieces.settings_of(words, longest=longest)
        return {
            wordpieces.VOCABULARY: words.save_vocabulary,
            wordpieces.SETTINGS: lambda path: files.write_json(path, settings),
        }
    missing = [
        token
        for token in map(str, tuple(_SETTINGS.values())[2:])
        if token not in tokenizer.vocabulary
    ]
    if missing:
        raise errors.InputError(
            f"Hugging Face's ALBERT has {', '.join(missing)} in its vocabulary "
            "of SentencePiece, and this one lacks them."
        )
    settings = {
        "tokenizer_class": CLASSES[0],
        "do_lower_case": tokenizer.lowercase,
        "keep_accents": not tokenizer.lowercase,
        "model_max_length": longest,
        **_SETTINGS,
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
    }
    return {
        sentencepiece.MODEL: lambda path: _write(path, tokenizer.model),
        wordpieces.SETTINGS: lambda path: files.write_json(path, settings),
    }


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
