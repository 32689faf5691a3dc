"""Prints an encoder's variables with shapes, parameters, bytes and FLOPs.

  bert-keras describe --model=base
  bert-keras describe --checkpoint=runs/sst2
  bert-keras describe --checkpoint=runs/base --text="a fine [MASK]" \\
      --output=page.html
  bert-keras describe --records=records/128 --rows=3

FLOPs are those of one sequence's forward pass. With --text it writes a web page
instead: what each head of a BERT network attends to in the text, how focused it
is, and what each layer predicts for a [MASK].
"""

import collections
import dataclasses
from collections.abc import Iterator

import rich.table
from absl import flags as absl_flags

from bert_keras import (
    attention_page,
    checkpoint,
    console,
    errors,
    files,
    formats,
    layers,
    named_networks,
    options,
    registry,
    self_attention,
)
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.training import pretrain, shown_rows
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
    text: str = options.option(
        "", "Text whose attention is written as a web page, with `output`."
    )
    text_pair: str = options.option("", "Second text of a pair; empty: none.")
    output: str = options.option(
        "", "The .html file of the web page, which loads nothing."
    )
    records: str = options.option(
        "", "Prepared records, of which rows are shown as a task reads them."
    )
    rows: int = options.option(3, "Rows of `records` to show.", minimum=1)
    objective: str = options.option(
        "masked_lm",
        "The task that learns from `records`; its flags are those of pretrain.",
    )
    step: int = options.option(
        0, "With `steps`, when the rows are read, for schedules.", minimum=0
    )
    steps: int = options.option(1, "Steps of the training.", minimum=1)


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
    copies = collections.Counter(
        path.partition("/")[2] for path in weights if path.startswith("block_")
    )
    listed = set()
    for path, variable in weights.items():
        block, _, rest = path.partition("/")
        if block.startswith("block_"):
            if rest in listed:
                continue  # All blocks have the same variables: one row for all.
            listed.add(rest)
        num_copies = copies[rest] if block.startswith("block_") else 1
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


def check_page(settings: Settings) -> None:
    """Raises InputError unless the settings of the page are complete."""
    for name in ("text", "text_pair", "output"):
        if getattr(settings, name) and not (
            settings.checkpoint and settings.text and settings.output
        ):
            raise errors.InputError(
                f"`{name}`: expected `checkpoint`, `text` and `output` "
                "together, for the page of a text's attention; give all, or "
                f"leave `{name}` out.",
                argument=name,
            )
    if settings.output:
        files.check_output(settings.output, checkpoint=settings.checkpoint)
        attention_page.check_output(settings.output)


def write_page(settings: Settings) -> None:
    """Writes the page of a text's attention."""
    registry.import_modules(settings.modules)
    found = self_attention.self_attention(
        self_attention.load(settings.checkpoint),
        settings.text,
        settings.text_pair or None,
    )
    page = attention_page.render(found, title=settings.checkpoint)
    files.write_text(settings.output, page)
    num_layers, heads = found.weights.shape[:2]
    console.say(
        f"wrote {settings.output}: {num_layers} layers, {heads} heads, "
        f"{len(found.tokens)} tokens"
    )
    if len(found.tokens) > attention_page.MAX_TOKENS:
        console.say(
            f"the page shows the first {attention_page.MAX_TOKENS} tokens; the "
            "attention is that of the complete text"
        )


def main() -> None:
    settings = flags.read(Settings)
    check_page(settings)
    given = [settings.model, settings.checkpoint, settings.records]
    if sum(map(bool, given)) != 1:
        raise errors.InputError(
            "give one of --model, --checkpoint and --records."
        )
    _refuse_unused(settings)
    if settings.records:
        print_rows(settings)
        return
    if settings.text:
        write_page(settings)
        return
    print_parts(settings)


def _refuse_unused(settings: Settings) -> None:
    """Raises InputError for given flags of another table than the one asked."""
    task = base.find(settings.objective)
    of_records = {"rows", "objective", "step", "steps"}
    of_records |= {
        field.name
        for field in dataclasses.fields(task)
        if "help" in field.metadata
    }
    of_records -= {*pretrain.FIELDS_FROM_RECORDS}
    of_parts = {"seq_length", "vocab_size"}
    if settings.records:
        unused, table = of_parts, "the parts of a network"
    elif settings.text:
        unused, table = of_parts | of_records, "parts and of rows"
    else:
        unused, table = of_records, "the rows of `records`"
    for name in sorted(unused):
        if absl_flags.FLAGS[name].present:
            raise errors.InputError(
                f"`{name}` has no effect here: it is of the table of {table}; "
                "leave it out.",
                argument=name,
            )


def print_rows(settings: Settings) -> None:
    """Prints rows of records as "Input" and "Targets", and statistics."""
    registry.import_modules(settings.modules)
    task = flags.read(base.find(settings.objective))
    shown = shown_rows.read(
        settings.records,
        task,
        count=settings.rows,
        step=settings.step,
        steps=settings.steps,
    )
    for row in shown.rows:
        print(f"Input:   {row.input}")
        for term, targets in row.targets.items():
            print(f"Targets: {term}: {targets}")
        print()
    for name, value in shown.statistics.items():
        is_count = name in ("rows", "special tokens hidden")
        print(f"{name}: {value:,.0f}" if is_count else f"{name}: {value:.3f}")


def print_parts(settings: Settings) -> None:
    """Prints the table of the variables."""
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


def define_flags() -> None:
    flags.define(Settings)
    objective = flags.early("objective", Settings.objective)
    flags.define(base.find(objective), without=pretrain.FIELDS_FROM_RECORDS)


def run() -> None:
    flags.run(main, define_flags)


if __name__ == "__main__":
    run()
