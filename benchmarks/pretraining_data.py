"""Compares trainers.prepare with Google's script that writes the same files.

  make bench
  .venv-bench/bin/python -m benchmarks.pretraining_data \\
      --input=corpus.txt --vocab=vocab.txt

The other side is create_pretraining_data.py of google-research/bert, from the
package bert-tensorflow. Both read the same file, one sentence per line.
Google's script is a single process, so to use all cores it runs once per core,
each on a part of the file. Each side runs in its own processes. CPU time is
counted after TensorFlow's import and a first tiny file; for worker processes of
`prepare` it includes the import.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time

import rich.console
import rich.table
from absl import flags

import benchmarks
from bert_keras.data import corpus

INPUT = flags.DEFINE_string("input", None, "Text, as trainers.prepare reads.")
VOCAB = flags.DEFINE_string("vocab", None, "An uncased vocab.txt.")
PASSES = flags.DEFINE_integer("passes", 5, "Drawings of the same text.")
# Flags of the child processes:
SIDE = flags.DEFINE_enum("side", "", ["", "ours", "google"], "Who runs.")
OUTPUT = flags.DEFINE_string("output", "", "Where to.")
STATIC = flags.DEFINE_bool("static", True, "Draw masks, too.")
WORKERS = flags.DEFINE_integer("workers", 1, "Processes of trainers.prepare.")

SEQ_LENGTH, PREDICTIONS, SHARE, SHORT = 128, 20, 0.15, 0.1
TINY = "A film.\nA plot.\n\nA story.\nAn end.\n\n"


def bert_keras_side(input_path, output):
    from bert_keras.training import prepare, settings

    prepare.run(
        settings.PrepareSettings(
            input=input_path,
            vocab=VOCAB.value,
            output=output,
            lowercase=True,
            seq_length=SEQ_LENGTH,
            format="google" if STATIC.value else "records",
            masked_lm_prob=SHARE,
            max_predictions_per_seq=PREDICTIONS,
            dupe_factor=PASSES.value,
            dev_fraction=0.0,
            workers=WORKERS.value,
        )
    )


def google(input_path, output):
    import tensorflow.compat.v1 as tf

    # The script was written for TensorFlow 1.
    sys.modules["tensorflow"] = tf
    from bert import create_pretraining_data, tokenization

    tokenizer = tokenization.FullTokenizer(VOCAB.value, do_lower_case=True)
    instances = create_pretraining_data.create_training_instances(
        [input_path],
        tokenizer,
        SEQ_LENGTH,
        PASSES.value,
        SHORT,
        SHARE,
        PREDICTIONS,
        rng=random.Random(1),
    )
    create_pretraining_data.write_instance_to_example_files(
        instances, tokenizer, SEQ_LENGTH, PREDICTIONS, [output]
    )


def side():
    """Runs one side and prints its wall time and CPU time in seconds."""
    run = {"ours": bert_keras_side, "google": google}[SIDE.value]
    with tempfile.TemporaryDirectory() as folder:
        tiny = os.path.join(folder, "tiny.txt")
        with open(tiny, "w", encoding="utf-8") as file:
            file.write(TINY)
        run(tiny, os.path.join(folder, "tiny"))
    began, used = time.monotonic(), _processor()
    run(INPUT.value, OUTPUT.value)
    times = time.monotonic() - began, _processor() - used
    print(json.dumps(times))


def _processor():
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def seconds(side, inputs, outputs, *more):
    """Runs one process per input in parallel; returns (wall, CPU) seconds."""
    running = [
        subprocess.Popen(
            [
                sys.executable,
                *("-m", "benchmarks.pretraining_data", f"--side={side}"),
                *(f"--input={input_path}", f"--vocab={VOCAB.value}"),
                *(f"--output={output}", *more),
            ],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        for input_path, output in zip(inputs, outputs, strict=True)
    ]
    said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError(f"{side} failed on {inputs}")
    times = [json.loads(output.splitlines()[-1]) for output in said]
    return max(wall for wall, _ in times), sum(used for _, used in times)


def rows(pattern):
    """Counts the rows in the files."""
    import tensorflow as tf

    files = tf.io.gfile.glob(pattern)
    return sum(1 for _ in tf.data.TFRecordDataset(files))


def measure(folder, whole, shares):
    """Yields (name, own seconds, Google's seconds, rows) of each comparison.

    Seconds are (wall, CPU).
    """
    passes, cores = PASSES.value, len(shares)
    for name, texts, *flags_ in (
        (f"{passes} drawings, 1 process", [whole], f"--passes={passes}"),
        (
            f"{passes} drawings, {cores} processes",
            shares,
            f"--passes={passes}",
        ),
        ("one drawing / records", [whole], "--passes=1"),
    ):
        flags_ += ["--nostatic"] * name.endswith("records")
        output = os.path.join(folder, name.replace(" ", "-").replace("/", ""))
        yield (
            name,
            seconds(
                "ours",
                [whole],
                [output + "-ours"],
                f"--workers={len(texts)}",
                *flags_,
            ),
            seconds(
                "google",
                texts,
                [f"{output}-google-{n}" for n in range(len(texts))],
                *flags_,
            ),
            f"{rows(output + '-ours/train/*.tfrecord'):,} and "
            f"{rows(output + '-google-*'):,}",
        )


def main(_):
    if SIDE.value:
        side()
        return
    with tempfile.TemporaryDirectory() as folder:
        cores = os.cpu_count()
        names = ["whole", *(f"part-{number}" for number in range(cores))]
        texts = [os.path.join(folder, f"{name}.txt") for name in names]
        files = [open(path, "w", encoding="utf-8") for path in texts]
        for number, document in enumerate(corpus.documents([INPUT.value])):
            for file in (files[0], files[1 + number % cores]):
                file.write("\n".join(document) + "\n\n")
        for file in files:
            file.close()
        size = os.path.getsize(texts[0]) / 1e6
        table = rich.table.Table(
            title=f"{size:.1f} MB: wall (processor) seconds",
            caption="records: ours draw the masks while training",
        )
        for column in ("what", "ours", "Google's", "processor", "rows"):
            table.add_column(column)
        for what, own_seconds, google_seconds, count in measure(
            folder, texts[0], texts[1:]
        ):
            table.add_row(
                what,
                f"{own_seconds[0]:.1f} ({own_seconds[1]:.1f})",
                f"{google_seconds[0]:.1f} ({google_seconds[1]:.1f})",
                f"{google_seconds[1] / own_seconds[1]:.1f} times",
                count,
            )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    flags.mark_flags_as_required(["input", "vocab"])
    benchmarks.run(main)
