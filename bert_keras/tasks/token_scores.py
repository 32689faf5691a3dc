"""How probable a masked language model finds each token of a text."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from bert_keras import errors
from bert_keras import heads as heads_lib
from bert_keras.data import masking, packing
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

HEAD = "masked_lm"


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class TokenScores(base.Task):
    """Asks a masked language model about every token of a text.

    By default each token is masked in turn, so a text of n tokens becomes n
    rows; "score" is the sum of the log-probabilities of the right tokens, the
    pseudo-log-likelihood of the text (Salazar et al. 2020, equation 2). With
    `masked` false the text is read once as it is, as a tenth of the chosen
    tokens is in pretraining (Devlin et al. 2019, section 3.1): an improbable
    token may be a wrong word, and `top_k` has what the model expects there.

    It has no training of its own: the head is that of a pretrained checkpoint.

    >>> model = bert_keras.load("runs/base", task="token_scores")
    >>> (answer,) = model.predict(["a fine film"])
    >>> answer["token"], len(answer["log_prob"])
    (['a', 'fine', 'film'], 3)
    """

    list_padding = {"token": "", "log_prob": 0.0}

    masked: bool = True
    top_k: int | None = None
    # Set by `for_checkpoint`.
    vocab_size: int = 0
    mask_id: int = 0

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise errors.InputError(
                f"top_k={self.top_k}: expected 1 or more.", argument="top_k"
            )

    @property
    def head_signatures(self) -> dict[str, Any]:
        return {HEAD: self.vocab_size}

    def for_checkpoint(self, trained: base.Task | None) -> base.Task:
        inner: Any = trained and trained.unwrapped
        if not inner or HEAD not in inner.head_signatures:
            raise errors.InputError(
                "token_scores expects a checkpoint of a masked language "
                f"model, found one of {inner.name if inner else 'no task'}.",
                argument="task",
            )
        return self.with_settings(
            vocab_size=inner.vocab_size, mask_id=inner.mask_id
        )

    def read_examples(self, path: str) -> Iterator[base.Example]:
        raise errors.InputError(
            "token_scores has no labelled rows: it asks a pretrained model "
            f"about texts, and {path} is to be read by predict.",
            argument="task",
        )

    def for_device(self) -> base.Task:
        if self.masked:
            raise errors.InputError(
                "masked=true: a TFLite file reads one row of token ids, and "
                "token_scores masks each token in a row of its own; export a "
                "SavedModel.",
                argument="masked",
            )
        return self

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        rows = packing.pack(
            [tokenizer(raw["text"])],
            tokenizer.frame,
            seq_length=self.seq_length,
        )
        if not self.masked:
            return rows
        # One row for each token, and one for a text without any.
        start, end = len(tokenizer.frame.start), len(tokenizer.frame.end)
        size = tf.reduce_sum(rows["padding_mask"], axis=1) - start - end
        row = tf.repeat(tf.range(tf.size(size)), tf.maximum(size, 1))
        place = start + tf.ragged.range(tf.maximum(size, 1)).values
        features = {name: tf.gather(value, row) for name, value in rows.items()}
        ids = features[tokenizer.feature]
        here = tf.range(tf.shape(ids)[1]) == place[:, tf.newaxis]
        is_token = tf.gather(size, row) > 0
        own = tf.where(is_token, tf.gather(ids, place, batch_dims=1), -1)
        here &= is_token[:, tf.newaxis]
        return features | {
            tokenizer.feature: tf.where(here, self.mask_id, ids),
            "own_id": own,
        }

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        return {HEAD: heads_lib.MaskedLMHead(config)}

    def add_derived_features(self, features: base.Tensors) -> base.Tensors:
        ids = features["token_ids"]
        if self.masked:
            positions, _ = masking.mask_positions(ids, self.mask_id, 1)
        else:
            shape = tf.shape(ids)
            positions = tf.broadcast_to(tf.range(shape[1]), shape)
        return features | {"positions": positions}

    def positions_read(self, features: base.Tensors) -> tf.Tensor | None:
        return features["positions"] if self.masked else None

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        """Returns {"masked_lm": (B, P, V)} float32 logits; P = 1 if masked."""
        has_all_positions = "positions_read" not in encoded
        logits = heads[HEAD](
            encoded["hidden"][-1],
            features["positions"] if has_all_positions else None,
            encoded["token_table"],
        )
        return {HEAD: logits}

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        log_probs = tf.nn.log_softmax(outputs[HEAD], axis=-1)
        if self.masked:
            # The host knows the token that was masked.
            return {"log_probs": log_probs[:, 0]}
        decoded = {
            "log_prob": tf.gather(
                log_probs, features["token_ids"], batch_dims=2
            )
        }
        if self.top_k is not None:
            count = min(self.top_k, self.vocab_size)
            scores, ids = tf.math.top_k(log_probs, count)
            decoded |= {"best_log_prob": scores, "best_id": ids}
        return decoded

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns {"score" (T,), "token" (T, N), "log_prob" (T, N)}.

        With `top_k` also "tokens" and "scores" (T, N, K): the most probable
        tokens and their probabilities, the best first. Padding is "" and 0.
        """
        if self.masked:
            values = self._of_masked_rows(decoded, features, raw)
        else:
            ids, values, valid = packing.without_frame(
                features, tokenizer.frame, decoded
            )
            values["id"] = tf.where(valid, ids, -1)
        ids = values.pop("id")
        vocabulary = tf.constant(tokenizer.vocabulary)
        valid = ids >= 0
        log_prob = tf.where(valid, values["log_prob"], 0.0)
        answers = {
            "score": tf.reduce_sum(log_prob, axis=1),
            "token": tf.where(
                valid, tf.gather(vocabulary, tf.maximum(ids, 0)), ""
            ),
            "log_prob": log_prob,
        }
        if self.top_k is None:
            return answers
        valid = valid[:, :, tf.newaxis]
        return answers | {
            "tokens": tf.where(
                valid, tf.gather(vocabulary, values["best_id"]), ""
            ),
            "scores": tf.where(valid, tf.exp(values["best_log_prob"]), 0.0),
        }

    def _of_masked_rows(self, decoded, features, raw):
        """Gathers one token of each row: {name: (T, N, ...)}; id -1: none."""
        log_probs, ids = decoded["log_probs"], features["own_id"]
        known = tf.maximum(ids, 0)
        values = {
            "id": ids,
            "log_prob": tf.gather(log_probs, known, batch_dims=1),
        }
        if self.top_k is not None:
            count = min(self.top_k, self.vocab_size)
            scores, best = tf.math.top_k(log_probs, count)
            values |= {"best_log_prob": scores, "best_id": best}
        texts = tf.size(raw["text"], tf.int64)
        return {
            name: tf.RaggedTensor.from_value_rowids(
                value, tf.cast(features["example_index"], tf.int64), texts
            ).to_tensor(-1 if name == "id" else None)
            for name, value in values.items()
        }

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        count = sum(map(bool, answer["token"]))
        names = ("token", "log_prob", "tokens", "scores")
        return answer | {
            name: answer[name][:count] for name in names if name in answer
        }
