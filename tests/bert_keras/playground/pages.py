"""Tiny models of every task behind the playground, and a server in a thread."""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Iterator

import keras

from bert_keras import model as model_lib
from bert_keras import playground, predictor
from bert_keras.networks import bert
from bert_keras.tasks import (
    bidirectional_lm,
    classification,
    denoising,
    embedding,
    next_sentence,
    replaced_tokens,
    tagging,
    token_order,
    token_scores,
)
from bert_keras.wrappers import early_exit, mix
from tests import sharp, tiny

HOSTILE_LABELS = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "\u202edlo\u2069",
)
# Classes, types and texts of every task, and a text that has entities. The
# characters outside of the basic plane are one code point but two units of
# UTF-16.
TEXTS = {
    "text": "😀 a good 𝒇ilm . 很 好 电影 😀 was the story old ?",
    "text_pair": "the plot is dull",
    "question": "is the film good ?\nwas it bad ?",
    "context": "😀 the old story was fine . 很 好 电影 , not very dull !",
    "headline": "a fine film",
    "choice_a": "a very good one",
    "choice_b": "😀 the dull plot",
    "choice_c": "",
}


@keras.saving.register_keras_serializable("tests")
@dataclasses.dataclass(frozen=True)
class Mood(classification.Classification):
    """A user's task, whose answers have a shape that no view knows."""

    text_columns = ("headline",)

    def postprocess(self, decoded, features, raw, tokenizer):
        answers = super().postprocess(decoded, features, raw, tokenizer)
        return {"mood": answers["label"], "scores": answers["scores"]}


def _predictor(task):
    sizes = {"hidden_size": 32, "intermediate_size": 64}
    model = model_lib.BertModel(bert.BertEncoder(tiny.bert(**sizes)), task)
    sharp.spread(model, 1)
    return predictor.Predictor(model, tiny.tokenizer())


def _of_elmo(task):
    model = model_lib.BertModel(tiny.elmo().build_encoder(), task)
    sharp.spread(model, 1)
    return predictor.Predictor(model, tiny.characters())


_MORE = {
    "bidirectional_lm": lambda: _of_elmo(
        bidirectional_lm.BidirectionalLM(seq_length=32).adapt(
            [], tiny.characters()
        )
    ),
    "denoising": lambda: _predictor(
        denoising.Denoising(seq_length=32).adapt([], tiny.tokenizer())
    ),
    "early_exit": lambda: _predictor(
        early_exit.EarlyExit(
            classification.Classification(
                seq_length=32, labels=("bad", "fine", "good")
            )
        )
    ),
    "next_sentence": lambda: _predictor(
        next_sentence.NextSentence(seq_length=32)
    ),
    "replaced_tokens": lambda: _predictor(
        replaced_tokens.ReplacedTokens(seq_length=32).adapt(
            [], tiny.tokenizer()
        )
    ),
    "token_order": lambda: _predictor(
        token_order.TokenOrder(seq_length=32).adapt([], tiny.tokenizer())
    ),
    "token_scores": lambda: _predictor(
        token_scores.TokenScores(seq_length=32).for_checkpoint(
            tiny.masked_lm_model().task
        )
    ),
    "elmo_tagging": lambda: _of_elmo(
        mix.Mix(tagging.Tagging(seq_length=32, types=("FILM", "人")))
    ),
    "multi_label": lambda: sharp.make_classifier(
        problem_type="multi_label", labels=("old", "new", "dull")
    ),
    "regression": lambda: sharp.make_classifier(problem_type="regression"),
    "one_embedding": lambda: _predictor(embedding.Embedding(seq_length=32)),
    "hostile": lambda: sharp.make_classifier(labels=HOSTILE_LABELS),
    "users": lambda: _predictor(Mood(seq_length=32, labels=("bad", "good"))),
}
CASES = (*sharp.TASKS, *_MORE)


@functools.cache
def session(case: str) -> playground.Session:
    model = _MORE[case]() if case in _MORE else sharp.make(case)
    return playground.Session(model, name=f"runs/{case}")


def texts(case: str) -> dict[str, str]:
    """Texts of the columns of a case."""
    columns = session(case).task.text_columns
    values = {column: TEXTS[column] for column in columns}
    if case == "masked_lm":
        values["text"] = "😀 the [MASK] is 很 [MASK] ."
    if case == "intent_slots":  # the text above has no slots
        values["text"] = "plot was dull , 😀 the actor very good and new !"
    return values


@contextlib.contextmanager
def serving(
    case: playground.Session | str,
) -> Iterator[playground.server.Server]:
    """A server that answers in a thread of its own."""
    if isinstance(case, str):
        case = session(case)
    with playground.listen(port=0) as server:
        server.session = case
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
