"""`trainers.finetune` with Hugging Face's models on PyTorch.

Flags, examples, metrics and the format of log.jsonl are the same; tokenizer,
network and training step are Hugging Face's. It supports classification,
regression and tagging (for intent_slots, only the slots).

  .venv-bench/bin/python -m benchmarks.hugging_face_finetune --init=FOLDER \\
      --flagfile=trainers/recipes/sst2.flags --train=train.tsv --dev=dev.tsv \\
      --output=runs/sst2-hugging-face
"""

import contextlib
import json
import os
import random
import time

import torch
import transformers
from absl import flags as absl_flags

from bert_keras.data import conll, tag_schemes
from bert_keras.tasks import classification, tagging
from trainers import finetune, flags

GROUP_LENGTHS = absl_flags.DEFINE_bool(
    "group_lengths", False, "Batch rows of similar length."
)
GROUPED_BATCHES = 50  # the same as in bert_keras.data.batches
FIRST_STEPS = 20  # steps that are not timed
NO_DECAY = ("bias", "LayerNorm")


class Texts:
    """Classification or regression of a text or a pair."""

    def __init__(self, task, init):
        self.task = task
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(init)
        count = 1 if task.problem_type == "regression" else len(task.labels)
        model_class = transformers.AutoModelForSequenceClassification
        self.model = model_class.from_pretrained(init, num_labels=count)

    def encode(self, row):
        texts = [row[name] for name in self.task.text_columns]
        encoded = self.tokenizer(
            *texts, truncation=True, max_length=self.task.seq_length
        )
        if self.task.problem_type == "regression":
            return dict(encoded) | {"labels": float(row["label"])}
        return dict(encoded) | {"labels": self.task.labels.index(row["label"])}

    def labels(self, batch, length):
        del length
        return torch.tensor([row["labels"] for row in batch])

    def answer(self, logits, row):
        del row
        if self.task.problem_type == "regression":
            return {"value": float(logits[0])}
        return {"label": self.task.labels[int(logits.argmax())]}


class Words:
    """Tagging: one tag per word, predicted at its first wordpiece."""

    def __init__(self, task, init):
        self.task = task
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(init)
        self.model = (
            transformers.AutoModelForTokenClassification.from_pretrained(
                init, num_labels=len(task.labels)
            )
        )

    def encode(self, row):
        words = [row["text"][a:b] for a, b in conll.word_offsets(row["words"])]
        encoded = self.tokenizer(
            words,
            is_split_into_words=True,
            truncation=True,
            max_length=self.task.seq_length,
        )
        tags = tag_schemes.tags(
            tag_schemes.spans(row["tags"].split()), len(words), self.task.scheme
        )
        labels, before = [], None
        for word in encoded.word_ids():
            first = word is not None and word != before
            labels.append(self.task.labels.index(tags[word]) if first else -100)
            before = word
        return dict(encoded) | {"labels": labels}

    def labels(self, batch, length):
        rows = [row["labels"] for row in batch]
        return torch.tensor([r + [-100] * (length - len(r)) for r in rows])

    def answer(self, logits, row):
        labels = self.encode(row)["labels"]
        word_starts = [i for i, label in enumerate(labels) if label != -100]
        tags = [self.task.labels[int(logits[i].argmax())] for i in word_starts]
        words = conll.word_offsets(row["words"])
        spans = tag_schemes.spans(tags)
        return {
            "type": [entity_type for entity_type, _, _ in spans],
            "start": [words[first][0] for _, first, _ in spans],
            "end": [words[last - 1][1] for _, _, last in spans],
        }


def train(settings, task):
    torch.manual_seed(settings.seed)
    rows = list(task.read_examples(settings.train))
    task = task.adapt(rows, None)
    dev = list(task.read_examples(settings.dev))
    side_classes = {
        classification.Classification: Texts,
        tagging.Tagging: Words,
    }
    (side,) = [
        side_class(task, settings.init)
        for parent, side_class in side_classes.items()
        if isinstance(task, parent)
    ]
    task = _without_intents(task)
    encoded = [side.encode(row) for row in rows]
    model, size = side.model, settings.batch_size
    decayed = [
        (name, value, not any(part in name for part in NO_DECAY))
        for name, value in model.named_parameters()
    ]
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [v for _, v, decays in decayed if decays == part],
                "weight_decay": settings.weight_decay * part,
            }
            for part in (True, False)
        ],
        lr=settings.learning_rate,
        eps=1e-6,
    )
    total = settings.epochs * -(-len(rows) // size)
    schedule = transformers.get_linear_schedule_with_warmup(
        optimizer,
        settings.warmup_steps or int(settings.warmup_ratio * total),
        total,
    )
    generator = random.Random(settings.seed)
    step = rows_trained = 0
    seconds = 0.0
    os.makedirs(settings.output, exist_ok=True)
    with open(
        os.path.join(settings.output, "log.jsonl"), "w", encoding="utf-8"
    ) as log:
        for _ in range(settings.epochs):
            model.train()
            for batch in _batches(encoded, size, generator):
                began = time.monotonic()
                with _precision(settings):
                    loss = model(**_padded(side, batch, labelled=True)).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(
                    model.parameters(), settings.clip_norm
                )
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                step += 1
                if step > FIRST_STEPS:
                    seconds += time.monotonic() - began
                    rows_trained += len(batch)
            answers = _answers(side, dev, size, settings)
            metrics = task.metrics(answers, dev)
            line = {f"dev/{name}": value for name, value in metrics.items()}
            line["step"] = step
            if rows_trained:  # 0 if no step was timed yet
                line["rows_per_second"] = rows_trained / seconds
            log.write(json.dumps(line) + "\n")
            log.flush()
            print(line, flush=True)


def _without_intents(task):
    """Replaces intent_slots by tagging, which evaluates slots as entities."""
    if isinstance(task, tagging.Tagging):
        return tagging.Tagging(types=task.types, scheme=task.scheme)
    return task


def _batches(rows, size, generator):
    order = list(range(len(rows)))
    generator.shuffle(order)
    if GROUP_LENGTHS.value:
        window = GROUPED_BATCHES * size
        order = [
            number
            for start in range(0, len(order), window)
            for number in sorted(
                order[start : start + window],
                key=lambda number: len(rows[number]["input_ids"]),
            )
        ]
    batches = [order[a : a + size] for a in range(0, len(order), size)]
    if GROUP_LENGTHS.value:
        generator.shuffle(batches)
    for batch in batches:
        yield [rows[number] for number in batch]


def _padded(side, batch, *, labelled):
    names = ("input_ids", "token_type_ids", "attention_mask")
    inputs = side.tokenizer.pad(
        [{name: row[name] for name in names} for row in batch],
        return_tensors="pt",
    )
    if labelled:
        length = inputs["input_ids"].shape[1]
        inputs["labels"] = side.labels(batch, length)
    return inputs


def _answers(side, rows, size, settings):
    side.model.eval()
    encoded = [side.encode(row) for row in rows]
    order = sorted(range(len(rows)), key=lambda n: len(encoded[n]["input_ids"]))
    answers = {}
    with torch.no_grad(), _precision(settings):
        for start in range(0, len(order), size):
            numbers = order[start : start + size]
            batch = [encoded[number] for number in numbers]
            logits = side.model(**_padded(side, batch, labelled=False)).logits
            for number, row_logits in zip(numbers, logits.float(), strict=True):
                answers[number] = side.answer(row_logits, rows[number])
    return [answers[number] for number in range(len(rows))]


def _precision(settings):
    if settings.precision == "mixed_bfloat16":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()


if __name__ == "__main__":
    flags.run(lambda: train(*finetune.read_flags()), finetune.define_flags)
