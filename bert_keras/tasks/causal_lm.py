"""Pretraining GPT: each token is predicted from those before it."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from bert_keras import errors, generation, kv_cache
from bert_keras import heads as heads_lib
from bert_keras.data import packing, records
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

HEAD = "causal_lm"
# The output on a device: the probabilities of the next token, (W, V).
SCORES = "next_token_scores"
# Number of new tokens if it is not set; half a row if that is less.
NEW_TOKENS = 40


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class CausalLM(base.Task):
    """Predicts the next token at every position (Radford et al. 2018, 3.1).

    The loss is the mean over all real positions of the global batch. A
    Predictor of this task continues texts. Of a text with more than seq_length
    - max_new_tokens tokens it reads the end.
    """

    pipeline_tag = "text-generation"
    softmax_terms = (HEAD,)
    target_axes = {HEAD: base.TOKENS}
    metric_names = (f"loss/{HEAD}", f"{HEAD}_accuracy", "perplexity")
    reads_frame = False

    # How answers are generated: see generation.Settings. They are no options of
    # training, so that they are no flags of it.
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    no_repeat_ngram_size: int | None = None
    num_beams: int | None = None
    num_return_sequences: int | None = None
    length_penalty: float | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    # Set from the records' manifest: "full" if rows have no special tokens.
    packing: str = "full"
    # Set by `adapt`, from the tokenizer.
    vocab_size: int = 0
    end_id: int | None = None

    def __post_init__(self) -> None:
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(generation.Settings)
        }
        values["max_new_tokens"] = self.num_new_tokens
        generation.check(generation.Settings(**values))
        if self.max_new_tokens and self.max_new_tokens >= self.seq_length:
            raise errors.InputError(
                f"max_new_tokens={self.max_new_tokens}: expected less than the "
                f"{self.seq_length} tokens of a row (seq_length), which has "
                "the text to continue as well.",
                argument="max_new_tokens",
            )

    @property
    def head_signatures(self) -> dict[str, Any]:
        return {HEAD: self.vocab_size}

    @property
    def num_new_tokens(self) -> int:
        """G, the maximum number of new tokens."""
        if self.max_new_tokens is None:
            return min(NEW_TOKENS, self.seq_length // 2)
        return self.max_new_tokens

    @property
    def samples(self) -> bool:
        """Whether new tokens are sampled and not the most probable ones."""
        if self.do_sample is None:
            names = generation.OF_SAMPLES
            return any(getattr(self, name) is not None for name in names)
        return self.do_sample

    @property
    def request_settings(self) -> dict[str, str]:
        if self.copies_per_row > 1:  # a beam search draws nothing
            return {"max_new_tokens": "int32"}
        return {
            "max_new_tokens": "int32",
            "temperature": "float32",
            "top_k": "int32",
            "top_p": "float32",
            "seed": "int32",
        }

    @property
    def max_row_length(self) -> int:
        return self.seq_length - self.num_new_tokens

    @property
    def steps_per_answer(self) -> int:
        return 1 + self.num_new_tokens

    @property
    def copies_per_row(self) -> int:
        return self.num_beams or 1

    @property
    def list_padding(self) -> dict[str, Any]:
        return {"tokens": ""} if self.num_new_tokens else {}

    @property
    def list_width(self) -> int:
        return self.num_new_tokens

    def for_records(self, manifest: Mapping[str, Any]) -> base.Task:
        if manifest["objective"] != "none":
            raise errors.InputError(
                f"objective=causal_lm, and the records have pairs of sentences "
                f"(sentence_objective={manifest['objective']}); prepare them "
                "with packing=full, or with sentence_objective=none."
            )
        if manifest.get("format") == records.GOOGLE:
            raise errors.InputError(
                "objective=causal_lm, and the records have masks "
                "(format=google), which would be learned as words; prepare "
                "them with packing=full."
            )
        self.require_single_texts(manifest)
        return self.with_settings(
            seq_length=manifest["seq_length"],
            packing=manifest.get("packing", "segments"),
        )

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        del examples
        return self.with_settings(
            vocab_size=tokenizer.vocab_size, end_id=tokenizer.end_id
        )

    def for_device(self) -> base.Task:
        """Returns the task without the loop: the scores of the next token."""
        unset = dict.fromkeys(
            field.name for field in dataclasses.fields(generation.Settings)
        )
        return self.with_settings(**(unset | {"max_new_tokens": 0}))

    def make_example(self, raw: base.Example, label: Any) -> base.Example:
        """Returns the text alone: its own tokens are the labels."""
        if label is not None:
            raise ValueError(f"expected no label, found {label!r}")
        return raw

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        """Returns the prompts: as in training, but without their end.

        Of a long text the last tokens are kept, after which it continues. An
        empty text begins as a text after another one does, with the token that
        ends texts, or with the unknown token if there is none.
        """
        ids = tokenizer(raw["text"])
        start = tokenizer.frame.start if self.packing != "full" else ()
        capacity = self.max_row_length - len(start)
        truncated = ids.row_lengths() > capacity
        ids = ids[:, -capacity:]
        if not start:
            first = tokenizer.unk_id if self.end_id is None else self.end_id
            is_empty = ids.row_lengths() == 0
            ids = tf.concat(
                [
                    tf.RaggedTensor.from_row_lengths(
                        tf.fill([tf.math.count_nonzero(is_empty)], first),
                        tf.cast(is_empty, tf.int64),
                        validate=False,
                    ),
                    ids,
                ],
                axis=1,
            )
        frame = tokenizers.Frame(start, (), (), tokenizer.feature)
        features = packing.pack([ids], frame, seq_length=self.max_row_length)
        return features | {"truncated": truncated}

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        """Returns none: `randomize` adds the next tokens."""
        if not self.vocab_size:
            raise errors.InputError(
                "expected CausalLM().adapt([], tokenizer), a task that has the "
                "size of the vocabulary."
            )
        return {}

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        if not getattr(config, "causal", False):
            raise errors.InputError(
                "causal_lm needs a causal network, such as model=gpt_mini: in "
                f"this one ({config.describe()}) a token attends to those "
                "after it, so it would read the answer.",
                argument="model",
            )
        return {HEAD: heads_lib.CausalLMHead(config)}

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        head = heads[HEAD]
        return {HEAD: head(encoded["hidden"][-1], encoded["token_table"])}

    def randomize(
        self, features: base.Tensors, targets: base.Targets, seeds: tf.Tensor
    ) -> tuple[base.Tensors, base.Targets]:
        """Adds the targets: of each position, the next token of its text."""
        del seeds
        ids, mask = features["token_ids"], features["padding_mask"]
        is_pair = (mask[:, 1:] > 0) & (mask[:, 1:] == mask[:, :-1])
        labels = tf.pad(ids[:, 1:], [[0, 0], [0, 1]])
        weights = tf.pad(tf.cast(is_pair, tf.float32), [[0, 0], [0, 1]])
        return features, targets | {HEAD: (labels, weights)}

    def loss(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> base.Tensors:
        labels, weights = targets[HEAD]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels, outputs[HEAD]
        )
        return {HEAD: tf.reduce_sum(losses * weights)}

    def metric_sums(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        labels, weights = targets[HEAD]
        predicted = tf.argmax(outputs[HEAD], axis=-1, output_type=tf.int32)
        correct = tf.cast(predicted == labels, tf.float32)
        sums = tf.reduce_sum(correct * weights), tf.reduce_sum(weights)
        return {f"{HEAD}_accuracy": sums}

    def summarize(self, metrics: Mapping[str, float]) -> dict[str, float]:
        return {
            **metrics,
            "perplexity": base.perplexity(metrics[f"loss/{HEAD}"]),
        }

    def infer(self, model: Any, features: base.Tensors) -> base.Tensors:
        """Continues the rows: features (W, S) -> "ids" (W, G), and more.

        With several answers for a text: generation.Beams, "ids" (W, N, G).
        Without new tokens: the logits of the next one, (W, V).
        """
        heads = model.head.by_name()
        if not self.num_new_tokens:
            return {"logits": _next_logits(model.encoder, heads, features)}
        start_ids, state = kv_cache.read_prompts(
            model.encoder,
            token_ids=features["token_ids"],
            padding_mask=features["padding_mask"],
            max_new_tokens=self.num_new_tokens,
        )
        table = model.encoder.token_table

        def step(ids, state):
            hidden, state = kv_cache.step(model.encoder, ids, state)
            return generation.finite(heads[HEAD](hidden, table)[:, 0]), state

        return self._generate(step, state, start_ids, features)._asdict()

    def _generate(self, step, state, start_ids, features):
        """Generates as the settings of the task, or of the features, say."""
        common = {
            "start_ids": start_ids,
            "end_id": self.end_id,
            "max_length": self.num_new_tokens,
            "no_repeat_ngram_size": self.no_repeat_ngram_size or 0,
            "min_length": self.min_new_tokens or 0,
            "limits": features.get("max_new_tokens"),
        }
        if self.copies_per_row > 1:
            return self._search(step, state, common)
        requested = {
            name: features[name]
            for name in ("temperature", "top_k", "top_p")
            if name in features
        }
        if not (self.samples or requested):
            return generation.greedy(step, state, **common)
        own = {
            name: getattr(self, name)
            for name in ("temperature", "top_k", "top_p")
            if getattr(self, name) is not None
        }
        seeds = generation.row_seeds(
            features["token_ids"],
            features["padding_mask"],
            features.get("seed", self.seed or 0),
        )
        return generation.sample(
            step, state, seeds=seeds, **common, **(own | requested)
        )

    def _search(self, step, state, common):
        """Returns Beams; with one answer for a text, Generated."""
        penalty = self.length_penalty
        beams = generation.beam_search(
            step,
            generation.tile(state, self.copies_per_row),
            num_beams=self.copies_per_row,
            num_return=self.num_return_sequences or 1,
            length_penalty=generation.LENGTH_PENALTY
            if penalty is None
            else penalty,
            **common,
        )
        if (self.num_return_sequences or 1) > 1:
            # TensorFlow Serving cannot write -infinity as JSON.
            lowest = tf.float32.min
            return beams._replace(
                score=tf.maximum(beams.score, lowest),
                log_prob=tf.maximum(beams.log_prob, lowest),
            )
        return generation.Generated(*(values[:, 0] for values in beams[:3]))

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        if "logits" in outputs:
            return {SCORES: tf.nn.softmax(outputs["logits"], axis=-1)}
        return outputs

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns the continuations of T texts.

        {"text" (T,) string, without the text before it; "tokens" (T, G) string,
        padded with ""; "ended" (T,) bool: whether the text ended before the
        maximum number of tokens}; of several answers to a text, the best. Then
        also {"texts" (T, N) string, the best first; "scores" (T, N), as in
        generation.Beams; of a text with fewer, "" and the lowest float32}.
        Without new tokens {"token" (T,), "score" (T,)}, the most probable next
        token.
        """
        vocabulary = tf.constant(tokenizer.vocabulary)
        if SCORES in decoded:
            best = tf.argmax(decoded[SCORES], axis=-1)
            return {
                "token": tf.gather(vocabulary, best),
                "score": tf.reduce_max(decoded[SCORES], axis=-1),
            }
        prompts = tf.ragged.boolean_mask(
            features[tokenizer.feature], features["padding_mask"] > 0
        )
        count, width = self.num_return_sequences or 1, self.num_new_tokens
        ids = tf.reshape(decoded["ids"], [-1, width])  # (T N, G)
        length = tf.reshape(decoded["length"], [-1])
        rows = tf.repeat(tf.range(prompts.nrows()), count)
        texts = _continuation(
            tokenizer,
            tf.gather(prompts, rows),
            tf.RaggedTensor.from_tensor(ids, lengths=length),
        )
        is_new = tf.sequence_mask(length, width)
        tokens = tf.where(is_new, tf.gather(vocabulary, ids), "")
        answer = {
            "text": texts[::count],
            "tokens": tokens[::count],
            "ended": tf.reshape(decoded["ended"], [-1])[::count],
        }
        if count > 1:
            answer["texts"] = tf.reshape(texts, [-1, count])
            answer["scores"] = decoded["score"]
        return answer

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "tokens" not in answer:
            return answer
        answer["tokens"] = [each for each in answer["tokens"] if each]
        if "texts" in answer:
            lowest = tf.float32.min
            count = sum(score > lowest for score in answer["scores"])
            answer["texts"] = answer["texts"][:count]
            answer["scores"] = answer["scores"][:count]
        return answer


def _next_logits(
    encoder: keras.Model, heads: base.Heads, features: base.Tensors
) -> tf.Tensor:
    """Returns the logits (W, V) of the token after each row."""
    real = tf.cast(features["padding_mask"] > 0, tf.int32)
    last = tf.maximum(tf.reduce_sum(real, axis=1, keepdims=True) - 1, 0)
    encoded = networks.encode(encoder, features, positions_read=last)
    hidden = encoded["hidden"][-1]
    if "positions_read" not in encoded:
        hidden = tf.gather(hidden, last, batch_dims=1)
    return heads[HEAD](hidden, encoder.token_table)[:, 0]


def _continuation(
    tokenizer: tokenizers.Tokenizer,
    prompts: tf.RaggedTensor,
    new: tf.RaggedTensor,
) -> tf.Tensor:
    """Returns the text of new tokens (T, None) after prompts (T, None).

    It is what the tokens add to the prompt's text, with the space before them
    if there is one: appended to the prompt, "##ing" continues a word. The part
    of a character whose other bytes were not generated becomes U+FFFD.
    """
    before = tokenizer.detokenize(prompts)
    both = tokenizer.detokenize(tf.concat([prompts, new], axis=1))
    size = tf.strings.length(before)
    is_before = size <= tf.strings.length(both)
    begin = tf.where(is_before, size, 0)
    zeros = tf.zeros_like(begin)
    is_before &= tf.strings.substr(both, zeros, begin) == before
    rest = tf.strings.substr(both, begin, tf.strings.length(both))
    text = tf.where(is_before, rest, tokenizer.detokenize(new))
    return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8")
