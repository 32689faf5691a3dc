"""Next sentence, asked: whether a second text follows the first."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors
from bert_keras import heads as heads_lib
from bert_keras.data import labelled_files, labels, packing
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

HEAD = "next_sentence"
_parse = functools.partial(
    labels.parse_binary, meaning="the second text follows"
)


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class NextSentence(base.Task):
    """Asks a pretrained model what its second objective has taught it.

    The probability that `text_pair` follows `text` (objective nsp: Devlin et
    al. 2019, section 3.1) or, of two consecutive parts, that they are in this
    order (sop: Lan et al. 2020, section 3.1). It has no training of its own:
    the head is that of a checkpoint pretrained on pairs of sentences.

    >>> task = bert_keras.tasks.NextSentence()
    >>> model = bert_keras.load("runs/base", task=task)
    >>> model.predict([("It rained.", "The streets were wet.")])
    [{'follows': ..., 'score': 0..., 'truncated': False}]
    """

    pipeline_tag = "text-classification"
    text_columns = ("text", "text_pair")
    metric_names = ("accuracy",)

    objective: str = "nsp"  # nsp or sop: set by `for_checkpoint`

    @property
    def head_signatures(self) -> dict[str, Any]:
        return {HEAD: self.objective}

    def for_checkpoint(self, trained: base.Task | None) -> base.Task:
        objective = trained and trained.unwrapped.head_signatures.get(HEAD)
        if not objective:
            raise errors.InputError(
                "next_sentence expects a checkpoint that was pretrained on "
                "pairs of sentences (`sentence_objective` nsp or sop), "
                f"found one of {trained.name if trained else 'no task'}.",
                argument="task",
            )
        return self.with_settings(objective=objective)

    def read_examples(self, path: str) -> Iterator[base.Example]:
        """Yields pairs with a label: 1 or true if the second one follows."""
        return labelled_files.read(
            path, needed=(*self.text_columns, "label"), label=_parse
        )

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        return packing.pack(
            [tokenizer(raw[name]) for name in self.text_columns],
            tokenizer.frame,
            seq_length=self.seq_length,
        )

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        raise errors.InputError(
            "next_sentence asks a pretrained model and is not trained; train "
            "pairs of texts with task=classification.",
            argument="task",
        )

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        return {HEAD: heads_lib.NextSentenceHead(config)}

    def positions_read(self, features: base.Tensors) -> tf.Tensor | None:
        return heads_lib.positions_pooled("first", features["padding_mask"])

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        """Returns {"next_sentence": (B, 2)} float32 logits; class 0 follows."""
        return {HEAD: heads[HEAD](encoded["pooled"])}

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        return {"score": tf.nn.softmax(outputs[HEAD])[:, 0]}

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns {"follows" (T,) bool, "score" (T,)}: its probability."""
        del features, raw, tokenizer
        return {"follows": decoded["score"] > 0.5, "score": decoded["score"]}

    def metrics(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, float]:
        answers = [answer["follows"] for answer in predictions]
        gold = [_parse(example["label"]) == "1" for example in examples]
        return {"accuracy": float(np.mean(np.equal(answers, gold)))}

    def baselines(self, examples: Sequence[base.Example]) -> dict[str, float]:
        share = float(np.mean([_parse(e["label"]) == "1" for e in examples]))
        return {"accuracy of one answer for all": max(share, 1 - share)}
