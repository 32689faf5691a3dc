"""Session: a predictor that answers the page's requests, one at a time."""

import contextlib
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from bert_keras import commands, console, errors
from bert_keras.data import json_lines
from bert_keras.playground import blocks, wordpieces
from bert_keras.playground import views as views_lib
from bert_keras.predictor import Predictor

# A tagger of 12 x 768 reads this in about half a minute on two CPU cores.
MOST_CHARACTERS = 100_000
MOST_ROWS = 20  # lines of a column that are answered one by one
MOST_EXAMPLES = 6
BUSY_SECONDS = 60  # how long a request waits for those before it
# A vocabulary with this share of Chinese characters is that of a Chinese model:
# Google's Chinese one has 70 %, its multilingual one 11 %, its English one 1 %.
CHINESE_SHARE = 0.3

_CHINESE = re.compile("[\u3400-\u9fff]")
_LINE_END = re.compile("\r\n|\r|\n")
_TITLES = {"text_pair": "Second text"}  # of columns; others are their names


class BusyError(Exception):
    """Other requests took too long."""


class Session:
    """A model, the view of its answers, and the examples that are offered."""

    def __init__(
        self,
        predictor: Predictor,
        *,
        name: str = "model",
        examples: Iterable[Mapping[str, str]] = (),
        views: Sequence[type[views_lib.View]] = views_lib.VIEWS,
    ):
        """Runs the model once, to choose a view and to be fast from then on.

        name: what the page calls the model.
        examples: texts that the page offers, by text column; others than the
          task's columns are ignored. Texts that `answer` refuses, empty ones
          for example, are skipped with a message. Empty: those of the view.
        views: the first one that fits the answers is used.
        """
        self.predictor, self.task = predictor, predictor.task
        self.name = name
        self._lock = threading.Lock()
        columns = self.task.text_columns
        (answer,) = predictor.predict([dict.fromkeys(columns, "a")])
        view = next(each for each in views if each.fits(self.task, answer))
        self.view = view(predictor)
        self.is_chinese = _is_chinese(predictor)
        self.examples = self._accepted(examples) or self._accepted(
            self.view.examples(chinese=self.is_chinese)
        )
        for example in self.examples[:1]:
            self.answer(example)

    def _accepted(
        self, examples: Iterable[Mapping[str, str]]
    ) -> list[dict[str, str]]:
        """Returns the first MOST_EXAMPLES examples that `answer` accepts."""
        accepted: list[dict[str, str]] = []
        refused: list[errors.InputError] = []
        for example in examples:
            texts = {
                column: example[column] for column in self.task.text_columns
            }
            try:
                self._rows(self._texts(texts))
            except errors.InputError as error:
                refused.append(error)
                continue
            accepted.append(texts)
            if len(accepted) == MOST_EXAMPLES:
                break
        if refused:
            console.say(
                f"{len(refused):,} examples are not offered; the first: "
                f"{refused[0]}"
            )
        return accepted

    def describe(self) -> dict[str, Any]:
        """Returns what the page needs before the first answer."""
        weights = self.predictor.model.weights
        size = sum(
            tf.TensorShape(each.shape).num_elements()
            * tf.as_dtype(each.dtype).size
            for each in weights
        )
        return {
            "name": self.name,
            "task": self.task.name,
            "network": self.predictor.model.encoder.config.describe(),
            "parameters": self.predictor.model.count_params(),
            "size": console.bytes_text(size),
            "seq_length": self.task.seq_length,
            "language": "zh" if self.is_chinese else "",
            "columns": [
                {
                    "name": column,
                    "title": _TITLES.get(column, _as_title(column)),
                    "lines": column == self.view.lines,
                }
                for column in self.task.text_columns
            ],
            "insert": self.view.insert,
            "open_json": type(self.view) is views_lib.View,
            "examples": self.examples,
            "most_characters": MOST_CHARACTERS,
        }

    def answer(self, texts: Any) -> dict[str, Any]:
        """Answers the texts of a form, {text column: string}.

        Returns {"answers": those of the predictor, one per row, "blocks": what
        the view shows, "wordpieces", "milliseconds"}. Raises InputError for
        other values, and BusyError.
        """
        rows = self._rows(self._texts(texts))
        with self._turn():
            start = time.perf_counter()
            answers = self.predictor.predict(rows)
            seconds = time.perf_counter() - start
            shown = self.view.show(list(zip(rows, answers, strict=True)))
            pieces = wordpieces.read(self.predictor, rows)
        if any(answer.get("truncated") for answer in answers):
            shown.append(
                blocks.message(
                    "The text is longer than what the model reads "
                    f"({self.task.seq_length} tokens); the rest was not read."
                )
            )
        return {
            "answers": answers,
            "blocks": shown,
            "wordpieces": pieces,
            "milliseconds": round(1000 * seconds, 2),
        }

    def wait(self, seconds: float) -> None:
        """Waits until the model is idle."""
        if self._lock.acquire(timeout=seconds):
            self._lock.release()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=BUSY_SECONDS):
            raise BusyError(
                "the model is busy with other texts; try again in a while."
            )
        try:
            yield
        finally:
            self._lock.release()

    def _texts(self, texts: Any) -> dict[str, str]:
        """Checks the values of a form."""
        columns = self.task.text_columns
        if not isinstance(texts, Mapping) or set(texts) != set(columns):
            found = (
                ", ".join(map(str, texts))[:200] or "nothing"
                if isinstance(texts, Mapping)
                else json_lines.name_of(texts)
            )
            raise errors.InputError(
                f"expected an object with {', '.join(columns)}, found {found}."
            )
        for column in columns:
            if not isinstance(texts[column], str):
                raise errors.InputError(
                    f"{column}: expected text, found "
                    f"{json_lines.name_of(texts[column])}."
                )
        if not any(texts[column].strip() for column in columns):
            raise errors.InputError("expected a text; write one first.")
        return {
            column: json_lines.valid_text(texts[column]) for column in columns
        }

    def _rows(self, texts: dict[str, str]) -> list[dict[str, str]]:
        """Splits the column that has a text in each line, if there is one."""
        rows, column = [texts], self.view.lines
        if column:
            lines = _LINE_END.split(texts[column])
            rows = [texts | {column: line} for line in lines if line.strip()]
        if not rows:
            raise errors.InputError(f"{column} is empty; write one first.")
        if len(rows) > MOST_ROWS:
            raise errors.InputError(
                f"{column}: expected at most {MOST_ROWS} lines, found "
                f"{len(rows)}."
            )
        size = sum(len(text) for row in rows for text in row.values())
        if size > MOST_CHARACTERS:
            raise errors.InputError(
                f"expected at most {MOST_CHARACTERS:,} characters, found "
                f"{size:,}; `{commands.command_line('predict')}` reads longer "
                "texts."
            )
        return rows


def _is_chinese(predictor: Predictor) -> bool:
    vocabulary = predictor.tokenizer.vocabulary
    chinese = sum(bool(_CHINESE.search(token)) for token in vocabulary)
    return chinese > CHINESE_SHARE * len(vocabulary)


def _as_title(column: str) -> str:
    return column.replace("_", " ").capitalize()
