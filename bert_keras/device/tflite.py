"""Exports a predictor as TFLite files with the files that an app needs.

The docstring of `export/tflite.py` describes files and signatures.
"""

import os
from collections.abc import Sequence

import tensorflow as tf

from bert_keras import errors, model_card, staging, verification
from bert_keras import model as model_lib
from bert_keras import predictor as predictor_lib
from bert_keras.device import (
    runtimes,
    tflite_converter,
    tflite_runner,
    tflite_sidecars,
    tflite_tokenizer,
)
from bert_keras.device.tflite_converter import QUANTIZATIONS, Examples
from bert_keras.types import StrPath


def export(
    predictor: predictor_lib.Predictor,
    output: StrPath,
    *,
    quantization: str = "float32",
    seq_length: int | Sequence[int] = 128,
    data: Examples = (),
    least: float | None = None,
    with_strings: bool = False,
) -> str:
    """Writes `output`/model_<quantization>.tflite; returns its path.

    seq_length: tokens per row; several numbers: one signature each.
    data: labelled examples; int8 needs them for calibration, `with_strings` to
      compare the token ids of both tokenizers.
    least: required value of task.metric_names[0] on `data`.
    with_strings: also write the file with string inputs.

    Raises ExportError, and leaves no files, if an op is not a TFLite builtin,
    the file's answers differ from the predictor's, or its metric is below
    `least`.
    """
    output = os.fspath(output)
    lengths = [seq_length] if isinstance(seq_length, int) else seq_length
    _check_lengths(predictor, lengths)
    _check_data(quantization, data, with_strings)
    predictor = _for_device(predictor)
    model_name = f"model_{quantization}.tflite"
    tflite_sidecars.check_overwrites(output, model_name)
    with staging.aside(output, quantization) as temp_folder:
        names = tflite_sidecars.write(predictor, temp_folder, output)
        path = os.path.join(temp_folder, model_name)
        _write_model(path, predictor, quantization, lengths, data)
        metrics = _check_answers(path, predictor, quantization, data, least)
        strings_metadata = None
        if with_strings:
            strings_metadata = _write_strings(
                predictor, temp_folder, quantization, max(lengths), data
            )
            names.append(strings_metadata["model"])
        names += tflite_sidecars.describe(
            path,
            predictor,
            quantization=quantization,
            strings=strings_metadata,
            metrics=metrics,
        )
        # Move the model last: if it exists, so do its other files.
        for name in (*names, model_name):
            target = os.path.join(output, name)
            if name.endswith(".md") and model_card.is_edited(target):
                continue
            os.replace(os.path.join(temp_folder, name), target)
    return os.path.join(output, model_name)


def _check_lengths(
    predictor: predictor_lib.Predictor, lengths: Sequence[int]
) -> None:
    limits = {
        predictor.model.encoder.config.max_length: "the model's number of "
        "positions",
        predictor.task.head_length: "the tokens that its head has weights for",
    }
    limits = {length: of for length, of in limits.items() if length is not None}
    longest = min(limits, default=None)
    for length in lengths:
        if length < 4 or (longest is not None and length > longest):
            expected = (
                "at least 4"
                if longest is None
                else f"4 to {longest}, {limits[longest]}"
            )
            raise errors.InputError(
                f"seq_length={length}: expected {expected}."
            )


def _check_data(quantization: str, data: Examples, with_strings: bool) -> None:
    """Raises InputError if labelled examples are required and missing."""
    calibrated = QUANTIZATIONS[quantization].calibrated
    if calibrated and not data:
        raise errors.InputError(
            f"quantization={quantization} needs `data` for calibration."
        )
    if with_strings and (calibrated or not data):
        raise errors.InputError(
            "a file with string inputs needs `data`, examples on which its "
            "tokenizer is compared, and a `quantization` other than int8."
        )


def _write_model(
    path: str,
    predictor: predictor_lib.Predictor,
    quantization: str,
    lengths: Sequence[int],
    data: Examples,
) -> None:
    """Writes the file with id inputs, including vocabulary and labels."""
    content = tflite_converter.convert(
        predictor, QUANTIZATIONS[quantization], lengths, data
    )
    with open(path, "wb") as file:
        file.write(
            tflite_sidecars.add_metadata(
                content, predictor, os.path.dirname(path)
            )
        )


def _check_answers(
    path: str,
    predictor: predictor_lib.Predictor,
    quantization: str,
    data: Examples,
    least: float | None,
) -> dict[str, float]:
    """Returns the file's first metric on `data`, if `least` is given.

    Raises ExportError if its answers or the metric are not good enough.
    """
    settings, difference = QUANTIZATIONS[quantization], compare(path, predictor)
    # If there is a metric on the user's examples, it replaces the comparison on
    # a few sentences, except for float32, which must be exact.
    if least is None or settings.agreement == 1:
        difference.require(
            distance=settings.distance, agreement=settings.agreement
        )
    if least is None:
        return {}
    return _require_metric(path, predictor, data, least)


def _write_strings(
    predictor: predictor_lib.Predictor,
    folder: str,
    quantization: str,
    seq_length: int,
    data: Examples,
) -> dict[str, str]:
    """Writes the file with string inputs; returns metadata for the .json."""
    settings = QUANTIZATIONS[quantization]
    tflite_tokenizer.require_equal_ids(predictor, data)
    content = tflite_converter.convert_functions(
        predictor,
        {
            tflite_tokenizer.SIGNATURE: tflite_tokenizer.signature(
                predictor, seq_length
            )
        },
        settings,
        custom_ops=True,
    )
    tflite_tokenizer.require_known_ops(content)
    name = f"model_{quantization}_strings.tflite"
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(content)
    tflite_tokenizer.compare(path, predictor, seq_length).require(
        distance=settings.distance, agreement=settings.agreement
    )
    return {
        "model": name,
        "signature": tflite_tokenizer.SIGNATURE,
        "oldest_runtime": runtimes.oldest_runtime(content),
        "custom_ops": " and ".join(sorted(tflite_tokenizer.OPS)),
    }


def _for_device(
    predictor: predictor_lib.Predictor,
) -> predictor_lib.Predictor:
    """Returns a predictor with the same weights and task.for_device()."""
    task, head = predictor.task.for_device(), predictor.model.head
    if task is predictor.task:
        return predictor
    model = model_lib.BertModel(predictor.model.encoder, task)
    heads = head.by_name()
    for name, layer in model.head.by_name().items():
        layer.set_weights(heads[name].get_weights())
    card = predictor.card
    if card and task != predictor.task:
        card = model_card.without_results(
            card, "These are the checkpoint's, on pairs of texts."
        )
    return predictor_lib.Predictor(model, predictor.tokenizer, card=card)


def _require_metric(
    path: str, predictor: predictor_lib.Predictor, data: Examples, least: float
) -> dict[str, float]:
    """Returns a file's first metric on examples.

    Raises ExportError if it is below `least`.
    """
    metric = predictor.task.metric_names[0]
    file = tflite_runner.File(path, predictor)
    value, hint = file.metrics(data)[metric], ""
    if file.seq_length < predictor.task.seq_length:
        hint = (
            f" It truncates to {file.seq_length} tokens, the model to "
            f"{predictor.task.seq_length}: a larger `seq_length` may help."
        )
    if value < least:
        raise verification.ExportError(
            f"{os.path.basename(path)} has {metric} {value:.4f} on `data`, "
            f"below the {least:.4f} that is required. Nothing was "
            f"exported.{hint}"
        )
    return {metric: value}


def compare(
    path: str, predictor: predictor_lib.Predictor
) -> verification.Difference:
    """Compares a file's raw outputs and answers with the predictor's."""
    predictor = _for_device(predictor)
    differences = [
        _compare(tflite_runner.File(path, predictor, name=name), predictor)
        for name in tflite_runner.lengths(path)
    ]
    return verification.Difference(
        max(each.distance for each in differences),
        min(each.agreement for each in differences),
    )


def _compare(
    file: tflite_runner.File, predictor: predictor_lib.Predictor
) -> verification.Difference:
    task, raw = file.task, verification.sentences(file.task)
    inputs = file.inputs(raw)
    outputs = file.raw_outputs(inputs)
    input_names = predictor.model.encoder.config.inputs
    expected = predictor.tokens(**{name: inputs[name] for name in input_names})
    output_difference = verification.compare(
        outputs, expected, ranked=task.ranked_outputs
    )
    answer_difference = verification.compare(
        *_answers(outputs, expected, inputs, raw, task, predictor.tokenizer),
        ranked=task.ranked_outputs,
    )
    # Agreement of the answers only, because raw outputs include padding.
    return verification.Difference(
        output_difference.distance, answer_difference.agreement
    )


def _answers(outputs, expected, inputs, raw, task, tokenizer):
    """Postprocesses the raw outputs of the file and of the predictor.

    Both are one batch, with all texts twice, so that lists of variable length
    are padded to the same width.
    """
    (count,) = {len(texts) for texts in raw.values()}
    inputs = {
        name: tf.concat(
            [value, value + count if name == "example_index" else value], axis=0
        )
        for name, value in inputs.items()
    }
    answers = task.postprocess(
        {
            name: tf.concat([outputs[name], expected[name]], axis=0)
            for name in expected
        },
        inputs,
        {name: tf.tile(texts, [2]) for name, texts in raw.items()},
        tokenizer,
    )
    return (
        {name: value[:count] for name, value in answers.items()},
        {name: value[count:] for name, value in answers.items()},
    )
