"""Saves and loads checkpoint folders, and marks the latest and the best.

    run/
      best, latest            text files with the number of a step
      README.md               the card of the best step, else of the latest
      step-00012000/
        encoder.safetensors  head.safetensors
        vocab.txt               or other files of the tokenizer
        optimizer.safetensors   only for resuming: the optimizer's variables,
                                and head weights that are trained but not served
        README.md               the model card; people may edit it
        config.json             written last: if present, the step is complete

>>> source = bert_keras.checkpoint.read("runs/sst2")
>>> source.task.labels
('negative', 'positive')
>>> source.encoder_values()["embeddings/token"].shape
(36, 16)

Weights are keyed by variable path. Loading fails unless file and model have the
same names and shapes.
"""

import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import safetensors
import tensorflow as tf

from bert_keras import (
    checkpoint_config,
    errors,
    files,
    model_card,
    named_tensors,
    registry,
    safetensors_mmap,
)
from bert_keras import model as model_lib
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

CONFIG = "config.json"
ENCODER, HEAD = "encoder.safetensors", "head.safetensors"
OPTIMIZER = "optimizer.safetensors"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A step folder, or a folder of another format; weights are loaded lazily.

    Every other format is a subclass that overrides `tokenizer`,
    `encoder_values` and `head_values`.
    """

    folder: str
    config: networks.NetworkConfig
    task: base.Task | None  # None: an encoder without a head
    step: int
    metadata: Mapping[str, Any]  # config.json, incl. trainer state
    run: str = dataclasses.field(default="", kw_only=True)  # "": read as a step
    # Why `task` is None although there is a head: the task's module was not
    # imported, or the head's type is not supported; "" otherwise.
    unknown_task_reason: str = dataclasses.field(default="", kw_only=True)
    unsupported_head_reason: str = dataclasses.field(default="", kw_only=True)

    def tokenizer(self) -> tokenizers.Tokenizer:
        values = self.metadata["tokenizer"]
        for name in tokenizers.files_of(values):
            self._verified_path(name)
        return tokenizers.from_dict(values, self.folder)

    def encoder_values(self) -> Mapping[str, np.ndarray]:
        """Returns the encoder's weights by variable path, float32."""
        return safetensors_mmap.tensors(self._verified_path(ENCODER))

    def head_values(self) -> Mapping[str, np.ndarray]:
        return safetensors_mmap.tensors(self._verified_path(HEAD))

    @property
    def name(self) -> str:
        """The name on the Hugging Face hub, else that of the run or folder.

        .../models--google-bert--bert-base-uncased/snapshots/86b5e09/ is
        google-bert/bert-base-uncased, and runs/sst2/step-00001000 is sst2.
        """
        folder = self.run or re.sub(r"/step-\d+/*$", "", self.folder)
        return hub_name(folder) or os.path.basename(os.path.abspath(folder))

    def card(self) -> model_card.Card | None:
        """Returns the model card, with what a person wrote into the run's."""
        if self.run:
            return model_card.read_run(self.run, self.folder)
        return model_card.read(self.folder)

    def load_encoder(self, encoder: keras.Model) -> None:
        self._assign(ENCODER, weights(encoder), self.encoder_values())

    def load_head(
        self, head: keras.layers.Layer, names: Collection[str] | None = None
    ) -> None:
        """Loads all heads, or only those with these names."""

        def select_heads(values):
            return {
                path: value
                for path, value in values.items()
                if names is None or path.split("/", 1)[0] in names
            }

        variables = select_heads(weights(head))
        self._assign(HEAD, variables, select_heads(self.head_values()))

    def load_run(
        self, model: model_lib.BertModel, optimizer: Mapping[str, Any]
    ) -> None:
        """Loads all that is needed to resume a run of the same task.

        optimizer: the optimizer's variables by name.
        """
        self.load_encoder(model.encoder)
        served, only_trained = head_weights(model)
        self._assign(HEAD, served, self.head_values())
        values = safetensors_mmap.tensors(self._verified_path(OPTIMIZER))
        self._assign(OPTIMIZER, {**only_trained, **optimizer}, values)

    def for_task(self, task: base.Task) -> "Checkpoint":
        """Returns this checkpoint, prepared for loading into `task`.

        A subclass may allow variables to be missing that the task does not use.
        """
        del task
        return self

    @property
    def is_complete(self) -> bool:
        """Whether it has every weight, so that none is initialised randomly."""
        return True

    def check_shapes(self) -> None:
        """Raises InputError if config.json does not fit the tensors' shapes."""
        values = self.encoder_values()
        try:
            self.config.check_shapes(
                {path: tuple(value.shape) for path, value in values.items()}
            )
        except errors.InputError as error:
            raise errors.InputError(
                f"{os.path.join(self.folder, ENCODER)} {error}"
            ) from None

    def matching_heads(self, task: base.Task) -> set[str] | None:
        """Returns the names of the saved heads that a task reuses.

        A head is reused if its name and its signature are the same. For an
        equal task, or equal signatures, returns None: load the complete head,
        as it may have weights outside the named heads.
        """
        if self.task is None:
            return set()
        # Compare as JSON: saved signatures have lists for tuples.
        saved = _as_json(self.task.head_signatures)
        requested = _as_json(task.head_signatures)
        if task == self.task or (saved and saved == requested):
            return None
        return {
            name
            for name, signature in requested.items()
            if name in saved and saved[name] == signature
        }

    def as_stored(
        self, values: Mapping[str, np.ndarray]
    ) -> Mapping[str, np.ndarray]:
        """Returns an encoder's values in the form that the format can hold.

        values: by native path. A format may join variables that are only read
        as their sum.
        """
        return values

    def _verified_path(self, name: str) -> str:
        """Verifies a file's checksum and returns a local path of the file."""
        path = files.fetch(os.path.join(self.folder, name))
        expected = self.metadata["sha256"].get(name)
        if files.checksum(path) != expected:
            raise errors.InputError(
                f"{os.path.join(self.folder, name)} is damaged: its checksum "
                "is not the one in config.json. Use an earlier step, or copy "
                "the folder again."
            )
        return path

    def _assign(
        self,
        name: str,
        variables: Mapping[str, Any],
        values: Mapping[str, np.ndarray],
    ) -> None:
        path = os.path.join(self.folder, name)
        named_tensors.assign(variables, values, path)


def save(
    run: str,
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
    *,
    step: int,
    task: base.Task | None = None,
    optimizer: Mapping[str, Any] | None = None,
    trainer_state: Mapping[str, Any] | None = None,
    card: model_card.Card | None = None,
) -> str:
    """Writes `run`/step-N, marks it as the latest and returns its folder.

    task: saved instead of the model's task, for example after calibration.
    optimizer: the optimizer's variables by name, which only resuming reads.
    card: the model card; None: one with what the model itself tells.

    Raises OSError, for example on a full disk, and leaves no partial files.
    """
    model.check_heads()
    task = task or model.task
    served = task.for_serving() if task else None
    metadata = {  # to_dict may raise InputError
        "network": model.encoder.config.to_dict(),
        "tokenizer": tokenizer.to_dict(),
        "task": served.to_dict() if served else None,
        **(trainer_state or {}),
    }
    if served != task:
        # For information only: the task as trained, where `for_serving` removed
        # a wrapper (bert_keras/wrappers). Loading does not need it. It is
        # omitted if its class cannot be found by name.
        with contextlib.suppress(errors.InputError):
            metadata["trained_as"] = task.to_dict()
    folder = step_folder(run, step)
    if card is None:
        name = os.path.basename(os.path.abspath(run))
        card = model_card.describe(model, tokenizer, name=name, task=served)
    with _errors_as_os_error():
        tf.io.gfile.makedirs(folder)
        if tf.io.gfile.exists(os.path.join(folder, CONFIG)):
            # Overwrite a step: it is incomplete until config.json exists again.
            tf.io.gfile.remove(os.path.join(folder, CONFIG))
        try:
            model_card.write(os.path.join(folder, model_card.FILE), card)
            _write(folder, model, tokenizer, step, optimizer, metadata)
        except BaseException:
            _remove(folder, tokenizer)
            raise
    mark(run, "latest", step)
    return folder


@contextlib.contextmanager
def _errors_as_os_error() -> Iterator[None]:
    """Converts the errors of tf.io.gfile and safetensors to OSError."""
    try:
        yield
    except (safetensors.SafetensorError, tf.errors.OpError) as error:
        raise OSError(str(error)) from error


def _write(
    folder: str,
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
    step: int,
    optimizer: Mapping[str, Any] | None,
    metadata: Mapping[str, Any],
) -> None:
    checksums = {}

    def write(name, writer):
        with files.local_aside(os.path.join(folder, name)) as path:
            writer(path)
            checksums[name] = files.checksum(path)

    def write_tensors(name, variables):
        write(name, lambda path: named_tensors.write(path, variables))

    with tempfile.TemporaryDirectory() as temporary:
        for name in tokenizer.save(temporary):
            source = os.path.join(temporary, name)
            write(name, functools.partial(shutil.copyfile, source))
    write_tensors(ENCODER, weights(model.encoder))
    served, only_trained = head_weights(model)
    write_tensors(HEAD, served)
    if optimizer is not None:
        write_tensors(OPTIMIZER, {**only_trained, **optimizer})
    config = {"step": step, **metadata, "sha256": checksums}
    write(CONFIG, lambda path: checkpoint_config.write(path, config))


def is_checkpoint(path: str) -> bool:
    """Returns whether `path` is a step or run folder, complete or not."""
    return any(
        tf.io.gfile.exists(os.path.join(path, name))
        for name in (ENCODER, "best", "latest")
    )


def read(path: str) -> Checkpoint:
    """Reads a step folder, or the best (else the latest) step of a run folder.

    Raises InputError if there is no complete checkpoint.
    """
    folder, run = path, ""
    if not tf.io.gfile.exists(os.path.join(path, CONFIG)):
        marked = marked_folder(path, "best") or marked_folder(path, "latest")
        if marked is None:
            raise errors.InputError(
                f"{path} is not a checkpoint: expected {CONFIG} in a step "
                "folder, or a run folder with a file `best` or `latest`."
            )
        folder, run = marked, path
    metadata = checkpoint_config.read(os.path.join(folder, CONFIG))
    task, unknown_task_reason = None, ""
    try:
        config = networks.from_dict(metadata["network"])
        try:
            if metadata["task"]:
                task = base.from_dict(metadata["task"])
        except registry.UnknownNameError as error:
            unknown_task_reason = str(error)
    except errors.InputError as error:
        raise errors.InputError(
            f"{os.path.join(folder, CONFIG)}: {error}"
        ) from None
    return Checkpoint(
        folder=folder,
        config=config,
        task=task,
        step=metadata["step"],
        metadata=metadata,
        run=run,
        unknown_task_reason=unknown_task_reason,
    )


def hub_name(folder: str) -> str:
    """Returns the hub's name of a model in huggingface_hub's cache, or "".

    .../models--google-bert--bert-base-uncased/snapshots/86b5e09/ is
    google-bert/bert-base-uncased.
    """
    match = re.search(
        r"(?:^|/)models--([^/]+)/snapshots/", os.path.abspath(folder) + "/"
    )
    return match[1].replace("--", "/") if match else ""


def steps(run: str) -> list[int]:
    """Returns the steps of a run's complete checkpoints, ascending."""
    if not tf.io.gfile.isdir(run):
        return []
    numbers = []
    for name in tf.io.gfile.listdir(run):
        match = re.fullmatch(r"step-(\d+)/?", name)
        config = os.path.join(run, name, CONFIG)
        if match and tf.io.gfile.exists(config):
            numbers.append(int(match[1]))
    return sorted(numbers)


def step_folder(run: str, step: int) -> str:
    return os.path.join(run, f"step-{step:08d}")


def mark(run: str, name: str, step: int) -> None:
    """Marks a step as `name` ("best" or "latest").

    The run's model card becomes that of the best step, else of the latest.
    Raises OSError, for example on a full disk.
    """
    with _errors_as_os_error():
        files.write_text(os.path.join(run, name), f"{step}\n")
        folder = marked_folder(run, "best") or step_folder(run, step)
        model_card.copy(
            os.path.join(folder, model_card.FILE),
            os.path.join(run, model_card.FILE),
        )


def marked_folder(run: str, name: str) -> str | None:
    """Returns the step folder that is marked as `name`, or None."""
    path = os.path.join(run, name)
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        return None
    with tf.io.gfile.GFile(path, "rb") as file:
        text = file.read(100).decode("utf-8", "replace")
    if not re.fullmatch(r"[0-9]{1,15}", text.strip()):
        raise errors.InputError(
            f"{path}: expected the number of a step, found {text[:20]!r}. "
            "Name a step folder, or write the number into the file."
        )
    return step_folder(run, int(text))


def prune(run: str, count: int, tokenizer: tokenizers.Tokenizer) -> None:
    """Removes checkpoints except the last `count`, the best and the latest."""
    marked_folders = {marked_folder(run, name) for name in ("best", "latest")}
    complete_steps = steps(run)
    for step in complete_steps[: max(0, len(complete_steps) - count)]:
        folder = step_folder(run, step)
        if folder not in marked_folders:
            _remove(folder, tokenizer)


def _remove(folder: str, tokenizer: tokenizers.Tokenizer) -> None:
    """Removes the files that `save` writes, then the folder if it is empty.

    An edited model card stays.
    """
    # Remove config.json first, so that an interrupted removal leaves a folder
    # that counts as incomplete.
    names = (CONFIG, OPTIMIZER, HEAD, ENCODER, *tokenizer.files)
    unfinished = (f"{name}.tmp" for name in (*names, model_card.FILE))
    for name in (*names, *unfinished):
        path = os.path.join(folder, name)
        if tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)
    card = os.path.join(folder, model_card.FILE)
    if tf.io.gfile.exists(card) and not model_card.is_edited(card):
        tf.io.gfile.remove(card)
    if not tf.io.gfile.listdir(folder):
        tf.io.gfile.rmtree(folder)


def weights(layer: keras.layers.Layer) -> dict[str, Any]:
    """Returns a layer's variables by path, without seed generators' states.

    The path starts below the layer itself: "block_0/attention/qkv/kernel" and
    not "encoder/block_0/...". Raises InputError if two variables have the same
    path, as a file can store only one of them.
    """
    variables: dict[str, Any] = {}
    for variable in layer.weights:
        path = variable.path.split("/", 1)[-1]
        if path.endswith("seed_generator_state"):
            continue
        if path in variables:
            raise errors.InputError(
                f"two weights have the path {path}; give their layers "
                "different names."
            )
        variables[path] = variable
    return variables


def weight_values(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    """Returns the variables of `weights` as arrays."""
    return {path: value.numpy() for path, value in weights(layer).items()}


def head_weights(
    model: model_lib.BertModel,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits the heads' weights into those served and those only trained.

    The served ones are keyed by their path below the head, as in `weights`,
    the others by their full path, like the optimizer's slots.
    """
    variables = weights(model.head)
    if model.task is None:
        return variables, {}
    names = set(model.task.for_serving().head_signatures)
    unknown = names - set(model.task.head_signatures)
    if unknown:
        raise errors.InputError(
            f"`for_serving` of the task {model.task.name} has heads that the "
            f"task itself lacks: {', '.join(sorted(unknown))}."
        )
    served, only_trained = {}, {}
    for path, variable in variables.items():
        if path.split("/", 1)[0] in names:
            served[path] = variable
        else:
            only_trained[variable.path] = variable
    return served, only_trained


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(values)))
