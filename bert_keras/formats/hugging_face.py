"""Reads and writes Hugging Face BERT, ALBERT and ERNIE folders.

    config.json              "model_type": "bert" or "ernie"; "albert": see
                             albert; "openai-gpt": see openai_gpt
    model.safetensors        or model.safetensors.index.json and its shards
    vocab.txt                or tokenizer.json
    tokenizer_config.json    casing

The head is identified by the names of its tensors; "architectures" is used only
if two heads have the same names. No code from a folder is run: weights in a
pickle are refused.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import safetensors.numpy
import tensorflow as tf

from bert_keras import checkpoint, errors, files
from bert_keras import model as model_lib
from bert_keras.data import tag_schemes
from bert_keras.formats import albert, openai_gpt, weight_mapping
from bert_keras.formats import hugging_face_config as configs
from bert_keras.formats import hugging_face_tokenizer as tokenizers
from bert_keras.formats import hugging_face_weights as weights
from bert_keras.networks import bert
from bert_keras.tasks import (
    base,
    classification,
    masked_lm,
    multiple_choice,
    question_answering,
    tagging,
)
from bert_keras.tokenizers import base as tokenizer_lib
from bert_keras.tokenizers import wordpiece

NAME = "hugging_face"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
OTHERS = ("tf_model.h5", "flax_model.msgpack")
SINGLE_LABEL, MULTI_LABEL, _ = configs.PROBLEMS
# Problem type of a classifier here -> in Hugging Face's config.json.
_PROBLEMS = {"single_label": SINGLE_LABEL, "multi_label": MULTI_LABEL}
CHOICES = 4  # of a folder for multiple choice that does not specify them
# model_type: how the names of its classes begin.
CLASSES = {
    configs.BERT: "Bert",
    configs.ALBERT: "Albert",
    configs.ERNIE: "Ernie",
}
BERT = CLASSES[configs.BERT]
TASK = "bert_keras"  # the field of config.json for the settings of a task


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A Hugging Face architecture, identified by the tensors of its head.

    If no task here has such a head, the folder is read as an encoder alone.
    """

    head: tuple[str, ...] = ()  # prefixes of the names of its tensors
    pooler: bool = True  # the head uses it; otherwise the folder may lack it
    task: type[base.Task] | None = None
    # (task, folder, config.json, tokenizer) -> the task with the fields that
    # the folder specifies, or None if the head is not that of the task.
    adapt: Callable[..., base.Task | None] = lambda task, *_: task
    writes: Callable[[Any], bool] = lambda task: True
    mappings: Callable[[bert.BertConfig, Any], weights.Mappings] = (
        lambda config, task: {}
    )


def _pretraining(task, folder, values, tokenizer):
    del folder
    if albert.is_albert(values) and TASK not in values:
        task = task.with_settings(objective="sop")
    elif task.objective == "none":
        task = task.with_settings(objective="nsp")
    return task.adapt([], tokenizer)


def _masked_lm(task, folder, values, tokenizer):
    del folder, values
    return task.with_settings(objective="none").adapt([], tokenizer)


def _classification(task, folder, values, tokenizer):
    del tokenizer
    labels = configs.labels(folder, values)
    # `write` stores a task's settings and, for multi-label ones, problem_type;
    # earlier versions stored only the former.
    own = _PROBLEMS.get(task.problem_type)
    problem_type = values.get("problem_type") or own
    if problem_type != own or len(labels) < (1 if own == MULTI_LABEL else 2):
        return None  # regression or multi-label
    return task.with_settings(labels=labels)


def _writes_classifier(task):
    return (
        task.problem_type in _PROBLEMS
        and task.pooling == "first"
        and not task.reads_both_orders
    )


def _multiple_choice(task, folder, values, tokenizer):
    del values, tokenizer
    if not task.num_choices:
        weight_mapping.warn(
            f"{folder}: the folder does not specify how many choices an "
            f"example has; taken to be up to {CHOICES}, as in SWAG and RACE."
        )
        task = task.with_settings(num_choices=CHOICES)
    return task.for_serving()


def _tagging(task, folder, values, tokenizer):
    del tokenizer
    labels = configs.labels(folder, values)
    types = dict.fromkeys(label[2:] for label in labels if label != "O")
    for scheme in tag_schemes.PREFIXES:
        candidate = task.with_settings(types=tuple(types), scheme=scheme)
        if candidate.labels == labels:
            return candidate
    return None  # the labels have another order, or fit no scheme


ARCHITECTURES = {
    "BertModel": Architecture(),
    "BertForPreTraining": Architecture(
        head=(weights.PREDICTION_PREFIX, weights.RELATION_PREFIX),
        task=masked_lm.MaskedLM,
        adapt=_pretraining,
        # Its head has two classes.
        writes=lambda task: (
            task.objective != "none" and not task.sentence_classes
        ),
        mappings=weights.map_masked_lm,
    ),
    "BertForMaskedLM": Architecture(
        head=(weights.PREDICTION_PREFIX,),
        pooler=False,
        task=masked_lm.MaskedLM,
        adapt=_masked_lm,
        writes=lambda task: task.objective == "none",
        mappings=weights.map_masked_lm,
    ),
    "BertForNextSentencePrediction": Architecture(
        head=(weights.RELATION_PREFIX,)
    ),
    "BertForSequenceClassification": Architecture(
        head=(weights.CLASSIFIER_PREFIX,),
        task=classification.Classification,
        adapt=_classification,
        writes=_writes_classifier,
        mappings=weights.map_classification,
    ),
    "BertForMultipleChoice": Architecture(
        head=(weights.CLASSIFIER_PREFIX,),
        task=multiple_choice.MultipleChoice,
        adapt=_multiple_choice,
        mappings=weights.map_multiple_choice,
    ),
    "BertForTokenClassification": Architecture(
        head=(weights.CLASSIFIER_PREFIX,),
        pooler=False,
        task=tagging.Tagging,
        adapt=_tagging,
        mappings=weights.map_tagging,
    ),
    "BertForQuestionAnswering": Architecture(
        head=(weights.SPAN_PREFIX,),
        pooler=False,
        task=question_answering.QuestionAnswering,
        mappings=weights.map_question_answering,
    ),
}


@dataclasses.dataclass(frozen=True)
class HuggingFace(weight_mapping.ExternalCheckpoint):
    """A Hugging Face folder; it lacks the pooler if its head does not use one.

    The folder's own head does not need it. A task with another head may use the
    pooler; then `allow_missing` must match it.
    """

    unread: str = ""  # regular expression of variables that its head ignores

    def for_task(self, task: base.Task) -> "HuggingFace":
        if not self.task or task.head_signatures != self.task.head_signatures:
            return self
        allowed = _either(self.allow_missing, self.unread)
        return dataclasses.replace(self, allow_missing=allowed)


def recognises(path: str) -> bool:
    """Returns whether the folder has a config.json and Hugging Face weights."""
    names = (weights.WEIGHTS, weights.INDEX, *PICKLES, *OTHERS)
    return _has(path, configs.CONFIG) and any(
        _has(path, name) for name in names
    )


def read(
    path: str, *, lowercase: bool | None = None, allow_missing: str = ""
) -> HuggingFace | openai_gpt.OpenAIGPT:
    """Reads a folder and checks all names and shapes; weights load lazily."""
    values = files.read_json(os.path.join(path, configs.CONFIG))
    if openai_gpt.is_gpt(values):
        _require_weights(path, values)
        return openai_gpt.read(
            path, lowercase=lowercase, allow_missing=allow_missing
        )
    return _read_bert(path, lowercase=lowercase, allow_missing=allow_missing)


def _read_bert(
    path: str, *, lowercase: bool | None, allow_missing: str
) -> HuggingFace:
    """Does the work of `read` for BERT, ALBERT and ERNIE."""
    config, values = configs.read(path)
    _require_weights(path, values)
    is_albert = albert.is_albert(values)
    tensors = _tensors(path, values["model_type"])
    rows = _checked_rows(path, config, tensors)
    read_tokenizer = albert.read_tokenizer if is_albert else tokenizers.read
    tokenizer = read_tokenizer(
        path,
        rows=rows,
        lowercase=lowercase,
        config=values,
    )
    architecture = _architecture(path, tensors.names, values)
    task = _task(architecture, path, config, values, tokenizer)

    rename = _names(values["model_type"])
    encoder = _renamed(weights.map_encoder(config), rename)
    head = _renamed(architecture.mappings(config, task), rename) if task else {}
    unread_heads = (
        []
        if task
        else [f"^{re.escape(rename(name))}" for name in architecture.head]
    )
    unread = "" if architecture.pooler else "^pooler/"
    matches = weight_mapping.match(
        [*encoder, *head],
        tensors.names,
        folder=path,
        ignored=_either(weights.BUFFERS, *unread_heads),
        allow_missing=_either(allow_missing, unread),
    )
    tensors.check(matches, encoder | head)
    return HuggingFace.from_matches(
        path,
        matches=matches,
        encoder=encoder,
        config=config,
        task=task,
        words=tokenizer,
        tensor=tensors.read,
        allow_missing=allow_missing,
        unsupported_head_reason=""
        if task
        else _unsupported_head_reason(architecture, path, values),
        unread=unread,
    )


def write(
    folder: str,
    model: model_lib.BertModel | bert.BertEncoder,
    tokenizer: tokenizer_lib.Tokenizer,
) -> None:
    """Writes a folder that `from_pretrained` of transformers loads.

    GPT is written by `openai_gpt`. An encoder without a head is written as a
    transformers BertModel, AlbertModel or ErnieModel. The settings of the task
    are stored in config.json under "bert_keras".
    """
    task = getattr(model, "task", None)
    encoder = getattr(model, "encoder", model)
    network = weight_mapping.config_of_bert(encoder)
    if openai_gpt.writes(network, task):
        openai_gpt.write(folder, model, tokenizer)
        return
    is_albert = albert.writes(network, tokenizer)
    model_type = configs.ERNIE if network.num_task_types else configs.BERT
    model_type = configs.ALBERT if is_albert else model_type
    name = _written_as(task) if task else "BertModel"
    config = _config_values(network, tokenizer, task, name, model_type)
    values = checkpoint.weight_values(encoder)
    mappings = weights.map_encoder(network)
    if task:
        mappings |= ARCHITECTURES[name].mappings(network, task)
        values |= checkpoint.weight_values(model.head)
    prefix = f"{model_type}." if task else ""
    rename = _names(model_type)
    tensors = {
        ("" if weights.is_head(source) else prefix) + rename(source): array
        for source, array in weight_mapping.to_external(
            mappings, values
        ).items()
    }
    longest = network.max_position_embeddings
    write_tokenizer = albert.tokenizer_writers if is_albert else _word_writers
    weight_mapping.write_files(
        folder,
        {
            weights.WEIGHTS: lambda path: safetensors.numpy.save_file(
                tensors, path, metadata={"format": "pt"}
            ),
            **write_tokenizer(tokenizer, longest=longest),
            configs.CONFIG: lambda path: files.write_json(path, config),
        },
    )


def _config_values(
    network: bert.BertConfig,
    tokenizer: tokenizer_lib.Tokenizer,
    task: base.Task | None,
    name: str,
    model_type: str,
) -> dict[str, Any]:
    """Returns the values of config.json."""
    config = {
        "architectures": [name.replace(BERT, CLASSES[model_type], 1)],
        **configs.to_values(
            network,
            labels=getattr(task, "labels", ()),
            model_type=model_type,
        ),
        "pad_token_id": tokenizer.pad_id,
        "torch_dtype": "float32",
    }
    if task:
        config[TASK] = task.for_serving().to_dict()
        problem_type = _PROBLEMS.get(getattr(task, "problem_type", ""))
        if problem_type == MULTI_LABEL:
            config["problem_type"] = problem_type
    return config


def _word_writers(
    tokenizer: tokenizer_lib.Tokenizer, *, longest: int
) -> dict[str, Callable[[str], None]]:
    words = wordpiece.require(tokenizer, "Hugging Face's BERT")
    settings = tokenizers.settings_of(words, longest=longest)
    return {
        tokenizers.VOCABULARY: words.save_vocabulary,
        tokenizers.SETTINGS: lambda path: files.write_json(path, settings),
    }


def _tensors(path: str, model_type: str) -> weights.Tensors:
    rename = _names(model_type)
    copies = {
        rename(copy): rename(name) for copy, name in weights.COPIES.items()
    }
    return weights.Tensors(path, prefix=f"{model_type}.", copies=copies)


def _names(model_type: str) -> Callable[[str], str]:
    """Returns a function from BERT's names of tensors to the folder's."""
    return albert.tensor_name if model_type == configs.ALBERT else str


def _renamed(
    mappings: weights.Mappings, rename: Callable[[str], str]
) -> weights.Mappings:
    return {
        dataclasses.replace(
            mapping, source_names=tuple(map(rename, mapping.source_names))
        ): shape
        for mapping, shape in mappings.items()
    }


def _architecture(
    folder: str, names: set[str], values: Mapping[str, Any]
) -> Architecture:
    """Returns the architecture whose head has these tensors.

    If several have, config.json's "architectures" decides.
    """
    rename = _names(values["model_type"])
    heads = {
        beginning
        for each in ARCHITECTURES.values()
        for beginning in each.head
        if any(name.startswith(rename(beginning)) for name in names)
    }
    fitting = {
        name: each
        for name, each in ARCHITECTURES.items()
        if set(each.head) == heads
    }
    own = CLASSES[values["model_type"]]
    named = [re.sub(f"^{own}", BERT, name) for name in _named(folder, values)]
    for name in fitting if len(fitting) == 1 else named:
        if name in fitting:
            return fitting[name]
    raise errors.InputError(
        f"{folder} has the tensors {', '.join(sorted(heads))}*: expected the "
        f"head of one of {', '.join(fitting or ARCHITECTURES)}, named as "
        f'"architectures" in config.json, found {named}.'
    )


def _task(
    architecture: Architecture,
    folder: str,
    config: bert.BertConfig,
    values: Mapping[str, Any],
    tokenizer: tokenizer_lib.Tokenizer,
) -> base.Task | None:
    """Returns the task that the folder's head was trained for.

    None: it is not supported here.
    """
    if architecture.task is None:
        return None
    # Rows are only as long as their texts, so a large maximum costs nothing.
    task = architecture.task(seq_length=config.max_position_embeddings)
    settings = values.get(TASK)
    if isinstance(settings, dict) and settings.get("name") == task.name:
        task = task.from_config(
            {k: v for k, v in settings.items() if k != "name"}
        )
    return architecture.adapt(task, folder, values, tokenizer)


def _unsupported_head_reason(
    architecture: Architecture, folder: str, values: Mapping[str, Any]
) -> str:
    """Returns why a folder's head is not read, or "" if it has none."""
    if not architecture.head:
        return ""
    name = next(
        name for name, each in ARCHITECTURES.items() if each is architecture
    )
    if architecture.task is None:
        return f"no task here has the head of {name}"
    problem_type = values.get("problem_type") or configs.PROBLEMS[0]
    if architecture.task is classification.Classification and (
        problem_type != configs.PROBLEMS[0]
    ):
        return (
            f"its config.json has problem_type {problem_type!r}, and of {name} "
            f"only {configs.PROBLEMS[0]!r} is read"
        )
    labels = weight_mapping.shown(list(configs.labels(folder, values)), 200)
    expected = (
        "two or more"
        if architecture.task is classification.Classification
        else "O and those of one scheme, as B-PER, I-PER, in their order"
    )
    return f"its labels are {labels}, and of {name} {expected} are read"


def _written_as(task: base.Task) -> str:
    for name, architecture in ARCHITECTURES.items():
        if type(task) is architecture.task and architecture.writes(task):
            return name
    raise errors.InputError(
        "Hugging Face has no BERT for the task "
        f"{weight_mapping.describe_head(task)}; the encoder alone can be "
        "written."
    )


def _require_weights(folder: str, values: Mapping[str, Any]) -> None:
    """Raises InputError if a folder has no weights that can be read."""
    if not _has(folder, weights.WEIGHTS) and not _has(folder, weights.INDEX):
        raise errors.InputError(_unreadable(folder, values))


def _checked_rows(
    path: str, config: bert.BertConfig, tensors: weights.Tensors
) -> int:
    """Returns the rows of the embedding table.

    Raises InputError if the sizes in config.json are not those of the tensors.
    """
    # Check the table's own size: a wrong one in config.json alone could make a
    # vocabulary of any size.
    rows = tensors.rows(weights.WORD_EMBEDDINGS)
    if rows and rows != config.vocab_size:
        raise errors.InputError(
            f"{path}: config.json has vocab_size {config.vocab_size:,}, and "
            f"the embedding table {rows:,} rows; do the two belong to the "
            "same model?"
        )
    blocks = config.num_hidden_groups or config.num_layers
    if blocks > len(tensors.names):
        raise errors.InputError(
            f"{path}: config.json has num_hidden_layers {config.num_layers:,}, "
            f"and the folder {len(tensors.names):,} tensors; do the two "
            "belong to the same model?"
        )
    return rows or config.vocab_size


def _unreadable(folder: str, values: Mapping[str, Any]) -> str:
    other_files = [name for name in (*PICKLES, *OTHERS) if _has(folder, name)]
    pickle = set(other_files) & set(PICKLES)
    classes = {
        name.replace(BERT, own)
        for name in ARCHITECTURES
        for own in CLASSES.values()
    }
    named = set(_named(folder, values)) & classes
    return (
        f"{folder}: expected {weights.WEIGHTS}, found "
        f"{other_files[0] if other_files else 'no weights'}"
        f"{', a pickle, which can run code when it is read' if pickle else ''}"
        ". In an environment of its own, transformers."
        f"{min(named, default='AutoModel')}.from_pretrained(folder)"
        ".save_pretrained(new_folder) converts what you trust; copy the "
        "tokenizer's files beside it."
    )


def _named(folder: str, values: Mapping[str, Any]) -> list[str]:
    """Returns the classes in config.json; they are only compared, not run."""
    path = os.path.join(folder, configs.CONFIG)
    named = weight_mapping.field(values, "architectures", list, path) or []
    return [name for name in named if isinstance(name, str)]


def _either(*patterns: str) -> str:
    return "|".join(filter(None, patterns))


def _has(folder: str, name: str) -> bool:
    return tf.io.gfile.exists(os.path.join(folder, name))
