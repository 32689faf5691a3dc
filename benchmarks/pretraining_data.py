"""Compares trainers.prepare with Google's script that writes the same files.

  make bench
  .venv-bench/bin/python -m benchmarks.pretraining_data \\
      --input=corpus.txt --vocab=vocab.txt

Google's script is create_pretraining_data.py of google-research/bert, from the
package bert-tensorflow. Both read the same file, one sentence per line, each in
its own processes. Google's script is a single process, so to use all cores it
runs once per core, each on a part of the file. CPU time is counted after
TensorFlow's import and a first tiny file; for worker processes of `prepare` it
includes the import.
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

INPUT = flags.DEFINE_string(
    "input", None, "Corpus, in a format that trainers.prepare reads."
)
VOCAB = flags.DEFINE_string("vocab", None, "File of an uncased vocabulary.")
DUPE_FACTOR = flags.DEFINE_integer(
    "dupe_factor", 5, "Number of times the text is sampled."
)
# Flags of the child processes:
PROGRAM = flags.DEFINE_enum(
    "program", "", ["", "bert_keras", "google"], "Internal: program to run."
)
OUTPUT = flags.DEFINE_string("output", "", "Internal: folder or file to write.")
STATIC = flags.DEFINE_bool(
    "static", True, "Internal: write Google's format, which has fixed masks."
)
WORKERS = flags.DEFINE_integer(
    "workers", 1, "Internal: worker processes of trainers.prepare."
)

SEQ_LENGTH, MAX_PREDICTIONS_PER_SEQ = 128, 20
MASKED_LM_PROB, SHORT_SEQ_PROB = 0.15, 0.1
TINY_TEXT = "A film.\nA plot.\n\nA story.\nAn end.\n\n"


def run_bert_keras(input_path, output):
    from bert_keras.training import prepare, settings

    prepare.run(
        settings.PrepareSettings(
            input=input_path,
            vocab=VOCAB.value,
            output=output,
            lowercase=True,
            seq_length=SEQ_LENGTH,
            format="google" if STATIC.value else "records",
            masked_lm_prob=MASKED_LM_PROB,
            max_predictions_per_seq=MAX_PREDICTIONS_PER_SEQ,
            dupe_factor=DUPE_FACTOR.value,
            dev_fraction=0.0,
            workers=WORKERS.value,
        )
    )


def run_google(input_path, output):
    import tensorflow.compat.v1 as tf

    # The script was written for TensorFlow 1.
    sys.modules["tensorflow"] = tf
    from bert import create_pretraining_data, tokenization

    tokenizer = tokenization.FullTokenizer(VOCAB.value, do_lower_case=True)
    instances = create_pretraining_data.create_training_instances(
        [input_path],
        tokenizer,
        SEQ_LENGTH,
        DUPE_FACTOR.value,
        SHORT_SEQ_PROB,
        MASKED_LM_PROB,
        MAX_PREDICTIONS_PER_SEQ,
        rng=random.Random(1),
    )
    create_pretraining_data.write_instance_to_example_files(
        instances, tokenizer, SEQ_LENGTH, MAX_PREDICTIONS_PER_SEQ, [output]
    )


def measure_program():
    """Runs --program; prints its wall time and CPU time in seconds."""
    run = {"bert_keras": run_bert_keras, "google": run_google}[PROGRAM.value]
    with tempfile.TemporaryDirectory() as folder:
        tiny = os.path.join(folder, "tiny.txt")
        with open(tiny, "w", encoding="utf-8") as file:
            file.write(TINY_TEXT)
        run(tiny, os.path.join(folder, "tiny"))
    began, cpu_began = time.monotonic(), _cpu_seconds()
    run(INPUT.value, OUTPUT.value)
    times = time.monotonic() - began, _cpu_seconds() - cpu_began
    print(json.dumps(times))


def _cpu_seconds():
    """Returns the CPU time of this process and its children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def run_in_parallel(program, inputs, outputs, *more_flags):
    """Runs one process per input in parallel; returns (wall, CPU) seconds."""
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                *("-m", "benchmarks.pretraining_data", f"--program={program}"),
                *(f"--input={input_path}", f"--vocab={VOCAB.value}"),
                *(f"--output={output}", *more_flags),
            ],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        for input_path, output in zip(inputs, outputs, strict=True)
    ]
    printed = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{program} failed on {inputs}")
    times = [json.loads(text.splitlines()[-1]) for text in printed]
    return max(wall for wall, _ in times), sum(cpu for _, cpu in times)


def count_rows(pattern):
    """Counts the rows in the TFRecord files of a glob."""
    import tensorflow as tf

    files = tf.io.gfile.glob(pattern)
    return sum(1 for _ in tf.data.TFRecordDataset(files))


def measure(folder, corpus_path, part_paths):
    """Yields the results of each comparison.

    A result: (name, bert_keras's seconds, Google's seconds, rows of both);
    seconds are (wall, CPU). part_paths: the corpus in one part per core.
    """
    dupe_factor, cores = DUPE_FACTOR.value, len(part_paths)
    for name, texts, *flags_ in (
        (
            f"{dupe_factor} passes, 1 process",
            [corpus_path],
            f"--dupe_factor={dupe_factor}",
        ),
        (
            f"{dupe_factor} passes, {cores} processes",
            part_paths,
            f"--dupe_factor={dupe_factor}",
        ),
        ("1 pass, records", [corpus_path], "--dupe_factor=1"),
    ):
        if name.endswith("records"):
            flags_.append("--nostatic")
        output = os.path.join(folder, name.replace(", ", "-").replace(" ", "-"))
        yield (
            name,
            run_in_parallel(
                "bert_keras",
                [corpus_path],
                [output + "-bert_keras"],
                f"--workers={len(texts)}",
                *flags_,
            ),
            run_in_parallel(
                "google",
                texts,
                [f"{output}-google-{n}" for n in range(len(texts))],
                *flags_,
            ),
            f"{count_rows(output + '-bert_keras/train/*.tfrecord'):,} and "
            f"{count_rows(output + '-google-*'):,}",
        )


def main(_):
    if PROGRAM.value:
        measure_program()
        return
    with tempfile.TemporaryDirectory() as folder:
        cores = os.cpu_count()
        names = ["corpus", *(f"part-{number}" for number in range(cores))]
        texts = [os.path.join(folder, f"{name}.txt") for name in names]
        files = [open(path, "w", encoding="utf-8") for path in texts]
        for number, document in enumerate(corpus.documents([INPUT.value])):
            for file in (files[0], files[1 + number % cores]):
                file.write("\n".join(document) + "\n\n")
        for file in files:
            file.close()
        size = os.path.getsize(texts[0]) / 1e6
        table = rich.table.Table(
            title=f"{size:.1f} MB: wall (CPU) seconds",
            caption="records: bert_keras masks tokens in training, not here",
        )
        for column in (
            "",
            "bert_keras",
            "Google's",
            "ratio of CPU time",
            "rows",
        ):
            table.add_column(column)
        for name, own_seconds, google_seconds, rows in measure(
            folder, texts[0], texts[1:]
        ):
            table.add_row(
                name,
                f"{own_seconds[0]:.1f} ({own_seconds[1]:.1f})",
                f"{google_seconds[0]:.1f} ({google_seconds[1]:.1f})",
                f"{google_seconds[1] / own_seconds[1]:.1f}",
                rows,
            )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    flags.mark_flags_as_required(["input", "vocab"])
    benchmarks.run(main)
