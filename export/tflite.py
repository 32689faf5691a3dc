r"""Exports a checkpoint as TFLite files for phones and other small machines.

  bert-keras export-tflite --checkpoint=runs/sst2 --output=mobile/sst2 \
    --quantization=float32,dynamic --seq_length=64 --data=dev.tsv

writes for each --quantization, unless the file fails a check:

  model_dynamic.tflite   token ids -> raw outputs; built-in ops only, no Flex
  model_dynamic.json     inputs in their order, outputs, lengths, casing, ids
  vocab.txt              the wordpieces, by id
  labels.txt             the labels, by index, if the task has any
  model_dynamic.md       the model card, and how to call the file from an app,
                         in Kotlin and Swift; kept if it was edited

The signature `tokens` maps the network's inputs (token_ids, padding_mask and,
if it has two segments, segment_ids), each (1, --seq_length) int32, to the
task's raw outputs. A text is [CLS] wordpieces [SEP], padded with 0;
padding_mask is 1 at tokens and 0 at padding. Several lengths, separated by
commas, become signatures tokens_64 and so on, which share the weights.

  --quantization=float32   as trained; runs on TFLite 2.9 or newer
  --quantization=float16   weights of half the size, for phones with a GPU
  --quantization=dynamic   weights in int8, a quarter of the size; the fastest
                           on a CPU; needs TFLite 2.17
  --quantization=int8      int8 matmuls, calibrated on examples of --data; the
                           ops between them stay float; needs TFLite 2.10

  --strings                also model_..._strings.tflite, which contains the
                           tokenizer: signature `text` of strings (1,); it runs
                           under InterpreterWithCustomOps with TensorFlow Text

Several quantizations, separated by commas, give several files and one table. A
file contains its vocabulary and labels, as MediaPipe's TextClassifier and
TextEmbedder require of a file with one length; call other tasks by signature.

The file is loaded again and compared with the checkpoint on English and Chinese
sentences; QUANTIZATIONS has the tolerances. With --data (labelled examples) it
is evaluated instead, and refused if its first metric is more than --max_drop
below the checkpoint's; a float32 file must pass both checks.
"""

import os

from absl import flags

from bert_keras import console, errors, model_card, verification
from bert_keras import predictor as predictor_lib
from bert_keras.device import runtimes, tflite_runner

# Re-exported for use from Python: tflite.export(predictor, folder).
from bert_keras.device.tflite import compare, export
from bert_keras.device.tflite_converter import QUANTIZATIONS, Examples
from export import flags as common


def define_flags() -> None:
    common.define_checkpoint()
    common.define_answer_settings()
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
    settings, output = flags.FLAGS, common.required("output")
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
    predictor = common.load()
    examples = (
        list(predictor.task.expand(predictor.task.read_examples(settings.data)))
        if settings.data
        else ()
    )
    if flags.FLAGS.task and examples:
        predictor = predictor_lib.adapted(predictor, examples)
    least, rows = None, {}
    metric = next(iter(predictor.task.metric_names), "")
    # If the exported task differs from the checkpoint's, so does its metric.
    scored = predictor.task.for_device() == predictor.task
    if not scored and "int8" in settings.quantization:
        raise errors.InputError(
            f"--quantization=int8: {predictor.task.name} has no metric of one "
            "text that could judge the file; take dynamic."
        )
    if examples and scored:
        score = predictor.task.metrics(predictor.predict(examples), examples)[
            metric
        ]
        least = score - settings.max_drop
        rows["checkpoint"] = {metric: f"{score:.4f}"}
    for quantization in settings.quantization:
        path = export(
            predictor,
            output,
            quantization=quantization,
            seq_length=lengths,
            data=examples,
            least=least,
            with_strings=settings.strings,
        )
        readme = f"{path.removesuffix('tflite')}md"
        if model_card.is_edited(readme):
            console.say(f"{readme} was edited and is kept as it is")
        rows[os.path.basename(path)] = _facts(
            path, predictor, examples if scored else (), metric
        )
    console.comparison(output, rows)
    print(f"How to call one:\n  cat {path.removesuffix('tflite')}json")


def _facts(
    path: str,
    predictor: predictor_lib.Predictor,
    examples: Examples,
    metric: str,
) -> dict[str, str]:
    difference = compare(path, predictor)

    def time(threads: int) -> str:
        file = tflite_runner.File(path, predictor, threads=threads)
        row = file.row(file.inputs(verification.sentences(file.task)), 0)
        return f"{common.milliseconds(lambda: file.call(row)):.1f} ms"

    with open(path, "rb") as file:
        oldest = runtimes.oldest_runtime(file.read())
    values = {
        "size": console.size_of(path),
        "oldest TFLite": oldest,
        "difference": f"{difference.distance:.2g}",
        "labels equal": f"{difference.agreement:.0%} of "
        f"{len(verification.SENTENCES)}",
    }
    if examples:
        score = tflite_runner.File(path, predictor).metrics(examples)[metric]
        values[metric] = f"{score:.4f}"
    threads = max(2, min(4, os.cpu_count() or 1))
    return values | {
        "1 thread": time(1),
        f"{threads} threads": time(threads),
    }


def run() -> None:
    common.run(main, define_flags)


if __name__ == "__main__":
    run()
