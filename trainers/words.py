"""Compares a word's vectors in its contexts with vectors without a context.

  bert-keras words --checkpoint=bert-base-chinese --word=苹果 \\
      --input=in.txt
  bert-keras words --checkpoint=runs/base --word=bank --input=in.txt \\
      --text=corpus.txt --candidates=river,money,shore,loan --word2vec
  bert-keras words --checkpoint=runs/base --word=bank --input=in.txt \\
      --plot=bank.png

Each line of --input is a sentence. For each type of vectors it writes a line of
JSON: the cosines between the word's vectors in all its occurrences, and the
--candidates with the nearest vectors. A static vector is the same in each
sentence; a contextual one is not. With several tokens, as of a Chinese word,
a vector is their mean.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence

import numpy as np

from bert_keras import (
    console,
    errors,
    files,
    mask_filling,
    options,
    registry,
    static_vectors,
    streams,
    word_vectors,
)
from bert_keras.data import unlabelled_texts
from bert_keras.training import plots
from trainers import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    checkpoint: str = options.option("", options.CHECKPOINT)
    modules: str = options.option("", options.MODULES, identity=False)
    word: str = options.option("", "The word to look at.")
    input: str = options.option(
        "", "File of sentences with the word; empty: standard input."
    )
    output: str = options.option(
        "", "File to write, JSON lines; empty: standard output."
    )
    layer: int = options.option(
        -1,
        "Layer of the contextual vectors; 0 is the embeddings, -1 the last.",
    )
    candidates: str = options.option(
        "",
        "Words among which the nearest are found, with commas between; they "
        "need `text`.",
    )
    neighbours: int = options.option(
        5, "How many of the candidates are written.", minimum=1
    )
    text: str = options.option(
        "",
        "File of texts, a text on each line: the mean of a word's contextual "
        "vectors is over its occurrences there, and word2vec learns from it.",
    )
    max_occurrences: int = options.option(
        100,
        "At most how many occurrences of each word in `text` are read, the "
        "first ones.",
        minimum=1,
    )
    word2vec: bool = options.option(
        False, "Also learn vectors from `text` by word2vec; needs gensim."
    )
    vectors: str = options.option(
        "",
        "File of static vectors to compare, of GloVe or word2vec, text or "
        "binary.",
    )
    plot: str = options.option(
        "",
        "PNG file to write: the contextual vectors, as points of their first "
        "two principal components.",
    )


def main() -> None:
    settings = flags.read(Settings)
    _check(settings)
    registry.import_modules(settings.modules)
    model = word_vectors.ContextualVectors(
        settings.checkpoint, layer=settings.layer
    )
    lines = "".join(
        json.dumps(line, ensure_ascii=False) + "\n"
        for line in compare(model, settings)
    )
    if settings.output:
        files.write_text(settings.output, lines)
        return
    with streams.until_reader_leaves():
        print(lines, end="", flush=True)


def _check(settings: Settings) -> None:
    options.require("checkpoint", settings.checkpoint)
    options.require("word", settings.word.strip())
    for argument in ("output", "plot"):
        files.check_output(
            getattr(settings, argument),
            argument=argument,
            input=settings.input,
            text=settings.text,
            vectors=settings.vectors,
            checkpoint=settings.checkpoint,
        )
    plots.check_picture(settings.plot, "plot")
    if settings.candidates and not mask_filling.words(settings.candidates):
        raise errors.InputError(
            f"candidates={settings.candidates!r}: expected words with commas "
            "between.",
            argument="candidates",
        )
    for name in ("candidates", "word2vec"):
        if getattr(settings, name) and not settings.text:
            raise errors.InputError(
                f"{name}={getattr(settings, name)}: expected `text` beside it, "
                "a file with these words in sentences.",
                argument=name,
            )


def compare(
    model: word_vectors.ContextualVectors, settings: Settings
) -> Iterator[dict[str, object]]:
    """Yields a line for each type of vectors, the contextual ones first."""
    names = mask_filling.words(settings.candidates)
    finder = model.finder([settings.word, *names])
    word = finder.key(settings.word)
    candidates = list(
        dict.fromkeys(
            key for name in names if (key := finder.key(name)) != word
        )
    )
    occurrences, vectors = _in_sentences(model, finder, word, settings)
    if settings.plot:
        points, shares = word_vectors.principal_components(vectors)
        files.write(
            settings.plot,
            plots.contexts(points, shares, list(map(_snippet, occurrences))),
        )
    wanted = {word, *candidates}
    texts = _lines(settings.text) if settings.text else []
    means, counts = model.means(
        (
            each
            for text in texts
            for each in finder.find(text)
            if each.word in wanted
        ),
        at_most=settings.max_occurrences,
    )
    yield {
        **_line("contextual", vectors, means, candidates, settings),
        "layer": settings.layer,
        "contexts": [
            {"text": each.text, "start": each.start, "end": each.end}
            for each in occurrences
        ],
    }
    sources = _static(model, finder, [word, *candidates], texts, settings)
    if settings.text:
        sources = {"mean of contextual": means, **sources}
    for name, source in sources.items():
        own = source.select([word]).values
        if not len(own):
            console.say(f"{name}: no vector of {word}")
            yield {"vectors": name, "missing": [word]}
            continue
        # The same in each sentence.
        same = np.repeat(own, len(vectors), axis=0)
        line = _line(name, same, source, candidates, settings)
        if name == "mean of contextual":
            line["occurrences"] = counts
        yield line


def _in_sentences(
    model: word_vectors.ContextualVectors,
    finder: word_vectors.WordFinder,
    word: str,
    settings: Settings,
) -> tuple[list[word_vectors.Occurrence], np.ndarray]:
    """Returns the word's occurrences in the input, and their vectors (N, H)."""
    sentences = _lines(settings.input)
    of_sentence = [
        [each for each in finder.find(sentence) if each.word == word]
        for sentence in sentences
    ]
    found = [each for those in of_sentence for each in those]
    without = of_sentence.count([])
    if found and without:
        console.say(f"{without:,} sentences do not have the word {word}")
    vectors, is_read = model(found)
    if lost := len(found) - int(is_read.sum()):
        console.say(
            f"{lost:,} occurrences of {word} are not read: they are after the "
            "model's longest text, or have no token"
        )
    if not is_read.any():
        raise errors.InputError(
            f"word={settings.word}: expected it in a sentence of "
            f"{settings.input or 'standard input'}, found it in none of "
            f"{len(sentences):,}.",
            argument="word",
        )
    kept = [
        each for each, is_kept in zip(found, is_read, strict=True) if is_kept
    ]
    return kept, vectors[is_read]


def _static(
    model: word_vectors.ContextualVectors,
    finder: word_vectors.WordFinder,
    words: Sequence[str],
    texts: Sequence[str],
    settings: Settings,
) -> dict[str, static_vectors.StaticVectors]:
    """Returns the vectors without a context, by what they are from."""
    sources = {}
    table = model.predictor.model.encoder.token_table
    if table is not None:
        sources["token table"] = static_vectors.of_table(
            table, model.tokenizer, words
        )
    if settings.word2vec:
        sources["word2vec"] = static_vectors.learn(
            [each.word for each in finder.find(text)] for text in texts
        )
    if settings.vectors:
        sources[settings.vectors] = static_vectors.read(
            settings.vectors, set(words)
        )
    return sources


def _line(
    name: str,
    vectors: np.ndarray,
    source: static_vectors.StaticVectors,
    candidates: Sequence[str],
    settings: Settings,
) -> dict[str, object]:
    among = source.select(candidates)
    missing = [each for each in candidates if each not in among.words]
    return dict(
        word_vectors.comparison(
            name, vectors, among, missing, settings.neighbours
        )
    )


def _lines(path: str) -> list[str]:
    """Reads the texts of a file, without its blank lines."""
    lines = unlabelled_texts.read(path, ("text",))
    texts = [
        line["text"]
        if not isinstance(line, str)
        else unlabelled_texts.parse(line, ("text",), number)["text"]
        for number, line in enumerate(lines, 1)
    ]
    return [text for text in texts if text.strip()]


def _snippet(occurrence: word_vectors.Occurrence) -> str:
    """Returns the word with the characters around it."""
    start, end = max(0, occurrence.start - 6), occurrence.end + 6
    return occurrence.text[start:end].strip()


def define_flags() -> None:
    flags.define(Settings)


def run() -> None:
    flags.run(main, define_flags)


if __name__ == "__main__":
    run()
