"""Translates word for word, with a dictionary learned from the pairs.

It is what a translation model has to be better than: it knows which word is
which, and neither inflection nor order. The dictionary is IBM model 1 (Brown et
al. 1993, section 4.1), learned by expectation maximisation; each word becomes
its most probable translation.

python -m benchmarks.word_for_word --train=train.en --dev=val.en \
    --target_suffix=de
"""

import re
from collections.abc import Sequence

import numpy as np
from absl import flags

import benchmarks
from bert_keras import console
from bert_keras.data import text_pairs
from bert_keras.metrics import generation

_TRAIN = flags.DEFINE_string("train", None, "Pairs to learn from.")
_DEV = flags.DEFINE_string("dev", None, "Pairs to translate.")
_TARGET_SUFFIX = flags.DEFINE_string(
    "target_suffix", "", "As finetune's --target_suffix."
)
_COLUMNS = flags.DEFINE_string("columns", "", "As finetune's --columns.")
_ITERATIONS = flags.DEFINE_integer("iterations", 10, "Of EM.", 1)
flags.mark_flags_as_required(["train", "dev"])

_WORDS = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Splits off punctuation; Chinese becomes characters."""
    split = _WORDS.findall(text)
    if not generation.is_chinese([text]):
        return split
    return [part for word in split for part in word]


def learn(
    pairs: Sequence[tuple[list[str], list[str]]], iterations: int
) -> dict[str, str]:
    """Returns each source word's most probable translation."""
    sources = sorted({word for source, _ in pairs for word in source})
    targets = sorted({word for _, target in pairs for word in target})
    source_id = {word: number for number, word in enumerate(sources)}
    target_id = {word: number for number, word in enumerate(targets)}
    # One entry per (target token, source token of the same pair).
    token, key, count = [], [], 0
    for source, target in pairs:
        ids = [source_id[word] for word in source]
        for word in target:
            key += [each * len(targets) + target_id[word] for each in ids]
            token += [count] * len(ids)
            count += 1
    entries, entry = np.unique(np.array(key), return_inverse=True)
    token = np.array(token)
    source = entries // len(targets)
    probability = np.ones(len(entries))
    for _ in range(iterations):
        weight = probability[entry]
        weight /= np.bincount(token, weight)[token]
        expected = np.bincount(entry, weight)
        probability = expected / np.bincount(source, expected)[source]
    best = {}
    for number in np.argsort(probability):
        best[sources[source[number]]] = targets[entries[number] % len(targets)]
    return best


def main(arguments: Sequence[str]) -> None:
    del arguments

    def read(path):
        return list(
            text_pairs.read(
                path,
                columns=_COLUMNS.value,
                target_suffix=_TARGET_SUFFIX.value,
            )
        )

    dictionary = learn(
        [
            (words(example["text"]), words(example["target"]))
            for example in read(_TRAIN.value)
        ],
        _ITERATIONS.value,
    )
    examples = read(_DEV.value)
    references = [text_pairs.references(example) for example in examples]
    texts = [example["text"] for example in examples]
    space = "" if generation.is_chinese(r[0] for r in references) else " "
    answers = [
        space.join(dictionary.get(word, word) for word in words(text))
        for text in texts
    ]
    console.table(
        f"word for word, {len(dictionary):,} words",
        {
            f"{name} of {what}": round(value, 2)
            for what, each in (
                ("word for word", answers),
                ("copying the source", texts),
            )
            for name, value in generation.score(each, references).items()
        },
    )
    names, values = generation.by_length(texts, answers, references)
    console.numbers(
        "source_length",
        rows=names,
        columns=generation.LENGTH_COLUMNS,
        values=values,
    )


if __name__ == "__main__":
    benchmarks.run(main)
