"""Runs the complete pipeline in minutes, from raw text to exported models.

It learns a vocabulary, pretrains, fine-tunes, evaluates and exports.

  python -m demo                                  on docstrings of the installed
                                                  packages
  python -m demo --train=train.tsv --dev=dev.tsv  fine-tunes on your own table

Every step is one of the project's commands, printed before it runs. Running the
demo again resumes it; completed steps are skipped.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

import rich.console
import rich.table
from absl import app, flags

from demo import docstrings, summary

_OUTPUT = flags.DEFINE_string("output", "demo-output", "Output folder.")
_TRAIN = flags.DEFINE_string(
    "train",
    "",
    "Training examples (.tsv, .csv, .jsonl). Default: docstrings.",
)
_DEV = flags.DEFINE_string(
    "dev", "", "Evaluation examples, in the same format."
)

# Chosen so that the pipeline takes minutes on two cores.
VOCABULARY = 8000
SEQ_LENGTH = 64
MODEL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "num_layers": 2,
    "num_heads": 2,
    "intermediate_size": 512,
    "max_position_embeddings": 128,
}
PRETRAIN = [
    "--steps=1200",
    "--batch_size=64",
    "--learning_rate=2e-3",
    "--warmup_ratio=0.05",
    "--evaluate_every=300",
    "--save_every=100",
]
FINETUNE = ["--batch_size=16", "--learning_rate=5e-4"]
EPOCHS, OWN_EPOCHS = 12, 3  # for the demo's 320 rows, and for a user's table

console = rich.console.Console(
    highlight=False, soft_wrap=True, markup=False, emoji=False
)


def main(arguments: Sequence[str]) -> None:
    del arguments
    began = time.monotonic()
    if bool(_TRAIN.value) != bool(_DEV.value):
        sys.exit("error: expected both --train and --dev, or neither; got one.")
    for path in filter(None, (_TRAIN.value, _DEV.value)):
        if not os.path.isfile(path):
            sys.exit(f"error: {path} is not a file.")
    try:
        values = demo(_OUTPUT.value, _TRAIN.value, _DEV.value)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # The command has printed the reason.
    except KeyboardInterrupt:
        sys.exit("stopped: run the same command again to continue")
    minutes, seconds = divmod(int(time.monotonic() - began), 60)
    values["time of this run"] = f"{minutes} min {seconds} s"
    table = rich.table.Table(show_header=False)
    for name, value in values.items():
        table.add_row(name, value)
    console.print("\nResults", style="bold")
    console.print(table)


def demo(output: str, train: str, dev: str) -> dict[str, str]:
    """Runs the pipeline in the folder `output`; returns the summary's rows."""
    docstrings_folder = os.path.join(output, "text")
    # Its presence means that the docstrings are complete.
    counts_path = os.path.join(docstrings_folder, "labels.json")
    if not os.path.exists(counts_path):
        console.print("Reading docstrings of the installed packages ...")
        counts = docstrings.write(docstrings_folder)
        with open(counts_path, "w", encoding="utf-8") as file:
            json.dump(counts, file)

    records = os.path.join(output, "records")
    corpus = os.path.join(docstrings_folder, "corpus.txt")
    run(
        "trainers.prepare",
        f"--input={corpus}",
        f"--output={records}",
        f"--vocab_size={VOCABULARY}",
        f"--seq_length={SEQ_LENGTH}",
    )
    model = os.path.join(output, "model.json")
    with open(model, "w", encoding="utf-8") as file:
        json.dump(MODEL, file, indent=1)
    base = os.path.join(output, "base")
    run(
        "trainers.pretrain",
        f"--records={records}",
        f"--model={model}",
        f"--output={base}",
        *PRETRAIN,
    )
    if train:
        output = os.path.join(output, table_folder(train, dev))
    finetuned_run = os.path.join(output, "classifier")
    scratch_run = os.path.join(output, "classifier-random-start")
    run(*finetune_command(docstrings_folder, base, finetuned_run, train, dev))
    run(
        *finetune_command(docstrings_folder, base, scratch_run, train, dev),
        "--from_scratch",
    )
    predictions = os.path.join(output, "predictions.jsonl")
    run(
        "trainers.evaluate",
        f"--checkpoint={finetuned_run}",
        f"--data={dev or os.path.join(docstrings_folder, 'dev.tsv')}",
        f"--output={predictions}",
    )
    served = os.path.join(output, "served")
    if not os.path.exists(os.path.join(served, "1")):
        run(
            "export.saved_model",
            f"--checkpoint={finetuned_run}",
            f"--output={served}",
        )
    device = os.path.join(output, "device")
    for quantization in ("float32", "dynamic"):
        if os.path.exists(os.path.join(device, f"model_{quantization}.tflite")):
            continue
        run(
            "export.tflite",
            f"--checkpoint={finetuned_run}",
            f"--output={device}",
            f"--quantization={quantization}",
            f"--seq_length={SEQ_LENGTH}",
        )
    return summary.rows(
        base, finetuned_run, scratch_run, predictions, served, device
    )


def table_folder(train: str, dev: str) -> str:
    """Returns the name of the folder for a user's table.

    Two tables have different folders, also if their files have the same name.
    """
    stem = os.path.splitext(os.path.basename(train))[0]
    paths = "\0".join(map(os.path.abspath, (train, dev)))
    return f"own-{stem}-{hashlib.sha256(paths.encode()).hexdigest()[:8]}"


def finetune_command(
    docstrings_folder: str,
    base: str,
    output: str,
    train: str = "",
    dev: str = "",
) -> list[str]:
    """Returns the command that fine-tunes `base`; on docstrings by default."""
    return [
        "trainers.finetune",
        f"--init={base}",
        f"--train={train or os.path.join(docstrings_folder, 'train.tsv')}",
        f"--dev={dev or os.path.join(docstrings_folder, 'dev.tsv')}",
        f"--output={output}",
        f"--seq_length={SEQ_LENGTH}",
        f"--epochs={OWN_EPOCHS if train else EPOCHS}",
        *FINETUNE,
    ]


def run(module: str, *arguments: str) -> None:
    """Prints and runs one command of the project."""
    console.print(f"\n$ python -m {module} {' '.join(arguments)}", style="bold")
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


if __name__ == "__main__":
    app.run(main)
