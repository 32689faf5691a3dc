"""TFLite files with string inputs, which contain TensorFlow Text's tokenizer.

Its ops run in TFLite with `InterpreterWithCustomOps`, without Flex. But their
only normalizer folds compatibility characters, which BERT's does not:
full-width "，" becomes ",". So a text may get other ids than in training; the
fraction of such texts is measured before a file is written.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from bert_keras import errors, signatures, verification
from bert_keras import predictor as predictor_lib
from bert_keras.device import tflite_runner
from bert_keras.tokenizers import base as tokenizers
from bert_keras.tokenizers import wordpiece

SIGNATURE = "text"
OPS = {"FastBertNormalize", "FastWordpieceTokenizeWithOffsets"}

# Maximum fraction of texts with other ids.
MAX_DIFFERENT_FRACTION = 0.001


def signature(
    predictor: predictor_lib.Predictor, seq_length: int
) -> signatures.Signature:
    """Makes a function from the task's strings (1,) to its raw outputs.

    Raises InputError if answers need more of the text than its token ids, such
    as offsets.
    """
    _check_task(predictor)
    task = predictor.task
    tokenizer: Any = predictor.tokenizer  # `_tokenizer_op` requires WordPiece
    input_names = predictor.model.encoder.config.inputs
    op = _tokenizer_op(tokenizer)

    def answer(**raw):
        # No ragged tensors: TFLite does not support them.
        segments = [
            op.tokenize(raw[name]).flat_values for name in task.text_columns
        ]
        segments = _truncate(segments, seq_length - 1 - len(segments))
        segments = [
            tf.concat([segment, [tokenizer.sep_id]], 0) for segment in segments
        ]
        segments[0] = tf.concat([[tokenizer.cls_id], segments[0]], 0)
        ids = tf.concat(segments, 0)
        size, position = tf.size(ids), tf.range(seq_length)
        padding_mask = tf.cast(position < size, tf.int32)
        is_second = tf.cast(position >= tf.size(segments[0]), tf.int32)
        row = {
            "token_ids": tf.pad(ids, [[0, seq_length - size]]),
            "segment_ids": padding_mask * is_second,
            "padding_mask": padding_mask,
        }
        return predictor.tokens(
            **{
                name: tf.reshape(row[name], (1, seq_length))
                for name in input_names
            }
        )

    specs = {
        name: tf.TensorSpec((1,), tf.string, name=name)
        for name in task.text_columns
    }
    return answer, specs


def _check_task(predictor: predictor_lib.Predictor) -> None:
    task = predictor.task
    available = {
        *predictor.model.encoder.config.inputs,
        "example_index",
        "truncated",
    }
    features = task.preprocess(
        verification.sentences(task), predictor.tokenizer
    )
    if unavailable := features.keys() - available:
        raise errors.InputError(
            f"{task.name} needs features that TFLite's tokenizer does not "
            f"compute ({', '.join(sorted(unavailable))}): a file with string "
            "inputs is not possible. Use the file with id inputs."
        )
    if task.unwrapped.name == "causal_lm":
        raise errors.InputError(
            f"{task.name} continues rows without [SEP], which TFLite's "
            "tokenizer always adds: a file with string inputs is not possible. "
            "Use the file with id inputs."
        )
    if len(task.text_columns) > 2:
        raise errors.InputError(
            f"{task.name} reads {len(task.text_columns)} texts: a file with "
            "string inputs is only possible for one or two. Use the file with "
            "id inputs."
        )


def _truncate(segments: Sequence[tf.Tensor], room: int) -> list[tf.Tensor]:
    """Truncates one or two segments to `room` tokens, as `packing.pack`."""
    if len(segments) == 1:
        return [segments[0][:room]]
    first, second = map(tf.size, segments)
    kept = tf.minimum(second, tf.maximum(room - first, room // 2))
    return [segments[0][: room - kept], segments[1][:kept]]


def require_equal_ids(
    predictor: predictor_lib.Predictor, examples: Sequence[Mapping[str, Any]]
) -> float:
    """Returns the fraction of texts with other ids in TFLite.

    Raises InputError if it is above MAX_DIFFERENT_FRACTION.
    """
    tokenizer = predictor.tokenizer
    op = _tokenizer_op(tokenizer)
    texts = tf.constant(
        [
            str(row[name])
            for row in examples
            for name in predictor.task.text_columns
        ]
    )
    native_ids = tokenizer(texts).to_list()
    tflite_ids = op.tokenize(texts).merge_dims(1, -1).to_list()
    different = [
        index
        for index, (native, other) in enumerate(
            zip(native_ids, tflite_ids, strict=True)
        )
        if native != other
    ]
    fraction = len(different) / max(1, len(texts))
    if fraction > MAX_DIFFERENT_FRACTION:
        example = texts[different[0]].numpy().decode()[:60]
        raise errors.InputError(
            f"{len(different):,} of {len(texts):,} texts of `data` "
            f"({fraction:.1%}; allowed: {MAX_DIFFERENT_FRACTION:.1%}) get "
            "other ids in TFLite, whose tokenizer folds compatibility "
            f"characters, for example in {example!r}. Use the file with id "
            "inputs, with a tokenizer in the app."
        )
    return fraction


def require_known_ops(content: bytes) -> None:
    """Raises ExportError for an op that is neither built in nor in OPS."""
    model = schema.Model.GetRootAs(content, 0)
    custom = {
        code.decode()
        for number in range(model.OperatorCodesLength())
        if (code := model.OperatorCodes(number).CustomCode())
    }
    if custom - OPS:
        raise verification.ExportError(
            f"TFLite has no op {', '.join(sorted(custom - OPS))}, neither "
            "built-in nor of TensorFlow Text. Nothing was exported."
        )


def runner(
    path: str, threads: int | None = None
) -> Callable[..., dict[str, np.ndarray]]:
    """Makes a function (text=..., ...) that returns the file's raw outputs."""
    interpreter = litert.InterpreterWithCustomOps(
        custom_op_registerers=tf_text.tflite_registrar.SELECT_TFTEXT_OPS,
        model_path=path,
        num_threads=threads,
    )
    run = interpreter.get_signature_runner(SIGNATURE)

    def call(**texts: str) -> dict[str, np.ndarray]:
        return run(
            **{
                name: np.array([text.encode()], object)
                for name, text in texts.items()
            }
        )

    return call


def compare(
    path: str, predictor: predictor_lib.Predictor, seq_length: int
) -> verification.Difference:
    """Compares a file's raw outputs with the predictor's.

    Uses the sentences for which both tokenizers give the same ids.
    """
    task = tflite_runner.task_of(predictor, seq_length)
    tokenizer = predictor.tokenizer
    op, call = _tokenizer_op(tokenizer), runner(path)
    rows = [
        row
        for row in zip(
            *(
                [text.numpy().decode() for text in texts]
                for texts in verification.sentences(task).values()
            ),
            strict=True,
        )
        if tokenizer(row).to_list()
        == op.tokenize(row).merge_dims(1, -1).to_list()
    ]
    outputs = [
        call(**dict(zip(task.text_columns, row, strict=True))) for row in rows
    ]
    inputs = task.preprocess(
        {
            name: tf.constant(column)
            for name, column in zip(
                task.text_columns, zip(*rows, strict=True), strict=True
            )
        },
        tokenizer,
    )
    input_names = predictor.model.encoder.config.inputs
    expected = predictor.tokens(**{name: inputs[name] for name in input_names})
    return dataclasses.replace(
        verification.compare(
            {
                name: np.concatenate([output[name] for output in outputs])
                for name in expected
            },
            expected,
            ranked=task.ranked_outputs,
        ),
        texts=len(rows),
    )


def _tokenizer_op(
    tokenizer: tokenizers.Tokenizer,
) -> tf_text.FastBertTokenizer:
    if not isinstance(tokenizer, wordpiece.Tokenizer):
        raise errors.InputError(
            "a file with string inputs is not possible: TFLite has ops for "
            "WordPiece only, and this checkpoint has another tokenizer. Use "
            "the file with id inputs."
        )
    return tf_text.FastBertTokenizer(
        list(tokenizer.vocabulary),
        max_bytes_per_word=4 * wordpiece.MAX_WORD_LENGTH,
        token_out_type=tf.int32,
        unknown_token="[UNK]",
        lower_case_nfd_strip_accents=tokenizer.lowercase,
    )
