"""Next sentence, asked: which class of a sentence objective a pair has."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
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
_parse_binary = functools.partial(
    labels.parse_binary, meaning="the second text follows"
)


def signature(objective: str, classes: Sequence[str]) -> Any:
    """Returns the meaning of the head's outputs: what a checkpoint stores."""
    return [objective, *classes] if classes else objective


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class NextSentence(base.Task):
    """Asks a pretrained model what its second objective has taught it.

    The probability that `text_pair` follows `text` (objective nsp: Devlin et
    al. 2019, section 3.1) or, of two consecutive parts, that they are in this
    order (sop: Lan et al. 2020, section 3.1). For other objectives the answer
    is one of their classes. It has no training of its own: the head is that of
    a checkpoint pretrained on pairs of sentences.

    >>> task = bert_keras.tasks.NextSentence()
    >>> model = bert_keras.load("runs/base", task=task)
    >>> model.predict([("It rained.", "The streets were wet.")])
    [{'follows': ..., 'score': 0..., 'truncated': False}]
    """

    pipeline_tag = "text-classification"
    text_columns = ("text", "text_pair")
    metric_names = ("accuracy",)

    # Set by `for_checkpoint`.
    objective: str = "nsp"
    sentence_classes: tuple[str, ...] = ()  # () for nsp and sop

    @property
    def head_signatures(self) -> dict[str, Any]:
        return {HEAD: signature(self.objective, self.sentence_classes)}

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.sentence_classes

    @property
    def _parse(self) -> Callable[[Any], str]:
        """Parses a label of the labelled files."""
        if not self.sentence_classes:
            return _parse_binary
        return functools.partial(_parse_class, classes=self.sentence_classes)

    def for_checkpoint(self, trained: base.Task | None) -> base.Task:
        found = trained and trained.unwrapped.head_signatures.get(HEAD)
        if not found:
            raise errors.InputError(
                "next_sentence expects a checkpoint that was pretrained on "
                "pairs of sentences (`sentence_objective` other than none), "
                f"found one of {trained.name if trained else 'no task'}.",
                argument="task",
            )
        objective, *classes = [found] if isinstance(found, str) else found
        return self.with_settings(
            objective=objective, sentence_classes=tuple(classes)
        )

    def to_dict(self) -> dict[str, Any]:
        # Leave the default out, as of checkpoints that are older than it.
        values = super().to_dict()
        if not self.sentence_classes:
            del values["sentence_classes"]
        return values

    def read_examples(self, path: str) -> Iterator[base.Example]:
        """Yields pairs with a label: 1 or true if the second one follows.

        If `sentence_classes` are set, it is one of these.
        """
        return labelled_files.read(
            path, needed=(*self.text_columns, "label"), label=self._parse
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
        num_classes = len(self.sentence_classes) or 2
        return {HEAD: heads_lib.NextSentenceHead(config, num_classes)}

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
        """Returns {"next_sentence": (B, C)} float32 logits; of 2, 0 follows."""
        return {HEAD: heads[HEAD](encoded["pooled"])}

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        scores = tf.nn.softmax(outputs[HEAD])
        if self.sentence_classes:
            return {"scores": scores}
        return {"score": scores[:, 0]}

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns {"follows" (T,) bool, "score" (T,)}: its probability.

        If `sentence_classes` are set, {"label" (T,) string, "score" (T,),
        "scores" (T, C)}, the label's score and those of all classes.
        """
        del features, raw, tokenizer
        if not self.sentence_classes:
            score = decoded["score"]
            return {"follows": score > 0.5, "score": score}
        scores = decoded["scores"]
        best = tf.argmax(scores, axis=-1, output_type=tf.int32)
        return {
            "label": tf.gather(tf.constant(self.sentence_classes), best),
            "score": tf.reduce_max(scores, axis=-1),
            "scores": scores,
        }

    def _labels(self, examples: Sequence[base.Example]) -> list[str]:
        return [self._parse(example["label"]) for example in examples]

    def metrics(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, float]:
        answers = [
            answer["label"]
            if self.sentence_classes
            else str(int(answer["follows"]))
            for answer in predictions
        ]
        correct = np.equal(answers, self._labels(examples))
        return {"accuracy": float(np.mean(correct))}

    def baselines(self, examples: Sequence[base.Example]) -> dict[str, float]:
        _, counts = np.unique(self._labels(examples), return_counts=True)
        share = float(counts.max() / counts.sum())
        return {"accuracy of one answer for all": share}


def _parse_class(value: Any, classes: Sequence[str]) -> str:
    """Parses the label of one class, which must be among `classes`."""
    label = labels.parse_label(value)
    if label not in classes:
        raise ValueError(f"expected one of {', '.join(classes)}, found {label}")
    return label
