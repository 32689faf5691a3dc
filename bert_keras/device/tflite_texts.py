"""What an app must do to tokenize, for tokenizers that no runtime has."""

from bert_keras import registry
from bert_keras.tokenizers import base

_TEXTS = {
    "bpe": """\
`vocab.json` has the id of each token, `merges.txt` the merges in order. The
text is cleaned and split into words as for BERT: control characters are
dropped, {casing}, white space ends a word, punctuation marks and Chinese
characters are words of their own. A word begins as its characters, the last
with `</w>`. Of its adjacent pairs the one that is first in merges.txt is joined
wherever it occurs, until none is in the list. What is not in vocab.json is
`<unk>`. Of a word of more than 100 characters, each 100 are split by
themselves. Libraries with byte-pair encoding: Hugging Face's tokenizers.
""",
    "sentencepiece": """\
`spiece.model` is a model of SentencePiece: a library for C++, with wrappers for
Java and Swift, reads it.
""",
}
_ALBERT = """\
Before that, two apostrophes or backquotes become one quotation mark, and
{casing}.
"""
_OTHER = """\
{files} contain the vocabulary. The app has to tokenize as this checkpoint's
tokenizer does.
"""


def section(tokenizer: base.Tokenizer) -> str:
    """Returns the text on a tokenizer, its files and its special ids."""
    name = registry.name_of(base.PACKAGE, type(tokenizer))
    lowercase = tokenizer.to_dict().get("lowercase")
    text = _TEXTS.get(name, _OTHER)
    if getattr(tokenizer, "is_albert", False):
        text += _ALBERT
    casing = "case is kept"
    if lowercase and name == "bpe":
        casing = "letters are lower-cased, accents are dropped (NFD)"
    elif lowercase:
        casing = "text is decomposed (NFKD), marks dropped, and lower-cased"
    files = " and ".join(f"`{each}`" for each in tokenizer.files)
    start, between, end = (
        " ".join(f"`{token}`" for token in tokenizer.tokens(ids))
        for ids in tokenizer.frame[:3]
    )
    row = " ".join(filter(None, (start, "tokens", end)))
    pair = " ".join(filter(None, (start, "first", between, "second", end)))
    return (
        text.format(casing=casing, files=files)
        + f"A row is {row}; a pair is {pair}. MediaPipe has no such "
        "tokenizer.\n"
    )
