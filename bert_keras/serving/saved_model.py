"""Exports a predictor as a versioned SavedModel for TF Serving.

The docstring of `export/saved_model.py` describes signatures and folders.
"""

import dataclasses
import functools
import importlib.metadata
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from bert_keras import errors, model_card, signatures, staging, verification
from bert_keras import predictor as predictor_lib
from bert_keras.serving import (
    compatibility,
    manifest,
    served_width,
    tf_serving_files,
)
from bert_keras.tasks import base
from bert_keras.types import StrPath

MAX_CHARACTERS = 100_000
# Number of rows on which the signature `tokens` is compared, in one batch.
TOKEN_ROWS = 32

# TF Serving's Classify call requires this method name.
METHODS = {signatures.CLASSIFY: "tensorflow/serving/classify"}


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """The allowed differences from the answers in float32."""

    distance: float  # maximum difference; scores are in 0..1
    agreement: float  # minimum share of texts with the same labels


PRECISIONS = {
    # Same graph, same machine: only the order of summation may differ.
    "float32": Tolerance(distance=1e-4, agreement=1.0),
    "bfloat16": Tolerance(distance=0.1, agreement=0.9),
}


def export(
    predictor: predictor_lib.Predictor,
    output: StrPath,
    version: int | None = None,
    *,
    reference: predictor_lib.Predictor | None = None,
    precision: str = "float32",
    data: Mapping[str, tf.Tensor] | None = None,
    max_characters: int = MAX_CHARACTERS,
    max_entities: int = served_width.MAX_ENTITIES,
) -> str:
    """Writes `output`/<version> and returns its path.

    version: None means the next free version.
    reference: the float32 model, if the predictor has another precision.
    data: additional texts to compare on, by text column.

    Raises ExportError, and leaves no files, if the answers of the written model
    differ from the reference's.
    """
    output = os.fspath(output)
    path = _version_path(output, version)
    name = _model_name(output)
    limits = {"max_characters": max_characters, "max_entities": max_entities}
    with staging.aside(output, os.path.basename(path)) as folder:
        save(predictor, folder, **limits)
        tf_serving_files.warm_up(
            os.path.join(folder, tf_serving_files.WARM_UP), name, predictor
        )
        parity = _parity(
            folder, reference or predictor, data, PRECISIONS[precision], limits
        )
        description = _describe(folder, predictor)
        manifest.write(
            folder,
            description
            | {
                "model": name,
                "version": int(os.path.basename(path)),
                "precision": precision,
                **limits,
                "parity": parity,
            },
        )
        tf_serving_files.write(
            output,
            name,
            predictor.task,
            max_entities=max_entities,
            text_ops=description["text_ops"],
            card=_card(predictor, name, precision, parity),
        )
        tf.io.gfile.rename(folder, path)
    return path


def next_version(output: str) -> int:
    """Returns the highest version in a folder + 1; 1 if it does not exist."""
    if not tf.io.gfile.isdir(output):
        return 1
    names = [name.rstrip("/") for name in tf.io.gfile.listdir(output)]
    return 1 + max((int(name) for name in names if name.isdecimal()), default=0)


def _version_path(output: str, version: int | None) -> str:
    """Returns the folder of a new version; raises InputError if it exists."""
    free = next_version(output)
    path = os.path.join(output, str(version or free))
    if tf.io.gfile.exists(path):
        raise errors.InputError(
            f"{path} already exists and may be in use; the next free "
            f"version is {free}."
        )
    return path


def _model_name(output: str) -> str:
    """Returns the name of the model in the server's URLs."""
    name = os.path.basename(os.path.abspath(output))
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise errors.InputError(
            f"output={output}: its last part is the model's name in the "
            "server's URLs; expected only letters, digits, '_', '-' and '.'."
        )
    return name


def save(
    predictor: predictor_lib.Predictor,
    folder: str,
    *,
    max_characters: int,
    max_entities: int,
) -> None:
    """Writes the predictor's graphs without any Python objects."""
    task = predictor.task
    text = limited(
        predictor, max_characters=max_characters, max_entities=max_entities
    )
    functions: dict[str, signatures.Signature] = {
        signatures.TEXT: (text, _string_specs(*task.text_columns)),
        signatures.TOKENS: (
            functools.partial(served_width.tokens, predictor),
            signatures.token_specs(
                predictor.model.encoder.config, None, task.max_row_length
            ),
        ),
    }
    if task.class_names:
        functions[signatures.CLASSIFY] = (
            _classifier(text, task.text_columns, task.class_names),
            _string_specs("inputs"),
        )
    if task.request_settings:
        functions[signatures.WITH_SETTINGS] = (
            text,
            _string_specs(*task.text_columns) | _setting_specs(task),
        )
    shapes = signatures.save(
        predictor, folder, functions, tokenizer=predictor.tokenizer
    )
    served_width.require(shapes)
    methods = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater
    updater = methods(folder)
    for name in functions.keys() & METHODS.keys():
        updater.replace_method_name(name, METHODS[name])
    updater.save()


def _string_specs(*names: str) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec((None,), tf.string, name=name) for name in names
    }


def _setting_specs(task: base.Task) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec((None,), dtype, name=name)
        for name, dtype in task.request_settings.items()
    }


def _classifier(
    text: Callable[..., dict[str, tf.Tensor]],
    names: Sequence[str],
    classes: Sequence[str],
) -> Callable[..., dict[str, tf.Tensor]]:
    """Returns a function of serialized tf.Examples (T,).

    It returns {"classes", "scores": (T, C)}.

    text: a function of strings (T,) with the keyword arguments `names`.
    """

    def classify(inputs):
        feature = tf.io.FixedLenFeature((), tf.string)
        raw = tf.io.parse_example(inputs, dict.fromkeys(names, feature))
        scores = text(**raw)["scores"]
        class_names = tf.broadcast_to(tf.constant(classes), tf.shape(scores))
        return {"classes": class_names, "scores": scores}

    return classify


def limited(
    predictor: predictor_lib.Predictor,
    *,
    max_characters: int = MAX_CHARACTERS,
    max_entities: int = served_width.MAX_ENTITIES,
) -> Callable[..., dict[str, tf.Tensor]]:
    """Returns predictor.serve_text with bounded input and output.

    It reads only the first `max_characters` of a text, and its lists have a
    fixed width. "truncated" is true also for texts longer than that.
    """

    def text(**raw):
        texts = {name: raw[name] for name in predictor.task.text_columns}
        kept = {
            name: tf.strings.substr(value, 0, max_characters, "UTF8_CHAR")
            for name, value in texts.items()
        }
        answers = predictor.serve_text(**(raw | kept))
        shortened = [
            tf.strings.length(value) > tf.strings.length(kept[name])
            for name, value in texts.items()
        ]
        truncated = tf.reduce_any([answers["truncated"], *shortened], axis=0)
        answers = answers | {"truncated": truncated}
        return served_width.fit(answers, predictor.task, max_entities)

    return text


def compare(
    served: Any,
    predictor: predictor_lib.Predictor,
    raw: Mapping[str, tf.Tensor] | None = None,
    **limits: int,
) -> verification.Difference:
    """Compares all signatures of a loaded SavedModel with the predictor.

    raw: texts by text column; None: the sentences of `verification`.
    limits: keyword arguments of `limited`.
    """
    task = predictor.task
    raw = raw or verification.sentences(task)
    answers = limited(predictor, **limits)(**raw)
    rows = _token_rows(predictor, raw)
    pairs = [
        (served.signatures[signatures.TEXT](**raw), answers),
        (
            served.signatures[signatures.TOKENS](**rows),
            predictor.tokens(**rows),
        ),
    ]
    if task.class_names:
        texts = {name: value.numpy() for name, value in raw.items()}
        examples = tf.constant(signatures.serialized_examples(texts), tf.string)
        classes = [task.class_names] * len(answers["scores"])
        pairs.append(
            (
                served.signatures[signatures.CLASSIFY](inputs=examples),
                {
                    "classes": tf.constant(classes),
                    "scores": answers["scores"],
                },
            )
        )
    if task.request_settings:
        settings = signatures.some_settings(task, len(answers["truncated"]))
        pairs.append(
            (
                served.signatures[signatures.WITH_SETTINGS](**raw, **settings),
                limited(predictor, **limits)(**raw, **settings),
            )
        )
    differences = [
        verification.compare(got, want, ranked=task.ranked_outputs)
        for got, want in pairs
    ]
    return verification.Difference(
        max(difference.distance for difference in differences),
        min(difference.agreement for difference in differences),
        len(next(iter(raw.values()))),
    )


def _token_rows(
    predictor: predictor_lib.Predictor, raw: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Returns features (W, S) of some texts for the signature `tokens`."""
    task = predictor.task
    rows = signatures.padded(
        task.preprocess(raw, predictor.tokenizer),
        predictor.model.encoder.config,
        task.max_row_length,
    )
    return {name: value[:TOKEN_ROWS] for name, value in rows.items()}


def _parity(
    written: str,
    reference: predictor_lib.Predictor,
    data: Mapping[str, tf.Tensor] | None,
    allowed: Tolerance,
    limits: Mapping[str, int],
) -> dict[str, dict[str, Any]]:
    """Compares a written SavedModel with the reference on sentences and data.

    Raises ExportError if a difference is larger than allowed.
    """
    served = tf.saved_model.load(written)
    parity = {}
    for source, raw in {"sentences": None, "data": data}.items():
        if source == "data" and not raw:
            continue
        difference = compare(served, reference, raw, **limits)
        difference.require(
            distance=allowed.distance, agreement=allowed.agreement
        )
        # "numbers": the name of the distance in manifests.
        parity[source] = {
            "numbers": difference.distance,
            "agreement": difference.agreement,
            "texts": difference.texts,
        }
    return parity


def _card(
    predictor: predictor_lib.Predictor,
    name: str,
    precision: str,
    parity: Mapping[str, Mapping[str, Any]],
) -> model_card.Card:
    """Returns the checkpoint's card, changed into that of the export."""
    described = model_card.describe(
        predictor.model, predictor.tokenizer, name=name
    )
    card = model_card.for_copy(predictor.card, described).with_tag(
        "saved-model"
    )
    compared = " and ".join(
        f"by at most {each['numbers']:.2g} on {each['texts']} {what}"
        for what, each in parity.items()
    )
    if precision != "float32":
        card = model_card.without_results(
            card,
            f"These are the checkpoint's. This export is in {precision}; its "
            f"answers differ {compared}.",
        )
    return card


def _describe(
    folder: str, predictor: predictor_lib.Predictor
) -> dict[str, Any]:
    """Returns the manifest's fields on the graphs and the exported model."""
    path = os.path.join(folder, "saved_model.pb")
    with tf.io.gfile.GFile(path, "rb") as file:
        saved = saved_model_pb2.SavedModel.FromString(file.read())
    (graph,) = saved.meta_graphs
    ops = sorted(op.name for op in graph.meta_info_def.stripped_op_list.op)
    packages = ("tensorflow", "tensorflow-text", "keras")
    return {
        # Clients need a name; to_dict of a wrapped task has none.
        "task": {"name": predictor.task.name} | predictor.task.to_dict(),
        "bert": predictor.model.encoder.config.to_dict(),
        "tokenizer": {
            **predictor.tokenizer.settings,
            "fingerprint": predictor.tokenizer.fingerprint,
        },
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
        "signatures": {
            name: {
                "method": signature.method_name,
                "inputs": _tensors(signature.inputs),
                "outputs": _tensors(signature.outputs),
            }
            for name, signature in sorted(graph.signature_def.items())
            if not name.startswith("__")
        },
        "ops": ops,
        "attributes": compatibility.attributes(graph.graph_def),
        # Ops that plain TensorFlow lacks, which the server must have.
        "text_ops": [name for name in ops if not hasattr(tf.raw_ops, name)],
    }


def _tensors(tensors: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {
        name: [
            tf.as_dtype(info.dtype).name,
            [None if d.size < 0 else d.size for d in info.tensor_shape.dim],
        ]
        for name, info in sorted(tensors.items())
    }
