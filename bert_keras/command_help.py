"""Prints a command's --help: an example first, then its flags in groups."""

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bert_keras import commands

WIDTH = 80

# Flags in the order in which users decide on them. All others, such as settings
# of tasks and wrappers, are in the last group, REST.
GROUPS: Mapping[str, Sequence[str]] = {
    "Data": (
        *("train", "dev", "dev_fraction", "data", "records", "input"),
        *("text_field", "columns", "target_suffix", "on_bad_row"),
        *("skip_labels", "seq_length"),
        *("word", "text", "target", "candidates"),
        *("bucket_lengths", "tokenizer", "model_type", "vocab", "vocab_size"),
        *("lowercase", "format", "sentence_objective", "packing"),
        *("dupe_factor", "deduplicate"),
        *("word_boundaries", "phrases", "entities", "entity_tagger"),
        "negatives",
        *("masked_lm_prob", "max_predictions_per_seq", "shard_mb"),
    ),
    "Model": (
        *("checkpoint", "task", "init", "from_scratch", "model"),
        "allow_missing",
        "freeze",
        *("objective", "modules", "add_words", "trim_to", "positions"),
    ),
    "Optimization": (
        *("epochs", "steps", "batch_size", "gradient_accumulation_steps"),
        *("optimizer", "bias_correction", "learning_rate", "warmup_ratio"),
        *("warmup_steps", "head_learning_rate", "head_warmup_ratio"),
        *("weight_decay", "clip_norm", "loss_scale"),
        *("max_skipped", "early_stopping", "seed"),
    ),
    "Devices": (
        *("precision", "strategy", "tpu", "num_gpus", "xla", "deterministic"),
        *("pipeline_stages", "micro_batches", "pipeline_schedule"),
        "elastic_shards",
        *("workers", "runner", "runner_options"),
    ),
    "Output and logging": (
        *("output", "max_checkpoints_to_keep", "save_every", "best_metric"),
        *("evaluate_every", "evaluate_batches", "log_every", "profile"),
        *("report_to", "card_language", "card_license", "card_dataset"),
        *("break_lock", "version"),
    ),
    "Generation": (
        *("max_new_tokens", "min_new_tokens", "no_repeat_ngram_size"),
        *("num_beams", "num_return_sequences", "length_penalty"),
        *("coverage_penalty", "do_sample", "temperature", "top_k", "top_p"),
    ),
    "Serving": (
        *("max_characters", "max_entities", "quantization", "strings"),
        *("max_drop", "server", "url", "deadline", "start_up"),
        *("host", "port", "threads"),
    ),
}
REST = "Task"

# Prefixes of modules whose flags are shown, besides the main module's.
_OWN = ("bert_keras.", "export.", "trainers.")


def print_if_requested(
    arguments: Sequence[str], flags: Any, documentation: str
) -> None:
    """Prints the help of a command and exits, if --help is given.

    flags: absl's FLAGS. Only --helpfull shows the flags of absl and TensorFlow.
    documentation: the docstring of the command's module, with an example.
    """
    if not {"--help", "-help", "-h", "-?"} & set(arguments[1:]):
        return
    own = {
        flag.name: flag
        for module, defined in flags.flags_by_module_dict().items()
        if module == sys.argv[0] or module.startswith(_OWN)
        for flag in defined
    }
    print(text(commands.as_called(documentation), own.values()))
    sys.exit(0)


def text(documentation: str, flags: Iterable[Any]) -> str:
    """Returns the help text of a command.

    documentation: the docstring of its module, with an example.
    flags: absl's flags, each with a name, a default, a help text and a parser.
      If the help text begins with "Former name", only the name is listed, at
      the end.
    """
    flags = {flag.name: flag for flag in flags}
    former = [
        name
        for name, flag in flags.items()
        if flag.help.startswith("Former name")
    ]
    rest = [
        name
        for name in flags
        if name not in former
        and not any(name in group for group in GROUPS.values())
    ]
    first = ("recipe", "task", "wrappers")
    rest.sort(key=lambda name: (name not in first, name))
    parts = [documentation.strip()]
    for title, names in {**GROUPS, REST: rest}.items():
        entries = [_entry(flags[name]) for name in names if name in flags]
        if entries:
            parts.append("\n".join([f"{title}:", *entries]))
    if former:
        names = ", ".join(f"--{name}" for name in sorted(former))
        parts.append(
            textwrap.fill(f"Former names, until version 0.3: {names}.", WIDTH)
        )
    return "\n\n".join(parts)


def _entry(flag: Any) -> str:
    """Formats a flag with its default on one line and its help below."""
    name = f"[no]{flag.name}" if flag.boolean else flag.name
    line = f"  --{name}"
    if flag.default not in (None, ""):
        line += f"={_shown(flag.default)}"
    limits = flag.parser.syntactic_help if not flag.boolean else ""
    help = " ".join(flag.help.split())
    choices = getattr(flag.parser, "enum_values", None)
    if choices:
        help = help.removeprefix(f"<{'|'.join(choices)}>: ")
        limits = f"one of {', '.join(choices)}"
    if limits and limits not in ("a number", "an integer", "a string"):
        help += f" ({limits})"
    return "\n".join(
        [line, textwrap.indent(textwrap.fill(help, WIDTH - 6), 6 * " ")]
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)
