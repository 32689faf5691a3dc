#!/usr/bin/env python3
"""Predicts with a .tflite file exported by this project; measures latency.

  echo "a fine film" | python run_tflite.py --model=model_dynamic.tflite
  python run_tflite.py --model=model_int8.tflite --threads=4 --runs=200 < texts

It needs only numpy and ai_edge_litert: copy it to a small board, beside a model
with its .json and vocab.txt (and labels.txt). A line is a text, or two texts
separated by a TAB. Predictions are JSON lines: a label and its score if the
model classifies texts, otherwise the model's raw outputs and the wordpieces
they belong to; `truncated` is true if the text was too long. Input and output
are UTF-8 in any locale; invalid bytes are dropped, and the number of lines with
such bytes is printed on standard error. With --runs, the model runs that many
more times on the first line, and latencies are printed on standard error.
"""

from __future__ import annotations  # for Python 3.9

import argparse
import json
import os
import sys
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import interpreter as litert

MAX_WORD_LENGTH = 200

# Code points split into single-character words, as in Google's tokenization.py.
CHINESE = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """BERT's tokenizer in plain Python: text -> ids.

    Removes control characters, splits at white space, punctuation and Chinese
    characters, and splits words into wordpieces, longest match first.
    """

    def __init__(
        self, vocabulary: Sequence[str], *, lowercase: bool, unk_id: int
    ):
        self.ids = {piece: number for number, piece in enumerate(vocabulary)}
        self.longest = max(map(len, vocabulary), default=0)
        self.lowercase, self.unk_id = lowercase, unk_id

    def __call__(self, text: str) -> list[int]:
        return [
            token_id
            for word in self.words(text)
            for token_id in self.encode_word(word)
        ]

    def words(self, text: str) -> Iterator[str]:
        # Drop characters first, as the model's tokenizer does: the lower case
        # of a letter may depend on the letter before it.
        text = "".join(char for char in text if not _is_dropped(char))
        if self.lowercase:
            text = _decomposed(text.lower())
        word = ""
        for char in text:
            category = unicodedata.category(char)
            if self.lowercase and category == "Mn":
                continue
            if char in "\t\n\r" or category in ("Zs", "Zl", "Zp"):
                yield from filter(None, [word])
                word = ""
            elif _is_punctuation(char, category) or _is_chinese(char):
                yield from filter(None, [word])
                yield char
                word = ""
            else:
                word += char
        yield from filter(None, [word])

    def encode_word(self, word: str) -> list[int]:
        if len(word) > MAX_WORD_LENGTH:
            return [self.unk_id]
        ids, start = [], 0
        while start < len(word):
            end = min(len(word), start + self.longest)
            prefix = "##" if start else ""
            while end > start and prefix + word[start:end] not in self.ids:
                end -= 1
            if end == start:
                return [self.unk_id]
            ids.append(self.ids[prefix + word[start:end]])
            start = end
        return ids


def _is_dropped(char):
    if char in "\t\n\r":
        return False
    return char == "\ufffd" or unicodedata.category(char) in ("Cc", "Cf", "Cs")


def _decomposed(text):
    """Returns the text in NFD, with combining marks in canonical order.

    unicodedata sorts marks in quadratic time: 15 seconds for 160 KB of marks.
    """
    if text.isascii():
        return text
    ordered, marks = [], []
    for whole in text:
        for char in unicodedata.normalize("NFD", whole):
            if unicodedata.combining(char):
                marks.append(char)
            else:
                ordered += sorted(marks, key=unicodedata.combining)
                ordered.append(char)
                marks = []
    return "".join(ordered + sorted(marks, key=unicodedata.combining))


def _is_punctuation(char, category):
    return category.startswith("P") or (
        char.isascii() and category.startswith("S")
    )


def _is_chinese(char):
    return any(first <= ord(char) <= last for first, last in CHINESE)


class Model:
    """A .tflite file with its metadata, vocabulary and labels."""

    def __init__(self, path: str, threads: int):
        metadata_path = f"{path.removesuffix('.tflite')}.json"
        with open(metadata_path, encoding="utf-8") as file:
            self.metadata = json.load(file)
        if "tokenizer" in self.metadata:
            raise ValueError(
                "expected a model with WordPiece's vocabulary, the only "
                "tokenizer of this program; found "
                f"{self.metadata['tokenizer']}. The .md file beside the model "
                "describes it"
            )
        name = self.metadata["vocabulary"]
        for other in ("task", "texts", "settings"):
            self.metadata[other]  # Raise KeyError now, not at the first text.
        self.vocabulary = _lines(path, name)
        self.input_names = [each["name"] for each in self.metadata["inputs"]]
        self.check_vocabulary()
        self.labels = []
        if self.metadata["classes"]:
            self.labels = _lines(path, self.metadata["labels"])
            if len(self.labels) != self.metadata["classes"]:
                raise ValueError(
                    f"expected {self.metadata['classes']} labels in "
                    f"{self.metadata['labels']}, found {len(self.labels)}."
                )
        self.tokenizer = WordPiece(
            self.vocabulary,
            lowercase=self.metadata["lowercase"],
            unk_id=self.metadata["unk_id"],
        )
        interpreter = litert.Interpreter(path, num_threads=threads)
        # In ascending order of length.
        self.runners = [
            (length, interpreter.get_signature_runner(name))
            for name, length in sorted(
                self.metadata["signatures"].items(), key=lambda item: item[1]
            )
        ]

    def check_vocabulary(self) -> None:
        """Raises ValueError if the vocabulary is that of another model."""
        name, count = self.metadata["vocabulary"], len(self.vocabulary)
        # Older exports lack the size.
        size = self.metadata.get("vocabulary_size", count)
        if size != count:
            raise ValueError(
                f"expected {size} wordpieces in {name}, found {count}"
            )
        for key in ("pad_id", "unk_id", "cls_id", "sep_id", "mask_id"):
            number, piece = self.metadata[key], f"[{key[:-3].upper()}]"
            if number is None:
                continue
            entry = self.vocabulary[number] if 0 <= number < count else None
            if entry != piece:
                raise ValueError(
                    f"expected {piece} as wordpiece {number} of {name}, found "
                    f"{entry!r:.60}"
                )

    def tokenize(self, text: str) -> list[int]:
        """Returns the ids of a text; in masked LM, "[MASK]" is one token."""
        if self.metadata["task"] != "masked_lm":
            return self.tokenizer(text)
        first, *others = text.split("[MASK]")
        ids = self.tokenizer(first)
        for part in others:
            ids += [self.metadata["mask_id"], *self.tokenizer(part)]
        return ids

    def call(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the model on features (1, S); returns its outputs (1, ...)."""
        length = inputs["padding_mask"].shape[1]
        return dict(self.runners)[length](**inputs)

    def inputs(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Tokenizes and packs one or two texts; returns {input name: (1, S)}.

        A row is [CLS] a [SEP], or [CLS] a [SEP] b [SEP]. S is the shortest of
        the model's lengths that fits, or the longest.
        """
        return self.pack([self.tokenize(text) for text in texts])[0]

    def pack(
        self, segments: list[list[int]]
    ) -> tuple[dict[str, np.ndarray], bool]:
        """Packs token ids; returns features (1, S) and whether it truncated."""
        if self.metadata["task"] == "causal_lm":
            return self.pack_beginning(*segments)
        needed = sum(map(len, segments)) + 1 + len(segments)
        lengths = [length for length, _ in self.runners]
        fits = [length for length in lengths if length >= needed]
        length = min(fits, default=lengths[-1])
        room = length - 1 - len(segments)
        while sum(map(len, segments)) > room:
            # Truncate the longest; of equally long ones, the second.
            max(reversed(segments), key=len).pop()
        ids, segment_ids = [self.metadata["cls_id"]], [0]
        for number, segment in enumerate(segments):
            ids += [*segment, self.metadata["sep_id"]]
            segment_ids += [number] * (len(segment) + 1)
        values = {
            "token_ids": ids,
            "segment_ids": segment_ids,
            "padding_mask": [1] * len(ids),
        }
        row = {
            name: np.array(
                [values[name] + [0] * (length - len(ids))], dtype=np.int32
            )
            for name in self.input_names
        }
        return row, needed > length

    def pack_beginning(
        self, ids: list[int]
    ) -> tuple[dict[str, np.ndarray], bool]:
        """Packs the last tokens of a text to continue; see `pack`."""
        settings = self.metadata["settings"]
        is_full = settings.get("packing") == "full"
        start = [] if is_full else [self.metadata["cls_id"]]
        if is_full and not ids:
            end_id = settings.get("end_id")
            ids = [self.metadata["unk_id"] if end_id is None else end_id]
        lengths = [length for length, _ in self.runners]
        needed = len(start) + len(ids)
        fits = [length for length in lengths if length >= needed]
        length = min(fits, default=lengths[-1])
        ids = [*start, *ids[-(length - len(start)) :]]
        values = {"token_ids": ids, "padding_mask": [1] * len(ids)}
        row = {
            name: np.array(
                [(values.get(name, []) + [0] * length)[:length]],
                dtype=np.int32,
            )
            for name in self.input_names
        }
        return row, needed > length

    def answer(self, texts: Sequence[str]) -> dict[str, Any]:
        inputs, truncated = self.pack([self.tokenize(text) for text in texts])
        return self.interpret(self.call(inputs), inputs) | {
            "truncated": truncated
        }

    def interpret(
        self,
        outputs: Mapping[str, np.ndarray],
        inputs: Mapping[str, np.ndarray],
    ) -> dict[str, Any]:
        """Returns a label and its score, or the outputs and their tokens."""
        if self.labels:
            scores = outputs["scores"][0].tolist()
            settings = self.metadata["settings"]
            is_old_format = settings.get("kind") == "multi"  # until version 0.1
            if is_old_format or settings.get("problem_type") == "multi_label":
                return self.multi_label_answer(scores)
            best = int(np.argmax(scores))
            return {"label": self.labels[best], "score": scores[best]}
        if "next_token_scores" in outputs:
            scores = outputs["next_token_scores"][0]
            best = int(np.argmax(scores))
            return {
                "token": self.vocabulary[best],
                "score": float(scores[best]),
            }
        ids = inputs["token_ids"][0][inputs["padding_mask"][0] > 0]
        return {
            **{name: value[0].tolist() for name, value in outputs.items()},
            "pieces": [self.vocabulary[piece] for piece in ids],
        }

    def multi_label_answer(self, scores: Sequence[float]) -> dict[str, Any]:
        """Returns the labels of all classes above 0.5, and their lowest score.

        If there is no such class: no label, and 1 - the highest score.
        """
        above = [number for number, each in enumerate(scores) if each > 0.5]
        return {
            "label": ",".join(self.labels[number] for number in above),
            "score": min(
                (scores[number] for number in above), default=1 - max(scores)
            ),
        }


def _lines(model, name):
    """Returns the lines of a file beside the model.

    The name is from the .json, which is untrusted: a path is refused.
    """
    if (
        not isinstance(name, str)
        or name in ("", ".", "..")
        or (set(name) & set("/\\:\0"))
    ):
        raise ValueError(
            f"expected a file name without a folder, found {name!r:.60}"
        )
    path = os.path.join(os.path.dirname(model), name)
    with open(path, encoding="utf-8", newline="\n") as file:
        return file.read().split("\n")[:-1]


def read(stream: Any) -> Iterator[tuple[str, bool]]:
    """Yields (line without invalid UTF-8, whether it had any)."""
    if stream is None:  # closed by the shell
        return
    stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    for number, line in enumerate(stream, 1):
        # UTF-16's byte order marks, as surrogateescape decodes them.
        if number == 1 and line[:2] in ("\udcff\udcfe", "\udcfe\udcff"):
            sys.exit(
                "error: expected UTF-8, found UTF-16. Convert the input, for "
                "example with iconv -f UTF-16 -t UTF-8."
            )
        # surrogateescape has decoded invalid bytes to lone surrogates.
        clean = line.encode("utf-8", "ignore").decode("utf-8")
        yield clean, clean != line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="a .tflite file")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument(
        "--runs", type=int, default=0, help="number of timed calls"
    )
    arguments = parser.parse_args()
    try:
        model = Model(arguments.model, arguments.threads)
    except KeyError as error:
        sys.exit(f"error: the .json of {arguments.model} has no {error}.")
    except (
        *(OSError, ValueError, RuntimeError),
        *(TypeError, AttributeError),  # JSON values of other types
    ) as error:
        # RuntimeError includes the RecursionError of deeply nested JSON.
        why = " ".join(str(error).split())
        sys.exit(f"error: {arguments.model} or its .json: {why}")
    if sys.stdout is None:
        sys.exit("error: standard output is closed.")
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    try:
        first_texts = answer_lines(model)
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does.
        drop_output()
        return
    except OSError as error:
        drop_output()
        sys.exit(f"error: answers cannot be written: {error.strerror}.")
    if arguments.runs > 0 and first_texts:
        measure(model, first_texts, arguments)


def drop_output() -> None:
    """Redirects standard output to null, so that the flush at exit succeeds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def answer_lines(model: Model) -> list[str] | None:
    """Answers each line of standard input; returns the texts of the first."""
    first_texts, num_invalid = None, 0
    for number, (line, is_invalid) in enumerate(read(sys.stdin), 1):
        num_invalid += is_invalid
        texts = line.rstrip("\r\n").split("\t")
        if len(texts) != len(model.metadata["texts"]):
            sys.exit(
                f"error: line {number}: expected "
                f"{len(model.metadata['texts'])} texts with a TAB between, "
                f"found {len(texts)}."
            )
        first_texts = first_texts or texts
        print(json.dumps(model.answer(texts), ensure_ascii=False), flush=True)
    if num_invalid:
        print(
            f"Invalid UTF-8 bytes were dropped from {num_invalid:,} lines.",
            file=sys.stderr,
        )
    return first_texts


def measure(
    model: Model, texts: Sequence[str], arguments: argparse.Namespace
) -> None:
    """Prints latency percentiles of --runs calls of the model on `texts`."""
    inputs = model.inputs(texts)
    seconds = []
    for _ in range(arguments.runs):
        start = time.perf_counter()
        model.call(inputs)
        seconds.append(time.perf_counter() - start)
    shown = ", ".join(
        f"{share} %: {1000 * np.percentile(seconds, share):.1f} ms"
        for share in (50, 90, 99)
    )
    print(
        f"{arguments.runs} runs, {arguments.threads} threads: {shown}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
