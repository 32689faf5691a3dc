r"""Writes a checkpoint as TFLite files for phones and other small machines.

  python -m export.tflite --checkpoint=runs/sst2 --output=mobile/sst2 \
    --quantization=float32,dynamic --seq_length=64 --data=dev.tsv

writes, for each --quantization in turn, and no file that fails a check:

  model_dynamic.tflite   ids in, numbers out; built-in ops only, no Flex
  model_dynamic.json     inputs in their order, outputs, lengths, casing, ids
  vocab.txt              the pieces, by id
  labels.txt             the labels, by number, where the task has any
  model_dynamic.md       how an app calls the file, in Kotlin and Swift

The signature is `tokens`: token_ids, segment_ids and padding_mask, each
(1, --seq_length) int32, give the task's numbers. A text is [CLS] pieces [SEP],
filled up with 0; padding_mask is 1 where a piece stands. Several lengths, with
commas between, are signatures tokens_64 and so on, which share the weights.

  --quantization=float32   as trained; TFLite 2.9 or newer runs it
  --quantization=float16   weights in half the size, for phones with a GPU
  --quantization=dynamic   weights as int8, a quarter of the size; the fastest
                           on a CPU; needs TFLite 2.17
  --quantization=int8      products of int8 with int8, by the ranges that rows
                           of --data reach; what lies between stays float; needs
                           TFLite 2.10

  --strings                also model_..._strings.tflite, with the tokenizer
                           inside: signature `text`, strings (1,) in; it runs
                           under InterpreterWithCustomOps with TensorFlow Text

Several, with commas between, are several files and one table. A file holds its
vocabulary and labels, as MediaPipe's TextClassifier and TextEmbedder want them
of a file of one length; a task of other answers is called by its signature.

The file is opened again and compared with the model it came from on English
and Chinese sentences; how far its answers may move is in QUANTIZATIONS. With
--data, labelled rows, it is also scored, and refused when its first metric is
more than --max_drop below the checkpoint's; then its answers to those sentences
may change, but in float32.
"""

import os
from collections.abc import Sequence

import tensorflow as tf
from absl import flags

from bert_keras import artifact, errors
from bert_keras import model as model_lib
from bert_keras import predictor as predictor_lib
from bert_keras.device import (
    runtimes,
    tflite_converter,
    tflite_runner,
    tflite_sidecars,
    tflite_tokenizer,
)
from bert_keras.device.tflite_converter import QUANTIZATIONS, Rows
from export import command


def export(
    predictor: predictor_lib.Predictor,
    output: str,
    *,
    quantization: str = "float32",
    seq_length: int | Sequence[int] = 128,
    data: Rows = (),
    least: float | None = None,
    with_strings: bool = False,
) -> str:
    """Writes `output`/model_<quantization>.tflite; returns its path.

    data: labelled rows, which int8 needs for its ranges and `with_strings` to
      see whether they get the same ids.
    least: what the task's first metric of these rows has to come to.
    with_strings: also the file that takes strings.

    Raises ExportError, and leaves nothing, when an op is not built in, the
    file answers otherwise than the predictor, or its metric is below `least`.
    """
    if isinstance(seq_length, int):
        seq_length = [seq_length]
    longest = predictor.model.encoder.config.max_length
    for length in seq_length:
        if length < 4 or (longest is not None and length > longest):
            raise errors.InputError(
                f"--seq_length={length}: expected 4 to {longest or 'any'}, the "
                "model's number of positions."
            )
    predictor = _for_device(predictor)
    model, kind = f"model_{quantization}.tflite", QUANTIZATIONS[quantization]
    if kind.calibrated and not data:
        raise errors.InputError(
            f"--quantization={quantization} needs --data: rows that show which "
            "ranges the numbers have."
        )
    if with_strings and (kind.calibrated or not data):
        raise errors.InputError(
            "--strings needs --data, rows on which its tokenizer is compared, "
            "and another --quantization than int8."
        )
    tflite_sidecars.check_own(output, model)
    with artifact.aside(output, quantization) as folder:
        names = tflite_sidecars.write(predictor, folder, output)
        path = os.path.join(folder, model)
        content = tflite_converter.convert(predictor, kind, seq_length, data)
        with open(path, "wb") as file:
            file.write(tflite_sidecars.packed(content, predictor, folder))
        difference = compare(path, predictor)
        # The metric of the user's rows judges better than these sentences do;
        # but nothing excuses a float32 file.
        if least is None or kind.agreement == 1:
            difference.require(numbers=kind.numbers, agreement=kind.agreement)
        if least is not None:
            _require(path, predictor, data, least)
        beside = None
        if with_strings:
            beside = _write_strings(
                predictor, folder, quantization, max(seq_length), data
            )
            names.append(beside["model"])
        names += tflite_sidecars.describe(
            path, predictor, quantization=quantization, strings=beside
        )
        # The model last: where it is, the rest is.
        for name in (*names, model):
            os.replace(os.path.join(folder, name), os.path.join(output, name))
    return os.path.join(output, model)


def _write_strings(
    predictor, folder, quantization, seq_length, data
) -> dict[str, str]:
    """Writes the file that takes strings; returns what an app needs of it."""
    kind = QUANTIZATIONS[quantization]
    tflite_tokenizer.require_equal_ids(predictor, data)
    content = tflite_converter.converted(
        predictor,
        {
            tflite_tokenizer.SIGNATURE: tflite_tokenizer.signature(
                predictor, seq_length
            )
        },
        kind,
        custom_ops=True,
    )
    tflite_tokenizer.require_known_ops(content)
    name = f"model_{quantization}_strings.tflite"
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(content)
    tflite_tokenizer.compare(path, predictor, seq_length).require(
        numbers=kind.numbers, agreement=kind.agreement
    )
    return {
        "model": name,
        "signature": tflite_tokenizer.SIGNATURE,
        "oldest_runtime": runtimes.oldest(content),
        "custom_ops": " and ".join(sorted(tflite_tokenizer.OPS)),
    }


def _for_device(
    predictor: predictor_lib.Predictor,
) -> predictor_lib.Predictor:
    """The same network with the task as a device asks it."""
    task, head = predictor.task.for_device(), predictor.model.head
    if task == predictor.task:
        return predictor
    model = model_lib.BertModel(predictor.model.encoder, task)
    model.head.set_weights(head.get_weights())
    return predictor_lib.Predictor(model, predictor.tokenizer)


def _require(path, predictor, data: Rows, least: float) -> None:
    metric, file = (
        predictor.task.metric_names[0],
        tflite_runner.File(path, predictor),
    )
    found, cut = file.scores(data)[metric], ""
    if file.seq_length < predictor.task.seq_length:
        cut = (
            f" Its rows have {file.seq_length} tokens, the model's "
            f"{predictor.task.seq_length}: a larger --seq_length may help."
        )
    if found < least:
        raise artifact.ExportError(
            f"{os.path.basename(path)} has {metric} {found:.4f} on --data, "
            f"below the {least:.4f} that --max_drop allows. Nothing was "
            f"exported.{cut}"
        )


def compare(
    path: str, predictor: predictor_lib.Predictor
) -> artifact.Difference:
    """A written file against the predictor: its numbers, and its answers."""
    predictor = _for_device(predictor)
    found = [
        _compare(tflite_runner.File(path, predictor, name=name), predictor)
        for name in tflite_runner.lengths(path)
    ]
    return artifact.Difference(
        max(each.numbers for each in found),
        min(each.agreement for each in found),
    )


def _compare(file: tflite_runner.File, predictor) -> artifact.Difference:
    task, raw = file.task, artifact.texts(file.task)
    inputs = file.inputs(raw)
    got = file.numbers(inputs)
    want = predictor.tokens(**{name: inputs[name] for name in artifact.TOKENS})
    numbers = artifact.compare(got, want, ranked=task.ranked_outputs)
    answers = artifact.compare(
        *_answers(got, want, inputs, raw, task, predictor.tokenizer),
        ranked=task.ranked_outputs,
    )
    # Agreement of the answers alone: numbers hold filling, too.
    return artifact.Difference(numbers.numbers, answers.agreement)


def _answers(got, want, inputs, raw, task, tokenizer):
    """What both sets of numbers mean.

    As one batch of the texts twice, so that a task whose texts have answers of
    any number gives both equally many places.
    """
    (count,) = {len(texts) for texts in raw.values()}
    inputs = {
        name: tf.concat(
            [value, value + count if name == "text" else value], axis=0
        )
        for name, value in inputs.items()
    }
    answers = task.postprocess(
        {name: tf.concat([got[name], want[name]], axis=0) for name in want},
        inputs,
        {name: tf.tile(texts, [2]) for name, texts in raw.items()},
        tokenizer,
    )
    return (
        {name: value[:count] for name, value in answers.items()},
        {name: value[count:] for name, value in answers.items()},
    )


def define_flags() -> None:
    command.define_checkpoint()
    flags.DEFINE_string("output", "", "Folder for the model and its files.")
    flags.DEFINE_list(
        "quantization",
        ["float32"],
        f"How to store weights: of {', '.join(QUANTIZATIONS)}.",
    )
    flags.DEFINE_list(
        "seq_length",
        ["128"],
        "Tokens of a row, [CLS] and [SEP] included; several are several "
        "signatures.",
    )
    flags.DEFINE_string("data", "", "Labelled rows to score each file on.")
    flags.DEFINE_bool("strings", False, "Also files with the tokenizer inside.")
    flags.DEFINE_float(
        "max_drop",
        0.005,
        "A file whose first metric on --data is lower by more is refused.",
        0.0,
    )


def main() -> None:
    settings, output = flags.FLAGS, command.required("output")
    unknown = [n for n in settings.quantization if n not in QUANTIZATIONS]
    if unknown:
        raise errors.InputError(
            f"--quantization={','.join(unknown)}: expected one or several of "
            f"{', '.join(QUANTIZATIONS)}."
        )
    try:
        lengths = sorted(set(map(int, settings.seq_length)))
    except ValueError:
        raise errors.InputError(
            f"--seq_length={','.join(settings.seq_length)}: expected numbers."
        ) from None
    predictor = predictor_lib.load(command.checkpoint())
    rows = (
        list(predictor.task.read_examples(settings.data))
        if settings.data
        else ()
    )
    least, metric = None, predictor.task.metric_names[0]
    facts = {}
    # The metric of another task than the file's is no measure of it.
    scored = predictor.task.for_device() == predictor.task
    if not scored and "int8" in settings.quantization:
        raise errors.InputError(
            f"--quantization=int8: {predictor.task.name} has no metric of one "
            "text that could judge the file; take dynamic."
        )
    if rows and scored:
        score = predictor.task.metrics(predictor.predict(rows), rows)[metric]
        least = score - settings.max_drop
        facts["checkpoint"] = {metric: f"{score:.4f}"}
    for quantization in settings.quantization:
        path = export(
            predictor,
            output,
            quantization=quantization,
            seq_length=lengths,
            data=rows,
            least=least,
            with_strings=settings.strings,
        )
        facts[os.path.basename(path)] = _facts(
            path, predictor, rows if scored else (), metric
        )
    command.columns(output, facts)
    print(f"How to call one:\n  cat {path.removesuffix('tflite')}json")


def _facts(path, predictor, rows: Rows, metric: str) -> dict[str, str]:
    difference = compare(path, predictor)

    def time(threads: int) -> str:
        file = tflite_runner.File(path, predictor, threads=threads)
        row = file.row(file.inputs(artifact.texts(file.task)), 0)
        return f"{command.milliseconds(lambda: file.call(row)):.1f} ms"

    with open(path, "rb") as file:
        oldest = runtimes.oldest(file.read())
    facts = {
        "size": command.megabytes(path),
        "oldest TFLite": oldest,
        "difference": f"{difference.numbers:.2g}",
        "labels equal": f"{difference.agreement:.0%} of "
        f"{len(artifact.SENTENCES)}",
    }
    if rows:
        score = tflite_runner.File(path, predictor).scores(rows)[metric]
        facts[metric] = f"{score:.4f}"
    threads = max(2, min(4, os.cpu_count() or 1))
    return facts | {
        "1 thread": time(1),
        f"{threads} threads": time(threads),
    }


if __name__ == "__main__":
    command.run(main, define_flags)
