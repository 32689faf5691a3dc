"""Extractive question answering (Devlin et al. 2019, 4.2 and 4.3)."""

import dataclasses
import json
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from bert_keras import errors, options
from bert_keras import heads as heads_lib
from bert_keras.data import packing, squad
from bert_keras.metrics import answers as answers_lib
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

# Logit of positions that cannot start or end an answer: far below real logits,
# and finite in sums. A span with a score above _MIN_POSSIBLE_SCORE has no such
# position.
MASKED_LOGIT = -1e4
_TERMS = ("start", "end")
_MIN_POSSIBLE_SCORE = MASKED_LOGIT / 2

# If more than this fraction of the questions' characters is Chinese, metrics
# are those of CMRC.
_CHINESE_SHARE = 0.3
_CHINESE = re.compile("[\u4e00-\u9fff]")


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class QuestionAnswering(base.Task):
    """Predicts where the answer to a question starts and ends in a context.

    A row is [CLS] question [SEP] window of the context [SEP]; a long context
    has several windows. If the answer is not in the window, or does not exist,
    the target span is the [CLS].

    The question "film ?" with the context "plot is old .", in rows of 8 tokens
    with a doc_stride of 2, where "old", context[8:11], is the answer:

        row 0   [CLS] film ? [SEP] plot is old [SEP]   start 6, end 6
        starts    0    0   0   0    0   5   8    0
        ends      0    0   0   0    4   7  11    0
        row 1   [CLS] film ? [SEP] old  .  [SEP]       start 4, end 4
        starts    0    0   0   0    8  12    0
        ends      0    0   0   0   11  13    0

    `decode` scores the spans of each row. `postprocess` maps them to offsets in
    the context and merges the rows of a text: the "old" of both rows is the
    same span and keeps its better score.
    """

    pipeline_tag = "question-answering"
    softmax_terms = _TERMS

    # The classes are the tokens.
    softmax_axes = types.MappingProxyType(dict.fromkeys(_TERMS, base.TOKENS))

    doc_stride: int = options.option(
        128,
        "Stride of the windows of a long context: tokens between the starts "
        "of consecutive windows.",
        minimum=1,
        maximum=base.MAX_TOKENS,
    )
    max_question_length: int = options.option(
        64,
        "Maximum question length in tokens; longer ones are truncated.",
        minimum=1,
        maximum=base.MAX_TOKENS,
    )
    max_answer_length: int = options.option(
        30, "Maximum answer length in tokens.", minimum=1, maximum=1000
    )
    n_best: int = options.option(
        20,
        "Number of best answers to list for a question.",
        minimum=1,
        maximum=1000,
    )
    no_answer_threshold: float = options.option(
        0.0,
        "No-answer threshold: a question has no answer if [CLS] scores higher "
        "than the best span by more than this. If it is 0 and some training "
        "rows have no answer, fine-tuning saves the threshold with the best "
        "F1 on the dev rows; to keep it at 0, set a tiny number such as 1e-9.",
    )
    text_columns = ("question", "context")
    head_signatures = {"span": ("start", "end")}
    loss_weights = {"start": 0.5, "end": 0.5}
    ranked_outputs = ("start", "end", "answers", "starts", "ends")
    list_padding = {"answers": "", "starts": 0, "ends": 0, "scores": 0.0}

    # Set by `adapt`, from the training data.
    unanswerable: bool = False  # some questions have no answer
    chinese: bool = False  # use CMRC's metrics, by characters

    @property
    def metric_names(self) -> tuple[str, ...]:
        if self.unanswerable:
            return ("f1", "exact_match", "best_f1", "best_exact_match")
        return ("f1", "exact_match")

    @property
    def list_width(self) -> int:
        return self.n_best

    def read_examples(self, path: str) -> Iterator[base.Example]:
        return squad.read(path)

    def make_example(self, raw: base.Example, label: Any) -> base.Example:
        """Returns an example; label: its answers, as in SQuAD's JSON.

        A list of {"text": ..., "answer_start": ...}, or Hugging Face's columns
        {"text": [...], "answer_start": [...]}; empty or None: the context has
        no answer.
        """
        return squad.example(raw["question"], raw["context"], label)

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        del tokenizer
        unanswerable, chinese, characters = False, 0, 0
        for example in examples:
            unanswerable = unanswerable or example["is_impossible"] == "true"
            chinese += len(_CHINESE.findall(example["question"]))
            characters += len(example["question"])
        return self.with_settings(
            unanswerable=unanswerable,
            chinese=chinese > _CHINESE_SHARE * characters,
        )

    def calibrated(self, metrics: Mapping[str, float]) -> base.Task:
        """Returns the task with the threshold of the best F1.

        A task without unanswerable questions has no threshold; one that the
        user has set is kept.
        """
        if (
            not self.unanswerable
            or self.no_answer_threshold
            or "best_f1_threshold" not in metrics
        ):
            return self
        return self.with_settings(
            no_answer_threshold=metrics["best_f1_threshold"]
        )

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        # Unused entries have end 0.
        count = sum(end > 0 for end in answer["ends"])
        return answer | {
            name: answer[name][:count]
            for name in ("answers", "starts", "ends", "scores")
        }

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        """Packs each question with each window of its context.

        Also returns {"starts", "ends" (W, S) int32}, which stay on the host:
        the offsets of each token in the context, in code points; 0 and 0 for
        tokens outside the context. See the example of the class.
        """
        # The context gets at least half of a row.
        capacity = tokenizer.frame.capacity(self.seq_length, segments=2)
        max_length = min(self.max_question_length, capacity // 2)
        question_ids = tokenizer(_valid(raw["question"]))
        question = question_ids[:, :max_length]
        context_capacity = capacity - tf.cast(question.row_lengths(), tf.int32)
        ids, starts, ends = (
            packing.windows(values, context_capacity, self.doc_stride)
            for values in tokenizer.with_offsets(_valid(raw["context"]))
        )
        example_index = ids.example_index
        return packing.pack(
            [tf.gather(question, example_index), ids.values],
            tokenizer.frame,
            seq_length=self.seq_length,
            per_token={
                "starts": [None, starts.values],
                "ends": [None, ends.values],
            },
        ) | {
            "example_index": example_index,
            "truncated": tf.gather(
                question_ids.row_lengths() > max_length, example_index
            ),
        }

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        """Returns the first and last token that overlap the answer.

        {"start", "end": (labels (W,) int32, weights (W,))}. The labels are 0,
        the [CLS], if the window does not contain the complete answer.
        The weight is 0 if the answer's offset in the context is unknown.
        """
        example_index = features["example_index"]
        begin = tf.strings.to_number(raw["answer_start"], tf.int32)
        end = begin + tf.strings.length(raw["answer"], "UTF8_CHAR")
        has_target = (begin >= 0) | (raw["is_impossible"] == "true")
        begin, end = (
            tf.expand_dims(tf.gather(x, example_index), 1) for x in (begin, end)
        )
        context_mask = _context_mask(features)
        overlaps = (features["starts"] < end) & (features["ends"] > begin)
        overlaps &= context_mask
        first, last = _first(overlaps), _last(overlaps)
        # An answer that touches an edge of the window is complete there only if
        # the text has no window on that side, or if the offsets of the token at
        # the edge reach the answer's.
        none = tf.constant([-1])
        is_first_window = (
            tf.concat([none, example_index], 0)[:-1] != example_index
        )
        is_last_window = (
            tf.concat([example_index, none], 0)[1:] != example_index
        )
        has_start = (
            (first > _first(context_mask))
            | is_first_window
            | (_at(features["starts"], first) <= begin[:, 0])
        )
        has_end = (
            (last < _last(context_mask))
            | is_last_window
            | (_at(features["ends"], last) >= end[:, 0])
        )
        is_complete = tf.reduce_any(overlaps, axis=1) & has_start & has_end
        weights = tf.cast(tf.gather(has_target, example_index), tf.float32)
        return {
            "start": (tf.where(is_complete, first, 0), weights),
            "end": (tf.where(is_complete, last, 0), weights),
        }

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        if "segment_ids" not in config.inputs:
            raise errors.InputError(
                "question_answering distinguishes the question from the "
                "context by segment_ids, which this network "
                f"({config.describe()}) does not read; take one with "
                "num_segments=2."
            )
        return {"span": heads_lib.SpanHead(config)}

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        """Returns {"start", "end": (B, S) float32 logits}."""
        start, end = heads["span"](encoded["hidden"][-1])
        return {"start": start, "end": end}

    def softmax_logits(
        self, outputs: base.Tensors, features: base.Tensors, term: str
    ) -> tf.Tensor:
        """Returns logits (B, S); only [CLS] and the context are classes."""
        context_mask = _context_mask(features)
        is_cls = tf.range(tf.shape(context_mask)[1]) == 0
        return tf.where(
            context_mask | is_cls, outputs[term], heads_lib.ABSENT_SCORE
        )

    def loss(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> base.Tensors:
        terms = {}
        for term in _TERMS:
            labels, weights = targets[term]
            logits = self.softmax_logits(outputs, features, term)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, logits
            )
            terms[term] = tf.reduce_sum(losses * weights)
        return terms

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        """Returns the n_best spans of each row, and the score of no answer.

        {"start", "end" (W, n_best) int32: first and last token, "score" (W,
        n_best), descending, "null" (W,): the score of [CLS]}. A score is the
        sum of two logits, or MASKED_LOGIT if there are fewer spans. In the
        example of the class, row 0 has the possible starts 4 to 6. With
        max_answer_length 2 its spans are (4, 4), (4, 5), (5, 5), (5, 6) and
        (6, 6).
        """
        context_mask, size = _context_mask(features), self.max_answer_length
        # Pad, so that the shortest row has n_best spans.
        starts = _mask_logits(context_mask, outputs["start"])
        starts = _pad(starts, self.n_best, MASKED_LOGIT)
        ends = _mask_logits(context_mask, outputs["end"])
        ends = _pad(ends, self.n_best + size - 1, MASKED_LOGIT)
        # scores[w, i, d] is the score of the span from token i to token i + d.
        length = tf.shape(starts)[1]
        shifted_ends = [ends[:, d : d + length] for d in range(size)]
        scores = tf.expand_dims(starts, 2) + tf.stack(shifted_ends, axis=2)
        scores = tf.where(scores > _MIN_POSSIBLE_SCORE, scores, MASKED_LOGIT)
        scores, index = tf.math.top_k(
            tf.reshape(scores, [-1, length * size]), self.n_best
        )
        is_possible = scores > _MIN_POSSIBLE_SCORE
        start = tf.where(is_possible, index // size, 0)
        return {
            "start": start,
            "end": start + tf.where(is_possible, index % size, 0),
            "score": scores,
            "null": outputs["start"][:, 0] + outputs["end"][:, 0],
        }

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns the best answer of each text, and the n_best spans.

        answer (T,) string; start, end (T,) int32: its offsets in the context,
          in code points. They are "", 0, 0 if no span is possible or, if
          `unanswerable`, if [CLS] scores higher than the best span by more than
          the threshold.
        score (T,): the softmax probability of the answer, over the n_best spans
          and, if `unanswerable`, the no-answer option.
        no_answer_score (T,): the lowest [CLS] score of the text's windows minus
          the score of the best span.
        answers, starts, ends, scores (T, n_best): the best spans, descending;
          "" and 0 if there are fewer.
        """
        del tokenizer
        context = _valid(raw["context"])
        span_scores, starts, ends = self._merge_windows(
            decoded, features, tf.size(context)
        )
        null = tf.math.unsorted_segment_min(
            decoded["null"], features["example_index"], tf.size(context)
        )
        is_possible = span_scores > _MIN_POSSIBLE_SCORE
        no_answer_score = null - span_scores[:, 0]
        no_answer = tf.logical_not(is_possible[:, 0])
        no_answer_logit = tf.where(no_answer, null, MASKED_LOGIT)
        if self.unanswerable:
            no_answer |= no_answer_score > self.no_answer_threshold
            no_answer_logit = null
        probabilities = tf.nn.softmax(
            tf.concat([span_scores, no_answer_logit[:, tf.newaxis]], axis=1)
        )
        scores = tf.where(is_possible, probabilities[:, :-1], 0.0)
        answers = tf.strings.substr(
            tf.repeat(tf.expand_dims(context, 1), self.n_best, axis=1),
            starts,
            ends - starts,
            unit="UTF8_CHAR",
        )
        return {
            "answer": tf.where(no_answer, "", answers[:, 0]),
            "start": tf.where(no_answer, 0, starts[:, 0]),
            "end": tf.where(no_answer, 0, ends[:, 0]),
            "score": tf.where(no_answer, probabilities[:, -1], scores[:, 0]),
            "no_answer_score": no_answer_score,
            "answers": answers,
            "starts": starts,
            "ends": ends,
            "scores": scores,
        }

    def _merge_windows(self, decoded, features, num_texts):
        """Merges the windows of each text: scores, starts, ends (T, n_best).

        In the example of the class, with n_best 2: let row 0 have the spans
        (8, 11) with score 5 and (5, 11) with score 2, and row 1 the spans
        (8, 11) with score 7 and (12, 13) with score 1. The text's best spans
        are (8, 11) with score 7 and (5, 11) with score 2.
        """
        is_possible = decoded["score"] > _MIN_POSSIBLE_SCORE
        starts = tf.gather(features["starts"], decoded["start"], batch_dims=1)
        ends = tf.gather(features["ends"], decoded["end"], batch_dims=1)

        def join_windows(values, padding):
            values = tf.where(is_possible, values, padding)
            values = tf.RaggedTensor.from_value_rowids(
                values, features["example_index"], num_texts, validate=False
            ).to_tensor(padding)  # (T, windows, n_best)
            values = tf.reshape(
                values, [num_texts, tf.shape(values)[1] * self.n_best]
            )
            # Pad, as an empty batch has no windows.
            return _pad(values, self.n_best, padding)

        scores, starts, ends = _mask_duplicates(
            join_windows(decoded["score"], MASKED_LOGIT),
            join_windows(starts, 0),
            join_windows(ends, 0),
        )
        scores, order = tf.math.top_k(scores, self.n_best)
        is_possible = scores > _MIN_POSSIBLE_SCORE
        starts, ends = (
            tf.where(is_possible, tf.gather(x, order, batch_dims=1), 0)
            for x in (starts, ends)
        )
        return scores, starts, ends

    def metrics(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, float]:
        """Computes exact match and F1.

        If some questions have no answer, also the best value of each over all
        no-answer thresholds, and that threshold. Both are chosen on these same
        rows; `calibrated` reads best_f1_threshold.
        """
        golds = [json.loads(example["answers"]) for example in examples]
        return answers_lib.question_answering(
            predictions,
            golds,
            answers_lib.Chinese() if self.chinese else answers_lib.English(),
            unanswerable=self.unanswerable or not all(golds),
        )


def _valid(text):
    """Replaces invalid UTF-8 by U+FFFD, so that offsets are unambiguous."""
    return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8")


def _context_mask(features):
    """Returns the mask of the context's tokens, without [SEP]: (W, S) bool."""
    second = (features["segment_ids"] == 1) & (features["padding_mask"] > 0)
    # Pad integers: LiteRT before 2.20 has no op that pads bools.
    next_token = _pad(tf.cast(second, tf.int32), 1, 0)[:, 1:]
    return second & (next_token > 0)


def _mask_logits(mask, logits):
    """Returns the logits where the mask is true, and MASKED_LOGIT elsewhere.

    Not tf.where: quantised to int8, both branches would share one scale, and
    all logits would round to 0.
    """
    mask = tf.cast(mask, logits.dtype)
    return logits * mask + MASKED_LOGIT * (1 - mask)


def _pad(values, count, padding):
    """Pads (B, S) -> (B, S + count)."""
    return tf.pad(values, [[0, 0], [0, count]], constant_values=padding)


def _first(mask):
    """Returns the first true index: (W, S) bool -> (W,); 0 if none is."""
    return tf.argmax(tf.cast(mask, tf.int32), 1, output_type=tf.int32)


def _last(mask):
    """Returns the last true index: (W, S) bool -> (W,); S - 1 if none is."""
    return tf.shape(mask)[1] - 1 - _first(tf.reverse(mask, [1]))


def _at(values, positions):
    """Reads one value per row: (W, S), positions (W,) -> (W,)."""
    return tf.gather(values, positions, batch_dims=1)


def _mask_duplicates(scores, starts, ends):
    """Sets the score of a text's duplicate spans to MASKED_LOGIT, but the best.

    Overlapping windows share spans. All arguments are (T, spans); the results
    are sorted by span.
    """

    def sort_by(key, *values):
        order = tf.argsort(key, stable=True)
        return [tf.gather(x, order, batch_dims=1) for x in values]

    scores, starts, ends = sort_by(-scores, scores, starts, ends)
    # A stable sort: the best of equal spans is the first.
    span = tf.cast(starts, tf.int64) * 2**32 + tf.cast(ends, tf.int64)
    scores, starts, ends = sort_by(span, scores, starts, ends)
    is_duplicate = (starts[:, 1:] == starts[:, :-1]) & (
        ends[:, 1:] == ends[:, :-1]
    )
    is_duplicate = tf.pad(is_duplicate, [[0, 0], [1, 0]], constant_values=False)
    return tf.where(is_duplicate, MASKED_LOGIT, scores), starts, ends
