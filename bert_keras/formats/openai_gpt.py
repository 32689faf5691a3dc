"""Reads and writes Hugging Face folders of the first GPT.

    config.json              "model_type": "openai-gpt"
    model.safetensors        or model.safetensors.index.json and its shards
    vocab.json, merges.txt   or tokenizer.json; or a BERT's vocab.txt

The network is a BERT with the values of `bert.GPT`. Hugging Face's has neither
segments nor a pooler: the row of the segment table is 0, and when writing it is
added to the positions. Its language-model head is the token table.
`hugging_face` calls the functions of this module.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
import tensorflow as tf

from bert_keras import checkpoint, errors, files
from bert_keras import model as model_lib
from bert_keras.formats import hugging_face_tokenizer as wordpieces
from bert_keras.formats import hugging_face_weights as weights
from bert_keras.formats import weight_mapping
from bert_keras.networks import bert
from bert_keras.tasks import base, causal_lm
from bert_keras.tokenizers import base as tokenizer_lib
from bert_keras.tokenizers import bpe, wordpiece

MODEL_TYPE = "openai-gpt"
CONFIG, TASK = "config.json", "bert_keras"
LANGUAGE_MODEL, ENCODER = "OpenAIGPTLMHeadModel", "OpenAIGPTModel"
TOKENIZER = "OpenAIGPTTokenizer"

# Hugging Face's field -> BertConfig's.
FIELDS = {
    "vocab_size": "vocab_size",
    "n_embd": "hidden_size",
    "n_layer": "num_layers",
    "n_head": "num_heads",
    "n_positions": "max_position_embeddings",
    "resid_pdrop": "dropout",
    "attn_pdrop": "attention_dropout",
    "initializer_range": "initializer_range",
    "layer_norm_epsilon": "layer_norm_epsilon",
}
SIZES = tuple(FIELDS)[:5]
RATES = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
POSITIVE = ("initializer_range", "layer_norm_epsilon")
# Hugging Face's default, where config.json lacks a field.
DEFAULTS = {
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-5,
}
# Hugging Face's "gelu" is the tanh formula, in this model alone.
ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu"}

TOKENS, POSITIONS, SEGMENTS = (
    f"embeddings/{name}" for name in ("token", "position", "segment")
)
_SOURCES = {TOKENS: "tokens_embed.weight", POSITIONS: "positions_embed.weight"}
_LM_HEAD = "lm_head.weight"
# Constants that are not weights: the causal mask and the positions.
_BUFFERS = r"^(h\.\d+\.attn\.bias|position_ids)$"
# Heads that no task here has.
_OTHER_HEADS = ("score.", "multiple_choice_head.")


@dataclasses.dataclass(frozen=True)
class OpenAIGPT(weight_mapping.ExternalCheckpoint):
    """A Hugging Face folder of GPT."""

    def as_stored(
        self, values: Mapping[str, np.ndarray]
    ) -> Mapping[str, np.ndarray]:
        return _joined(values)

    def encoder_values(self) -> Mapping[str, np.ndarray]:
        segment = np.zeros((1, self.config.hidden_size), np.float32)
        return {**super().encoder_values(), SEGMENTS: segment}


def is_gpt(values: Mapping[str, Any]) -> bool:
    """Returns whether a config.json is that of GPT."""
    return values.get("model_type") == MODEL_TYPE


def writes(network: bert.BertConfig, task: base.Task | None) -> bool:
    """Returns whether a model is written as GPT and not as BERT."""
    return isinstance(task, causal_lm.CausalLM) or (
        task is None and network.causal and not network.embedding_norm
    )


def read(
    path: str, *, lowercase: bool | None = None, allow_missing: str = ""
) -> OpenAIGPT:
    """Reads a folder and checks all names and shapes; weights load lazily."""
    values = files.read_json(os.path.join(path, CONFIG))
    config = _config(path, values)
    tensors = weights.Tensors(
        path,
        prefix="transformer.",
        copies={_LM_HEAD: _SOURCES[TOKENS]},
    )
    mappings = _mappings(config)
    matches = weight_mapping.match(
        mappings,
        tensors.names,
        folder=path,
        ignored="|".join([_BUFFERS, *(f"^{name}" for name in _OTHER_HEADS)]),
        allow_missing=allow_missing,
    )
    tensors.check(matches, mappings)
    tokenizer = _read_tokenizer(path, config.vocab_size, lowercase, values)
    other = [name for name in tensors.names if name.startswith(_OTHER_HEADS)]
    named = weight_mapping.field(values, "architectures", list, path) or []
    has_head = not other and named != [ENCODER]
    return OpenAIGPT.from_matches(
        path,
        matches=matches,
        encoder=mappings,
        config=config,
        task=_task(config, values, tokenizer) if has_head else None,
        words=tokenizer,
        tensor=tensors.read,
        allow_missing=allow_missing,
        unsupported_head_reason=f"no task here has the head of {other[0]}"
        if other
        else "",
    )


def write(
    folder: str,
    model: model_lib.BertModel | bert.BertEncoder,
    tokenizer: tokenizer_lib.Tokenizer,
) -> None:
    """Writes a folder that `from_pretrained` of transformers loads.

    A causal language model becomes an OpenAIGPTLMHeadModel, an encoder alone an
    OpenAIGPTModel.
    """
    task = getattr(model, "task", None)
    encoder = getattr(model, "encoder", model)
    config = weight_mapping.config_of_bert(encoder)
    values = _to_values(config, task)
    native = _joined(checkpoint.weight_values(encoder))
    tensors = weight_mapping.to_external(_mappings(config), native)
    if task:
        tensors = {f"transformer.{name}": x for name, x in tensors.items()}
    weight_mapping.write_files(
        folder,
        {
            weights.WEIGHTS: lambda path: safetensors.numpy.save_file(
                tensors, path, metadata={"format": "pt"}
            ),
            **_tokenizer_writers(
                tokenizer, longest=config.max_position_embeddings
            ),
            CONFIG: lambda path: files.write_json(path, values),
        },
    )


def _joined(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds the one row of the segment table to the positions."""
    segment = values[SEGMENTS]
    return {
        **values,
        POSITIONS: values[POSITIONS] + segment,
        SEGMENTS: np.zeros_like(segment),
    }


def _config(folder: str, values: Mapping[str, Any]) -> bert.BertConfig:
    path = os.path.join(folder, CONFIG)
    values = {**DEFAULTS, **values}
    weight_mapping.check_numbers(
        path, values, sizes=SIZES, rates=RATES, positive=POSITIVE
    )
    activation = values.get("afn", "gelu")
    if activation not in ACTIVATIONS:
        raise errors.InputError(
            f"{path}: expected afn to be one of {', '.join(ACTIVATIONS)}; "
            f"found {weight_mapping.shown(activation)}."
        )
    if values["embd_pdrop"] != values["resid_pdrop"]:
        weight_mapping.warn(
            f"{path}: embd_pdrop is {values['embd_pdrop']}; here the dropout "
            f"rate of the embeddings is that of resid_pdrop, "
            f"{values['resid_pdrop']}. It only affects training."
        )
    fields = {field: values[key] for key, field in FIELDS.items()}
    gpt = bert.GPT | {"activation": ACTIVATIONS[activation]}
    try:
        return bert.BertConfig(
            **gpt | fields | {"intermediate_size": 4 * values["n_embd"]}
        )
    except errors.InputError as error:
        raise errors.InputError(f"{path}: {error}") from None


def _to_values(
    config: bert.BertConfig, task: base.Task | None
) -> dict[str, Any]:
    """Returns the values of config.json.

    Raises InputError if a Hugging Face GPT cannot be such a network.
    """
    required = {
        "causal": (True,),
        "embedding_norm": (False,),
        "norm_first": (False,),
        "num_segments": (1,),
        "num_hidden_groups": (None, config.num_layers),
        "embedding_size": (None, config.hidden_size),
        "position": ("learned",),
        "token_rank": (None,),
        "embedding_sum": (True,),
        "residual": (True,),
        "shared_query_key": (False,),
        "shared_sublayers": ("all",),
        "num_task_types": (0,),
        "activation": tuple(ACTIVATIONS.values()),
        "intermediate_size": (4 * config.hidden_size,),
    }
    for name, supported in required.items():
        value = getattr(config, name)
        if value not in supported:
            raise errors.InputError(
                f"a Hugging Face GPT has {name} {supported[-1]}, and this "
                f"network {value}; it can be written in bert_keras' own "
                "format."
            )
    values = {
        "architectures": [LANGUAGE_MODEL if task else ENCODER],
        "model_type": MODEL_TYPE,
        "afn": next(
            k for k, v in ACTIVATIONS.items() if v == config.activation
        ),
        **{key: getattr(config, field) for key, field in FIELDS.items()},
        "embd_pdrop": config.dropout,
        "torch_dtype": "float32",
    }
    if task:
        values[TASK] = task.to_dict()
        values["eos_token_id"] = getattr(task, "end_id", None)
    return values


def _task(
    config: bert.BertConfig,
    values: Mapping[str, Any],
    tokenizer: tokenizer_lib.Tokenizer,
) -> base.Task:
    task: base.Task = causal_lm.CausalLM(
        seq_length=config.max_position_embeddings
    )
    settings = values.get(TASK)
    if isinstance(settings, dict) and settings.get("name") == task.name:
        task = task.from_config(
            {k: v for k, v in settings.items() if k != "name"}
        )
    task = task.adapt([], tokenizer)
    end_id = values.get("eos_token_id")
    if type(end_id) is int and 0 <= end_id < config.vocab_size:
        task = task.with_settings(end_id=end_id)
    return task.with_settings(vocab_size=config.vocab_size)


def _mappings(config: bert.BertConfig) -> weights.Mappings:
    width, inner = config.hidden_size, config.intermediate_size
    rows = {
        TOKENS: config.vocab_size,
        POSITIONS: config.max_position_embeddings,
    }
    mappings: weights.Mappings = {
        weight_mapping.WeightMapping(name, (source,)): (rows[name], width)
        for name, source in _SOURCES.items()
    }
    for layer in range(config.num_layers):
        block, source = f"block_{layer}", f"h.{layer}"
        # Conv1D stores (in, out), as Keras does, and queries, keys and values
        # in this order.
        for target, name, shape in (
            ("attention/qkv", "attn.c_attn", (width, 3 * width)),
            ("attention/out", "attn.c_proj", (width, width)),
            ("feed_forward/inner", "mlp.c_fc", (width, inner)),
            ("feed_forward/outer", "mlp.c_proj", (inner, width)),
        ):
            mappings[
                weight_mapping.WeightMapping(
                    f"{block}/{target}/kernel", (f"{source}.{name}.weight",)
                )
            ] = shape
            mappings[
                weight_mapping.WeightMapping(
                    f"{block}/{target}/bias", (f"{source}.{name}.bias",)
                )
            ] = shape[1:]
        for target, name in (
            ("attention_norm", "ln_1"),
            ("feed_forward_norm", "ln_2"),
        ):
            for own, external in (("gamma", "weight"), ("beta", "bias")):
                mappings[
                    weight_mapping.WeightMapping(
                        f"{block}/{target}/{own}",
                        (f"{source}.{name}.{external}",),
                    )
                ] = (width,)
    return mappings


def _read_tokenizer(
    folder: str,
    rows: int,
    lowercase: bool | None,
    config: Mapping[str, Any],
) -> tokenizer_lib.Tokenizer:
    """Reads byte pairs, or BERT's WordPiece where there is a vocab.txt."""

    def has(name):
        return tf.io.gfile.exists(os.path.join(folder, name))

    if has(wordpieces.VOCABULARY):
        return wordpieces.read(
            folder, rows=rows, lowercase=lowercase, config=config
        )
    name = ""
    if has(wordpieces.SETTINGS):
        path = os.path.join(folder, wordpieces.SETTINGS)
        settings = files.read_json(path)
        name = weight_mapping.field(settings, "tokenizer_class", str, path)
    if (name or TOKENIZER).removesuffix("Fast") not in (
        TOKENIZER,
        *wordpieces.DESCRIBED,
    ):
        raise errors.InputError(
            f"{folder}: its tokenizer is a {name}; expected {TOKENIZER}."
        )
    # What the published tokenizer does, unless told otherwise.
    lowercase = lowercase is not False
    if has(bpe.VOCABULARY):
        tokenizer = bpe.BytePairTokenizer.from_vocab(
            folder, lowercase=lowercase
        )
    else:
        tokenizer = _from_fast(folder, lowercase)
    if tokenizer.vocab_size > rows:
        raise errors.InputError(
            f"{folder}: the vocabulary has {tokenizer.vocab_size:,} entries, "
            f"and the embedding table {rows:,} rows; are both of one model?"
        )
    unused = [f"[unused_row{row}]" for row in range(tokenizer.vocab_size, rows)]
    if unused:
        weight_mapping.warn(
            f"{folder}: the embedding table has {rows:,} rows and the "
            f"vocabulary {tokenizer.vocab_size:,} entries; the others are "
            f"kept as {unused[0]} and so on, which no text is split into."
        )
    return bpe.BytePairTokenizer(
        (*tokenizer.vocabulary, *unused), tokenizer.merges, lowercase=lowercase
    )


def _from_fast(folder: str, lowercase: bool) -> bpe.BytePairTokenizer:
    """Reads the byte pairs in tokenizer.json."""
    path = os.path.join(folder, wordpieces.FAST)
    if not tf.io.gfile.exists(path):
        raise errors.InputError(
            f"{folder}: expected {bpe.VOCABULARY} and {bpe.MERGES}, or "
            f"{wordpieces.FAST}; found neither."
        )
    model = weight_mapping.field(files.read_json(path), "model", dict, path)
    model = model or {}
    vocabulary = weight_mapping.field(model, "vocab", dict, path) or {}
    merges = weight_mapping.field(model, "merges", list, path) or []
    pairs = [
        tuple(pair.split(" ") if isinstance(pair, str) else pair)
        for pair in merges
        if isinstance(pair, (str, list))
    ]
    ids = sorted(v for v in vocabulary.values() if type(v) is int)
    if (
        model.get("type") != "BPE"
        or model.get("end_of_word_suffix") != bpe.END_OF_WORD
        or ids != list(range(len(vocabulary)))
        or any(
            len(pair) != 2 or not all(isinstance(t, str) for t in pair)
            for pair in pairs
        )
    ):
        raise errors.InputError(
            f"{path}: expected a model of the type BPE with the "
            f"end_of_word_suffix {bpe.END_OF_WORD}, ids from 0 and merges of "
            "two tokens."
        )
    by_id = {index: token for token, index in vocabulary.items()}
    return bpe.BytePairTokenizer(
        [by_id[index] for index in ids], pairs, lowercase=lowercase
    )


def _tokenizer_writers(
    tokenizer: tokenizer_lib.Tokenizer, *, longest: int
) -> dict[str, Any]:
    """Returns {file name: function that writes it}."""
    if isinstance(tokenizer, bpe.BytePairTokenizer):
        settings: dict[str, Any] = {
            "tokenizer_class": TOKENIZER,
            "unk_token": bpe.UNK,
            "do_lower_case": tokenizer.lowercase,
            "model_max_length": longest,
        }
        return {
            bpe.VOCABULARY: tokenizer.save_vocabulary,
            bpe.MERGES: tokenizer.save_merges,
            wordpieces.SETTINGS: lambda path: files.write_json(path, settings),
        }
    words = wordpiece.require(tokenizer, "Hugging Face's GPT")
    settings = wordpieces.settings_of(words, longest=longest)
    return {
        wordpieces.VOCABULARY: words.save_vocabulary,
        wordpieces.SETTINGS: lambda path: files.write_json(path, settings),
    }
