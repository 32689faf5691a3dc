r"""Compares the tokenizers with the libraries of their authors.

Compares implementations line by line. WordPiece: this project's, the slow
reference implementation of Google's rules in the tests, and Hugging Face's Rust
`tokenizers`; GPT's byte pairs: this project's and `tokenizers`; ALBERT's
SentencePiece: this project's and `sentencepiece`. Prints every line of real
text on which two of them differ, with its shortest part on which they still
differ, and the speeds.

  python -m benchmarks.tokenizer_parity --data=../shared/data

takes six minutes on one core, most of it in the reference; --tokenizers=bpe
takes one of the three kinds.
"""

import collections
import itertools
import os
import pathlib
import random
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
import tokenizers
from absl import flags
from tokenizers import models, normalizers, pre_tokenizers

import benchmarks
from bert_keras.tokenizers import base, bpe, sentencepiece, wordpiece
from tests.bert_keras.data import reference_tokenizer
from tests.bert_keras.tokenizers import bpe_test, sentencepiece_test

_DATA = flags.DEFINE_string(
    "data", "../shared/data", "Folder with vocab/ and the corpora."
)
_RANDOM_STRINGS = flags.DEFINE_integer(
    "random_strings",
    100_000,
    "Number of random Unicode strings to compare on.",
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the random strings.")
_MAX_LINES = flags.DEFINE_integer(
    "max_lines", None, "Maximum number of lines of each corpus; default: all."
)
# Kind of tokenizer -> its vocabularies, in --data's folder vocab.
VOCABULARIES = {
    "wordpiece": (
        "bert_uncased_en_vocab.txt",
        "bert_cased_en_vocab.txt",
        "bert_chinese_vocab.txt",
    ),
    "bpe": ("openai_gpt1",),
    "sentencepiece": ("albert_v2_30k_spiece.model",),
}
_TOKENIZERS = flags.DEFINE_multi_enum(
    "tokenizers", list(VOCABULARIES), list(VOCABULARIES), "Kinds to compare."
)
BATCH_SIZE = 1024
MAX_PRINTED = 200  # characters to print of a list of ids
RANDOM_PRINTED = 3  # random strings to print per category of difference

Tokenize = Callable[[Sequence[str]], list[list[int]]]


def main(argv):
    del argv
    data = pathlib.Path(_DATA.value)
    corpora = {
        name: lines[: _MAX_LINES.value]
        for name, lines in read_corpora(data).items()
    }
    corpora["random"] = list(random_strings(_RANDOM_STRINGS.value, _SEED.value))
    table = [("vocabulary", "text", "pair", "lines", "equal", "percent")]
    speeds = [("vocabulary", "text", "implementation", "MB/s")]
    for kind in _TOKENIZERS.value:
        for vocabulary in VOCABULARIES[kind]:
            implementations = make(kind, str(data / "vocab" / vocabulary))
            for corpus, lines in corpora.items():
                equal = compare(
                    f"{vocabulary} on {corpus}",
                    lines,
                    implementations,
                    max_printed=RANDOM_PRINTED if corpus == "random" else None,
                )
                for pair in itertools.combinations(implementations, 2):
                    percent = 100 * equal[pair] / max(1, len(lines))
                    table.append(
                        (
                            *(vocabulary, corpus, " = ".join(pair)),
                            *(f"{len(lines)}", f"{equal[pair]}"),
                            f"{percent:.4f} %",
                        )
                    )
                for name, tokenize in implementations.items():
                    if name != "google":  # the slow reference
                        speed = f"{megabytes_per_second(tokenize, lines):.1f}"
                        speeds.append((vocabulary, corpus, name, speed))
    print_table(table)
    print_table(speeds)


def read_corpora(data: pathlib.Path) -> dict[str, list[str]]:
    """Reads the corpora: {name: lines}."""
    english = list(_lines(sorted((data / "corpus_en").rglob("*.txt"))))
    chinese = list(_lines(sorted((data / "corpus_zh").rglob("*.txt"))))
    sentences = []
    for path in sorted((data / "weibo_ner").glob("*.conll")):
        for block in path.read_text("utf-8").split("\n\n"):
            rows = [row.split("\t")[0] for row in block.split("\n")]
            sentences.append("".join(rows))
    return {
        "corpus_en": english,
        "corpus_zh": chinese,
        "weibo_ner": sentences,
        "mixed": [
            f"{a}{b}" for a, b in list(zip(english, chinese, strict=False))[::3]
        ],
    }


def _lines(paths: Sequence[pathlib.Path]) -> Iterator[str]:
    for path in paths:
        yield from path.read_bytes().decode("utf-8").split("\n")


def random_strings(count: int, seed: int) -> Iterator[str]:
    """Yields strings of common characters mixed with any Unicode characters."""
    generator = random.Random(seed)
    assigned = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")
    ]
    pools = (
        ["a", "b", "the", "ing", "E", "Z", "7", " ", " ", ".", "-", "\t"],
        ["é", "Å", "ß", "İ", "ς", "Σ", "ﬁ", "Ⅷ", "½", "e\u0301", "한", "ไม่"],
        [
            "中",
            "国",
            "，",
            "。",
            "Ａ",
            "１",
            "\u3000",
            "〇",
            "々",
            "ー",
            "か\u3099",
        ],
        [
            "\u200b",
            "\u200d",
            "\xad",
            "\ufeff",
            "\xa0",
            "\u2028",
            "\x00",
            "\x7f",
        ],
        assigned,
    )
    for _ in range(count):
        yield "".join(
            generator.choice(generator.choice(pools))
            for _ in range(generator.randint(1, 30))
        )


def make(kind: str, path: str) -> dict[str, Tokenize]:
    """Makes the implementations of a vocabulary: {name: lines -> ids}."""
    classes: dict[str, type[base.Tokenizer]] = {
        "wordpiece": wordpiece.Tokenizer,
        "bpe": bpe.BytePairTokenizer,
        "sentencepiece": sentencepiece.SentencePieceTokenizer,
    }
    tokenizer: Any = classes[kind].from_vocab(path)
    graph = tf.function(
        tokenizer, input_signature=[tf.TensorSpec([None], "string")]
    )
    ours = {"bert_keras": lambda lines: graph(lines).to_list()}
    if kind == "wordpiece":
        return ours | {
            "google": make_google(tokenizer),
            "hugging_face": make_hugging_face(tokenizer),
        }
    if kind == "bpe":
        other = bpe_test.of_library(tokenizer)
        return ours | {
            "hugging_face": lambda lines: [
                e.ids for e in other.encode_batch_fast(list(lines))
            ]
        }
    processor = sentencepiece_test.of_library(tokenizer)
    return ours | {
        "sentencepiece": lambda lines: processor.encode(
            sentencepiece_test.normalized(lines, tokenizer)
        )
    }


def make_google(tokenizer: wordpiece.Tokenizer) -> Tokenize:
    """Makes the slow reference tokenizer, which follows Google's rules."""
    reference = reference_tokenizer.ReferenceTokenizer(
        tokenizer.vocabulary, lowercase=tokenizer.lowercase
    )
    return lambda lines: [reference(line) for line in lines]


def make_hugging_face(tokenizer: wordpiece.Tokenizer) -> Tokenize:
    """Makes Hugging Face's tokenizer, with Google's maximum word length.

    It has no special tokens, so "[MASK]" is split like other text.
    """
    hugging_face_tokenizer = tokenizers.Tokenizer(
        models.WordPiece(
            {token: i for i, token in enumerate(tokenizer.vocabulary)},
            unk_token="[UNK]",
            max_input_chars_per_word=wordpiece.MAX_WORD_LENGTH,
        )
    )
    hugging_face_tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=tokenizer.lowercase
    )
    hugging_face_tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return lambda lines: [
        e.ids for e in hugging_face_tokenizer.encode_batch_fast(list(lines))
    ]


def compare(
    title: str,
    lines: Sequence[str],
    implementations: dict[str, Tokenize],
    *,
    max_printed: int | None = None,
) -> collections.Counter[tuple[str, str]]:
    """Prints the differences; returns how many lines are equal, by pair.

    max_printed: differences of one category to print; None: all.
    """
    equal: collections.Counter[tuple[str, str]] = collections.Counter()
    categories: collections.Counter[tuple[Any, str]] = collections.Counter()
    pairs = tuple(itertools.combinations(implementations, 2))
    for start in range(0, len(lines), BATCH_SIZE):
        batch = lines[start : start + BATCH_SIZE]
        ids = {name: f(batch) for name, f in implementations.items()}
        for pair in pairs:
            for row, (a, b) in enumerate(zip(*map(ids.get, pair), strict=True)):
                if a == b:
                    equal[pair] += 1
                    continue
                both = [implementations[name] for name in pair]
                core = shrink(batch[row], *both)
                category = difference_category(core, *both)
                categories[pair, category] += 1
                if (
                    max_printed is not None
                    and categories[pair, category] > max_printed
                ):
                    continue
                print(f"{title}, line {start + row}: {core!a}, {category}")
                common = len(os.path.commonprefix([a, b]))
                print(f"  equal up to token {common}, then")
                for name, row_ids in zip(pair, (a, b), strict=True):
                    rest = str(row_ids[common:])
                    print(f"  {name:12} {rest[:MAX_PRINTED]}")
    for (pair, category), count in categories.most_common():
        names = " and ".join(pair)
        print(f"{title}: {names} differ {count} times: {category}")
    return equal


def shrink(text: str, first: Tokenize, second: Tokenize) -> str:
    """Removes characters from a text as long as the two still differ on it."""
    size = (len(text) + 1) // 2
    while size:
        candidates = [
            text[:start] + text[start + size :]
            for start in range(0, len(text), size)
        ]
        for candidate, a, b in zip(
            candidates, first(candidates), second(candidates), strict=True
        ):
            if a != b:
                text = candidate
                break
        else:
            size //= 2
    return text


def difference_category(core: str, first: Tokenize, second: Tokenize) -> str:
    """Returns the category of a difference, as far as it can be inferred."""
    probes = [f"a{c}b" for c in core]
    differing = [
        c
        for c, a, b in zip(core, first(probes), second(probes), strict=True)
        if a != b
    ]
    if not differing and "Σ" in core:
        return "Σ at the end of a word is lower-cased to ς, or to σ"
    if not differing:
        return "no single character explains it"
    categories = sorted(set(map(unicodedata.category, differing)))
    if categories == ["Co"]:
        return "a private-use character is part of a word, or dropped"
    if all("\U0002b820" <= c <= "\U0002b91f" for c in differing):
        return "U+2B820 to U+2B91F count as Chinese, or not"
    return f"other Unicode tables, category {' and '.join(categories)}"


def megabytes_per_second(tokenize: Tokenize, lines: Sequence[str]) -> float:
    tokenize(lines[:BATCH_SIZE])
    start = time.perf_counter()
    for first in range(0, len(lines), BATCH_SIZE):
        tokenize(lines[first : first + BATCH_SIZE])
    seconds = time.perf_counter() - start
    return sum(len(line.encode()) for line in lines) / 1e6 / seconds


def print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)))


if __name__ == "__main__":
    benchmarks.run(main)
