"""Where Google's names and shapes meet ours, for BERT and for ALBERT."""

from collections.abc import Sequence

from bert_keras import errors
from bert_keras.formats import weight_mapping
from bert_keras.networks import bert
from bert_keras.tasks import (
    base,
    classification,
    masked_lm,
    question_answering,
)

WORDS = "bert/embeddings/word_embeddings"
SPAN = "cls/squad/"

# Parts of one block, ours -> theirs.
_BERT_BLOCK = {
    "attention/qkv": (
        "attention/self/query",
        "attention/self/key",
        "attention/self/value",
    ),
    "attention/out": ("attention/output/dense",),
    "attention_norm": ("attention/output/LayerNorm",),
    "feed_forward/inner": ("intermediate/dense",),
    "feed_forward/outer": ("output/dense",),
    "feed_forward_norm": ("output/LayerNorm",),
}
_ALBERT_BLOCK = {
    "attention/qkv": (
        "attention_1/self/query",
        "attention_1/self/key",
        "attention_1/self/value",
    ),
    "attention/out": ("attention_1/output/dense",),
    "attention_norm": ("LayerNorm",),
    "feed_forward/inner": ("ffn_1/intermediate/dense",),
    "feed_forward/outer": ("ffn_1/intermediate/output/dense",),
    "feed_forward_norm": ("LayerNorm_1",),
}

# Mappings, each with the shape of every tensor it is made of.
Mappings = dict[weight_mapping.WeightMapping, tuple[int, ...]]


def encoder(config: bert.BertConfig, *, albert: bool) -> Mappings:
    hidden, inner = config.hidden_size, config.intermediate_size
    width = config.embedding_width
    scope = "bert/embeddings"
    mappings: Mappings = {
        weight_mapping.WeightMapping(f"embeddings/{ours}", (theirs,)): (
            rows,
            width,
        )
        for ours, theirs, rows in (
            ("token", WORDS, config.vocab_size),
            ("segment", f"{scope}/token_type_embeddings", config.num_segments),
            (
                "position",
                f"{scope}/position_embeddings",
                config.max_position_embeddings,
            ),
        )
    }
    mappings |= _norm("embeddings/norm", [f"{scope}/LayerNorm"], width)
    mappings |= _dense("pooler", ["bert/pooler/dense"], hidden, hidden)
    if width != hidden:
        projection = "bert/encoder/embedding_hidden_mapping_in"
        mappings |= _dense("embeddings/project", [projection], width, hidden)
    sizes = {
        "attention/qkv": (hidden, hidden),
        "attention/out": (hidden, hidden),
        "feed_forward/inner": (hidden, inner),
        "feed_forward/outer": (inner, hidden),
    }
    for number in range(groups(config)):
        scope, block = f"bert/encoder/layer_{number}", _BERT_BLOCK
        if albert:
            scope = f"bert/encoder/transformer/group_{number}/inner_group_0"
            block = _ALBERT_BLOCK
        for layer, names in block.items():
            ours = f"block_{number}/{layer}"
            theirs = [f"{scope}/{name}" for name in names]
            if layer in sizes:
                mappings |= _dense(ours, theirs, *sizes[layer])
            else:
                mappings |= _norm(ours, theirs, hidden)
    return mappings


def head(task: base.Task | None, config: bert.BertConfig) -> Mappings:
    hidden, width = config.hidden_size, config.embedding_width
    if task is None:
        return {}
    if isinstance(task, masked_lm.MaskedLM):
        ours, theirs = "masked_lm", "cls/predictions"
        dense, norm = (
            f"{theirs}/transform/dense",
            f"{theirs}/transform/LayerNorm",
        )
        bias = weight_mapping.WeightMapping(
            f"{ours}/bias", (f"{theirs}/output_bias",)
        )
        mappings: Mappings = {bias: (config.vocab_size,)}
        mappings |= _dense(f"{ours}/transform", [dense], hidden, width)
        mappings |= _norm(f"{ours}/norm", [norm], width)
        if task.objective != "none":
            scope = "cls/seq_relationship/"
            mappings |= _scores("next_sentence/score", scope, 2, hidden)
        return mappings
    if isinstance(task, classification.Classification):
        return _scores("label/score", "", len(task.labels), hidden)
    if isinstance(task, question_answering.QuestionAnswering):
        return _scores("span/score", SPAN, 2, hidden)
    raise errors.InputError(
        f"Google's format has no place for the head of {task.name}; it has "
        "one for masked_lm, classification and question_answering each."
    )


def _dense(
    ours: str, theirs: Sequence[str], rows: int, columns: int
) -> Mappings:
    return _layer(ours, theirs, kernel=(rows, columns), bias=(columns,))


def _norm(ours: str, theirs: Sequence[str], width: int) -> Mappings:
    return _layer(ours, theirs, gamma=(width,), beta=(width,))


def _layer(
    ours: str, theirs: Sequence[str], **shapes: tuple[int, ...]
) -> Mappings:
    return {
        weight_mapping.WeightMapping(
            f"{ours}/{variable}", tuple(f"{name}/{variable}" for name in theirs)
        ): shape
        for variable, shape in shapes.items()
    }


def _scores(ours: str, scope: str, classes: int, hidden: int) -> Mappings:
    """Google multiplies by the transposed weights: theirs are (C, H)."""
    weights, bias = (f"{scope}output_weights",), (f"{scope}output_bias",)
    return {
        weight_mapping.WeightMapping(
            f"{ours}/kernel", weights, transposed=True
        ): (
            classes,
            hidden,
        ),
        weight_mapping.WeightMapping(f"{ours}/bias", bias): (classes,),
    }


def groups(config: bert.BertConfig) -> int:
    return config.num_hidden_groups or config.num_layers
