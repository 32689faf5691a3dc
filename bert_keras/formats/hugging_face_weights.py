"""The tensors of a Hugging Face BERT: their names, shapes and files.

Names are those of a BertModel: without `bert.`, and with LayerNorm.weight and
LayerNorm.bias, which old files call gamma and beta.
"""

import os
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import safetensors
import tensorflow as tf

from bert_keras import errors, files
from bert_keras.formats import weight_mapping
from bert_keras.networks import bert
from bert_keras.tasks import base
from bert_keras.tasks.classification import Classification
from bert_keras.tasks.masked_lm import MaskedLM
from bert_keras.tasks.tagging import Tagging

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

# Mappings, each with the shape that its source tensors share.
Mappings = dict[weight_mapping.WeightMapping, tuple[int, ...]]

WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
PROJECTION = "encoder.embedding_hidden_mapping_in"  # of ALBERT alone
PREDICTION_PREFIX = "cls.predictions."
RELATION_PREFIX = "cls.seq_relationship."
CLASSIFIER_PREFIX = "classifier."
SPAN_PREFIX = "qa_outputs."

# Constants 0, 1, 2, ... and zeros, which older versions saved.
BUFFERS = r"^embeddings\.(position|token_type)_ids$"

# Tensors tied to another one: a file may have both, or only the first name.
COPIES = {
    f"{PREDICTION_PREFIX}decoder.weight": WORD_EMBEDDINGS,
    f"{PREDICTION_PREFIX}decoder.bias": f"{PREDICTION_PREFIX}bias",
}

# Prefixes that torch's DataParallel, torch.compile and Lightning add to names.
WRAPPERS = ("module.", "_orig_mod.", "model.")

FLOATS = ("F64", "F32", "F16", "BF16")


def map_encoder(config: bert.BertConfig) -> Mappings:
    width, inner = config.hidden_size, config.intermediate_size
    narrow = config.embedding_width
    mappings = {
        weight_mapping.WeightMapping(
            f"embeddings/{target}", (f"embeddings.{source}.weight",)
        ): (
            rows,
            narrow,
        )
        for target, source, rows in (
            ("token", "word_embeddings", config.vocab_size),
            ("segment", "token_type_embeddings", config.num_segments),
            ("position", "position_embeddings", config.max_position_embeddings),
            ("task_type", "task_type_embeddings", config.num_task_types),
        )
        if rows  # only ERNIE has task types
    } | _norm("embeddings/norm", "embeddings.LayerNorm", narrow)
    if narrow != width:
        mappings |= _dense("embeddings/project", (narrow, width), PROJECTION)
    for layer in range(config.num_hidden_groups or config.num_layers):
        target, source = f"block_{layer}", f"encoder.layer.{layer}"
        attention = f"{source}.attention"
        qkv = [f"{attention}.self.{n}" for n in ("query", "key", "value")]
        mappings |= {
            **_dense(f"{target}/attention/qkv", (width, width), *qkv),
            **_dense(
                f"{target}/attention/out",
                (width, width),
                f"{attention}.output.dense",
            ),
            **_norm(
                f"{target}/attention_norm",
                f"{attention}.output.LayerNorm",
                width,
            ),
            **_dense(
                f"{target}/feed_forward/inner",
                (width, inner),
                f"{source}.intermediate.dense",
            ),
            **_dense(
                f"{target}/feed_forward/outer",
                (inner, width),
                f"{source}.output.dense",
            ),
            **_norm(
                f"{target}/feed_forward_norm",
                f"{source}.output.LayerNorm",
                width,
            ),
        }
    return mappings | _dense("pooler", (width, width), "pooler.dense")


def map_masked_lm(config: bert.BertConfig, task: MaskedLM) -> Mappings:
    """Maps the heads of MaskedLM; next_sentence only if the task has it."""
    width, target = config.hidden_size, "masked_lm"
    narrow = config.embedding_width
    bias = weight_mapping.WeightMapping(
        f"{target}/bias", (f"{PREDICTION_PREFIX}bias",)
    )
    transform = f"{PREDICTION_PREFIX}transform"
    mappings = {
        **_dense(f"{target}/transform", (width, narrow), f"{transform}.dense"),
        **_norm(f"{target}/norm", f"{transform}.LayerNorm", narrow),
        bias: (config.vocab_size,),
    }
    if task.objective == "none":
        return mappings
    return mappings | _dense(
        "next_sentence/score", (width, 2), RELATION_PREFIX.removesuffix(".")
    )


def map_classification(
    config: bert.BertConfig, task: Classification
) -> Mappings:
    shape = (config.hidden_size, len(task.labels))
    return _dense("label/score", shape, CLASSIFIER_PREFIX.removesuffix("."))


def map_multiple_choice(config: bert.BertConfig, task: base.Task) -> Mappings:
    del task
    return _dense(
        "choice/score",
        (config.hidden_size, 1),
        CLASSIFIER_PREFIX.removesuffix("."),
    )


def map_tagging(config: bert.BertConfig, task: Tagging) -> Mappings:
    shape = (config.hidden_size, len(task.labels))
    return _dense("tag/score", shape, CLASSIFIER_PREFIX.removesuffix("."))


def map_question_answering(
    config: bert.BertConfig, task: base.Task
) -> Mappings:
    del task
    return _dense(
        "span/score", (config.hidden_size, 2), SPAN_PREFIX.removesuffix(".")
    )


def is_head(name: str) -> bool:
    """Returns whether a tensor, by its name in BERT, is of a head."""
    return name.startswith(
        (PREDICTION_PREFIX, RELATION_PREFIX, CLASSIFIER_PREFIX, SPAN_PREFIX)
    )


class Tensors:
    """The tensors of a folder, by name.

    All files are opened at once, values are read lazily.
    """

    def __init__(
        self,
        folder: str,
        *,
        prefix: str = "bert.",
        copies: Mapping[str, str] = types.MappingProxyType(COPIES),
    ):
        """Opens the files.

        prefix: what a model with a head has before the names of its encoder.
        copies: {a tensor: the one that it is tied to}.
        """
        self.folder = folder
        self.prefix = prefix
        # name: (open file, name in that file)
        self._tensors: dict[str, tuple[Any, str]] = {}
        tensors = []
        for path in self._files():
            try:
                file = safetensors.safe_open(path, framework="numpy")
            except (safetensors.SafetensorError, OSError) as error:
                raise errors.InputError(
                    f"{path} is damaged or truncated ({error}); copy it again."
                ) from None
            tensors += [(name, file) for name in file.keys()]
        wrapper = _common_prefix([name for name, _ in tensors])
        if wrapper:
            weight_mapping.warn(
                f"{folder}: every tensor's name begins with {wrapper}, which "
                "wrappers of the training program add; it is removed."
            )
        for name, file in tensors:
            self._add(name, file, name.removeprefix(wrapper))
        self._drop_copies(copies)

    @property
    def names(self) -> set[str]:
        return set(self._tensors)

    def read(self, name: str) -> np.ndarray:
        file, stored_name = self._tensors[name]
        # bfloat16 arrays need ml_dtypes, which TensorFlow installs.
        return file.get_tensor(stored_name)

    def check(
        self, mappings: Iterable[weight_mapping.WeightMapping], shapes: Mappings
    ) -> None:
        """Raises InputError if a tensor's shape or dtype does not fit."""
        for mapping in mappings:
            for name in mapping.source_names:
                file, stored_name = self._tensors[name]
                tensor = file.get_slice(stored_name)
                shape, dtype = tuple(tensor.get_shape()), tensor.get_dtype()
                if shape != shapes[mapping] or dtype not in FLOATS:
                    raise errors.InputError(
                        f"{self.folder}: {stored_name} is {dtype} {shape}; "
                        f"expected {shapes[mapping]}, from config.json, in one "
                        f"of {', '.join(FLOATS)}."
                    )

    def _files(self) -> Iterable[str]:
        whole = os.path.join(self.folder, WEIGHTS)
        if tf.io.gfile.exists(whole):
            return [files.fetch(whole)]
        path = os.path.join(self.folder, INDEX)
        shards = files.read_json(path).get("weight_map")
        if not isinstance(shards, dict):
            raise errors.InputError(f"{path}: expected a weight_map.")
        names = weight_mapping.check_shards(path, shards.values())
        missing = [
            name
            for name in names
            if not tf.io.gfile.exists(os.path.join(self.folder, name))
        ]
        if missing:
            raise errors.InputError(
                f"{self.folder} lacks {', '.join(missing)} of the "
                f"{len(names)} files in {INDEX}; copy the folder again."
            )
        return [files.fetch(os.path.join(self.folder, name)) for name in names]

    def rows(self, name: str) -> int:
        """Returns the first dimension of a tensor, or 0 if it is absent."""
        if name not in self._tensors:
            return 0
        file, stored_name = self._tensors[name]
        return (*file.get_slice(stored_name).get_shape(), 0)[0]

    def _add(self, stored_name: str, file: Any, name: str) -> None:
        name = name.removeprefix(self.prefix)
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
        if name in self._tensors:
            raise errors.InputError(
                f"{self.folder} has {name} twice: as {stored_name} and as "
                f"{self._tensors[name][1]}."
            )
        self._tensors[name] = (file, stored_name)

    def _drop_copies(self, copies: Mapping[str, str]) -> None:
        for copy, name in copies.items():
            if copy not in self._tensors:
                continue
            if name in self._tensors and not np.array_equal(
                self.read(copy), self.read(name)
            ):
                raise errors.InputError(
                    f"{self.folder}: {copy} and {name} differ; here they "
                    "are one variable."
                )
            self._tensors.setdefault(name, self._tensors[copy])
            del self._tensors[copy]


def _common_prefix(names: list[str]) -> str:
    """Returns the prefix of wrappers that all names have, or ""."""
    prefix = ""
    while names:
        for wrapper in WRAPPERS:
            if all(name.startswith(f"{prefix}{wrapper}") for name in names):
                prefix += wrapper
                break
        else:
            break
    return prefix


def _dense(target: str, shape: tuple[int, int], *sources: str) -> Mappings:
    """Maps a dense layer of shape (in, out); PyTorch stores (out, in)."""
    kernels = tuple(f"{name}.weight" for name in sources)
    biases = tuple(f"{name}.bias" for name in sources)
    return {
        weight_mapping.WeightMapping(
            f"{target}/kernel", kernels, transposed=True
        ): shape[::-1],
        weight_mapping.WeightMapping(f"{target}/bias", biases): shape[1:],
    }


def _norm(target: str, source: str, width: int) -> Mappings:
    return {
        weight_mapping.WeightMapping(
            f"{target}/gamma", (f"{source}.weight",)
        ): (width,),
        weight_mapping.WeightMapping(f"{target}/beta", (f"{source}.bias",)): (
            width,
        ),
    }
