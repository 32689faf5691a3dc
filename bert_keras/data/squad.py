"""Questions on a text as rows: JSON in the form of SQuAD 1.1 and 2.0.

CMRC 2018, DRCD and XQuAD come in the same form: {"data": [{"paragraphs":
[{"context", "qas": [{"id", "question", "answers": [{"text",
"answer_start"}], "is_impossible"}]}]}]}. Offsets count code points.
"""

import json
from collections.abc import Iterator
from typing import Any

from bert_keras import errors
from bert_keras.data import corpus

NOWHERE = "-1"  # `answer_start` where there is nothing to point at


class Questions(Iterator[dict[str, str]]):
    """Rows of one file, each a dict of strings.

    id, question, context
    answers: JSON list of the gold texts; empty = the context has no answer
    is_impossible: true or false, true where `answers` is empty
    answer, answer_start: the first gold text that stands in the context where
        the file says, and where; "" and NOWHERE without one
    group: the article, whose questions are not to be split
    """

    def __init__(self, path: str, rows: Iterator[dict[str, str]]):
        self.path = path
        self.answers = 0  # read so far
        self.misplaced = 0  # of these, answers that do not stand there
        self.unplaced = 0  # questions whose answers are all misplaced
        self._rows = rows

    def __next__(self) -> dict[str, str]:
        row, places = next(self._rows)
        self.answers += len(places)
        self.misplaced += places.count(False)
        self.unplaced += bool(places) and not any(places)
        return row

    @property
    def note(self) -> str:
        """What a person should know of the rows read so far, or ""."""
        if not self.misplaced:
            return ""
        return (
            f"{self.path}: {self.misplaced:,} of {self.answers:,} answers do "
            "not stand in their context at their offset; scores count them, "
            f"learning does not. {self.unplaced:,} questions have no other "
            "answer to learn."
        )


def read(path: str) -> Questions:
    """The questions of a `.json` or `.json.gz` file."""
    if not path.removesuffix(".gz").endswith(".json"):
        raise errors.InputError(
            f"{path}: expected SQuAD's JSON, a name that ends in .json or "
            ".json.gz."
        )
    return Questions(path, _rows(path))


def _rows(path: str):
    """(row, for each answer whether it stands at its offset)."""
    content = b"\n".join(corpus.lines(path))
    try:
        data = _Place(path, "", json.loads(content))
    except json.JSONDecodeError as error:
        raise errors.InputError(
            f"{path}: expected SQuAD's JSON; line {error.lineno}, column "
            f"{error.colno}: {error.msg}. Is the file whole?"
        ) from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise errors.InputError(
            f"{path}, line {line}: expected UTF-8, found byte "
            f"0x{content[error.start]:02x}. Convert the file, for example "
            "with iconv -t UTF-8."
        ) from None
    empty = True
    for number, article in enumerate(data.items("data")):
        for paragraph in article.items("paragraphs"):
            context = paragraph.text("context")
            for question in paragraph.items("qas"):
                empty = False
                row, places = _row(context, question)
                yield row | {"group": str(number)}, places
    if empty:
        raise errors.InputError(f"{path}: expected questions, found none.")


def _row(context: str, question: "_Place"):
    impossible = question.flag("is_impossible")
    answers = [] if impossible else question.items("answers")
    texts = [answer.text("text") for answer in answers]
    starts = [answer.number("answer_start") for answer in answers]
    places = [
        start >= 0 and bool(text) and context.startswith(text, start)
        for text, start in zip(texts, starts, strict=True)
    ]
    row = {
        "id": question.identity("id"),
        "question": question.text("question"),
        "context": context,
        "answers": json.dumps(texts, ensure_ascii=False),
        "is_impossible": json.dumps(not texts),
        "answer": "",
        "answer_start": NOWHERE,
    }
    if True in places:
        first = places.index(True)
        row |= {"answer": texts[first], "answer_start": str(starts[first])}
    return row, places


class _Place:
    """A value of the file that can say where it stands."""

    def __init__(self, path: str, place: str, value: Any):
        self.path, self.place, self.value = path, place, value

    def items(self, key: str) -> list["_Place"]:
        return [
            _Place(self.path, f"{self._at(key)}[{number}]", item)
            for number, item in enumerate(self._get(key, list, "a list"))
        ]

    def text(self, key: str) -> str:
        text = self._get(key, str, "a string")
        # JSON can write half a surrogate pair, UTF-8 cannot; one for one, so
        # that offsets stay.
        return text.encode("utf-8", "replace").decode()

    def identity(self, key: str) -> str:
        return str(self._get(key, (str, int), "a string"))

    def number(self, key: str) -> int:
        return self._get(key, int, "a whole number")

    def flag(self, key: str) -> bool:
        if isinstance(self.value, dict) and key not in self.value:
            return False  # SQuAD 1.1
        return self._get(key, bool, "true or false")

    def _at(self, key: str) -> str:
        return f"{self.place}.{key}".removeprefix(".")

    def _get(self, key: str, kind: type | tuple[type, ...], expected: str):
        if not isinstance(self.value, dict):
            found = f"{self.place or 'the file'} is {_kind(self.value)}"
        elif key not in self.value:
            found = f"there is only {', '.join(self.value) or 'nothing'}"
        else:
            value = self.value[key]
            if isinstance(value, kind) and (
                kind is bool or not isinstance(value, bool)
            ):
                return value
            found = f"it is {_kind(value)}"
        raise errors.InputError(
            f"{self.path}: expected {expected} at {self._at(key)}, as in "
            f"SQuAD's JSON, but {found}. Mend the file."
        )


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string"}
    return names.get(type(value), json.dumps(value))
