"""Writes the files beside a TFLite file: vocabulary, labels, .json and .md."""

import contextlib
import filecmp
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from bert_keras import errors, files
from bert_keras import predictor as predictor_lib
from bert_keras.device import (
    runtimes,
    tflite_metadata,
    tflite_readme,
    tflite_runner,
)
from bert_keras.tokenizers import wordpiece

LABELS = "labels.txt"


def write(
    predictor: predictor_lib.Predictor, folder: str, output: str
) -> list[str]:
    """Writes the tokenizer's files and labels.txt, if any; returns names.

    Raises InputError if files of these names in `output` have other contents:
    they belong to the models there.
    """
    names = list(predictor.tokenizer.save(folder))
    if labels := _labels(predictor):
        if multiline := [label for label in labels if "\n" in label]:
            raise errors.InputError(
                f"the label {multiline[0]!r} contains a newline, but {LABELS} "
                "has one label per line; rename it and train again."
            )
        names.append(LABELS)
        path = os.path.join(folder, LABELS)
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{label}\n" for label in labels)
    for name in names:
        existing = os.path.join(output, name)
        if os.path.exists(existing) and not filecmp.cmp(
            existing, os.path.join(folder, name), shallow=False
        ):
            raise errors.InputError(
                f"{existing} belongs to another model; choose another `output`."
            )
    return names


def check_overwrites(output: str, model: str) -> None:
    """Raises InputError if the model's files exist but no export wrote them."""
    stem = os.path.join(output, model.removesuffix(".tflite"))
    existing = [
        stem + suffix
        for suffix in (".tflite", ".json", ".md")
        if os.path.exists(stem + suffix)
    ]
    if not existing:
        return
    is_exported = False
    with contextlib.suppress(errors.InputError):
        is_exported = files.read_json(f"{stem}.json").get("model") == model
    if not is_exported:
        raise errors.InputError(
            f"{', '.join(existing)}: not written by an export and would be "
            "overwritten; choose another `output`."
        )


def add_metadata(
    content: bytes, predictor: predictor_lib.Predictor, folder: str
) -> bytes:
    """Adds metadata, vocabulary and labels from `folder` to a TFLite file."""
    has_classes = bool(predictor.task.class_names)
    contents = {}
    names = predictor.tokenizer.files
    for name in (*names, *([LABELS] if has_classes else [])):
        with open(os.path.join(folder, name), "rb") as file:
            contents[name] = file.read()
    return tflite_metadata.add(
        content,
        name=predictor.task.name,
        files=contents,
        vocabulary=names[0] if _is_wordpiece(predictor) else None,
        labels=LABELS if has_classes else None,
    )


def describe(
    path: str,
    predictor: predictor_lib.Predictor,
    *,
    quantization: str,
    strings: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> list[str]:
    """Writes the .json and the .md of a .tflite file; returns their names.

    strings: metadata of the file with string inputs, if there is one.
    metrics: of the .tflite file, if it was scored.
    """
    model = os.path.basename(path)
    metadata: dict[str, Any] = {"model": model, "quantization": quantization}
    with open(path, "rb") as file:
        metadata["oldest_runtime"] = runtimes.oldest_runtime(file.read())
    metadata |= _tensors(path) | _describe_model(predictor)
    if strings:
        metadata["strings"] = strings
    name = f"{model.removesuffix('.tflite')}.json"
    folder = os.path.dirname(path)
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(metadata, file, indent=1, ensure_ascii=False)
    readme = f"{model.removesuffix('.tflite')}.md"
    with open(os.path.join(folder, readme), "w", encoding="utf-8") as file:
        file.write(str(tflite_readme.readme(predictor, metadata, metrics)))
    return [name, readme]


def _tensors(path: str) -> dict[str, Any]:
    """Returns the signatures' lengths, and the first one's inputs and outputs.

    Inputs and outputs are in the interpreter's order, for programs that access
    tensors by index.
    """
    interpreter, lengths = litert.Interpreter(path), tflite_runner.lengths(path)
    signature = _first_signature(path)
    runner = interpreter.get_signature_runner(signature)
    return {
        "signature": signature,
        "signatures": lengths,
        "inputs": _in_order(
            interpreter.get_input_details(), runner.get_input_details()
        ),
        "outputs": _in_order(
            interpreter.get_output_details(), runner.get_output_details()
        ),
    }


def _first_signature(path: str) -> str:
    """Returns the signature of subgraph 0, which index-based calls use."""
    with open(path, "rb") as file:
        model = schema.Model.GetRootAs(file.read(), 0)
    for number in range(model.SignatureDefsLength()):
        definition = model.SignatureDefs(number)
        if definition.SubgraphIndex() == 0:
            return definition.SignatureKey().decode()
    raise ValueError(f"{path} has no signature")


def _in_order(
    ordered: Sequence[Mapping[str, Any]],
    by_name: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Returns name, shape and type of tensors, in the order of `ordered`."""
    names = {details["index"]: name for name, details in by_name.items()}
    return [
        {
            "name": names[details["index"]],
            "shape": [int(size) for size in details["shape"]],
            "type": np.dtype(details["dtype"]).name,
        }
        for details in ordered
    ]


def _describe_model(predictor: predictor_lib.Predictor) -> dict[str, Any]:
    """Returns task, tokenizer and classes, for the .json."""
    tokenizer = predictor.tokenizer
    metadata = {
        "task": predictor.task.unwrapped.name,
        # Fields that postprocessing needs: problem_type, intents, thresholds.
        "settings": predictor.task.unwrapped.get_config(),
        "texts": list(predictor.task.text_columns),
        "vocabulary": tokenizer.files[0],
        "vocabulary_size": tokenizer.vocab_size,
        "labels": LABELS if _labels(predictor) else None,
        "classes": len(predictor.task.class_names),
    }
    if isinstance(tokenizer, wordpiece.Tokenizer):
        return metadata | {
            "lowercase": tokenizer.lowercase,
            "pad_id": tokenizer.pad_id,
            "unk_id": tokenizer.unk_id,
            "cls_id": tokenizer.cls_id,
            "sep_id": tokenizer.sep_id,
            "mask_id": tokenizer.mask_id,
        }
    return metadata | {
        "tokenizer": tokenizer.to_dict(),
        "tokenizer_files": list(tokenizer.files),
        "frame": {
            name: list(getattr(tokenizer.frame, name))
            for name in ("start", "between", "end")
        },
        "pad_id": tokenizer.pad_id,
        "unk_id": tokenizer.unk_id,
        "mask_id": tokenizer.mask_id,
    }


def _is_wordpiece(predictor: predictor_lib.Predictor) -> bool:
    return isinstance(predictor.tokenizer, wordpiece.Tokenizer)


def _labels(predictor: predictor_lib.Predictor) -> tuple[str, ...]:
    return getattr(predictor.task, "labels", ())
