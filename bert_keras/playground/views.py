"""Views: how the answers of a task are shown, chosen by their shape.

A view is one class here. To show a task of your own, write another one and pass
`serve(model, views=(MyView, *VIEWS))`.
"""

import string
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bert_keras.data import graph_splitter
from bert_keras.playground import blocks, examples, fill_mask, shared_words
from bert_keras.playground.blocks import Block
from bert_keras.playground.examples import Examples, Texts
from bert_keras.predictor import Predictor
from bert_keras.tasks import base

Answer = Mapping[str, Any]


class View:
    """The interface of views, and the view of answers of an unknown shape.

    A complete view, for answers such as {"language": "en", "score": 0.9}:

        class Language(views.View):
            needs = {"language": str, "score": float}
            def show(self, rows):
                [(texts, answer)] = rows
                return [
                    blocks.headline(
                        "Language", answer["language"], answer["score"]
                    )
                ]
    """

    # Keys of the answers that the view shows, and the types of their values.
    needs: ClassVar[Mapping[str, type]] = {}
    # Text columns that the view shows; the task needs to have them.
    columns: ClassVar[tuple[str, ...]] = ()
    # One of them whose lines are texts of their own: each is a row.
    lines: ClassVar[str] = ""
    # A text that a button of the page inserts, such as [MASK].
    insert: str = ""
    example_texts: ClassVar[Examples] = examples.TEXTS

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.task = predictor.task

    @classmethod
    def fits(cls, task: base.Task, answer: Answer) -> bool:
        """Returns whether this view can show answers like this one."""
        return set(cls.columns) <= set(task.text_columns) and all(
            isinstance(answer.get(key), needed)
            for key, needed in cls.needs.items()
        )

    def examples(self, *, chinese: bool) -> list[Texts]:
        """Returns examples that have the task's text columns."""
        texts = self.example_texts
        return [
            example
            for example in (texts.chinese if chinese else texts.english)
            if set(example) == set(self.task.text_columns)
        ]

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        """Returns what the page shows.

        rows: texts and their answer; one row, unless the view has `lines`.
        """
        [(_, answer)] = rows
        shown = []
        for key, value in answer.items():
            if key == "scores" and _are_numbers(value):
                shown.append(blocks.bars(key, self._class_bars(value)))
            elif key != "truncated" and isinstance(value, (str, int, float)):
                shown.append(blocks.headline(key, str(value)))
        return shown

    def _class_bars(
        self, scores: Sequence[float], chosen: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Returns a bar for each class, the best first."""
        names = self.task.class_names
        if len(names) != len(scores):
            names = tuple(map(str, range(len(scores))))
        return [
            blocks.bar(names[i], scores[i], best=names[i] in chosen)
            for i in np.argsort(scores)[::-1].tolist()
        ]


class Classes(View):
    """Classification: the class or classes, and the score of each one."""

    needs = {"label": str, "score": float, "scores": list}

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(_, answer)] = rows
        label = answer["label"]
        # Several labels are joined by commas; one label has none.
        chosen = [label] if label in self.task.class_names else label.split(",")
        return [
            blocks.headline("Label", label or "No label", answer["score"]),
            blocks.bars("Scores", self._class_bars(answer["scores"], chosen)),
        ]


class EarlyExit(Classes):
    """Classification with early exits: also the layer that has answered."""

    needs = Classes.needs | {"exit_layer": int}

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(_, answer)] = rows
        layers = self.predictor.model.encoder.config.num_layers
        left = f"Answered by layer {answer['exit_layer']} of {layers}."
        return [*super().show(rows), blocks.message(left)]


class Choices(View):
    """Multiple choice: the choice, and the score of each one."""

    needs = {"index": int, "choice": str, "score": float, "scores": list}
    columns = ("context", "question", "choice_a")
    example_texts = examples.CHOICES

    def examples(self, *, chinese: bool) -> list[Texts]:
        texts = self.example_texts
        absent = dict.fromkeys(self.task.text_columns, "")
        return [
            {**absent, **example}
            for example in (texts.chinese if chinese else texts.english)
            if set(example) <= set(absent)
        ]

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(texts, answer)] = rows
        columns = [c for c in self.task.text_columns if c.startswith("choice_")]
        bars = [
            blocks.bar(
                texts[columns[number]],
                answer["scores"][number],
                tag=string.ascii_uppercase[number],
                best=number == answer["index"],
            )
            for number in np.argsort(answer["scores"])[::-1].tolist()
            if texts[columns[number]]
        ]
        return [
            blocks.headline("Choice", answer["choice"], answer["score"]),
            blocks.bars("Scores", bars),
        ]


class Number(View):
    """Regression: a number."""

    needs = {"value": float}

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(_, answer)] = rows
        return [blocks.headline("Value", f"{answer['value']:.3f}")]


class Entities(View):
    """Tagging: the entities, highlighted in the text."""

    needs = dict.fromkeys(("type", "text", "start", "end", "score"), list)
    columns = ("text",)
    noun: ClassVar[str] = "entities"
    example_texts = examples.ENTITIES

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(texts, answer)] = rows
        values = [answer[key] for key in ("type", "text", "start", "end")]
        found = [
            (text, blocks.span(start, end, entity_type), score)
            for entity_type, text, start, end, score in zip(
                *values, answer["score"], strict=True
            )
        ]
        if not found:
            return [
                blocks.marked_text("Text", texts["text"], []),
                blocks.message(f"No {self.noun} found in this text."),
            ]
        bars = [
            blocks.bar(text, score, tag=span["label"])
            for text, span, score in found
        ]
        return [
            blocks.marked_text("Text", texts["text"], [s for _, s, _ in found]),
            blocks.bars(self.noun.capitalize(), bars),
        ]


class IntentSlots(Entities):
    """Intent and slots: the intent, and the slots like entities."""

    needs = {**Entities.needs, "intent": str, "intent_score": float}
    noun = "slots"
    example_texts = examples.REQUESTS

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(_, answer)] = rows
        return [
            blocks.headline("Intent", answer["intent"], answer["intent_score"]),
            *super().show(rows),
        ]


class Answers(View):
    """Question answering: answers of one or several questions in a context."""

    needs = {
        **{"answer": str, "start": int, "end": int, "score": float},
        **{"answers": list, "starts": list, "ends": list, "scores": list},
    }
    columns = ("question", "context")
    lines = "question"
    example_texts = examples.QUESTIONS

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        spans, shown = [], []
        for number, (texts, answer) in enumerate(rows, 1):
            label = str(number) if len(rows) > 1 else "answer"
            if answer["answer"]:
                spans.append(blocks.span(answer["start"], answer["end"], label))
            shown += self._of_question(texts["question"], answer, label)
        context = blocks.marked_text("Context", rows[0][0]["context"], spans)
        return [context, *shown]

    def _of_question(
        self, question: str, answer: Answer, label: str
    ) -> list[Block]:
        """Returns the answer and the n best spans."""
        caption = question if label == "answer" else f"{label}. {question}"
        best = (answer["start"], answer["end"])
        bars = [
            blocks.bar(
                text,
                score,
                best=bool(answer["answer"]) and best == (start, end),
                span=blocks.span(start, end, label),
            )
            for text, start, end, score in zip(
                *(answer[key] for key in ("answers", "starts", "ends")),
                answer["scores"],
                strict=True,
            )
        ]
        return [
            blocks.headline(
                caption,
                answer["answer"] or "No answer in the context",
                answer["score"],
            ),
            blocks.bars("Best spans", bars, shown=5),
        ]


class Similarity(View):
    """Embeddings of a pair of texts: their cosine."""

    needs = {"similarity": float}

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(_, answer)] = rows
        cosine = answer["similarity"]
        return [blocks.scale("Cosine of the texts", cosine, low=-1, high=1)]


class Embeddings(View):
    """Embeddings of single texts: the cosine of each line with the first.

    Below, the words that lines share: how alike their contexts make them.
    """

    needs = {"embedding": list}
    columns = ("text",)
    lines = "text"
    example_texts = examples.LINES

    def __init__(self, predictor: Predictor):
        super().__init__(predictor)
        self.words = shared_words.SharedWords(predictor)

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        if len(rows) == 1:
            return [
                blocks.message(
                    "Write another text in a line of its own to compare it "
                    "with the first one."
                )
            ]
        vectors = np.array([answer["embedding"] for _, answer in rows])
        norms = np.linalg.norm(vectors, axis=1)
        cosines = vectors @ vectors[0] / np.maximum(norms * norms[0], 1e-12)
        bars = [
            blocks.bar(texts["text"], cosine)
            for (texts, _), cosine in zip(rows, cosines.tolist(), strict=True)
        ]
        texts = [row["text"] for row, _ in rows]
        return [
            blocks.bars("Cosine with the first text", bars[1:]),
            *self.words.show(texts),
        ]


class Summary(View):
    """Extractive summarization: the sentences, highlighted in the text."""

    needs = {"text": str, "sentences": list, "scores": list, "unread": int}
    columns = ("text",)
    example_texts = examples.ARTICLES

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(texts, answer)] = rows
        text, chosen = texts["text"], answer["sentences"]
        if not answer["scores"]:
            return [blocks.message("The text has no sentences.")]
        spans = _sentence_spans(text)
        bars = [
            blocks.bar(
                text[span["start"] : span["end"]],
                score,
                best=index in chosen,
                span=span,
            )
            for index, (score, span) in enumerate(
                zip(answer["scores"], spans, strict=False)
            )
        ]
        shown = [
            blocks.marked_text("Text", text, [spans[i] for i in chosen]),
            blocks.bars("Sentences", bars, shown=len(bars)),
        ]
        if answer["unread"]:
            shown.append(
                blocks.message(
                    f"The last {answer['unread']} sentences were not read: "
                    "they do not fit into a row of the model."
                )
            )
        return shown


def _sentence_spans(text: str) -> list[dict[str, Any]]:
    """Returns a span for each sentence of a text."""
    (sentences,) = graph_splitter.split([text]).to_list()
    spans, end = [], 0
    for sentence in map(bytes.decode, sentences):
        start = text.find(sentence, end)
        if start < 0:  # control characters of the text became spaces
            start = end
        end = start + len(sentence)
        spans.append(blocks.span(start, end, ""))
    return spans


class Continuation(View):
    """Causal language model: the text, and how the model continues it."""

    needs = {"text": str, "tokens": list, "ended": bool}
    columns = ("text",)
    example_texts = examples.BEGINNINGS

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(texts, answer)] = rows
        begin = texts["text"]
        text = begin + answer["text"]
        new = blocks.span(len(begin), len(text), "")
        shown = [blocks.marked_text("Text", text, [new])]
        count = len(answer["tokens"])
        if not answer["ended"]:
            shown.append(
                blocks.message(
                    f"It has {count} new tokens, the most that the model is "
                    "set to add, and may continue after them."
                )
            )
        return shown


class GeneratedText(View):
    """Sequence to sequence: the text, or the best of several."""

    needs = {"text": str, "score": float}
    columns = ("text",)

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(_, answer)] = rows
        text = answer["text"] or "No text was generated"
        shown = [blocks.headline("Text", text)]
        if "texts" in answer:
            # Scores are log-probabilities; their shares are of these texts.
            shares = np.exp(np.array(answer["scores"]) - answer["score"])
            bars = [
                blocks.bar(text, share, best=number == 0)
                for number, (text, share) in enumerate(
                    zip(answer["texts"], shares.tolist(), strict=True)
                )
            ]
            shown.append(blocks.bars("Best texts, beside the first", bars))
        return shown


class FilledMasks(View):
    """Masked language model: candidates for each [MASK] in a text."""

    needs = {"token": list, "score": list}
    columns = ("text",)
    example_texts = examples.MASKS

    def __init__(self, predictor: Predictor):
        super().__init__(predictor)
        self.insert = fill_mask.mask_token(predictor.tokenizer)
        self.candidates = fill_mask.Candidates(predictor)

    def examples(self, *, chinese: bool) -> list[Texts]:
        return [
            {
                column: text.replace("[MASK]", self.insert)
                for column, text in example.items()
            }
            for example in super().examples(chinese=chinese)
        ]

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(texts, answer)] = rows
        mask = self.insert
        best = [
            (token, score)
            for token, score in zip(
                answer["token"], answer["score"], strict=True
            )
            if token
        ]
        if not best:
            return [
                blocks.message(
                    f"The text has no {mask}: write {mask} where a "
                    "word is to be predicted."
                )
            ]
        text, spans = fill_mask.fill(
            texts["text"], mask, [token for token, _ in best]
        )
        shown = [blocks.marked_text("Text", text, spans)]
        if fill_mask.HEAD in self.task.head_signatures:
            found = self.candidates(texts["text"])
        else:  # another task: its answers alone
            found = [[pair] for pair in best]
        for number, candidates in enumerate(found, 1):
            caption = mask if len(best) == 1 else f"{mask} {number}"
            bars = [
                blocks.bar(token, score, best=index == 0)
                for index, (token, score) in enumerate(candidates)
            ]
            shown.append(blocks.bars(caption, bars))
        return shown


class Follows(View):
    """Next sentence: the probability that the second text follows."""

    needs = {"follows": bool, "score": float}
    columns = ("text", "text_pair")
    example_texts = examples.NEXT
    caption = "Probability that the second text follows"

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(_, answer)] = rows
        return [blocks.scale(self.caption, answer["score"], low=0, high=1)]


class Matches(Follows):
    """Matching: the probability that two texts belong together."""

    needs = {"matches": bool, "score": float}
    example_texts = examples.MATCHES
    caption = "Probability that the texts belong together"


class TokenProbabilities(View):
    """The probability of each token of a text."""

    needs = {"token": list, "log_prob": list, "score": float}
    columns = ("text",)

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(_, answer)] = rows
        bars = [
            blocks.bar(token, float(np.exp(log_prob)))
            for token, log_prob in zip(
                answer["token"], answer["log_prob"], strict=True
            )
        ]
        if not bars:
            return [blocks.message("The text has no tokens.")]
        return [
            blocks.headline("Log-probability", f"{answer['score']:.2f}"),
            blocks.bars("Probability of each token", bars, shown=len(bars)),
        ]


class SuspectTokens(View):
    """Replaced tokens: how probable it is that each token is a wrong one."""

    needs = {"token": list, "replaced": list}
    columns = ("text",)

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(_, answer)] = rows
        bars = [
            blocks.bar(token, score, best=score > 0.5)
            for token, score in zip(
                answer["token"], answer["replaced"], strict=True
            )
        ]
        if not bars:
            return [blocks.message("The text has no tokens.")]
        caption = "Probability that each token was replaced"
        return [blocks.bars(caption, bars, shown=len(bars))]


class RestoredOrder(View):
    """Token order: the token that belongs at each place of a text."""

    needs = {"token": list, "place": list, "score": list}
    columns = ("text",)

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(_, answer)] = rows
        bars = [
            blocks.bar(token, score, best=place != number)
            for number, (token, place, score) in enumerate(
                zip(
                    *(answer[key] for key in ("token", "place", "score")),
                    strict=True,
                )
            )
        ]
        if not bars:
            return [blocks.message("The text has no tokens.")]
        return [
            blocks.headline("Restored", " ".join(answer["token"])),
            blocks.bars("Token of each place", bars, shown=len(bars)),
        ]


class ExpectedWords(View):
    """Bidirectional language model: what each side expects for each word."""

    needs = dict.fromkeys(
        ("word", "from_left", "left_score", "from_right", "right_score"), list
    )
    columns = ("text",)

    def show(self, rows: Sequence[tuple[Texts, Answer]]) -> list[Block]:
        [(_, answer)] = rows
        if not answer["word"]:
            return [blocks.message("The text has no words.")]
        return [
            blocks.bars(
                f"Expected from the {side}",
                [
                    blocks.bar(word, score, tag=expected, best=word == expected)
                    for word, expected, score in zip(
                        answer["word"],
                        answer[f"from_{side}"],
                        answer[f"{side}_score"],
                        strict=True,
                    )
                ],
            )
            for side in ("left", "right")
        ]


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, (int, float)) for value in values
    )


# A view before another one is preferred; the last one shows any answer.
VIEWS: tuple[type[View], ...] = (
    IntentSlots,
    Entities,
    Choices,
    EarlyExit,
    Classes,
    Number,
    Answers,
    Similarity,
    Embeddings,
    Summary,
    Continuation,
    GeneratedText,
    Follows,
    Matches,
    TokenProbabilities,
    SuspectTokens,
    RestoredOrder,
    FilledMasks,
    ExpectedWords,
    View,
)
