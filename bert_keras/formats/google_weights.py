"""Maps native variables to Google's tensors of known shape (BERT, ALBERT)."""

from collections.abc import Sequence

from bert_keras import errors
from bert_keras.formats import weight_mapping
from bert_keras.networks import bert
from bert_keras.tasks import (
    base,
    masked_lm,
    question_answering,
)

WORD_EMBEDDINGS = "bert/embeddings/word_embeddings"
SPAN_PREFIX = "cls/squad/"

# Layers of one block, native (target) -> Google's (sources).
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

# Mapping -> the shape of each of its source tensors; they are equal.
Mappings = dict[weight_mapping.WeightMapping, tuple[int, ...]]


def map_encoder(config: bert.BertConfig, *, albert: bool) -> Mappings:
    """Returns the mappings of the encoder's variables.

    albert: whether the tensors have ALBERT's names.
    """
    hidden_size, inner = config.hidden_size, config.intermediate_size
    width = config.embedding_width
    scope = "bert/embeddings"
    mappings: Mappings = {
        weight_mapping.WeightMapping(f"embeddings/{target}", (source,)): (
            rows,
            width,
        )
        for target, source, rows in (
            ("token", WORD_EMBEDDINGS, config.vocab_size),
            ("segment", f"{scope}/token_type_embeddings", config.num_segments),
            (
                "position",
                f"{scope}/position_embeddings",
                config.max_position_embeddings,
            ),
        )
    }
    mappings |= _norm("embeddings/norm", [f"{scope}/LayerNorm"], width)
    mappings |= _dense(
        "pooler", ["bert/pooler/dense"], hidden_size, hidden_size
    )
    if width != hidden_size:
        projection = "bert/encoder/embedding_hidden_mapping_in"
        mappings |= _dense(
            "embeddings/project", [projection], width, hidden_size
        )
    sizes = {
        "attention/qkv": (hidden_size, hidden_size),
        "attention/out": (hidden_size, hidden_size),
        "feed_forward/inner": (hidden_size, inner),
        "feed_forward/outer": (inner, hidden_size),
    }
    for index in range(num_blocks(config)):
        scope, block = f"bert/encoder/layer_{index}", _BERT_BLOCK
        if albert:
            scope = f"bert/encoder/transformer/group_{index}/inner_group_0"
            block = _ALBERT_BLOCK
        for layer, names in block.items():
            target = f"block_{index}/{layer}"
            sources = [f"{scope}/{name}" for name in names]
            if layer in sizes:
                mappings |= _dense(target, sources, *sizes[layer])
            else:
                mappings |= _norm(target, sources, hidden_size)
    return mappings


def map_head(task: base.Task | None, config: bert.BertConfig) -> Mappings:
    """Returns the mappings of the task's head; {} without a task.

    Raises InputError if Google's format cannot store the head.
    """
    hidden_size, width = config.hidden_size, config.embedding_width
    if task is None:
        return {}
    if isinstance(task, masked_lm.MaskedLM) and not task.sentence_classes:
        target, source = "masked_lm", "cls/predictions"
        dense, norm = (
            f"{source}/transform/dense",
            f"{source}/transform/LayerNorm",
        )
        bias = weight_mapping.WeightMapping(
            f"{target}/bias", (f"{source}/output_bias",)
        )
        mappings: Mappings = {bias: (config.vocab_size,)}
        mappings |= _dense(f"{target}/transform", [dense], hidden_size, width)
        mappings |= _norm(f"{target}/norm", [norm], width)
        if task.objective != "none":
            scope = "cls/seq_relationship/"
            mappings |= _output_layer(
                "next_sentence/score", scope, 2, hidden_size
            )
        return mappings
    if weight_mapping.is_classifier(task):
        return _output_layer("label/score", "", len(task.labels), hidden_size)
    if isinstance(task, question_answering.QuestionAnswering):
        return _output_layer("span/score", SPAN_PREFIX, 2, hidden_size)
    raise errors.InputError(
        "Google's format cannot store the head of "
        f"{weight_mapping.describe_head(task)}, only those of masked_lm "
        "with sentence_objective nsp, sop or none, question_answering, and "
        "classification with problem_type single_label and pooling first."
    )


def _dense(
    target: str, sources: Sequence[str], rows: int, columns: int
) -> Mappings:
    return _layer(target, sources, kernel=(rows, columns), bias=(columns,))


def _norm(target: str, sources: Sequence[str], width: int) -> Mappings:
    return _layer(target, sources, gamma=(width,), beta=(width,))


def _layer(
    target: str, sources: Sequence[str], **shapes: tuple[int, ...]
) -> Mappings:
    return {
        weight_mapping.WeightMapping(
            f"{target}/{variable}",
            tuple(f"{name}/{variable}" for name in sources),
        ): shape
        for variable, shape in shapes.items()
    }


def _output_layer(
    target: str, scope: str, classes: int, hidden_size: int
) -> Mappings:
    """Maps an output layer; Google stores its kernel transposed, (C, H)."""
    weights, bias = (f"{scope}output_weights",), (f"{scope}output_bias",)
    return {
        weight_mapping.WeightMapping(
            f"{target}/kernel", weights, transposed=True
        ): (
            classes,
            hidden_size,
        ),
        weight_mapping.WeightMapping(f"{target}/bias", bias): (classes,),
    }


def num_blocks(config: bert.BertConfig) -> int:
    """Returns the number of blocks that have their own weights.

    These are ALBERT's groups; in BERT, every layer.
    """
    return config.num_hidden_groups or config.num_layers
