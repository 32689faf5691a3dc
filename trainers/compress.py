"""Tries smaller and faster forms of a fine-tuned classifier; recommends one.

  bert-keras compress --checkpoint=runs/sst2 --train=train.tsv \\
      --dev=dev.tsv --output=small --target=5x

tries a ladder of candidates: other precisions, as SavedModel and as TFLite, the
vocabulary of the training file, distilled students of about a half and a third
of the layers, early exit, and the student with the small vocabulary.

Each is written, and the artifact itself answers --dev, one text a request:
its metrics, milliseconds, megabytes and parameters are in the printed table,
in results.jsonl and in compression.png. Recommended is the candidate with the
best metric among those that reach the target:

  --target=5x    five times as fast as the checkpoint's SavedModel in float32
  --target=5MB   an artifact of at most 5 MB
  --target=2ms   at most 2 milliseconds a text

The same command again continues a stopped one; with another --target it
recommends anew, and with more --candidates it tries these, too.
"""

import os

from bert_keras import console
from bert_keras.compression import results, search
from trainers import flags


def main() -> None:
    settings = flags.read(search.CompressSettings)
    report = search.compress(settings)
    console.comparison(
        settings.output,
        {each.name: _row(each, report) for each in report.results},
    )
    console.output.print(_conclusion(report), soft_wrap=True)
    console.output.print(
        f"next: {_next(settings.output, report)}", soft_wrap=True
    )


def _row(result: results.Result, report: search.Report) -> dict[str, str]:
    if result.error:
        return {"error": result.error}
    return {
        report.metric: f"{result.score:.4f}",
        "ms": f"{result.milliseconds:.2f}",
        "speed-up": f"{report.speed_up(result):.1f}x",
        "MB": f"{result.megabytes:.1f}",
        "parameters": f"{result.parameters:,}",
    }


def _conclusion(report: search.Report) -> str:
    result, target = report.choice.result, report.target
    values = (
        f"{result.name}: {report.metric} {result.score:.4f}, "
        f"{result.milliseconds:.2f} ms a text "
        f"({report.speed_up(result):.1f}x), {result.megabytes:.1f} MB"
    )
    if report.choice.is_reached:
        return f"Recommended for {target}: {values}."
    return f"No candidate reaches {target}. The nearest is {values}."


def _next(output: str, report: search.Report) -> str:
    """Returns the artifact to take, and where to read how to use it."""
    path = os.path.join(output, report.choice.result.artifact)
    if path.endswith(".tflite"):
        return f"{path}, see {path.removesuffix('tflite')}md"
    readme = os.path.join(os.path.dirname(path), "serving", "README.md")
    return f"{path}, see {readme}"


def run() -> None:
    flags.run(main, lambda: flags.define(search.CompressSettings))


if __name__ == "__main__":
    run()
