"""Writes the .md file that explains how an app calls a TFLite file."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bert_keras import markdown, model_card
from bert_keras import predictor as predictor_lib
from bert_keras.device import runtimes, tflite_texts
from bert_keras.tasks import base


def readme(
    predictor: predictor_lib.Predictor,
    metadata: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
) -> model_card.Card:
    """Returns the contents of the .md file: the model card, and how to call it.

    metadata: the contents of the file's .json. metrics: of the file, on the
    rows that were given with the export.
    """
    described = model_card.describe(
        predictor.model, predictor.tokenizer, name=predictor.task.name
    )
    card = model_card.for_copy(predictor.card, described)
    card = dataclasses.replace(card, name=f"{card.name} on a device")
    if not _is_exact(predictor, metadata):
        card = model_card.without_results(
            card,
            "These are the checkpoint's. This file is "
            f"{metadata['quantization']}, with rows of "
            f"{max(metadata['signatures'].values())} tokens, and was not "
            "scored on that data set.",
        )
    own = [
        f"{markdown.code(name)} of this file, on the rows that were given to "
        f"the export: {value:.4f}."
        for name, value in (metrics or {}).items()
    ]
    if own:
        others = card.sections.get(model_card.RESULTS, "")
        text = "\n\n".join(filter(None, [*own, others]))
        card = card.with_section(model_card.RESULTS, text)
    card = card.with_tag("tflite")
    return card.with_section(model_card.USE, _calls(predictor, metadata))


def _is_exact(
    predictor: predictor_lib.Predictor, metadata: Mapping[str, Any]
) -> bool:
    """Returns whether the file's metrics are those of the checkpoint."""
    return (
        metadata["quantization"] == "float32"
        and max(metadata["signatures"].values()) >= predictor.task.seq_length
    )


def _calls(
    predictor: predictor_lib.Predictor, metadata: Mapping[str, Any]
) -> str:
    """Returns the sections on how an app calls the file."""
    task = predictor.task
    name, model = metadata["signature"], metadata["model"]
    length = metadata["signatures"][name]
    head = _HEAD.format(texts=" and ".join(task.text_columns))
    sections = [head + (_WORDPIECES if _is_wordpiece(metadata) else _CODE)]
    outputs = [each["name"] for each in metadata["outputs"]]
    if _is_wordpiece(metadata):
        sections += _runtime_sections(task, metadata, outputs)
    else:
        sections.append(_TOKENIZER + tflite_texts.section(predictor.tokenizer))
    if task.unwrapped.name == "question_answering":
        sections.append(_NO_ANSWER)
    sections.append(_oldest_runtime(metadata))
    if "strings" in metadata:
        sections.append(_STRINGS.format(**metadata["strings"]))
    sections.append(_row(metadata, length))
    for output, padding in _PADDING.items():
        if output in outputs:
            sections.append(padding)
    for output, meaning in _TOKEN_POSITIONS.items():
        if output in outputs:
            sections.append(_OFFSETS.format(meaning=meaning))
    sections.append(
        _KOTLIN.format(
            model=model,
            name=name,
            length=length,
            inputs=", ".join(
                f'"{each}"' for each in predictor.model.encoder.config.inputs
            ),
            outputs=",\n".join(
                f'    "{each["name"]}" to {_kotlin_array(each)}'
                for each in metadata["outputs"]
            ),
        )
    )
    sections.append(
        _SWIFT.format(
            model=model.removesuffix(".tflite"),
            name=name,
            outputs="\n".join(
                f'let {each["name"]} = try run.output(named: "{each["name"]}")'
                f".data  // {each['type']} {tuple(each['shape'])}"
                for each in metadata["outputs"]
            ),
        )
    )
    return "\n".join(sections)


def _row(metadata: Mapping[str, Any], length: int) -> str:
    """Returns the section on the rows that the file reads."""
    shapes = ", ".join(
        f"{each['name']} {tuple(each['shape'])} {each['type']}"
        for each in metadata["outputs"]
    )
    head, end = _ROW_TITLE, ""
    if _is_wordpiece(metadata):
        head, end = _ROW_HEAD, _RUN_TFLITE
    return (head + _ROW).format(
        length=length, longer=_long_texts(metadata), outputs=shapes
    ) + end


def _runtime_sections(
    task: base.Task, metadata: Mapping[str, Any], outputs: Sequence[str]
) -> Iterator[str]:
    """Yields sections on MediaPipe and TFLite Support, if they run the file."""
    model = metadata["model"]
    if len(metadata["signatures"]) > 1:
        yield _SEVERAL_LENGTHS
    elif task.class_names and len(task.text_columns) == 1:
        multi_label = metadata["settings"].get("problem_type") == "multi_label"
        classifier = _MULTI_LABEL_CLASSIFIER if multi_label else _CLASSIFIER
        yield classifier.format(model=model)
        yield _lowercasing(metadata, "scores")
        oldest = runtimes.version_numbers(metadata["oldest_runtime"])
        yield _NL_CLASSIFIER.format(
            runs="runs this file, too"
            if oldest <= _TFLITE_SUPPORT_RUNTIME
            else "refuses this file, because its runtime is too old"
        )
    elif outputs == ["embedding"]:
        yield _EMBEDDER.format(model=model)
        yield _lowercasing(metadata, "vectors")
    else:
        yield _NO_RUNTIME


def _is_wordpiece(metadata: Mapping[str, Any]) -> bool:
    return "tokenizer" not in metadata


def _lowercasing(metadata: Mapping[str, Any], answers: str) -> str:
    casing = _UNCASED if metadata["lowercase"] else _CASED
    return casing.format(answers=answers)


def _long_texts(metadata: Mapping[str, Any]) -> str:
    for name in ("stride", "doc_stride"):
        if stride := metadata["settings"].get(name):
            return (
                "a longer text becomes several rows, which start "
                f"{stride} tokens apart"
            )
    return "a longer text is truncated"


def _oldest_runtime(metadata: Mapping[str, Any]) -> str:
    oldest = metadata["oldest_runtime"]
    version = runtimes.version_numbers(oldest)
    litert = ""
    if version <= runtimes.LITERT_1_TFLITE_VERSION:
        litert = ", or LiteRT (ai-edge-litert) 1.0.1 or newer"
    text = _RUNTIME.format(oldest=oldest, litert=litert)
    if metadata["quantization"] == "int8":
        return text + _RUNTIME_INT8
    if version > runtimes.PER_CHANNEL_RUNTIME:
        text += "Older ones refuse it: export with --quantization=float16.\n"
    return text


def _kotlin_array(output: Mapping[str, Any]) -> str:
    kotlin_type = {"int32": "Int", "float32": "Float"}[output["type"]]
    rows, *inner = output["shape"]
    if not inner:
        return f"{kotlin_type}Array({rows})"
    array = f"{kotlin_type}Array({inner[-1]})"
    for size in reversed([rows, *inner[:-1]]):
        array = f"Array({size}) {{ {array} }}"
    return array


_HEAD = """\
The `.tflite` file reads rows of token ids of {texts}. Its `.json` contains
inputs and outputs in the interpreter's order, the row lengths, the casing, the
special ids and the task's settings. """

_WORDPIECES = """\
`vocab.txt` has one wordpiece per line, in
the order of ids. The code below was generated for this file, but not run.
"""

_CODE = "The code below was generated\nfor this file, but not run.\n"

_TOKENIZER = "## Tokens\n\n"

_CLASSIFIER = """\
MediaPipe's TextClassifier runs the file without changes:

```kotlin
val classifier = TextClassifier.createFromFile(context, "{model}")
val best = classifier.classify("a fine film").classificationResult()
    .classifications().first().categories().first()
```
"""

_NL_CLASSIFIER = """\
BertNLClassifier of TFLite Support 0.4.4 {runs}.
It tokenizes like MediaPipe.
"""

# The newest "oldest runtime" of a file that TFLite Support 0.4.4 ran.
_TFLITE_SUPPORT_RUNTIME = runtimes.PER_CHANNEL_RUNTIME

_CASED = """\
**This model is cased, and MediaPipe lower-cases A to Z in every text**: it
reads "film" for "Film" with any vocabulary, and its {answers} differ from this
model's without a warning. Tokenize in the app and call the signature.
"""

_UNCASED = """\
MediaPipe lower-cases only A to Z and keeps accents, whereas this model's
tokenizer lower-cases every letter and drops accents: for texts with É or é its
{answers} differ without a warning. MediaPipe does not separate words at U+3000
and no-break spaces, and replaces a word of more than 100 bytes by [UNK]. If
this matters, tokenize in the app and call the signature.
"""

_MULTI_LABEL_CLASSIFIER = """\
MediaPipe's TextClassifier runs the file without changes. A text may have any
number of classes: all whose score is above 0.5.

```kotlin
val classifier = TextClassifier.createFromFile(context, "{model}")
val classes = classifier.classify("a fine film").classificationResult()
    .classifications().first().categories().filter {{ it.score() > 0.5f }}
```
"""

_SEVERAL_LENGTHS = """\
MediaPipe requires a file of one length. This one has several, one per
signature; an app selects the shortest that fits the text.
"""

_NO_ANSWER = """\
If settings.unanswerable is true, the text has no answer when `null` exceeds the
best `score` by more than settings.no_answer_threshold.
"""

_EMBEDDER = """\
MediaPipe's TextEmbedder runs the file without changes, tokenizer included:

```kotlin
val embedder = TextEmbedder.createFromFile(context, "{model}")
val one = embedder.embed("a fine film").embeddingResult().embeddings().first()
```
"""

_NO_RUNTIME = """\
No ready-made runtime supports this task: an app tokenizes the text, calls the
signature, and reads the outputs.
"""

_RUNTIME = """\
## Oldest runtime

This file needs TFLite {oldest} or newer{litert}.
"""

_RUNTIME_INT8 = """\
Older runtimes load the file and give wrong answers: they read one scale of the
weights instead of one per output channel. tflite-runtime 2.13 and 2.14 and
ai-edge-litert 1.0.1 round differently than 2.10 to 2.12 and ai-edge-litert from
1.4.0 on: scores of a tiny model differed by up to 0.04.
"""

_STRINGS = """\
{model} has string inputs; its signature is `{signature}`. It needs
TFLite {oldest_runtime} or newer with TensorFlow Text's ops {custom_ops}.
"""

_ROW_TITLE = "## A row\n\n"

_ROW_HEAD = """\
## A row

`[CLS]` wordpieces `[SEP]`; a pair is `[CLS]` first `[SEP]` second `[SEP]`. """

_ROW = """\
A
row has {length} tokens: a shorter one is padded with 0 at its end, in all
inputs; {longer}.
segment_ids, if the model has them, are 1 in the second text; padding_mask is 1
at every token that is not padding. The outputs have a fixed size, too:
{outputs}.
"""

_RUN_TFLITE = """\
`run_tflite.py` of bert_keras builds such rows in plain Python, tokenizer
included. It uses Python's Unicode tables: newer characters may get other ids
than in the model (78 of them with the Unicode 14 of Python 3.11).
"""

# Name of an output -> its padding.
_PADDING = {
    "tag": "At padding, tag and score are 0; ignore them at special tokens.\n",
    "start": "After the last possible answer, start and end are 0 and score is "
    "-10000.\n",
    "next_token_scores": "next_token_scores has the probabilities of the token "
    "after the row: append one\nto the row and call again. Unlike above, the "
    "row ends with the text's last token,\nwithout [SEP], and with `packing` "
    "full in the .json it has no [CLS] either.\n",
    "token_id": "The outputs are those of the [MASK] tokens in their order; "
    "ignore\nthe elements after the last [MASK].\n",
}

# Name of an output with token positions -> its meaning.
_TOKEN_POSITIONS = {
    "tag": "`tag` has the index of a tag for every token of the row; a word "
    "has the tag\nof its first token.",
    "start": "`start` and `end` are token positions in the row, both "
    "inclusive.",
}

_OFFSETS = """\
## Offsets

{meaning}
The app's tokenizer maps tokens to offsets in the text. bert_keras counts such
offsets in code points: in labels, and in the answers of Python and of a server.
JavaScript, Java and Kotlin count UTF-16 code units and Swift counts characters,
so an emoji before an answer shifts it. The text from start to end, in
JavaScript, in Java and Kotlin, and in Swift:

```javascript
[...text].slice(start, end).join("")
```

```java
text.substring(text.offsetByCodePoints(0, start), text.offsetByCodePoints(0, end))
```

```swift
String(text.unicodeScalars.dropFirst(start).prefix(end - start))
```
"""  # noqa: E501

_KOTLIN = """\
## Kotlin

```kotlin
val interpreter = Interpreter(FileUtil.loadMappedFile(context, "{model}"))
val row = listOf({inputs})
    .associateWith {{ arrayOf(IntArray({length})) }}
// Fill row["token_ids"]!![0] and the others.
val outputs = mutableMapOf<String, Any>(
{outputs}
)
interpreter.runSignature(row, outputs, "{name}")
```
"""

_SWIFT = """\
## Swift

```swift
let path = Bundle.main.path(forResource: "{model}", ofType: "tflite")!
let run = try Interpreter(modelPath: path).signatureRunner(with: "{name}")
try run.allocateTensors()
for (name, ids) in row {{  // [String: [Int32]]
    try run.copy(ids.withUnsafeBytes {{ Data($0) }}, toInputNamed: name)
}}
try run.invoke()
{outputs}
```
"""
