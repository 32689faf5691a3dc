"""Model cards: a README.md that describes a checkpoint in the format of hubs.

    ---
    license: apache-2.0             YAML, which hubs and their libraries read
    pipeline_tag: text-classification
    model-index: [...]              metrics, with the data they are measured on
    ---
    # sst2
    ...
    <!-- Written by bert_keras ... sha256: ... -->

The last line has the checksum of everything above it. A card without a valid
checksum was written or edited by a person: it is kept and never written over.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import yaml

from bert_keras import files, markdown
from bert_keras import model as model_lib
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

FILE = "README.md"
LIBRARY = "bert_keras"

# Titles of sections, in their order; others come before the last one.
INTRODUCTION, LABELS, RESULTS = "", "Labels", "Results"
USE, ORIGIN, LIMITS = "How to use", "How it was made", "Limits"

# Metrics of this library -> their names on the Hugging Face hub.
HUB_METRICS = {
    "f1_macro": "f1",
    "f1_micro": "f1",
    "mcc": "matthews_correlation",
    "mean_squared_error": "mse",
    "pearson": "pearsonr",
    "rouge_1": "rouge",
    "rouge_2": "rouge",
    "rouge_l": "rouge",
    "spearman": "spearmanr",
}

_RESULT_FIELDS = ("metrics", "model-index")
# Fields that are also true of a model that was trained from the card's.
_INHERITED = ("language", "license", "license_name", "license_link")
# Fields of another library's card that remain true for a copy of its weights.
_OF_COPIES = (*_INHERITED, "datasets", "base_model")
_MOST_BYTES = 1_000_000  # A longer card is read up to here.
_MOST_LABELS = 200  # A longer list is truncated in the card.
_CHECKSUM = (
    "<!-- Written by bert_keras, which never writes over an edited card. "
    "sha256: "
)
_HEAD = re.compile(r"\s*---\n(.*?\n)??---[ \t]*(?:\n|$)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Card:
    """A model card.

    head: the values of the YAML block. sections: {title: Markdown}; the one
    without a title is the introduction.
    """

    name: str
    head: Mapping[str, Any]
    sections: Mapping[str, str]

    def with_section(self, title: str, text: str) -> "Card":
        sections = {**self.sections, title: text}
        return dataclasses.replace(self, sections=sections)

    def with_head(self, **fields: Any) -> "Card":
        return dataclasses.replace(self, head={**self.head, **fields})

    def with_tag(self, tag: str) -> "Card":
        tags = self.head.get("tags")
        tags = list(tags) if isinstance(tags, list) else []
        return self.with_head(tags=tags if tag in tags else [*tags, tag])

    def __str__(self) -> str:
        """Returns the text of the file, with its checksum."""
        parts = [f"# {markdown.escaped(self.name)}"]
        for title, text in _ordered(self.sections).items():
            parts += [f"## {title}"] * bool(title) + [text.strip("\n")]
        if self.head:
            parts.insert(0, f"---\n{_to_yaml(self.head)}---")
        body = "\n\n".join(parts)
        return f"{body}\n\n{_checksum_line(body)}\n"


def _to_yaml(head: Mapping[str, Any]) -> str:
    return yaml.dump(
        dict(head),
        Dumper=_Dumper,
        allow_unicode=True,
        sort_keys=False,
        width=math.inf,
    )


class _Dumper(yaml.SafeDumper):
    """Quotes strings that a parser could take for something else.

    PyYAML quotes what it would itself read as another type. Hubs read cards
    with parsers of YAML 1.2, for which 1e-4 and 0o17 are numbers, and of YAML
    1.1, for which `y` is a boolean. Line ends in plain strings are changed.
    """


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    is_plain = text.isprintable() and not _LIKE_ANOTHER_TYPE.fullmatch(text)
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, None if is_plain else '"'
    )


_Dumper.add_representer(str, _represent_text)
# Numbers, dates and times of YAML 1.1 and 1.2, booleans, null, = and <<. More
# than those match, which does no harm: "2026-13-45" is quoted, too.
_LIKE_ANOTHER_TYPE = re.compile(
    r"[-+.]*[0-9][-+.:_0-9a-z]*([ t][-+.:0-9 z]*)?"
    r"|[-+]?\.(inf|nan)|y|n|yes|no|on|off|true|false|null|~|=|<<|",
    re.IGNORECASE,
)


def _ordered(sections: Mapping[str, str]) -> dict[str, str]:
    first = (INTRODUCTION, LABELS, RESULTS, USE, ORIGIN)
    others = [name for name in sections if name not in (*first, LIMITS)]
    names = [*first, *others, LIMITS]
    return {name: sections[name] for name in names if name in sections}


def describe(
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
    *,
    name: str,
    task: base.Task | None = None,
) -> Card:
    """Returns a card with what can be read from the model itself.

    task: the task to describe; None: the model's.
    """
    task = task or model.task
    config = model.encoder.config
    head: dict[str, Any] = {"library_name": LIBRARY}
    purpose = "An encoder without a head, to be trained further"
    if task is not None:
        purpose = f"A model for the task {markdown.code(task.unwrapped.name)}"
        if task.unwrapped.pipeline_tag:
            head["pipeline_tag"] = task.unwrapped.pipeline_tag
    head["tags"] = list(dict.fromkeys([config.name, "keras", "tensorflow"]))
    sections = {
        INTRODUCTION: f"{purpose}: {markdown.code(config.name)}, "
        f"{config.describe()}, {model.count_params():,} parameters.",
        USE: _usage(task),
        LIMITS: markdown.bullets(_limits(task, tokenizer)),
    }
    if labels := _labels(task):
        sections[LABELS] = labels
    return Card(name, head, sections)


def with_results(
    card: Card,
    metrics: Mapping[str, float],
    *,
    task: base.Task,
    data: str,
    remark: str = "",
) -> Card:
    """Returns the card with metrics that were measured on the data set `data`.

    remark: Markdown under the table.
    """
    types = {name: HUB_METRICS.get(name, name) for name in metrics}
    measured = [
        {"type": types[name], "value": value, "name": name}
        for name, value in metrics.items()
    ]
    results = {
        "task": {"type": task.unwrapped.pipeline_tag or task.unwrapped.name},
        "dataset": {"name": data, "type": data},
        "metrics": measured,
    }
    card = card.with_head(
        **{
            "metrics": list(dict.fromkeys(types.values())),
            "model-index": [{"name": card.name, "results": [results]}],
        }
    )
    table = markdown.table(
        ("metric", "value"),
        [(markdown.code(n), f"{value:.4g}") for n, value in metrics.items()],
    )
    text = f"On {markdown.code(data)}:\n\n{table}\n\n{remark}"
    return card.with_section(RESULTS, text)


def without_results(card: Card, reason: str) -> Card:
    """Returns a card whose head has no metrics, as the model has changed.

    Its section of results begins with the reason.
    """
    head = {k: v for k, v in card.head.items() if k not in _RESULT_FIELDS}
    card = dataclasses.replace(card, head=head)
    if RESULTS in card.sections:
        text = f"{reason}\n\n{card.sections[RESULTS]}"
        card = card.with_section(RESULTS, text)
    return card


def for_copy(checkpoint_card: Card | None, described: Card) -> Card:
    """Returns the card of a copy: the checkpoint's card, completed.

    checkpoint_card: None if the checkpoint has no card. described: the card of
      the model by `describe`; its values are used where the other has none.
    """
    if checkpoint_card is None:
        return described
    head = {**described.head, **checkpoint_card.head}
    sections = {**described.sections, **checkpoint_card.sections}
    return Card(checkpoint_card.name or described.name, head, sections)


def redescribed(card: Card, before: Card, after: Card) -> Card:
    """Returns the card of a model that was changed.

    before, after: the cards by `describe` of the model before and after. What
    the former describes is replaced, and what else was written is kept.
    """
    sections = dict(card.sections)
    for title in (INTRODUCTION, LABELS, USE, LIMITS):
        old = before.sections.get(title, "").strip()
        new = after.sections.get(title, "").strip()
        text = sections.pop(title, "")
        if old and old in text:
            text = text.replace(old, new, 1)
        elif title != USE:
            text = f"{new}\n\n{text}"
        else:
            text = new
        if text.strip():
            sections[title] = text.strip()
    head = {k: v for k, v in card.head.items() if k != "pipeline_tag"}
    tag = _selected(after.head, ("pipeline_tag",))
    return dataclasses.replace(card, head={**head, **tag}, sections=sections)


# Files.


def write(path: str, card: Card) -> bool:
    """Writes a card; returns whether it did.

    It does not if a person wrote or edited the card that is at `path`.
    """
    if is_edited(path):
        return False
    _write(path, str(card))
    return True


def copy(source: str, path: str) -> None:
    """Copies a card, unless a person wrote or edited one of the two."""
    text = _read(source)
    if text is not None and _is_own(text) and not is_edited(path):
        _write(path, text)


def is_edited(path: str) -> bool:
    """Returns whether there is a card that a person wrote or edited."""
    text = _read(path)
    return text is not None and not _is_own(text)


def read(folder: str) -> Card | None:
    """Reads the card in a checkpoint's folder; None if there is none.

    Of another library's card, only the fields of the head are returned that
    remain true for a copy of its weights, such as language and license.
    """
    text = _read(os.path.join(folder, FILE))
    if text is None:
        return None
    card = parse(text)
    if card.head.get("library_name") == LIBRARY:
        return card
    return Card(card.name, _selected(card.head, _OF_COPIES), {})


def read_run(run: str, folder: str) -> Card | None:
    """Reads the card of a run for copies of its step in `folder`.

    It is the step's, unless a person edited the run's. That one is completed
    from the step's if it was written without the help of this library. It may
    have been edited before the step was: results and origin are the step's.
    """
    step = read(folder)
    text = _read(os.path.join(run, FILE))
    if text is None or _is_own(text):
        return step
    card = parse(text)
    if step is None:
        return card
    if card.head.get("library_name") != LIBRARY:
        return for_copy(card, step)
    measured = [str(each["metrics"]) for each in _results(step)]
    stated = str(card.head.get("model-index"))
    if "model-index" in card.head and any(m not in stated for m in measured):
        card = card.with_head(**_selected(step.head, _RESULT_FIELDS))
        sections = _selected(step.sections, (RESULTS, ORIGIN))
        card = dataclasses.replace(card, sections={**card.sections, **sections})
    return card


def for_training(card: Card | None, base_model: str) -> Card:
    """Returns what is also true of a model that is trained from the card's.

    The name is empty: it is that of the trained model. card: None if there is
    none. base_model: the name of the card's model.
    """
    inherited = _selected(card.head, _INHERITED) if card else {}
    head = {"base_model": base_model, **inherited}
    return Card("", head, {})


def parse(text: str) -> Card:
    """Parses a card, whoever wrote it; an invalid head is read as empty."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    head: dict[str, Any] = {}
    if match := _HEAD.match(text):
        head = _parse_head(match[1] or "")
        text = text[match.end() :]
    name, title, fence = "", INTRODUCTION, ""
    lines: dict[str, list[str]] = {INTRODUCTION: []}
    for line in text.split("\n"):
        if not fence and line.startswith("# ") and not name:
            name = markdown.unescaped(line.removeprefix("# ").strip())
        elif not fence and line.startswith("## "):
            title = line.removeprefix("## ").strip()
            lines.setdefault(title, [])
        elif not line.startswith(_CHECKSUM):
            lines[title].append(line)
            if fence:
                rest = line.removeprefix(fence).strip(f" {fence[0]}")
                fence = "" if line.startswith(fence) and not rest else fence
            elif mark := re.match("`{3,}|~{3,}", line):
                fence = mark[0]
    sections = {name: "\n".join(each).strip() for name, each in lines.items()}
    sections = {name: text for name, text in sections.items() if text}
    return Card(name, head, sections)


def _parse_head(text: str) -> dict[str, Any]:
    """Parses a YAML block; {} unless it is a mapping that can be written."""
    try:
        head = yaml.safe_load(text)
        if not isinstance(head, dict):
            return {}
        _to_yaml(head)  # PyYAML reads deeper nesting than it writes.
    # PyYAML's constructors trust explicit tags: `!!bool maybe` is a KeyError,
    # `!!int ''` an IndexError, `!!timestamp x` an AttributeError.
    except Exception:
        return {}
    return head


def _selected(
    values: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _results(card: Card) -> list[Any]:
    """Returns the results of a card's head; [] if they have another form."""
    try:
        return [
            r
            for each in card.head["model-index"]
            for r in each["results"]
            if r["metrics"]
        ]
    except (KeyError, TypeError):
        return []


def _write(path: str, text: str) -> None:
    # Write a temporary file and rename it. checkpoint.prune removes the one
    # that a killed process leaves.
    with files.local_aside(path) as local:
        with open(local, "w", encoding="utf-8") as file:
            file.write(text)


def _read(path: str) -> str | None:
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        return None
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8", "replace")


def _is_own(text: str) -> bool:
    """Returns whether the last line is the checksum of those above it."""
    body, _, line = text.removesuffix("\n").rpartition("\n\n")
    return line == _checksum_line(body)


def _checksum_line(body: str) -> str:
    return f"{_CHECKSUM}{hashlib.sha256(body.encode()).hexdigest()} -->"


# Sections on the model itself.


def _labels(task: base.Task | None) -> str:
    """Lists the values of the task's fields that are tuples of strings."""
    if task is None:
        return ""
    lists = {
        field.name: getattr(task.unwrapped, field.name)
        for field in dataclasses.fields(task.unwrapped)
    }
    parts = []
    for name, values in lists.items():
        if not (values and isinstance(values, tuple)):
            continue
        if not all(isinstance(value, str) for value in values):
            continue
        shown = [markdown.code(value) for value in values[:_MOST_LABELS]]
        if len(values) > _MOST_LABELS:
            shown.append(f"and {len(values) - _MOST_LABELS:,} more")
        parts.append((markdown.code(name), markdown.bullets(shown)))
    if len(parts) == 1:
        return parts[0][1]
    return "\n\n".join(f"{name}:\n\n{items}" for name, items in parts)


_EXAMPLES = {
    "text": "a fine film",
    "text_pair": "a good movie",
    "question": "Who wrote it?",
    "context": "Jane Austen wrote it.",
}


def example(task: base.Task) -> dict[str, str]:
    """Returns an example of the texts that a task reads."""
    texts = dict(_EXAMPLES)
    if task.unwrapped.pipeline_tag == "fill-mask":
        texts["text"] = "a [MASK] film"
    return {name: texts.get(name, "a text") for name in task.text_columns}


def _usage(task: base.Task | None) -> str:
    if task is None:
        flags = {"init": ".", "train": "train.tsv", "output": "run"}
        shell = markdown.command("finetune", flags)
        return f"In this folder:\n\n{markdown.code_block(shell)}"
    row = example(task)
    text = row if len(row) > 1 else next(iter(row.values()))
    line = shlex.quote(text if isinstance(text, str) else json.dumps(text))
    shell = f"echo {line} | bert-keras predict --checkpoint=."
    python = (
        "import bert_keras\n\n"
        f'bert_keras.load(".").predict([{json.dumps(text)}])'
    )
    reads = " and ".join(map(markdown.code, row))
    return "\n\n".join(
        [
            f"With bert_keras, in this folder. It reads {reads}.",
            markdown.code_block(shell),
            markdown.code_block(python, "python"),
        ]
    )


def _limits(
    task: base.Task | None, tokenizer: tokenizers.Tokenizer
) -> list[str]:
    lines = []
    if task is not None:
        in_windows = getattr(task, "stride", 0) or getattr(
            task, "doc_stride", 0
        )
        longer = (
            "of a longer text the end is read, and the answer has `truncated`"
            if task.pipeline_tag == "text-generation"
            else "a longer text is read in several parts"
            if in_windows
            else "the rest of a longer text is not read, and the answer has "
            "`truncated`"
        )
        lines.append(
            f"A row has at most {task.max_row_length:,} tokens, special ones "
            f"included; {longer}."
        )
        if task.class_names:
            lines.append("It answers with the labels above and no others.")
        lines += task.notes
    settings = tokenizer.settings
    settings = settings.get("source", settings)  # if it is a pair
    if settings.get("lowercase"):
        lines.append("Letter case and accents are dropped from every text.")
    lines.append(f"The vocabulary has {tokenizer.vocab_size:,} entries.")
    target = tokenizer.target
    if target is not tokenizer:
        case = ", without letter case and accents"
        lines.append(
            "Generated texts have a vocabulary of their own, of "
            f"{target.vocab_size:,} entries"
            f"{case if target.settings.get('lowercase') else ''}."
        )
    return lines
