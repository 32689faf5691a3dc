"""Converts tags of words to entities and back, and computes entity metrics.

A tag is `O`, or a prefix and a type: `B-PER`. An entity is (type, start,
end): words start to end - 1. An entity is correct if its type and both ends
are, as in conlleval and seqeval.
"""

import re
from collections.abc import Iterable, Sequence

Entity = tuple[str, int, int]

# Scheme -> prefixes of an entity's only, first, middle and last word. IOB1 uses
# B only for an entity right after another one of the same type.
PREFIXES = {"BIO": "BBII", "IOB1": "IIII", "BIOES": "SBIE", "BMES": "SBME"}

# Scheme -> pattern of a well-formed entity's prefixes, with M written as I.
_WELL_FORMED = {
    "BIO": "BI*",
    "IOB1": "[BI]I*",
    "BIOES": "S|BI*E",
    "BMES": "S|BI*E",
}

# BILOU is BIOES with other letters for the last word and the only one.
_TAG = re.compile(r"O|[BIEMSLU]-\S+")
_OTHER_LETTERS = {"L": "E", "U": "S"}


def is_tag(text: str) -> bool:
    """Returns whether text is O, or a prefix and a type without space."""
    return _TAG.fullmatch(text) is not None


def normal(tag: str) -> str:
    """Converts BILOU prefixes to BIOES: L-PER -> E-PER, U-PER -> S-PER."""
    return _OTHER_LETTERS.get(tag[0], tag[0]) + tag[1:]


def scheme(sequences: Iterable[Sequence[str]]) -> str:
    """Infers the tagging scheme of sentences: a key of PREFIXES."""
    prefixes: set[str] = set()
    starts = {"B": 0, "I": 0}  # entities by the prefix of their first word
    for tags in sequences:
        prefixes.update(tag[0] for tag in tags)
        for _, first, _ in spans(tags):
            if tags[first][0] in starts:
                starts[tags[first][0]] += 1
    if prefixes & set("MES"):
        return "BMES" if "M" in prefixes else "BIOES"
    # Compare counts: BIO files have a few entities that wrongly start with I.
    return "IOB1" if starts["I"] > starts["B"] else "BIO"


def continues(before: str, tag: str) -> bool:
    """Returns whether `tag` continues the entity of the previous word's tag."""
    return before[0] in "BIM" and tag[0] in "IME" and before[1:] == tag[1:]


def spans(tags: Sequence[str], scheme: str | None = None) -> list[Entity]:
    """Returns the entities of a sentence, in order.

    Any sequence is accepted: a tag that cannot continue the previous entity
    starts a new one, whatever its prefix. With a scheme, entities that are not
    well-formed in it are dropped.
    """
    entities, before, start = [], "O", 0
    for index, tag in enumerate([*tags, "O"]):
        if not continues(before, tag):
            if before != "O":
                entities.append((before[2:], start, index))
            start = index
        before = tag
    if scheme is None:
        return entities
    return [
        (entity_type, start, end)
        for entity_type, start, end in entities
        if re.fullmatch(
            _WELL_FORMED[scheme],
            "".join(tag[0] for tag in tags[start:end]).replace("M", "I"),
        )
    ]


def tags(entities: Iterable[Entity], length: int, scheme: str) -> list[str]:
    """Returns the tags of `length` words; entities must not overlap."""
    single, begin, middle, end = tuple(PREFIXES[scheme])
    result = ["O"] * length
    previous = ("", 0, 0)
    for entity_type, first, last in sorted(
        entities, key=lambda entity: entity[1]
    ):
        letters = begin + middle * (last - first - 2) + end
        if last - first == 1:
            letters = single
        if scheme == "IOB1" and (entity_type, first) == (
            previous[0],
            previous[2],
        ):
            letters = "B" + letters[1:]
        result[first:last] = [f"{letter}-{entity_type}" for letter in letters]
        previous = (entity_type, first, last)
    return result


def entity_metrics(
    predicted: Sequence[Iterable[Entity]], gold: Sequence[Iterable[Entity]]
) -> dict[str, float]:
    """Returns {"precision", "recall", "f1"} over the entities of all sentences.

    A metric with a zero denominator is 0.
    """
    num_correct = num_predicted = num_gold = 0
    for sentence_predicted, sentence_gold in zip(predicted, gold, strict=True):
        predicted_set, gold_set = set(sentence_predicted), set(sentence_gold)
        num_correct += len(predicted_set & gold_set)
        num_predicted += len(predicted_set)
        num_gold += len(gold_set)
    precision = num_correct / num_predicted if num_predicted else 0.0
    recall = num_correct / num_gold if num_gold else 0.0
    total = precision + recall
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / total if total else 0.0,
    }
