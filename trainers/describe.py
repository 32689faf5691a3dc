"""Prints an encoder's variables with shapes, parameters, bytes and FLOPs.

  bert-keras describe --model=base
  bert-keras describe --checkpoint=runs/sst2

FLOPs are those of one sequence's forward pass.
"""

import dataclasses
from collections.abc import Iterator

import rich.table

from bert_keras import (
    checkpoint,
    console,
    errors,
    formats,
    layers,
    named_networks,
    options,
    registry,
)
from bert_keras.networks import base as networks
from trainers import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    model: str = options.option(
        "",
        f"One of {', '.join(named_networks.NAMES)}, or a JSON file with "
        "the fields of BertConfig, or those of another network and its name.",
    )
    checkpoint: str = options.option("", options.CHECKPOINT)
    modules: str = options.option(
        "", options.MODULES, formerly=("task",), identity=False
    )
    vocab_size: int = options.option(
        0,
        "Entries of the vocabulary; 0: the model's, or 30,522.",
        minimum=0,
    )
    seq_length: int = options.option(
        128, "Sequence length for the FLOPs.", minimum=1
    )


@dataclasses.dataclass(frozen=True)
class Part:
    """One row of the table.

    FLOPs are those of one sequence's forward pass; a multiply-add counts as 2.
    """

    name: str
    shape: str
    parameters: int
    flops: int


def parts(config: networks.NetworkConfig, seq_length: int) -> Iterator[Part]:
    """Yields one row per variable; blocks share the rows of their variables."""
    weights = checkpoint.weights(config.build_encoder())
    blocks = {path.partition("/")[0] for path in weights if "block_" in path}
    listed = set()
    for path, variable in weights.items():
        block, _, rest = path.partition("/")
        if block.startswith("block_"):
            if rest in listed:
                continue  # All blocks have the same variables: one row for all.
            listed.add(rest)
        num_copies = len(blocks) if block.startswith("block_") else 1
        name = f"{num_copies} x {rest}" if num_copies > 1 else path
        shape = tuple(variable.shape)
        size = 1
        for dimension in shape:
            size *= dimension
        flops = 0
        if path.endswith("kernel"):
            tokens = 1 if path.startswith("pooler") else seq_length
            num_uses = config.num_layers if block.startswith("block_") else 1
            flops = 2 * size * tokens * num_uses
        yield Part(name, " x ".join(map(str, shape)), size * num_copies, flops)
    if isinstance(config, layers.TransformerConfig):
        # Scores and weighted values: two (S, D) x (D, S) matmuls per head.
        flops = 4 * seq_length**2 * config.hidden_size * config.num_layers
        yield Part("attention matmuls", "", 0, flops)


def main() -> None:
    settings = flags.read(Settings)
    if bool(settings.model) == bool(settings.checkpoint):
        raise errors.InputError("give one of --model and --checkpoint.")
    title = settings.model or settings.checkpoint
    if settings.checkpoint:
        registry.import_modules(settings.modules)
        source = formats.read(settings.checkpoint)
        config = source.config
        task = source.task.name if source.task else "no head"
        if source.unknown_task_reason:
            task = f"an unknown head: {source.unknown_task_reason}"
        title += f": step {source.step}, {task}"
    else:
        config = named_networks.parse(
            settings.model, vocab_size=settings.vocab_size or None
        )
    rows = list(parts(config, settings.seq_length))
    parameters = sum(part.parameters for part in rows)
    flops = sum(part.flops for part in rows)

    console.output.print(f"{title}: {config.describe()}")
    table = rich.table.Table(
        "part",
        "shape",
        "parameters",
        "share",
        "size in float32",
        "MFLOP / sequence",
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for part in rows:
        table.add_row(
            part.name,
            part.shape,
            f"{part.parameters:,}" if part.parameters else "",
            f"{part.parameters / parameters:.1%}" if part.parameters else "",
            console.bytes_text(4 * part.parameters) if part.parameters else "",
            f"{part.flops / 1e6:,.1f}" if part.flops else "",
        )
    table.add_section()
    table.add_row(
        "encoder",
        "",
        f"{parameters:,}",
        "100.0%",
        console.bytes_text(4 * parameters),
        f"{flops / 1e6:,.1f}",
    )
    console.output.print(table)
    console.output.print(
        f"FLOPs: one sequence of {settings.seq_length} tokens, forward "
        "pass; a multiply-add counts as 2. Training takes three times as many."
    )


def run() -> None:
    flags.run(main, lambda: flags.define(Settings))


if __name__ == "__main__":
    run()
