"""Reads question answering examples from JSON files of SQuAD 1.1 and 2.0.

CMRC 2018, DRCD and XQuAD have the same format: {"data": [{"paragraphs":
[{"context", "qas": [{"id", "question", "answers": [{"text",
"answer_start"}], "is_impossible"}]}]}]}. Offsets count code points.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bert_keras import errors
from bert_keras.data import json_lines, text_lines

# `answer_start` of a question without a located answer: it is impossible, or no
# answer occurs at its offset.
NO_ANSWER_START = "-1"


class Questions(Iterator[dict[str, str]]):
    """Yields the examples of one file, each a dict of strings.

    id, question, context
    answers: JSON list of the gold texts, without blank ones; empty if the
        context has no answer
    is_impossible: "true" if `answers` is empty, else "false"
    answer, answer_start: the first gold text that occurs in the context at its
        offset, and that offset; "" and NO_ANSWER_START if there is none
    group: index of the article; a split never separates its questions
    """

    def __init__(
        self,
        path: str,
        examples: Iterator[tuple[dict[str, str], "_AnswerChecks"]],
    ):
        self.path = path
        # Counts of what was read so far: answers that are not blank, and those
        # of them that do not occur at their offset.
        self.num_answers = self.num_misplaced_answers = 0
        # Questions whose answers are all misplaced.
        self.num_questions_without_located_answer = 0
        # Answers without text, which are dropped; questions with no others.
        self.num_blank_answers = self.num_questions_with_only_blank_answers = 0
        # Impossible questions with answers, which are dropped.
        self.num_impossible_with_answers = 0
        self._examples = examples

    def __next__(self) -> dict[str, str]:
        example, checks = next(self._examples)
        at_offset, num_blank = checks.at_offset, checks.num_blank
        self.num_answers += len(at_offset)
        self.num_misplaced_answers += at_offset.count(False)
        if at_offset and not any(at_offset):
            self.num_questions_without_located_answer += 1
        self.num_blank_answers += num_blank
        if num_blank and not at_offset:
            self.num_questions_with_only_blank_answers += 1
        self.num_impossible_with_answers += checks.is_impossible_with_answers
        return example

    @property
    def warning(self) -> str:
        """A warning about the examples read so far; empty if there is none."""
        sentences = []
        if self.num_misplaced_answers:
            sentences.append(
                f"{self.num_misplaced_answers:,} of {self.num_answers:,} "
                "answers do not occur in their context at their offset: "
                "metrics use them, training skips them. All answers of "
                f"{self.num_questions_without_located_answer:,} questions are "
                "of this type; training skips these questions."
            )
        if self.num_blank_answers:
            sentences.append(
                f"{self.num_blank_answers:,} blank answers are ignored; "
                f"{self.num_questions_with_only_blank_answers:,} questions "
                "have only blank answers and count as unanswerable."
            )
        if self.num_impossible_with_answers:
            sentences.append(
                f"{self.num_impossible_with_answers:,} questions are flagged "
                "as impossible and have answers, which are ignored."
            )
        return f"{self.path}: {' '.join(sentences)}" if sentences else ""


def read(path: str) -> Questions:
    """Reads the questions of a `.json` or `.json.gz` file."""
    text_lines.refuse_folder(path)
    if not path.lower().removesuffix(".gz").endswith(".json"):
        raise errors.InputError(
            f"{path}: expected a SQuAD file, whose name ends in .json or "
            ".json.gz."
        )
    return Questions(path, _examples(path))


def example(question: str, context: str, answers: Any) -> dict[str, str]:
    """Returns the example of a question with its answers, given in Python.

    answers: [{"text", "answer_start"}, ...], {"text": [...], "answer_start":
      [...]}, or None.

    Raises ValueError if the answers have another format, or if none of them
    occurs in the context at its offset.
    """
    if isinstance(answers, Mapping):
        answers = _from_columns(answers)
    values = {
        "id": "",
        "question": question,
        "answers": answers or [],
        "is_impossible": not answers,
    }
    result, _ = _example(context, _Node("", values))
    if answers and result["answer_start"] == NO_ANSWER_START:
        raise ValueError(
            "expected an answer that occurs in the context at its "
            f"answer_start, found {answers!r:.80}"
        )
    return result


def _from_columns(answers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the answers of Hugging Face's columns as a list of objects."""
    expected = "expected answers with lists `text` and `answer_start`"
    for name in ("text", "answer_start"):
        if name not in answers:
            keys = ", ".join(map(str, answers))
            raise ValueError(f"{expected}, found the keys {keys or '(none)'}")
        if not isinstance(answers[name], list):
            found = json_lines.name_of(answers[name])
            raise ValueError(f"{expected}, found `{name}`: {found}")
    texts, starts = answers["text"], answers["answer_start"]
    if len(texts) != len(starts):
        raise ValueError(
            "expected as many `answer_start` as `text`, found "
            f"{len(starts)} and {len(texts)}"
        )
    return [
        {"text": text, "answer_start": start}
        for text, start in zip(texts, starts, strict=True)
    ]


class _AnswerChecks(NamedTuple):
    """What was checked of a question's answers, for the counts of Questions."""

    at_offset: list[bool]  # per gold text: whether it occurs at its offset
    num_blank: int = 0
    is_impossible_with_answers: bool = False


def _examples(path: str) -> Iterator[tuple[dict[str, str], _AnswerChecks]]:
    content = b"\n".join(text_lines.read(path, any_line_end=True))
    try:
        data = _Node("", json_lines.loads(content.decode()))
    except json_lines.JsonError as error:
        position = (
            f"line {error.line}, column {error.column}: " if error.line else ""
        )
        raise errors.InputError(
            f"{path}: expected SQuAD's JSON; {position}{error.reason}. Is the "
            "file complete?"
        ) from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise errors.InputError(
            f"{path}, line {line}: expected UTF-8, found byte "
            f"0x{content[error.start]:02x}. {text_lines.how_to_convert(path)}"
        ) from None
    is_empty = True
    try:
        for example in _examples_of(data):
            is_empty = False
            yield example
    except _FormatError as error:
        raise errors.InputError(f"{path}: {error}. Fix the file.") from None
    if is_empty:
        raise errors.InputError(f"{path}: expected questions, found none.")


def _examples_of(
    data: "_Node",
) -> Iterator[tuple[dict[str, str], _AnswerChecks]]:
    for article_index, article in enumerate(data.items("data")):
        for paragraph in article.items("paragraphs"):
            context = paragraph.text("context")
            for question in paragraph.items("qas"):
                example, checks = _example(context, question)
                yield example | {"group": str(article_index)}, checks


def _example(
    context: str, question: "_Node"
) -> tuple[dict[str, str], _AnswerChecks]:
    is_impossible = question.flag("is_impossible")
    all_answers = [] if is_impossible else question.items("answers")
    # SQuAD's evaluation script drops blank answers, too.
    answers = [answer for answer in all_answers if answer.text("text").strip()]
    texts = [answer.text("text") for answer in answers]
    starts = [answer.number("answer_start") for answer in answers]
    at_offset = [
        start >= 0 and context.startswith(text, start)
        for text, start in zip(texts, starts, strict=True)
    ]
    example = {
        "id": question.identity("id"),
        "question": question.text("question"),
        "context": context,
        "answers": json.dumps(texts, ensure_ascii=False),
        "is_impossible": json.dumps(not texts),
        "answer": "",
        "answer_start": NO_ANSWER_START,
    }
    if True in at_offset:
        first = at_offset.index(True)
        example |= {"answer": texts[first], "answer_start": str(starts[first])}
    return example, _AnswerChecks(
        at_offset,
        num_blank=len(all_answers) - len(answers),
        is_impossible_with_answers=is_impossible and question.is_answered(),
    )


class _FormatError(ValueError):
    """A value that SQuAD's format does not allow; the message is a phrase."""


class _Node:
    """A JSON value, with its key path for error messages."""

    def __init__(self, key_path: str, value: Any):
        self.key_path, self.value = key_path, value

    def items(self, key: str) -> list["_Node"]:
        return [
            _Node(f"{self._at(key)}[{number}]", item)
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
            keys = ", ".join(self.value)
            where = self.key_path or "the file"
            description = f"{where} has the keys {keys or '(none)'}"
        else:
            value = self.value[key]
            if isinstance(value, expected_type) and (
                expected_type is bool or not isinstance(value, bool)
            ):
                return value
            description = f"it is {json_lines.name_of(value)}"
        raise _FormatError(
            f"expected {expected} at {self._at(key)}, as in SQuAD's JSON, but "
            f"{description}"
        )
