"""Metrics of generated text, from 0 to 100: BLEU, chrF, ROUGE, exact match.

They are sacrebleu's and rouge_score's, so that they can be compared with
published ones. All are percents, since BLEU and chrF are published that way.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bert_keras import errors
from bert_keras.data import json_lines, sentence_splitter

# One text, or several of which each is right.
Reference = str | Sequence[str]

# If more than this fraction of the references' characters is Chinese, BLEU is
# of characters; as in question answering.
_CHINESE_SHARE = 0.3
# For Unicode 〇, as in 二〇二六年, is neither a Chinese character nor a digit.
_CHINESE = re.compile(f"[{sentence_splitter.HAN}〇]")
# Of `by_length`.
LENGTH_COLUMNS = ("texts", "bleu", "chrf", "rouge_l")
_GROUPS = 5
_BLANK_LINE = re.compile(r"\n\s*\n")


def score(
    hypotheses: Sequence[str], references: Sequence[Reference]
) -> dict[str, float]:
    """Computes BLEU, chrF, ROUGE and exact match of T texts, each 0 to 100.

    "bleu" (Papineni et al. 2002) and "chrf" (Popovic 2015) are of all texts
    together, as sacrebleu computes them by default: 4-grams with exponential
    smoothing, and 6-grams of characters. If more than 30% of the references'
    characters are Chinese, BLEU has sacrebleu's tokenizer "zh", which splits
    Chinese characters, otherwise "13a". Japanese has none here, as it needs
    MeCab: use chrF.

    "rouge_1", "rouge_2" and "rouge_l" are those of `rouge`. "exact_match" is
    the share of the texts that equal a reference, apart from white space.

    hypotheses, references: T each, T > 0; a reference is one text or several,
      of which the number may differ. BLEU counts the n-grams of all of them,
      the others take the best. A hypothesis may be empty; it matches nothing,
      and BLEU counts its length.

    >>> metrics = score(["this is a good film"], ["this is a good movie"])
    >>> {name: round(value, 1) for name, value in metrics.items()}
    {'bleu': 66.9, 'chrf': 65.4, 'rouge_1': 80.0, ...}

    Raises InputError if the numbers differ, are 0, or something is not text.
    """
    from sacrebleu.metrics import BLEU, CHRF

    listed = _checked(hypotheses, references)
    # sacrebleu expects the first reference of each text, then the second of
    # each, ...; None: there is none.
    columns: list[Any] = [
        [texts[number] if number < len(texts) else None for texts in listed]
        for number in range(max(map(len, listed)))
    ]
    tokenize = "zh" if is_chinese(t for texts in listed for t in texts) else ""
    # force: do not print advice on texts that end in " .", as BERT's do. It
    # changes no result: both tokenizers split the period anyway.
    bleu = BLEU(tokenize=tokenize or "13a", force=True)
    exact = [
        _one_spaced(hypothesis) in map(_one_spaced, texts)
        for hypothesis, texts in zip(hypotheses, listed, strict=True)
    ]
    return {
        "bleu": float(bleu.corpus_score(hypotheses, columns).score),
        "chrf": float(CHRF().corpus_score(hypotheses, columns).score),
        **_rouge(hypotheses, listed),
        "exact_match": 100 * sum(exact) / len(exact),
    }


def rouge(
    hypotheses: Sequence[str], references: Sequence[Reference]
) -> dict[str, float]:
    """Computes the means of ROUGE-1, -2 and -L over T texts, each 0 to 100.

    {"rouge_1", "rouge_2", "rouge_l"}: F1 of the shared unigrams, bigrams and
    of the longest common subsequence of the complete texts (Lin 2004; not of
    their sentences, which rouge_score calls rougeLsum). Of several references
    each takes the best. Words are not stemmed.

    rouge_score does the counting, of `tokens`: its own tokenizer drops all
    characters but a-z and 0-9, and with them Chinese and umlauts. For ASCII
    text the results are the same.

    hypotheses, references: as in `score`.

    >>> rouge(["a good film"], ["a good old film"])["rouge_1"]
    85.71...

    Raises InputError as `score` does.
    """
    return _rouge(hypotheses, _checked(hypotheses, references))


def by_length(
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[Reference],
) -> tuple[list[str], np.ndarray]:
    """Computes the metrics of short and of long sources: whether they differ.

    The texts are divided by the number of words of their sources, in Chinese
    of characters, into at most five groups of about as many texts.

    Returns the groups' lengths, as "3-9 words", and an array (groups,
    LENGTH_COLUMNS) of their numbers of texts and their metrics, 0 to 100.

    sources, hypotheses, references: T each, as in `score`.
    """
    unit = "characters" if is_chinese(sources) else "words"
    lengths = np.array(
        [
            len("".join(text.split())) if unit != "words" else len(text.split())
            for text in sources
        ]
    )
    edges = np.quantile(
        lengths, np.arange(1, _GROUPS) / _GROUPS, method="inverted_cdf"
    )
    group = np.searchsorted(edges, lengths)
    names, values = [], []
    for number in np.unique(group):
        members = np.flatnonzero(group == number).tolist()
        metrics = score(
            [hypotheses[i] for i in members], [references[i] for i in members]
        )
        least, most = lengths[members].min(), lengths[members].max()
        extent = f"{least}-{most}" if least < most else f"{least}"
        names.append(f"{extent} {unit if most > 1 else unit.removesuffix('s')}")
        values.append([len(members), *(metrics[n] for n in LENGTH_COLUMNS[1:])])
    return names, np.array(values)


def tokens(text: str) -> list[str]:
    """Returns the tokens that ROUGE compares: lower-case words of any script.

    A Chinese character, or one of Japan's kana, is a token of its own. Of
    other scripts a token is a run of letters, marks and digits; punctuation
    and symbols are dropped. Scripts without spaces, such as Thai, are not
    split.

    >>> tokens("Über 3.5 Äpfel_kosten; 很好!")
    ['über', '3', '5', 'äpfel', 'kosten', '很', '好']
    """
    words = text.lower().translate(_SEPARATED).split()
    # A mark alone is no word: emoji have them.
    return [word for word in words if any(map(str.isalnum, word))]


def is_chinese(texts: Iterable[str]) -> bool:
    """Returns whether more than 30% of the texts' characters are Chinese.

    texts: White space does not count; Japan's kana do,
    as Chinese.
    """
    chinese = characters = 0
    for text in texts:
        characters += len("".join(text.split()))
        chinese += len(_CHINESE.findall(text))
    return chinese > _CHINESE_SHARE * characters


def lead(text: str, n: int) -> str:
    """Returns the first n sentences of a text: a baseline of summaries.

    Sentences are those of `sentence_splitter`; a blank line ends one, too. The
    text between them is unchanged. If the text has fewer, it is returned.

    >>> lead("One. Two? Three!", 2)
    'One. Two?'

    Raises InputError if n is less than 1.
    """
    if n < 1:
        raise errors.InputError(
            f"n={n}: expected 1 sentence or more.", argument="n"
        )
    sentences = [
        sentence
        for paragraph in _BLANK_LINE.split(text)
        for sentence in sentence_splitter.split(paragraph)
    ]
    end = 0
    for sentence in sentences[:n]:
        end = text.index(sentence, end) + len(sentence)
    return text[:end].strip()


class _Tokenizer:
    """What rouge_score expects as a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


def _rouge(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    from rouge_score import rouge_scorer

    names = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
    scorer = rouge_scorer.RougeScorer(
        list(names.values()), tokenizer=_Tokenizer()
    )
    scores = [
        scorer.score_multi(texts, hypothesis)
        for hypothesis, texts in zip(hypotheses, references, strict=True)
    ]
    return {
        name: 100 * sum(each[key].fmeasure for each in scores) / len(scores)
        for name, key in names.items()
    }


def _checked(
    hypotheses: Sequence[str], references: Sequence[Reference]
) -> list[list[str]]:
    """Returns the references as lists; raises InputError for invalid values."""
    for name, values in (
        ("hypotheses", hypotheses),
        ("references", references),
    ):
        if isinstance(values, str):
            raise errors.InputError(
                f"{name}={values[:40]!r}: expected a list of texts; write one "
                "text as [text].",
                argument=name,
            )
    if len(hypotheses) != len(references) or not len(hypotheses):
        raise errors.InputError(
            "expected as many references as hypotheses, and at least one, "
            f"found {len(references):,} and {len(hypotheses):,}."
        )
    listed = [[r] if isinstance(r, str) else r for r in references]
    for index, (hypothesis, texts) in enumerate(
        zip(hypotheses, listed, strict=True)
    ):
        if not isinstance(texts, (list, tuple)) or not texts:
            raise errors.InputError(
                f"reference {index}: expected a text or a list of texts, found "
                f"{texts!r:.60}."
            )
        for name, text in (
            ("hypothesis", hypothesis),
            *(("reference", text) for text in texts),
        ):
            if not isinstance(text, str):
                raise errors.InputError(
                    f"{name} {index}: expected text, found "
                    f"{json_lines.name_of(text)}."
                )
    return [list(texts) for texts in listed]


def _one_spaced(text: str) -> str:
    return " ".join(text.split())


class _Separated(dict[int, str]):
    """Character -> what `tokens` reads in its place, for str.translate."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if _CHINESE.match(character):
            separated = f" {character} "
        else:
            is_part = category[0] in "LM" or category == "Nd"
            separated = character if is_part else " "
        self[code] = separated
        return separated


_SEPARATED = _Separated()
