"""Serves a web page on this machine to try a checkpoint.

  bert-keras playground --checkpoint=runs/sst2
  bert-keras playground --checkpoint=runs/ner --data=dev.conll

The page shows answers as they are read: entities and answers highlighted in the
text, scores as bars, and the wordpieces of the text. It loads nothing from the
network, and only browsers of this machine reach it, unless --host is another
address. Ctrl-C ends the server.
"""

import dataclasses
import os

from bert_keras import options, playground, predictor, registry
from trainers import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    checkpoint: str = options.option("", options.CHECKPOINT)
    modules: str = options.option("", options.MODULES, identity=False)
    data: str = options.option(
        "",
        "Labelled file, as for `bert-keras evaluate`, whose first rows the "
        "page offers as examples, without empty and too long texts; empty: "
        "built-in ones.",
    )
    task: str = options.option(
        "",
        "Answer as another task that the checkpoint has the heads of, such as "
        "next_sentence; empty: its own.",
    )
    host: str = options.option(
        "127.0.0.1",
        "Address to listen on: 127.0.0.1 is reached from this machine only, "
        "0.0.0.0 from the network by anybody.",
    )
    port: int = options.option(
        8000, "Port to listen on; 0: a free one.", minimum=0, maximum=65535
    )


def main() -> None:
    settings = flags.read(Settings)
    options.require("checkpoint", settings.checkpoint)
    registry.import_modules(settings.modules)
    # Show the last two parts: the last one may be only step-00001000.
    parts = os.path.normpath(settings.checkpoint).split(os.sep)
    with playground.listen(settings.host, settings.port) as server:
        model = predictor.load(settings.checkpoint, task=settings.task or None)
        server.run(
            playground.Session(
                model,
                name="/".join(parts[-2:]),
                examples=model.task.read_examples(settings.data)
                if settings.data
                else (),
            )
        )


def run() -> None:
    flags.run(main, lambda: flags.define(Settings))


if __name__ == "__main__":
    run()
