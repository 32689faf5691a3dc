"""Tiny training runs that the tests of the engine share."""

import functools
import itertools

import keras
import numpy as np
import tensorflow as tf

from bert_keras import model as model_lib
from bert_keras import optimizers, placement
from bert_keras.tasks import (
    bidirectional_lm,
    causal_lm,
    classification,
    denoising,
    embedding,
    extractive_summary,
    intent_slots,
    masked_lm,
    matching,
    multiple_choice,
    question_answering,
    replaced_tokens,
    sequence_to_sequence,
    tagging,
    token_order,
)
from bert_keras.training import devices, pipeline, settings
from bert_keras.training import step as step_lib
from bert_keras.wrappers import auxiliary_lm, label_smoothing, mix, r_drop
from bert_keras.wrappers import base as wrappers
from tests import tiny

# Made when they are needed: workers connect before the first tensor.
TASKS = {
    "causal_lm": lambda: causal_lm.CausalLM().adapt([], tiny.tokenizer()),
    "masked_lm": lambda: masked_lm.MaskedLM().adapt([], tiny.tokenizer()),
    "classification": lambda: classification.Classification(
        labels=("bad", "good")
    ),
    "drawn_labels": lambda: classification.Classification(
        labels=tuple("abcdefghijkl"), negatives=3
    ),
    "denoising": lambda: denoising.Denoising(seq_length=12).adapt(
        [], tiny.tokenizer()
    ),
    "embedding": lambda: embedding.Embedding(pair=True),
    "extractive_summary": lambda: extractive_summary.ExtractiveSummary(
        seq_length=12, max_sentences=3
    ).adapt([], tiny.tokenizer()),
    "intent_slots": lambda: intent_slots.IntentSlots(
        types=("PER",), intents=("ask", "tell")
    ),
    "matching": lambda: matching.Matching(share=0.25),
    "multiple_choice": lambda: multiple_choice.MultipleChoice(
        seq_length=12, num_choices=3
    ),
    "question_answering": question_answering.QuestionAnswering,
    "replaced_tokens": lambda: replaced_tokens.ReplacedTokens(
        generator_fraction=0.5, replaced_weight=1.0
    ).adapt([], tiny.tokenizer()),
    "token_order": lambda: token_order.TokenOrder().adapt([], tiny.tokenizer()),
    "all_of_masks": lambda: masked_lm.MaskedLM(
        masked_group="spans", span_boundary=True, detect_masked=True
    ).adapt([], tiny.tokenizer()),
    "sequence_to_sequence": lambda: sequence_to_sequence.SequenceToSequence(
        seq_length=12, max_target_length=9
    ).adapt([], tiny.tokenizer()),
    "recurrent_decoder": lambda: sequence_to_sequence.SequenceToSequence(
        seq_length=12, max_target_length=9, decoder="gru"
    ).adapt([], tiny.tokenizer()),
    "tagging": lambda: tagging.Tagging(types=("PER",)),
    "wrapped": lambda: r_drop.RDrop(
        label_smoothing.LabelSmoothing(TASKS["intent_slots"]())
    ),
    "bidirectional_lm": lambda: bidirectional_lm.BidirectionalLM().adapt(
        [], tiny.characters()
    ),
    "sampled": lambda: bidirectional_lm.BidirectionalLM(num_sampled=7).adapt(
        [], tiny.characters()
    ),
    "elmo_tagging": lambda: mix.Mix(TASKS["tagging"](), l2=0.01),
    "bilstm_tagging": lambda: TASKS["tagging"](),
    "gru_causal_lm": lambda: TASKS["causal_lm"](),
}
ELMO = ("bidirectional_lm", "sampled", "elmo_tagging")
RNN = {
    "bilstm_tagging": {},
    "gru_causal_lm": {"cell": "gru", "bidirectional": False},
}
STEPS = 20
BATCH = 8


def batches(task, count, size=BATCH, *, elmo=False):
    """Batches of rows of every length, with the task's targets."""
    terms = task.loss_weights
    outer = task
    task, _ = wrappers.unwrap(task)
    for step in range(count):
        make = tiny.elmo_inputs if elmo else tiny.inputs
        inputs = make(rows=size, length=12, seed=step)
        random = np.random.default_rng(step)
        labels = tf.constant(random.integers(0, 2, size), tf.int32)
        weights = tf.ones(size)
        if isinstance(task, masked_lm.MaskedLM):
            targets = {"next_sentence": (labels, weights)}
            seeds = tf.stack([tf.range(size), tf.fill([size], step)], axis=1)
            inputs, targets = task.randomize(inputs, targets, seeds)
        elif isinstance(task, causal_lm.CausalLM):
            inputs, targets = task.randomize(inputs, {}, None)
        elif isinstance(
            task,
            (
                denoising.Denoising,
                replaced_tokens.ReplacedTokens,
                token_order.TokenOrder,
            ),
        ):
            seeds = tf.stack([tf.range(size), tf.fill([size], step)], axis=1)
            inputs, targets = task.randomize(inputs, {}, seeds)
        elif isinstance(task, sequence_to_sequence.SequenceToSequence):
            # Targets of every length, of unequal weight.
            length = 1 + np.arange(size)[:, np.newaxis] % 9
            values = random.random((size, 9)) * (np.arange(9) < length)
            ids = random.integers(5, len(tiny.VOCABULARY), (size, 9))
            targets = {
                "text": (
                    tf.constant(ids * (values > 0), tf.int32),
                    tf.constant(values, tf.float32),
                )
            }
        elif isinstance(task, bidirectional_lm.BidirectionalLM):
            word_ids = random.integers(0, task.vocab_size, (size, 12))
            inputs["word_ids"] = tf.constant(word_ids, tf.int32)
            targets = {}
        elif isinstance(task, tagging.Tagging):
            # Some tokens count, more in some rows than in others.
            shape = inputs["padding_mask"].shape
            values = random.random(shape) * (random.random(shape) < 0.4)
            token_weights = tf.constant(
                values * inputs["padding_mask"].numpy(), tf.float32
            )
            tags = tf.constant(random.integers(0, 3, shape), tf.int32)
            targets = {"tag": (tags, token_weights)}
            if isinstance(task, intent_slots.IntentSlots):
                targets["intent"] = (labels, weights)
        elif isinstance(task, question_answering.QuestionAnswering):
            second = np.tile(np.arange(12) >= 4, (size, 1)).astype(np.int32)
            segments = tf.constant(second) * inputs["padding_mask"]
            inputs["segment_ids"] = segments
            # [CLS] or the first token of the context.
            targets = {term: (4 * labels, weights) for term in ("start", "end")}
        elif isinstance(task, embedding.Embedding):
            second = np.tile(np.arange(12) >= 6, (size, 1)).astype(np.int32)
            mask = inputs["padding_mask"]
            inputs["padding_mask"] = mask * tf.constant(1 + second)
            inputs = task.add_derived_features(inputs)
            # Short rows hold no second text, which no real row lacks.
            mask = inputs["padding_mask"]
            weights = tf.cast(tf.reduce_max(mask, axis=1) == 2, tf.float32)
            targets = {"similarity": (tf.cast(labels, tf.float32), weights)}
        elif isinstance(task, extractive_summary.ExtractiveSummary):
            # Rows of 1 to 3 sentences; short rows have fewer.
            begins = np.arange(12) % 4 == 0
            ids = tf.where(begins, task.token[0], inputs["token_ids"])
            inputs["token_ids"] = ids * inputs["padding_mask"]
            is_begin = inputs["padding_mask"] * tf.constant(begins, tf.int32)
            token_weights = tf.cast(is_begin, tf.float32)
            values = tf.constant(random.integers(0, 2, (size, 12)))
            targets = {
                "sentence": (
                    tf.cast(values, tf.float32) * token_weights,
                    token_weights,
                )
            }
            inputs = task.add_derived_features(inputs)
        elif isinstance(task, multiple_choice.MultipleChoice):
            choice = np.tile(np.arange(12) // 4, (size, 1)).astype(np.int32)
            inputs["padding_mask"] *= tf.constant(1 + choice)
            inputs = task.add_derived_features(inputs)
            count = tf.reduce_max(inputs["padding_mask"], axis=1)
            weights = tf.constant(random.random(size), tf.float32)
            # Short rows have fewer choices, and the first is always there.
            targets = {"label": (tf.minimum(labels, count - 1), weights)}
        else:
            # Rows of unequal weight: a mean per part would be wrong.
            weights = tf.constant(random.random(size), tf.float32)
            (term,) = task.softmax_terms or ("label",)
            targets = {term: (labels, weights)}
            if task.reads_targets:
                seeds = tf.stack(
                    [tf.range(size), tf.fill([size], step)], axis=1
                )
                inputs, targets = task.randomize(inputs, targets, seeds)
        if auxiliary_lm.TERM in terms:
            row_weights = tf.constant(random.random(size), tf.float32)
            targets[auxiliary_lm.TERM] = (labels, row_weights)
        if elmo:
            seeds = tf.stack([tf.range(size), tf.fill([size], step)], axis=1)
            inputs, targets = outer.randomize(inputs, targets, seeds)
        yield {
            "inputs": inputs,
            "targets": targets,
            "step": tf.constant(step, tf.int64),
        }


class Run:
    """A tiny training run under a strategy, `micro_batches` per replica.

    stages: of a pipeline on the two CPUs; more of them share these.
    """

    def __init__(
        self,
        task_name,
        strategy="one_device",
        micro_batches=1,
        *,
        stages=1,
        **options,
    ):
        self.strategy = devices.make_strategy(strategy)
        self.replicas = self.strategy.num_replicas_in_sync
        keras.utils.set_random_seed(1)
        rate = options.pop("dropout", 0.0)
        rule = options.pop("rule", optimizers.AdamW())
        peak = options.pop("peak", 1e-4)
        self.is_elmo = task_name in ELMO
        if self.is_elmo:
            config = tiny.elmo(dropout=rate)
        elif task_name in RNN:
            config = tiny.rnn(dropout=rate, **RNN[task_name])
        else:
            network = options.pop("network", {})
            network |= {"dropout": rate, "attention_dropout": rate}
            config = tiny.bert_for(task_name, **network)
        self.task = options.pop("task", None) or TASKS[task_name]()
        on = ()
        if stages > 1:
            names = [d.name for d in tf.config.list_logical_devices("CPU")]
            divided = pipeline.split(config, (names * stages)[:stages])
            on = divided.of_layers
            options["make"] = functools.partial(
                pipeline.PipelinedStep,
                stages=divided,
                schedule=options.pop("schedule", settings.ONE_BY_ONE),
            )
        with self.strategy.scope(), placement.on_devices(on):
            self.model = model_lib.BertModel(config.build_encoder(), self.task)
            self.optimizer = optimizers.Optimizer(
                self.model.trainable_variables,
                rule=rule,
                schedule=optimizers.Schedule(peak, 5, 4 * STEPS),
                head_schedule=options.pop("head_schedule", None),
                devices=placement.of_variables(
                    self.model.encoder, self.model.trainable_variables
                ),
            )
        self.step = step_lib.make_train_step(
            self.model,
            self.task,
            self.optimizer,
            strategy=self.strategy,
            seed=7,
            gradient_accumulation_steps=micro_batches,
            **options,
        )

    def train(self, start=0, stop=STEPS):
        losses = []
        stream = batches(self.task, stop, elmo=self.is_elmo)
        for batch in itertools.islice(stream, start, stop):
            losses.append(float(self.step(self.split(batch))["loss"]))
        return losses

    def split(self, batch):
        """Each replica's own rows."""
        if self.replicas == 1:
            return batch
        size = BATCH // self.replicas

        def own(context):
            first = context.replica_id_in_sync_group * size
            part = tf.nest.map_structure(
                lambda x: x[first : first + size] if x.shape.rank else x,
                batch,
            )
            return part

        return self.strategy.experimental_distribute_values_from_function(own)

    def graphs(self):
        """Graphs that were made of the step: one per static shape."""
        return self.step.num_graphs

    def weights(self):
        return {v.path: v.numpy() for v in self.model.trainable_variables}
