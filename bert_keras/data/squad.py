"""Reads question answering examples from JSON files of SQuAD 1.1 and 2.0.

CMRC 2018, DRCD and XQuAD have the same format: {"data": [{"paragraphs":
[{"context", "qas": [{"id", "question", "answers": [{"text",
"answer_start"}], "is_impossible"}]}]}]}. Offsets count code points.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from bert_keras import errors
from bert_keras.data import json_lines, text_lines

NOWHERE = "-1"  # `answer_start` of a question without a located answer


class Questions(Iterator[dict[str, str]]):
    """Yields the examples of one file, each a dict of strings.

    id, question, context
    answers: JSON list of the gold texts, without blank ones; empty = the
        context has no answer
    is_impossible: true or false, true if `answers` is empty
    answer, answer_start: the first gold text that occurs in the context at its
        offset, and that offset; "" and NOWHERE if there is none
    group: index of the article, whose questions belong to one split
    """

    def __init__(
        self, path: str, examples: Iterator[tuple[dict[str, str], "_Answers"]]
    ):
        self.path = path
        self.answers = 0  # read so far
        self.misplaced = 0  # answers that do not occur at their offset
        self.unplaced = 0  # questions whose answers are all misplaced
        self.blank = 0  # answers without text, which are dropped
        self.silenced = 0  # questions whose answers were all blank
        self.flagged = 0  # impossible questions whose answers are dropped
        self._examples = examples

    def __next__(self) -> dict[str, str]:
        example, answers = next(self._examples)
        at_offset = answers.at_offset
        self.answers += len(at_offset)
        self.misplaced += at_offset.count(False)
        self.unplaced += bool(at_offset) and not any(at_offset)
        self.blank += answers.blank
        self.silenced += bool(answers.blank) and not at_offset
        self.flagged += answers.is_flagged
        return example

    @property
    def remark(self) -> str:
        """A remark for the user on the rows read so far, or ""."""
        notes = []
        if self.misplaced:
            notes.append(
                f"{self.misplaced:,} of {self.answers:,} answers do not occur "
                "in their context at their offset; metrics count them, "
                f"training does not. {self.unplaced:,} questions have no "
                "other answer to learn."
            )
        if self.blank:
            notes.append(
                f"{self.blank:,} answers are blank and left out; "
                f"{self.silenced:,} questions have no other and count as "
                "questions without an answer."
            )
        if self.flagged:
            notes.append(
                f"{self.flagged:,} questions are flagged as impossible and "
                "have answers, which are left out."
            )
        return f"{self.path}: {' '.join(notes)}" if notes else ""


def read(path: str) -> Questions:
    """Reads the questions of a `.json` or `.json.gz` file."""
    text_lines.refuse_folder(path)
    if not path.lower().removesuffix(".gz").endswith(".json"):
        raise errors.InputError(
            f"{path}: expected SQuAD's JSON, a name that ends in .json or "
            ".json.gz."
        )
    return Questions(path, _examples(path))


class _Answers(NamedTuple):
    """Counts of a question's answers, for Questions."""

    at_offset: list[bool]  # per gold text: whether it occurs at its offset
    blank: int = 0
    is_flagged: bool = False


def _examples(path: str) -> Iterator[tuple[dict[str, str], _Answers]]:
    content = b"\n".join(text_lines.read(path, any_line_end=True))
    try:
        data = _Node(path, "", json_lines.loads(content.decode()))
    except json_lines.JsonError as error:
        position = f"line {error.line}, column {error.column}: " * bool(
            error.line
        )
        raise errors.InputError(
            f"{path}: expected SQuAD's JSON; {position}{error.reason}. Is the "
            "file complete?"
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
                example, answers = _example(context, question)
                yield example | {"group": str(number)}, answers
    if empty:
        raise errors.InputError(f"{path}: expected questions, found none.")


def _example(
    context: str, question: "_Node"
) -> tuple[dict[str, str], _Answers]:
    impossible = question.flag("is_impossible")
    listed = [] if impossible else question.items("answers")
    # SQuAD's evaluation script drops blank answers, too.
    answers = [answer for answer in listed if answer.text("text").strip()]
    texts = [answer.text("text") for answer in answers]
    starts = [answer.number("answer_start") for answer in answers]
    at_offset = [
        start >= 0 and bool(text) and context.startswith(text, start)
        for text, start in zip(texts, starts, strict=True)
    ]
    example = {
        "id": question.identity("id"),
        "question": question.text("question"),
        "context": context,
        "answers": json.dumps(texts, ensure_ascii=False),
        "is_impossible": json.dumps(not texts),
        "answer": "",
        "answer_start": NOWHERE,
    }
    if True in at_offset:
        first = at_offset.index(True)
        example |= {"answer": texts[first], "answer_start": str(starts[first])}
    blank = len(listed) - len(answers)
    return example, _Answers(
        at_offset, blank, impossible and question.is_answered()
    )


class _Node:
    """A JSON value of the file, with its key path for error messages."""

    def __init__(self, path: str, key_path: str, value: Any):
        self.path, self.key_path, self.value = path, key_path, value

    def items(self, key: str) -> list["_Node"]:
        return [
            _Node(self.path, f"{self._at(key)}[{number}]", item)
            for number, item in enumerate(self._get(key, list, "a list"))
        ]

    def text(self, key: str) -> str:
        return self._get(key, str, "a string")

    def identity(self, key: str) -> str:
        return str(self._get(key, (str, int), "a string"))

    def number(self, key: str) -> int:
        return self._get(key, int, "a whole number")

    def flag(self, key: str) -> bool:
        if isinstance(self.value, dict) and key not in self.value:
            return False  # SQuAD 1.1
        return self._get(key, bool, "true or false")

    def is_answered(self) -> bool:
        """Returns whether a question has an answer that is not blank."""
        answers = self.value.get("answers")
        return isinstance(answers, list) and any(
            isinstance(answer, dict) and str(answer.get("text", "")).strip()
            for answer in answers
        )

    def _at(self, key: str) -> str:
        return f"{self.key_path}.{key}".removeprefix(".")

    def _get(
        self, key: str, expected_type: type | tuple[type, ...], expected: str
    ) -> Any:
        if not isinstance(self.value, dict):
            name = json_lines.name_of(self.value)
            description = f"{self.key_path or 'the file'} is {name}"
        elif key not in self.value:
            description = f"there is only {', '.join(self.value) or 'nothing'}"
        else:
            value = self.value[key]
            if isinstance(value, expected_type) and (
                expected_type is bool or not isinstance(value, bool)
            ):
                return value
            description = f"it is {json_lines.name_of(value)}"
        raise errors.InputError(
            f"{self.path}: expected {expected} at {self._at(key)}, as in "
            f"SQuAD's JSON, but {description}. Fix the file."
        )
