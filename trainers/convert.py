"""Writes a checkpoint in another format, with another vocabulary or length.

  bert-keras convert --checkpoint=uncased_L-2_H-128_A-2 \\
      --output=bert-tiny --format=hugging_face

The source is a run, a step folder, or a folder in Google's, Hugging Face's or
KerasHub's format. The written checkpoint is loaded again and compared with the
model that was written: every weight, the hidden states of random token ids, and
the logits of a few sentences.

Adds the words of a domain to the vocabulary, from a file with one word per
line. Each new embedding is initialised with the mean of the embeddings of the
word's former wordpieces; train afterwards, because the model has never seen the
new tokens:

  bert-keras convert --checkpoint=runs/base --output=runs/medical \\
      --add_words=drugs.txt

Removes unused tokens and positions, for a phone. Predictions on given texts of
up to --positions tokens do not change; in other texts some words may become
[UNK]:

  bert-keras convert --checkpoint=runs/sst2 --output=runs/phone \\
      --trim_to=train.tsv,dev.tsv --positions=128

Keeps some layers, or some units of each, the start of a student that learns
from the whole model; and makes the token table smaller:

  bert-keras convert --checkpoint=runs/base --output=student \\
      --layers=0,2,4 --intermediate_size=1024 --token_rank=64
"""

import dataclasses
import itertools
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import (
    checkpoint,
    commands,
    console,
    errors,
    formats,
    layer_surgery,
    layers,
    loading,
    locks,
    markdown,
    model_card,
    named_tensors,
    options,
    registry,
    verification,
    vocabulary_surgery,
)
from bert_keras import model as model_lib
from bert_keras.data import corpus, json_lines
from bert_keras.tasks import base as tasks
from bert_keras.tokenizers import base as tokenizers
from trainers import flags

NATIVE = "bert_keras"

# Settings that change the model.
_CHANGES = (
    *("add_words", "trim_to", "positions"),
    *("layers", "intermediate_size", "token_rank"),
)

# Largest allowed difference of hidden states: sums may be in another order.
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Settings:
    checkpoint: str = options.option(
        "",
        "What to convert: a run or step folder, a folder in Google's, Hugging "
        "Face's or KerasHub's format, or the name of a model that "
        "huggingface_hub or kagglehub downloaded.",
    )
    modules: str = options.option(
        "", options.MODULES, formerly=("task",), identity=False
    )
    output: str = options.option("", "The folder to write; new, or empty.")
    format: str = options.option(
        NATIVE,
        "Output format. A head that the format cannot store is an error; "
        "keras_hub drops it.",
        (NATIVE, *formats.FORMATS),
    )
    add_words: str = options.option(
        "", "File of words to add to the vocabulary, one per line."
    )
    trim_to: str = options.option(
        "",
        "Files, folders or globs, separated by commas: wordpieces that occur "
        "neither in them nor in --add_words are removed from the vocabulary.",
    )
    positions: int = options.option(
        0,
        "Length that the position table is truncated or extended to; 0: "
        "unchanged.",
    )
    layers: str = options.option(
        "",
        "Layers to keep, from 0 and with commas between, such as 0,2,4: the "
        "start of a student that is then distilled.",
    )
    intermediate_size: int = options.option(
        0,
        "Units to keep in each feed-forward layer, those with the largest "
        "weights; 0: all.",
        minimum=0,
    )
    token_rank: int = options.option(
        0,
        "Make the token table a product of one with so many columns and a "
        "matrix, the nearest to it; 0: leave it.",
        minimum=0,
    )
    lowercase: bool | None = options.option(
        None,
        "Fold case and drop accents, for a --checkpoint of another format. "
        "Default: inferred from its files.",
        value_type=bool,
    )
    allow_missing: str = options.option(
        "",
        "Regular expression of variables that a --checkpoint of another "
        "format may lack; they are initialised randomly.",
    )


def convert(settings: Settings) -> dict[str, Any]:
    """Writes the folder `output`; returns the printed summary."""
    options.check(settings)
    options.require("checkpoint", settings.checkpoint)
    options.require("output", settings.output)
    if tf.io.gfile.exists(settings.output) and not tf.io.gfile.isdir(
        settings.output
    ):
        raise errors.InputError(
            f"--output={settings.output} is a file; choose a new folder."
        )
    with locks.hold(settings.output):
        _check_empty(settings.output)
        return _convert(settings)


def _convert(settings: Settings) -> dict[str, Any]:
    registry.import_modules(settings.modules)
    began = time.monotonic()
    source = formats.read(
        settings.checkpoint,
        lowercase=settings.lowercase,
        allow_missing=settings.allow_missing,
    )
    source_model, source_tokenizer = _model(source), source.tokenizer()
    model, tokenizer = _resized(settings, source_model, source_tokenizer)
    _write(settings, source, source_model, model, tokenizer)
    written = formats.read(settings.output)
    summary = {
        "format": f"{_format(source.folder)} -> {settings.format}",
        "task": written.task.name if written.task else "none (encoder only)",
        "vocabulary": _change(
            source_tokenizer.vocab_size, tokenizer.vocab_size
        ),
        "positions": _change(
            source_model.encoder.config.max_length,
            model.encoder.config.max_length,
        ),
        "parameters": _change(
            source_model.count_params(), model.count_params()
        ),
        "size": console.size_of(settings.output),
        **compare(written, model, tokenizer),
        "time": f"{time.monotonic() - began:.1f} s",
        "next": _next(settings.output, written.task),
    }
    console.table(settings.output, summary)
    return summary


def _write(
    settings: Settings,
    source: checkpoint.Checkpoint,
    source_model: model_lib.BertModel,
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
) -> None:
    card = _card(settings, source, source_model, model, tokenizer)
    if settings.format == NATIVE:
        checkpoint.save(
            settings.output, model, tokenizer, step=source.step, card=card
        )
        return
    formats.FORMATS[settings.format].write(settings.output, model, tokenizer)
    if model.task is not None and formats.read(settings.output).task is None:
        encoder = model_lib.BertModel(model.encoder, None)
        card = model_card.redescribed(
            model_card.without_results(card, "They were those with a head."),
            model_card.describe(model, tokenizer, name=card.name),
            model_card.describe(encoder, tokenizer, name=card.name),
        )
    model_card.write(os.path.join(settings.output, model_card.FILE), card)


def compare(
    written: checkpoint.Checkpoint,
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
) -> dict[str, Any]:
    """Compares a written checkpoint with the model it was written from.

    Returns rows of the summary: the largest differences of weights and outputs.
    Raises RuntimeError if they are too large: the format's code has a bug.
    """
    folder = written.folder
    same_vocabulary = written.tokenizer().fingerprint == tokenizer.fingerprint
    values, written_values = (
        written.as_stored(checkpoint.weight_values(model.encoder)),
        written.encoder_values(),
    )
    weights = _difference(values, written_values, folder)
    summary = {"difference of weights": f"{weights:.2g} at most"}
    dropped = [] if set(values) == set(written_values) else ["the pooler"]
    if written.task is not None:
        head = _difference(
            checkpoint.weight_values(model.head), written.head_values(), folder
        )
        summary["difference of weights"] += f", {head:.2g} in the head"
        weights = max(weights, head)
    elif model.task is not None:
        dropped.append("the head")
    if dropped:
        summary["dropped"] = ", ".join(dropped)
    with layers.skip_init():
        reloaded = written.config.build_encoder()
    for path, variable in checkpoint.weights(reloaded).items():
        variable.assign(written_values.get(path, values[path]))
    outputs = max(
        float(np.abs(one - other).max())
        for one, other in zip(
            _hidden(model.encoder), _hidden(reloaded), strict=True
        )
    )
    summary["difference of outputs"] = f"{outputs:.2g} at most"
    if written.task is not None:
        answers = _difference_of_answers(written, model, tokenizer)
        summary["difference of answers"] = f"{answers:.2g} at most"
        outputs = max(outputs, answers)
    written_config = written.config.to_dict()
    changed = [
        f"{name} {value} (now {written_config[name]})"
        for name, value in model.encoder.config.to_dict().items()
        if value != written_config[name]
    ]
    if changed:
        summary["changed settings"] = ", ".join(changed)
    if not (same_vocabulary and weights == 0 and outputs <= TOLERANCE):
        raise RuntimeError(
            f"{folder} differs from the converted model: weights differ by "
            f"{weights:.2g}, outputs by {outputs:.2g}, vocabularies are "
            f"{'equal' if same_vocabulary else 'different'}. Do not use it."
        )
    return summary


def _check_empty(folder: str) -> None:
    """Raises InputError if a folder contains more than its lock file."""
    if set(tf.io.gfile.listdir(folder)) - {locks.NAME}:
        raise errors.InputError(
            f"--output={folder} exists and is not empty; choose a new folder."
        )


def _model(source: checkpoint.Checkpoint) -> model_lib.BertModel:
    """Loads the model; without a head if the checkpoint has none."""
    if source.task is not None or source.unknown_task_reason:
        return loading.load_model(source)
    model = model_lib.BertModel(source.config.build_encoder(), None)
    source.load_encoder(model.encoder)
    return model


def _resized(
    settings: Settings,
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
) -> vocabulary_surgery.Resized:
    words = []
    if settings.add_words:
        words = [line.strip() for _, line in corpus.texts(settings.add_words)]
        model, tokenizer = vocabulary_surgery.add_tokens(
            model, tokenizer, words
        )
    if settings.trim_to:
        files = corpus.files(settings.trim_to.split(","))
        texts = itertools.chain(words, *map(_texts, files))
        model, tokenizer = vocabulary_surgery.prune_tokens(
            model, tokenizer, texts
        )
    if settings.positions:
        model = vocabulary_surgery.resize_positions(model, settings.positions)
    if settings.layers:
        model = layer_surgery.keep_layers(model, _numbers(settings.layers))
    if settings.intermediate_size:
        model = layer_surgery.keep_units(model, settings.intermediate_size)
    if settings.token_rank:
        model = layer_surgery.factorize_tokens(model, settings.token_rank)
    return model, tokenizer


def _numbers(layers: str) -> list[int]:
    try:
        return [int(number) for number in layers.split(",")]
    except ValueError:
        raise errors.InputError(
            f"--layers={layers}: expected numbers with commas between, such "
            "as 0,2,4.",
            argument="layers",
        ) from None


def _card(
    settings: Settings,
    source: checkpoint.Checkpoint,
    source_model: model_lib.BertModel,
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
) -> model_card.Card:
    """Returns the source's model card, changed into that of the conversion."""
    name = os.path.basename(os.path.abspath(settings.output))
    described = model_card.describe(source_model, source.tokenizer(), name=name)
    card = model_card.for_copy(source.card(), described)
    changes = {
        name: getattr(settings, name)
        for name in _CHANGES
        if getattr(settings, name)
    }
    if changes:
        card = model_card.redescribed(
            model_card.without_results(
                card,
                "These are those of the model that this one was made from.",
            ),
            described,
            model_card.describe(model, tokenizer, name=name),
        )
    flags = {"checkpoint": settings.checkpoint, "output": settings.output}
    command = markdown.command(
        "convert", {**flags, "format": settings.format, **changes}
    )
    origin = card.sections.get(model_card.ORIGIN, "")
    converted = f"Converted with\n\n{markdown.code_block(command)}"
    card = card.with_section(
        model_card.ORIGIN, f"{origin}\n\n{converted}".strip()
    )
    if settings.format == "hugging_face":
        card = card.with_head(library_name="transformers")
        card = card.with_section(model_card.USE, _transformers_usage(model))
    return card


def _transformers_usage(model: model_lib.BertModel) -> str:
    tag = model.task.unwrapped.pipeline_tag if model.task else ""
    if tag in _PIPELINES and len(model.task.text_columns) == 1:
        text = model_card.example(model.task)["text"]
        lines = [
            "from transformers import pipeline",
            "",
            f'pipeline("{tag}", model=".")({json.dumps(text)})',
        ]
    else:
        lines = [
            "from transformers import AutoModel, AutoTokenizer",
            "",
            'tokenizer = AutoTokenizer.from_pretrained(".")',
            'model = AutoModel.from_pretrained(".")',
        ]
    code = markdown.code_block("\n".join(lines), "python")
    return f"With transformers, in this folder:\n\n{code}"


# The tasks of transformers' function `pipeline` that read one text.
_PIPELINES = ("fill-mask", "text-classification", "token-classification")


def _texts(path: str) -> Iterator[str]:
    """Yields the lines of a text file, or the string values of a JSON file.

    Each line of a JSON file is a JSON value.
    """
    is_json = corpus.is_json(path)
    for number, line in corpus.texts(path):
        if not is_json:
            yield line
        elif line.strip():
            try:
                value = json.loads(line)
            # ValueError: also an integer of more than 4,300 digits.
            except (RecursionError, ValueError) as error:
                raise errors.InputError(
                    f"{path}, line {number}: expected a line of JSON; {error}."
                ) from None
            yield from _strings(value)


def _strings(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield json_lines.valid_text(value)
        elif isinstance(value, (list, dict)):
            items = value.values() if isinstance(value, dict) else value
            stack += reversed([*items])


def _difference(
    values: Mapping[str, np.ndarray],
    written: Mapping[str, np.ndarray],
    folder: str,
) -> float:
    """Returns the largest absolute difference between two sets of weights.

    `written` may lack the pooler, which some heads do not read.
    """
    needed = {name for name in values if not name.startswith("pooler/")}
    if not needed <= set(written) <= set(values):
        raise RuntimeError(
            f"{folder}: {named_tensors.differences(values, written)}"
        )
    return max(
        (float(np.abs(values[name] - written[name]).max()) for name in written),
        default=0.0,
    )


def _difference_of_answers(
    written: checkpoint.Checkpoint,
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
) -> float:
    """Returns the largest difference of the logits for a few sentences.

    Infinity if the written task reads them in another way: as probabilities of
    one class, for example, where the model's may have several.
    """
    task, other = model.task, written.task
    assert other is not None
    if (type(task), task.softmax_terms) != (type(other), other.softmax_terms):
        return math.inf
    features = task.preprocess(verification.sentences(task), tokenizer)
    inputs = {name: features[name] for name in model.encoder.config.inputs}
    features = task.add_derived_features(inputs)
    outputs, others = (
        each(features, training=False)
        for each in (model, loading.load_model(written))
    )
    if set(outputs) != set(others):
        return math.inf
    return max(
        float(tf.reduce_max(tf.abs(outputs[name] - others[name])))
        for name in outputs
    )


def _hidden(network: keras.Model) -> Iterable[np.ndarray]:
    """Returns all encoder outputs for two random rows, the second padded."""
    config = network.config
    random = np.random.default_rng(0)
    length = min(config.max_length or 64, 64)
    padding_mask = np.arange(length) < np.array([[length], [length // 2]])
    # The value range of a custom network's features is unknown; 0 and 1 are
    # always valid ids.
    counts = {
        "token_ids": config.vocab_size,
        "segment_ids": getattr(config, "num_segments", 2),
    }
    features: dict[str, np.ndarray] = {
        name: random.integers(
            0, counts.get(name, 2), (*padding_mask.shape, *shape)
        )
        * np.reshape(padding_mask, (*padding_mask.shape, *(1 for _ in shape)))
        for name, shape in config.inputs.items()
        if name != "padding_mask"
    }
    features["padding_mask"] = padding_mask
    encoded = network(
        **{name: tf.cast(x, tf.int32) for name, x in features.items()}
    )
    return [x.numpy() for x in (*encoded["hidden"], encoded["pooled"])]


def _format(path: str) -> str:
    module = formats.find(path)
    return NATIVE if module is None else module.NAME


def _change(before: int | None, after: int | None) -> str:
    """Formats a number before and after the conversion; None: unlimited."""
    old, new = ("any" if n is None else f"{n:,}" for n in (before, after))
    return old + (f" -> {new}" if new != old else "")


def _next(folder: str, task: tasks.Task | None) -> str:
    """Returns the command to run after the conversion."""
    if task is None:
        return (
            f"{commands.command_line('finetune')} --init={folder} --train=ROWS "
            "--output=RUN"
        )
    return f"{commands.command_line('predict')} --checkpoint={folder}"


def main() -> None:
    convert(flags.read(Settings))


def run() -> None:
    flags.run(main, lambda: flags.define(Settings))


if __name__ == "__main__":
    run()
