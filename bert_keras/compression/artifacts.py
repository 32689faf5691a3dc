"""Writes the artifact of a candidate, and measures the artifact itself."""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bert_keras import (
    console,
    errors,
    evaluation,
    predictor,
    signatures,
    verification,
)
from bert_keras.compression import ladder
from bert_keras.device import tflite, tflite_converter, tflite_runner
from bert_keras.serving import saved_model
from bert_keras.tasks import base

# Texts that are answered before time is taken.
WARM_UP = 10
# Flags of CPUs that multiply bfloat16; on others it is slower than float32.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}

Texts = Mapping[str, np.ndarray]  # strings (1,), by text column
# Answers one text, as `Task.postprocess` does: (1, ...).
Answer = Callable[[Texts], Mapping[str, Any]]


class Rows(NamedTuple):
    """The examples of the two files."""

    train: Sequence[base.Example]
    dev: Sequence[base.Example]


class Measured(NamedTuple):
    """Metrics, the first one is compared; the median milliseconds of a text."""

    metrics: dict[str, float]
    milliseconds: float


def load(checkpoint: str, candidate: ladder.Candidate) -> predictor.Predictor:
    """Loads the float32 model of a candidate, with its speed of early exit."""
    settings = {} if candidate.speed is None else {"speed": candidate.speed}
    return predictor.load(checkpoint, settings=settings)


def write(
    candidate: ladder.Candidate,
    checkpoint: str,
    model: predictor.Predictor,
    folder: str,
    *,
    rows: Rows,
    seq_length: int,
) -> str:
    """Writes the artifact into a folder and returns its path.

    model: as from `load`. seq_length: tokens of a row of a TFLite file.

    Raises InputError if this CPU is too slow for it, ExportError if it cannot
    be written or does not answer like the model.
    """
    if candidate.artifact == ladder.TFLITE:
        is_calibrated = candidate.precision == "int8"
        return tflite.export(
            model,
            folder,
            quantization=candidate.precision,
            seq_length=seq_length,
            # The dev rows stand for unseen texts: nothing is calibrated on
            # them. Without `least`, a file would be judged by a few sentences.
            data=rows.train[: tflite_converter.MAX_CALIBRATION_ROWS]
            if is_calibrated
            else rows.dev,
            least=None if is_calibrated else 0.0,
        )
    exported = model
    if candidate.precision == "bfloat16":
        if not BFLOAT16_FLAGS & cpu_flags():
            raise errors.InputError(
                "this CPU has neither AVX512_BF16 nor AMX; in bfloat16 the "
                "model would be slower."
            )
        exported = predictor.load(checkpoint, precision="bfloat16")
    return saved_model.export(
        exported, folder, 1, reference=model, precision=candidate.precision
    )


def cpu_flags() -> set[str]:
    """Returns the flags of the CPU; none if the system does not list them."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith("flags")]
    except OSError:  # not on Linux
        return set()
    return set(lines[0].partition(":")[2].split()) if lines else set()


def measure(
    candidate: ladder.Candidate,
    path: str,
    model: predictor.Predictor,
    examples: Sequence[base.Example],
    *,
    threads: int,
) -> Measured:
    """Answers the examples with the artifact at `path`, one text a request.

    The time is that from the text to its label: with the tokenizer, which a
    TFLite file does not contain. Of one thread it is the processor's time,
    which other processes on the machine change little.

    Raises ExportError if an answer contains NaN or infinity.
    """
    requests = [
        {
            name: np.array([example[name].encode()], object)
            for name in model.task.text_columns
        }
        for example in examples
    ]
    clock = time.process_time if threads == 1 else time.perf_counter
    is_tflite = candidate.artifact == ladder.TFLITE
    with tf.device("CPU"), on_processors(threads):
        answer = (
            tflite_answer(path, model, threads)
            if is_tflite
            else saved_model_answer(path)
        )
        answers, seconds = _ask(answer, requests, clock)
    joined = {
        name: tf.constant(np.concatenate([each[name] for each in answers]))
        for name in answers[0]
    }
    metrics, _ = evaluation.score(
        model.task, predictor.rows_of(model.task, joined), examples
    )
    if not evaluation.is_finite(metrics):
        raise verification.ExportError(
            "its answers contain NaN or infinity; a smaller learning rate may "
            "help."
        )
    return Measured(metrics, 1000 * statistics.median(seconds))


def _ask(
    answer: Answer, requests: Sequence[Texts], clock: Callable[[], float]
) -> tuple[list[dict[str, np.ndarray]], list[float]]:
    """Returns the answers, (1, ...) each, and the seconds that each took."""
    for request in requests[:WARM_UP]:
        answer(request)
    answers, seconds = [], []
    with console.Progress(
        "measuring", total=len(requests), unit="texts"
    ) as progress:
        for number, request in enumerate(requests, start=1):
            began = clock()
            outputs = answer(request)
            seconds.append(clock() - began)
            answers.append(
                {name: np.asarray(value) for name, value in outputs.items()}
            )
            progress.update(number)
    return answers, seconds


@contextlib.contextmanager
def on_processors(count: int) -> Iterator[None]:
    """Runs all threads of this process on so many processors, on Linux.

    The number of TensorFlow's threads is fixed once it has run, and trainings
    use all of them; where there are fewer processors, they take turns.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    # The first processor is often the one that serves the system.
    _move_threads(set(sorted(allowed)[-count:]))
    try:
        yield
    finally:
        _move_threads(allowed)


def _move_threads(processors: AbstractSet[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # it has ended
            os.sched_setaffinity(int(thread), processors)


def saved_model_answer(path: str) -> Answer:
    """Loads a SavedModel; returns its signature of texts."""
    served = tf.saved_model.load(path)

    def answer(texts):
        # Looked up in the object, which keeps the weights alive.
        return served.signatures[signatures.TEXT](
            **{name: tf.constant(value) for name, value in texts.items()}
        )

    return answer


def tflite_answer(
    path: str, model: predictor.Predictor, threads: int
) -> Answer:
    """Loads a TFLite file; returns it between tokenizer and postprocessing.

    These two are graphs, as they are in a SavedModel.
    """
    file = tflite_runner.File(path, model, threads=threads)
    inputs = model.model.encoder.config.inputs

    @tf.function(reduce_retracing=True, autograph=False)
    def preprocess(raw):
        return file.task.preprocess(raw, model.tokenizer)

    @tf.function(autograph=False)
    def postprocess(outputs):
        return file.task.postprocess(outputs, {}, {}, model.tokenizer)

    def answer(texts):
        features = preprocess(
            {name: tf.constant(value) for name, value in texts.items()}
        )
        outputs = file.call(
            {
                name: _padded(features[name].numpy(), file.seq_length)
                for name in inputs
            }
        )
        return postprocess(
            {name: tf.constant(value) for name, value in outputs.items()}
        )

    return answer


def _padded(row: np.ndarray, length: int) -> np.ndarray:
    """Pads (1, S) to (1, length)."""
    return np.pad(row, ((0, 0), (0, length - row.shape[1])))
