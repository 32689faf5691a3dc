"""The base of tasks that generate a text: an encoder, and a decoder as head."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from bert_keras import (
    decoders,
    errors,
    generation,
    options,
    rnn_decoder,
    transformer_decoder,
)
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

HEAD = "decoder"
TERM = "text"  # the loss term


def build_decoder(config: decoders.DecoderConfig) -> decoders.Decoder:
    if config.kind == "transformer":
        return transformer_decoder.TransformerDecoder(config)
    return rnn_decoder.RnnDecoder(config)


@dataclasses.dataclass(frozen=True)
class EncoderDecoder(base.Task):
    """Generates a target text from a source text.

    The encoder is any network; the decoder is this task's head, a Transformer
    (Vaswani et al. 2017) or a recurrent network with attention (Bahdanau et al.
    2015, Luong et al. 2015). In training the decoder reads the target's own
    earlier tokens; the loss is the mean cross entropy of its tokens.
    """

    pipeline_tag = "text2text-generation"
    softmax_terms = (TERM,)
    target_axes = {TERM: base.TARGET_TOKENS}

    decoder: str = options.option(
        "transformer",
        "The decoder: transformer, or a recurrent network, lstm or gru.",
        choices=decoders.KINDS,
    )
    decoder_layers: int = options.option(
        0,
        "Its layers; 0: as many as the encoder, or 1 of a recurrent one.",
        minimum=0,
        maximum=1000,
    )
    attention: str = options.option(
        "additive",
        "How a recurrent decoder scores the source's states: additive "
        "(Bahdanau), dot, scaled_dot, general or concat (Luong); none = it "
        "reads the text's vector only.",
        choices=decoders.ATTENTIONS,
    )
    first_state: str = options.option(
        "encoder",
        "Where a recurrent decoder starts: encoder = from the text's vector; "
        "zeros; random = a vector that is drawn once.",
        choices=decoders.FIRST_STATES,
    )
    decoder_init: str = options.option(
        "new",
        "Weights that a new Transformer decoder starts from: new = random; "
        "encoder = those of the encoder's blocks, with random attention to the "
        "source.",
        choices=("new", "encoder"),
    )
    # How answers are generated: see generation.Settings. They are no options of
    # training, so that they are no flags of it.
    max_new_tokens: int | None = None
    num_beams: int | None = None
    num_return_sequences: int | None = None
    length_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    min_new_tokens: int | None = None
    coverage_penalty: float | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    # Set by `adapt`, from the tokenizer.
    vocab_size: int = 0  # that of a target vocabulary of its own; 0: shared
    start_id: int = -1
    end_id: int = -1

    def __post_init__(self) -> None:
        names = [
            field.name
            for field in dataclasses.fields(generation.SequenceSettings)
        ]
        settings = {name: getattr(self, name) for name in names}
        generation.check(generation.SequenceSettings(**settings))
        if (self.max_new_tokens or 0) > self.longest_target:
            raise errors.InputError(
                f"max_new_tokens={self.max_new_tokens}: expected at most the "
                f"{self.longest_target} tokens of a target, for which the "
                "model was trained.",
                argument="max_new_tokens",
            )
        if (self.min_new_tokens or 0) > self.num_new_tokens:
            raise errors.InputError(
                f"min_new_tokens={self.min_new_tokens}: expected at most the "
                f"{self.num_new_tokens} tokens that a target may have.",
                argument="min_new_tokens",
            )
        if self.coverage_penalty and not self.attends:
            raise errors.InputError(
                f"coverage_penalty={self.coverage_penalty} has no effect on a "
                "decoder without attention (attention=none); leave it out.",
                argument="coverage_penalty",
            )

    @property
    def attends(self) -> bool:
        """Whether the decoder attends to the states of the source."""
        return self.decoder == "transformer" or self.attention != "none"

    @property
    def longest_target(self) -> int:
        """The maximum number of a target's tokens, its end included."""
        raise NotImplementedError

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        del examples
        if self.decoder == "transformer":
            self._refuse_unread(
                "decoder=transformer; it is for lstm and gru",
                "attention",
                "first_state",
            )
        target = tokenizer.target
        if target.feature != "token_ids":
            raise errors.InputError(
                f"the tokenizer's ids are {target.feature}, which a decoder "
                "cannot generate; give target_tokenizer=wordpiece.",
                argument="target_tokenizer",
            )
        frame = target.frame
        ends = (*frame.end, target.end_id)
        return self.with_settings(
            vocab_size=0 if target is tokenizer else target.vocab_size,
            start_id=int((*frame.start, ends[0])[0]),
            end_id=int(ends[0]),
        )

    def _refuse_unread(self, reason: str, *names: str) -> None:
        """Raises InputError if one of the settings is not the default."""
        defaults = {
            field.name: field.default for field in dataclasses.fields(self)
        }
        for name in names:
            value = getattr(self, name)
            if value != defaults[name]:
                raise errors.InputError(
                    f"{name}={value} has no effect with {reason}. Leave it "
                    "out.",
                    argument=name,
                )

    def require_adapted(self) -> None:
        """Raises InputError if `adapt` has not set the ids of the tokens."""
        if self.end_id < 0:
            raise errors.InputError(
                f"expected {type(self).__name__}().adapt([], tokenizer), a "
                "task that has the ids of the target's start and end."
            )

    @property
    def num_new_tokens(self) -> int:
        """G, the maximum number of generated tokens."""
        if self.max_new_tokens is None:
            return self.longest_target
        return max(1, self.max_new_tokens)

    @property
    def steps_per_answer(self) -> int:
        return 1 + self.num_new_tokens

    @property
    def copies_per_row(self) -> int:
        return self.num_beams or 1

    def for_device(self) -> base.Task:
        """Returns the task that generates without a search, for one text."""
        names = [
            field.name
            for field in dataclasses.fields(generation.SequenceSettings)
        ]
        unset = dict.fromkeys(names)
        return self.with_settings(
            **(unset | {"max_new_tokens": self.max_new_tokens})
        )

    # The model.

    @property
    def _decoder_values(self) -> dict[str, Any]:
        """What determines the decoder's weights."""
        values: dict[str, Any] = {
            "kind": self.decoder,
            "num_layers": self.decoder_layers,
            "vocab_size": self.vocab_size,
        }
        if self.decoder != "transformer":
            values |= {
                "attention": self.attention,
                "first_state": self.first_state,
            }
        return values

    @property
    def head_signatures(self) -> dict[str, Any]:
        return {HEAD: self._decoder_values}

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        if not self.vocab_size and "token_ids" not in config.inputs:
            raise errors.InputError(
                f"the network {config.name} has no embeddings of tokens that a "
                "decoder could share; give target_tokenizer=wordpiece.",
                argument="target_tokenizer",
            )
        config = decoders.config_for(config, **self._decoder_values)
        longest = config.max_length
        if longest is not None and self.longest_target > longest:
            raise errors.InputError(
                f"targets may have {self.longest_target} tokens, and the "
                f"decoder has as many positions as the encoder, {longest}; "
                "lower max_target_length.",
                argument="max_target_length",
            )
        return {HEAD: build_decoder(config)}

    @property
    def head_start(self) -> str:
        is_new = self.decoder_init == "new"
        return "" if is_new else f"decoder_init={self.decoder_init}"

    def initialize_heads(
        self, encoder: keras.Model, heads: base.Heads
    ) -> Sequence[str]:
        if self.decoder_init == "new":
            return ()
        return transformer_decoder.copy_blocks(encoder, heads[HEAD])

    def read_source(
        self,
        encoder: keras.Model,
        features: base.Tensors,
        training: bool | None,
    ) -> decoders.Source:
        """Runs the encoder; returns what the decoder reads."""
        encoded = networks.encode(encoder, features, training=training)
        mask = features["padding_mask"] > 0
        return decoders.Source(encoded["hidden"][-1], mask, encoded["pooled"])

    def forward(
        self,
        encoder: keras.Model,
        heads: base.Heads,
        features: base.Tensors,
        *,
        targets: base.Targets | None = None,
        training: bool | None = False,
    ) -> base.Tensors:
        """Returns the logits of each target token, {"text": (B, G, V)}.

        The decoder reads the start and the target's tokens but the last.
        Without targets it reads the start: logits of the first token, (B, 1,
        V).
        """
        source = self.read_source(encoder, features, training)
        if targets is None:
            batch = tf.shape(source.mask)[0]
            ids = tf.fill([batch, 1], self.start_id)
        else:
            labels, _ = targets[TERM]
            start = tf.fill([tf.shape(labels)[0], 1], self.start_id)
            ids = tf.concat([start, labels[:, :-1]], axis=1)
            ids = tf.ensure_shape(ids, labels.shape)
        logits = heads[HEAD](
            ids, source, encoder.token_table, training=training
        )
        return {TERM: logits}

    def loss(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> base.Tensors:
        labels, weights = targets[TERM]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels, outputs[TERM]
        )
        return {TERM: tf.reduce_sum(losses * weights)}

    def metric_sums(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        labels, weights = targets[TERM]
        predicted = tf.argmax(outputs[TERM], axis=-1, output_type=tf.int32)
        correct = tf.cast(predicted == labels, tf.float32)
        sums = tf.reduce_sum(correct * weights), tf.reduce_sum(weights)
        return {f"{TERM}_accuracy": sums}

    # Answers.

    @property
    def samples(self) -> bool:
        """Whether tokens are sampled and not searched for."""
        if self.do_sample is None:
            names = generation.OF_SAMPLES
            return any(getattr(self, name) is not None for name in names)
        return self.do_sample

    def infer(self, model: Any, features: base.Tensors) -> base.Tensors:
        """Generates the targets.

        {"ids" (W, N, G) int32, padded; "length" (W, N) int32; "score" (W, N)},
        the best of N first; see generation.Beams. The score of those that do
        not exist is the lowest float32.
        """
        decoder = model.head.by_name()[HEAD]
        table = model.encoder.token_table
        source = self.read_source(model.encoder, features, training=False)
        count = self.copies_per_row
        memory = generation.tile(decoder.read_source(source), count)

        def step(ids, state):
            logits, state = decoder.step(ids, state, memory, table)
            return generation.finite(logits), state

        state = decoder.first_state(source, self.num_new_tokens)
        settings = {
            "start_ids": tf.fill([tf.shape(source.mask)[0]], self.start_id),
            "end_id": self.end_id,
            "max_length": self.num_new_tokens,
            "no_repeat_ngram_size": self.no_repeat_ngram_size or 0,
            "min_length": self.min_new_tokens or 0,
        }
        if self.samples:
            return self._sample(step, state, settings, features, source, model)
        found = generation.beam_search(
            step,
            generation.tile(state, count),
            num_beams=count,
            num_return=self.num_return_sequences or 1,
            length_penalty=self._length_penalty,
            coverage_penalty=self.coverage_penalty or 0.0,
            attention=lambda state: state["attention"],
            source_mask=tf.cast(source.mask, tf.int32),
            **settings,
        )
        # TensorFlow Serving cannot write -infinity as JSON.
        return {
            "ids": found.ids,
            "length": found.length,
            "score": tf.maximum(found.score, tf.float32.min),
        }

    @property
    def _length_penalty(self) -> float:
        if self.length_penalty is None:
            return generation.LENGTH_PENALTY
        return self.length_penalty

    def _sample(self, step, state, settings, features, source, model):
        """Draws the targets, and scores them as a search would."""
        own = {
            name: getattr(self, name)
            for name in ("temperature", "top_k", "top_p")
            if getattr(self, name) is not None
        }
        (name,) = set(features) & {"token_ids", "characters"}
        ids = features[name]
        if ids.shape.rank > 2:
            ids = tf.reduce_sum(ids * tf.range(1, ids.shape[2] + 1), axis=2)
        seeds = generation.row_seeds(
            ids, features["padding_mask"], self.seed or 0
        )
        drawn = generation.sample(step, state, seeds=seeds, **settings, **own)
        # The targets as in training, with their end where they have one.
        columns = tf.range(self.num_new_tokens)
        length = drawn.length[:, tf.newaxis]
        is_end = drawn.ended[:, tf.newaxis] & (columns == length)
        labels = tf.where(is_end, self.end_id, drawn.ids)
        logits = model.head.by_name()[HEAD](
            tf.concat([settings["start_ids"][:, None], labels[:, :-1]], 1),
            source,
            model.encoder.token_table,
        )
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        is_read = (columns < length) | is_end
        total = -tf.reduce_sum(tf.where(is_read, losses, 0.0), axis=1)
        count = tf.reduce_sum(tf.cast(is_read, tf.float32), axis=1)
        score = total / ((5.0 + count) / 6.0) ** self._length_penalty
        return {
            "ids": drawn.ids[:, tf.newaxis],
            "length": length,
            "score": score[:, tf.newaxis],
        }

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        return outputs

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns the texts generated from T sources.

        {"text" (T,) string, the best; "score" (T,), its log-probability,
        divided by the length penalty}; of several also {"texts", "scores"
        (T, N)}, the best first. If there are fewer than N, the rest are "" and
        the lowest float32.
        """
        ids, length = decoded["ids"], decoded["length"]
        count = ids.shape[1]
        flat = tf.RaggedTensor.from_tensor(
            tf.reshape(ids, (-1, ids.shape[2])),
            lengths=tf.reshape(length, [-1]),
        )
        texts = tokenizer.target.detokenize(flat)
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
        texts = tf.reshape(texts, (-1, count))
        answers = {"text": texts[:, 0], "score": decoded["score"][:, 0]}
        if count > 1:
            answers |= {"texts": texts, "scores": decoded["score"]}
        return answers

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Leaves out texts that a short target does not have."""
        if "texts" in answer:
            count = sum(score > tf.float32.min for score in answer["scores"])
            for name in ("texts", "scores"):
                answer[name] = answer[name][:count]
        return answer
