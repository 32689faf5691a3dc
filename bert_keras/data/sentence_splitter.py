"""Splits paragraphs into sentences: English, Chinese, or both mixed."""

import re


def split(text: str) -> list[str]:
    """Splits one paragraph into sentences.

    Only white space between sentences is dropped. A sentence ends at a mark and
    includes the closing quotes and brackets after it. It does not end before a
    lower-case letter (`"Why?" he said`), unless the whole text is lower case.
    """
    ends = _UNCASED_END if text.islower() else _END
    if WIDE.search(text):
        ends = _MIXED_END
    sentences = []
    start = 0
    for match in ends.finditer(text):
        end = match.end()
        if end == len(text):
            break
        begin, mark = match.start(), match[1]
        if mark is None and text[end] in CONTINUES:
            continue
        if mark == "." and _abbreviates(text, start, begin, end):
            continue
        # Include a straight quote that closes: `好．"他`, `. " He` (tokens).
        if text[end] == '"' and text.count('"', start, end) % 2:
            end += mark is None or text[end + 1 : end + 2].isspace()
        if sentence := text[start:end].strip():
            sentences.append(sentence)
        start = end
    if sentence := text[start:].strip():
        sentences.append(sentence)
    return sentences


# The patterns propose sentence ends; `_abbreviates` may reject them.

OPENING = r"\"'“‘«‹(\[{¿¡「『（【《〈—–\-"
CLOSING = r"\"'”’»›)\]}"
LOWER_CASE = "a-zß-öø-ÿа-яα-ω"
MARKS = ".!?…‽؟۔।॥"
HAN = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
CONTINUES = frozenset("，、：；。！？,:;—～~的")  # 《走吧！》的, “好！”，

WIDE = re.compile(f"[{HAN}\u3000-\u303f\uff00-\uffef]")


def _spaced_end(lower_case: str) -> str:
    """Returns a pattern: mark, closing quotes, spaces, start of a sentence."""
    return (
        # A match starts only at the first of several marks and ends at one
        # space: otherwise long runs of dots or spaces take quadratic time.
        rf"([{MARKS}](?<![{MARKS}]{{2}})[{MARKS}]*)"
        rf"[{CLOSING}]*(?:\s[”’»)\]}}]+(?=\s))*\s"
        rf"(?=[{OPENING}\s]*[^{lower_case}\s{OPENING}{CLOSING}{MARKS},;:])"
    )


_UNCASED_END = re.compile(_spaced_end(""))
_END = re.compile(_spaced_end(LOWER_CASE))
_MIXED_END = re.compile(
    # The first alternative has no group: its mark is None.
    r"(?:[。！？；｡]|……|(?<![0-9０-９])．"
    # ASCII marks in Chinese; after a digit they are list numbers.
    rf"|(?<![\s\d.,;:!?])[.!?;](?=[{HAN}])|(?<=[{HAN}])[.!?;](?=[A-Z]))"
    rf"[。！？；…．!?]*[」』”’）】》〉]*|{_END.pattern}"
)

TITLES = frozenset(
    "Mr Mrs Ms Dr Prof Rev Hon Gen Maj Capt Lt Lieut Sgt Cpl Pvt Adm Cmdr Gov "
    "Sen Rep Pres Supt Messrs Mme Mmes Mlle MM mr mrs ms dr prof messrs mme "
    "e.g i.e E.g I.e eg ie cf Cf viz vs approx ca incl".split()
)
BEFORE_NUMBERS = frozenset(
    "No Nos Fig Figs Eq Eqs Sec Vol Vols Ch Chap Art p pp no nos fig figs eq "
    "sec vol vols ch chap art Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov "
    "Dec".split()
)
MAY_END = frozenset(
    "St Ste Mt Ft Col Sr Jr Esq Inc Ltd Co Corp Bros etc al Ave Blvd Rd Univ "
    "Dept Assn Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec".split()
)
_INITIALS = re.compile(r"[^\W\d_a-z]|(?:[^\W\d_]{1,2}\.-?)+[^\W\d_]{1,2}")
_NUMBER = re.compile(r"\s*(?:\d+|(?!I\b)[IVXLC]+\b)")  # "No. I do not."
STARTERS = (
    "The A An In On At It He She We They You I This That These Those There "
    "Then When While If But And Or So As For From By To Of With After Before "
    "However Although Though His Her Its My Our Their Your What Who Why How "
    "Where Which One Some Many Most All No Not Now Such Here Since Because "
    "During Both Each Once Yes"
)
_STARTS_SENTENCE = re.compile(
    rf"[{OPENING}\s]*(?:{STARTERS.replace(' ', '|')})(?=[\s,’'])"
)
_MAX_ABBREVIATION_LENGTH = 64  # characters
_BEFORE_ABBREVIATION = "\"'“‘([-"


def _abbreviates(text: str, start: int, dot: int, end: int) -> bool:
    """Returns whether the full stop at `dot` is part of an abbreviation."""
    # Look back over so many characters only: no abbreviation is longer, with
    # the quotes and dashes before it, and in text without spaces time would be
    # quadratic.
    earliest = max(start, dot - _MAX_ABBREVIATION_LENGTH)
    begin = max(earliest, text.rfind(" ", earliest, dot) + 1)
    word = text[begin:dot].rpartition("—")[2].lstrip(_BEFORE_ABBREVIATION)
    if len(word) > 8:
        return False
    if word in TITLES:
        return True
    if word in BEFORE_NUMBERS and _NUMBER.match(text, end):
        return True
    if word in MAY_END or _INITIALS.fullmatch(word):
        return not _STARTS_SENTENCE.match(text, end)
    return begin == start and _NUMBER.fullmatch(word) is not None  # 1. List
