"""Measures how well a pretrained BERT knows a missing, and a wrong, word.

python -m benchmarks.masked_words --checkpoint=CHECKPOINT --texts=texts.txt

One word of each line is taken, at random; in Chinese a word is a character. It
is masked (one [MASK] for each of its tokens), or replaced by the word of
another line and read unmasked. Right is a word all of whose tokens are the best
one, or among the best five, at their places. The rank of a word of one token is
its place among all tokens of the vocabulary.

The baseline answers with the most frequent words of the lines.
"""

import collections
import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import rich.table
import tensorflow as tf
from absl import flags

import benchmarks
from bert_keras import console, predictor
from bert_keras.tokenizers import base as tokenizers

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A masked LM.")
_TEXTS = flags.DEFINE_string("texts", None, "File with a text per line.")
_COUNT = flags.DEFINE_integer("count", 2000, "Lines to use.", 1)
_BATCH = 50
_WORD = re.compile(r"[\u4e00-\u9fff]|[A-Za-z]+")
_BEST = 5
flags.mark_flags_as_required(["checkpoint", "texts"])


class Blank(NamedTuple):
    """A text without one of its words."""

    before: str
    word: str
    after: str
    tokens: tuple[str, ...]  # of the word

    def with_word(self, word: str) -> str:
        return f"{self.before}{word}{self.after}"


def blanks(
    lines: Sequence[str], tokenizer: tokenizers.Tokenizer, chosen: random.Random
) -> Iterator[Blank]:
    for line in lines:
        words = list(_WORD.finditer(line))
        if words:
            match = chosen.choice(words)
            ids = tokenizer(tf.constant([match[0]]))[0].numpy()
            yield Blank(
                line[: match.start()],
                match[0],
                line[match.end() :],
                tuple(tokenizer.vocabulary[each] for each in ids),
            )


def filled(
    filler: predictor.Predictor, taken: Sequence[Blank]
) -> tuple[float, float]:
    """Returns the shares of masked words that are right, and among the best."""
    texts = [
        blank.with_word(" ".join(["[MASK]"] * len(blank.tokens)))
        for blank in taken
    ]
    first = among = 0
    for blank, answer in zip(taken, filler.predict(texts), strict=True):
        # A text that is cut may have lost its masks.
        found = [*answer["tokens"], *([[""]] * len(blank.tokens))]
        pairs = list(zip(blank.tokens, found, strict=False))
        first += all(token == best[0] for token, best in pairs)
        among += all(token in best for token, best in pairs)
    return first / len(taken), among / len(taken)


def ranks(
    reader: predictor.Predictor,
    taken: Sequence[Blank],
    words: Sequence[str],
    *,
    masked: bool,
) -> np.ndarray:
    """Returns the rank of each right token where `words` stand.

    masked: their first token is masked; otherwise they are read as they are.
    """
    tokenizer, task = reader.tokenizer, reader.task
    ids = {token: number for number, token in enumerate(tokenizer.vocabulary)}
    found = []
    for start in range(0, len(taken), _BATCH):
        rows = taken[start : start + _BATCH]
        texts = [
            blank.with_word(word)
            for blank, word in zip(
                rows, words[start : start + _BATCH], strict=True
            )
        ]
        before = tokenizer(tf.constant([blank.before for blank in rows]))
        places = 1 + before.row_lengths().numpy()
        features = task.preprocess({"text": tf.constant(texts)}, tokenizer)
        if masked:
            here = tf.one_hot(places, features["token_ids"].shape[1]) > 0
            features["token_ids"] = tf.where(
                here, task.mask_id, features["token_ids"]
            )
        features = task.add_derived_features(features)
        logits = reader.model(features)["masked_lm"].numpy()
        for blank, own, place in zip(rows, logits, places, strict=True):
            if place < len(own) - 1:  # else the text is cut before it
                right = own[place, ids[blank.tokens[0]]]
                found.append(1 + int(np.sum(own[place] > right)))
    return np.array(found)


def _row(name: str, found: np.ndarray) -> list[str]:
    return [
        f"{name}, {len(found):,} of one token",
        f"{np.mean(found == 1):.3f}",
        f"{np.mean(found <= _BEST):.3f}",
        f"{np.median(found):.0f}",
    ]


def main(arguments: Sequence[str]) -> None:
    del arguments
    checkpoint = _CHECKPOINT.value or ""
    filler = predictor.load(checkpoint, settings={"top_k": _BEST})
    reader = predictor.load(
        checkpoint, task="token_scores", settings={"masked": False}
    )
    with open(_TEXTS.value or "", encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    chosen = random.Random(1)
    taken = list(blanks(lines, filler.tokenizer, chosen))[: _COUNT.value]
    counts = collections.Counter(
        match[0].lower() for line in lines for match in _WORD.finditer(line)
    )
    by_count = [word for word, _ in counts.most_common()]
    usual = by_count[:_BEST]
    folded = [blank.word.lower() for blank in taken]
    table = rich.table.Table(
        f"{len(taken):,} words", "right", f"among {_BEST}", "median rank"
    )
    table.add_row(
        f"the most frequent: {', '.join(usual)}",
        f"{np.mean([word == usual[0] for word in folded]):.3f}",
        f"{np.mean([word in usual for word in folded]):.3f}",
        f"{np.median([1 + by_count.index(word) for word in folded]):.0f}",
    )
    first, among = filled(filler, taken)
    table.add_row("masked", f"{first:.3f}", f"{among:.3f}")
    single = [blank for blank in taken if len(blank.tokens) == 1]
    others = chosen.sample([blank.word for blank in single], len(single))
    own = [blank.word for blank in single]
    for name, words, masked in (
        ("masked", own, True),
        ("replaced, unmasked", others, False),
    ):
        found = ranks(reader, single, words, masked=masked)
        table.add_row(*_row(name, found))
    console.output.print(table)


if __name__ == "__main__":
    benchmarks.run(main)
