"""Tiny predictors whose answers differ from text to text, one per task.

New weights are so small that every text gets nearly the same answer, and a
wrong export would pass for a right one.
"""

import dataclasses

import keras

from bert_keras import model as model_lib
from bert_keras import predictor
from bert_keras.networks import bert
from bert_keras.tasks import (
    causal_lm,
    classification,
    embedding,
    extractive_summary,
    intent_slots,
    matching,
    multiple_choice,
    question_answering,
    sequence_to_sequence,
    tagging,
)
from tests import tiny

# Of a test of all tasks, `make test` has the first ones.
TASKS = (
    "classification",
    "question_answering",
    "tagging",
    "pair",
    "masked_lm",
    "causal_lm",
    "intent_slots",
    "embedding",
    "multiple_choice",
    "sequence_to_sequence",
    "extractive_summary",
    "matching",
)


def make(task: str, *, seed: int = 1) -> predictor.Predictor:
    sizes = {"hidden_size": 32, "intermediate_size": 64}
    if task == "causal_lm":
        settings = causal_lm.CausalLM(seq_length=32, max_new_tokens=8)
        settings = settings.adapt([], tiny.tokenizer())
        model = model_lib.BertModel(
            bert.BertEncoder(tiny.bert_for(task, **sizes)), settings
        )
    elif task == "masked_lm":
        model = tiny.masked_lm_model(**sizes)
    elif task == "question_answering":
        settings = question_answering.QuestionAnswering(
            seq_length=32, doc_stride=8, unanswerable=True
        )
        model = model_lib.BertModel(
            bert.BertEncoder(tiny.bert(**sizes)), settings
        )
    elif task == "intent_slots":
        settings = intent_slots.IntentSlots(
            seq_length=32, stride=16, types=("FILM",), intents=("ask", "tell")
        )
        model = model_lib.BertModel(
            bert.BertEncoder(tiny.bert(**sizes)), settings
        )
    elif task == "embedding":
        settings = embedding.Embedding(seq_length=32, pair=True)
        model = model_lib.BertModel(
            bert.BertEncoder(tiny.bert(**sizes)), settings
        )
    elif task == "multiple_choice":
        settings = multiple_choice.MultipleChoice(seq_length=32, num_choices=3)
        model = model_lib.BertModel(
            bert.BertEncoder(tiny.bert(**sizes)), settings.for_serving()
        )
    elif task == "sequence_to_sequence":
        settings = sequence_to_sequence.SequenceToSequence(
            seq_length=32, max_target_length=8, num_beams=2
        ).adapt([], tiny.tokenizer())
        model = model_lib.BertModel(
            bert.BertEncoder(tiny.bert(**sizes)), settings
        )
    elif task == "extractive_summary":
        settings = extractive_summary.ExtractiveSummary(
            seq_length=32, num_sentences=2, max_sentences=9
        ).adapt([], tiny.tokenizer())
        model = model_lib.BertModel(
            bert.BertEncoder(tiny.bert(**sizes)), settings
        )
    elif task == "matching":
        settings = matching.Matching(seq_length=32)
        model = model_lib.BertModel(
            bert.BertEncoder(tiny.bert(**sizes)), settings
        )
    elif task == "tagging":
        settings = tagging.Tagging(
            seq_length=32, stride=16, types=("FILM", "人")
        )
        model = model_lib.BertModel(
            bert.BertEncoder(tiny.bert(**sizes)), settings
        )
    else:
        settings = classification.Classification(
            seq_length=32, labels=("bad", "so so", "好")
        )
        settings = dataclasses.replace(settings, pair=task == "pair")
        model = model_lib.BertModel(
            bert.BertEncoder(tiny.bert(**sizes)), settings
        )
    # With this seed no two of its tags lie so close that 8 bits mix them up.
    spread(model, seed + 2 * (task == "intent_slots"))
    return predictor.Predictor(model, tiny.tokenizer())


def make_classifier(**settings) -> predictor.Predictor:
    """A classifier of any kind."""
    task = classification.Classification(seq_length=32, **settings)
    sizes = {"hidden_size": 32, "intermediate_size": 64}
    model = model_lib.BertModel(bert.BertEncoder(tiny.bert(**sizes)), task)
    spread(model, 1)
    return predictor.Predictor(model, tiny.tokenizer())


def spread(model: keras.Model, seed: int) -> None:
    for number, weight in enumerate(model.weights):
        if len(weight.shape) > 1:
            weight.assign(
                keras.random.normal(
                    weight.shape, stddev=0.3, seed=1000 * seed + number
                )
            )
