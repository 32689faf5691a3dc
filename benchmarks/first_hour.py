"""What to check first on a GPU or TPU where this project has not run yet.

  python -m benchmarks.first_hour --output=first_hour
  python -m benchmarks.first_hour --output=first_hour --tpu=local

It trains a small network by the commands, in one way after the other, and
compares each run with one on the CPU: the losses, and where the same bits are
promised, the weights. It prints a table and writes it to OUTPUT/table.jsonl;
what a machine does not have is skipped. Run again, it continues.
"""

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.table
import tensorflow as tf
from absl import flags

import benchmarks
from bert_keras import checkpoint, files
from bert_keras.training import trainer

OUTPUT = flags.DEFINE_string("output", "first_hour", "The folder to write.")
TPU = flags.DEFINE_string("tpu", "", "Name of a TPU, `local` on its VM.")
DEVICES = flags.DEFINE_integer(
    "devices",
    None,
    "Number of accelerators; default: those that TensorFlow finds. With 1, the "
    "checks can be tried on a CPU.",
)
STEPS = flags.DEFINE_integer("steps", 60, "Steps of each run.", 20)
LIMIT = flags.DEFINE_integer("limit", 900, "Seconds of each run, at most.", 1)

_WORDS = "the a good bad film story is was not very dull fine old new".split()
_NETWORK = {
    "name": "bert",
    "hidden_size": 128,
    "num_layers": 4,
    "num_heads": 2,
    "intermediate_size": 512,
    "max_position_embeddings": 64,
    # Without dropout, whose draws differ under XLA.
    "dropout": 0.0,
    "attention_dropout": 0.0,
}


@dataclasses.dataclass(frozen=True)
class Check:
    """A run of pretraining, and what it has to agree with.

    flags: besides those of all runs.
    near: the name of a run whose losses differ by at most `by`, or "".
    bits_of: the name of a run that ends with the same bits, or "".
    accelerators: how many it needs.
    stops: it is stopped after half of its steps, and continued.
    """

    name: str
    flags: dict[str, Any]
    near: str = "cpu"
    by: float = 0.02
    bits_of: str = ""
    accelerators: int = 1
    stops: bool = False


def checks(on: dict[str, Any]) -> Sequence[Check]:
    """Returns all checks; on: the flags that name a TPU, or none."""
    exact = {**on, "deterministic": True}
    bfloat16 = {**on, "precision": "mixed_bfloat16"}
    found = [
        Check("cpu", {}, near="", accelerators=0),
        Check("cpu, lamb", {"optimizer": "lamb"}, near="", accelerators=0),
        Check("float32", on),
        Check("mixed_bfloat16", bfloat16, by=0.1),
        Check("accumulation", {**on, "gradient_accumulation_steps": 4}),
        Check("xla, mixed_bfloat16", {**bfloat16, "xla": True}, by=0.1),
        Check("lamb", {**on, "optimizer": "lamb"}, near="cpu, lamb"),
    ]
    if on:
        return found
    return [
        *found,
        Check("mixed_float16", {"precision": "mixed_float16"}, by=0.1),
        Check("xla", {"xla": True}),
        Check("deterministic", exact),
        Check("deterministic again", exact, bits_of="deterministic"),
        Check("stopped", exact, bits_of="deterministic", stops=True),
        Check("all GPUs", {"strategy": "mirrored"}, accelerators=2),
        Check(
            "all GPUs, xla",
            {"strategy": "mirrored", "xla": True},
            accelerators=2,
        ),
        Check("pipeline", {"pipeline_stages": 2}, accelerators=2),
        Check(
            "elastic, 1 GPU",
            {"elastic_shards": 4, "strategy": "one_device", **exact},
        ),
        Check(
            "elastic, 2 GPUs",
            {
                "elastic_shards": 4,
                "num_gpus": 2,
                "strategy": "mirrored",
                **exact,
            },
            bits_of="elastic, 1 GPU",
            accelerators=2,
        ),
    ]


def main(_):
    os.makedirs(OUTPUT.value, exist_ok=True)
    records = _prepare()
    on = {"tpu": TPU.value, "strategy": "tpu"} if TPU.value else {}
    count = DEVICES.value
    if count is None:
        gpus = tf.config.list_physical_devices("GPU")
        count = 1 if TPU.value else len(gpus)
    rows = []
    for check in checks(on):
        if check.accelerators > count:
            rows.append({"run": check.name, "verdict": "skipped: no device"})
            continue
        rows.append(_run(check, records))
        print(json.dumps(rows[-1]), flush=True)
    path = os.path.join(OUTPUT.value, "table.jsonl")
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    table = rich.table.Table(title="The first hour")
    columns = ("run", "loss", "difference", "rows_per_second", "verdict")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(row.get(name, "")) for name in columns))
    rich.console.Console(width=100).print(table)
    wrong = [row["run"] for row in rows if row["verdict"].startswith("WRONG")]
    if wrong:
        raise SystemExit(f"wrong: {', '.join(wrong)}")


def _run(check, records):
    """Trains, unless it is done, and returns the row of the table."""
    run = _folder(check.name)
    settings = {
        "records": records,
        "output": run,
        "model": os.path.join(OUTPUT.value, "network.json"),
        "steps": STEPS.value,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "log_every": 1,
        "save_every": STEPS.value // 2,
        "report_to": "",
        **check.flags,
    }
    environment = {} if check.accelerators else {"CUDA_VISIBLE_DEVICES": "-1"}
    row: dict[str, Any] = {"run": check.name}
    error = ""
    if check.stops and not checkpoint.steps(run):
        error = _call("pretrain", settings, environment, stop_in=run)
    error = error or _call("pretrain", settings, environment)
    if error:
        return row | {"verdict": f"WRONG: {error}"}
    losses = _losses(run)
    row |= {"loss": round(losses[-1], 4), **_speed(run)}
    verdict = "ok"
    if check.near:
        others = _losses(_folder(check.near))
        most = max(abs(a - b) for a, b in zip(losses, others, strict=True))
        row["difference"] = float(f"{most:.1e}")
        if not most <= check.by:
            verdict = f"WRONG: more than {check.by} from {check.near}"
    if check.bits_of and _weights(run) != _weights(_folder(check.bits_of)):
        verdict = f"WRONG: not the bits of {check.bits_of}"
    return row | {"verdict": verdict}


def _call(command, settings, environment, *, stop_in=""):
    """Runs a command; returns the last line of what failed, or "".

    stop_in: the folder of a run that is sent SIGTERM at its first checkpoint.
    """
    process = subprocess.Popen(
        [
            sys.executable,
            *("-m", f"trainers.{command}"),
            *(f"--{name}={value}" for name, value in settings.items()),
        ],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    began = time.monotonic()
    while stop_in and process.poll() is None:
        if checkpoint.steps(stop_in) or time.monotonic() - began > LIMIT.value:
            process.terminate()
            break
        time.sleep(0.1)
    try:
        _, said = process.communicate(timeout=LIMIT.value)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"it took more than {LIMIT.value} seconds"
    lines = said.strip().splitlines() or ["it said nothing"]
    expected = (0, trainer.STOPPED) if stop_in else (0,)
    return "" if process.returncode in expected else lines[-1]


def _prepare():
    """Writes text, network and records, unless they exist."""
    text = os.path.join(OUTPUT.value, "text.txt")
    draw = random.Random(1)
    documents = (
        "\n".join(
            " ".join(draw.choices(_WORDS, k=draw.randint(5, 30)))
            for _ in range(8)
        )
        for _ in range(300)
    )
    files.write_text(text, "\n\n".join(documents))
    files.write_text(
        os.path.join(OUTPUT.value, "network.json"),
        json.dumps(_NETWORK | {"vocab_size": len(_VOCABULARY)}),
    )
    vocab = os.path.join(OUTPUT.value, "vocab.txt")
    files.write_text(vocab, "".join(f"{token}\n" for token in _VOCABULARY))
    records = os.path.join(OUTPUT.value, "records")
    error = _call(
        "prepare",
        {"input": text, "output": records, "vocab": vocab, "seq_length": 64},
        {"CUDA_VISIBLE_DEVICES": "-1"},
    )
    if error:
        raise SystemExit(error)
    return records


_VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS]


def _folder(name):
    return os.path.join(OUTPUT.value, name.replace(", ", "-").replace(" ", "_"))


def _log(run):
    with open(os.path.join(run, "log.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _losses(run):
    """Returns the loss of each step; the last line of a step counts."""
    losses = {row["step"]: row["loss"] for row in _log(run) if "loss" in row}
    return [losses[step] for step in sorted(losses)]


def _speed(run):
    """Returns the median speed of the second half of the steps."""
    rates = sorted(
        row["rows_per_second"]
        for row in _log(run)
        if "rows_per_second" in row and row["step"] > STEPS.value // 2
    )
    return {"rows_per_second": round(rates[len(rates) // 2])} if rates else {}


def _weights(run):
    values = checkpoint.read(run).encoder_values()
    return {name: value.tobytes() for name, value in values.items()}


if __name__ == "__main__":
    benchmarks.run(main)
