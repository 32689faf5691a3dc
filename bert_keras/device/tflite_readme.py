"""Writes the .md file that explains how an app calls a TFLite file."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bert_keras import predictor as predictor_lib
from bert_keras.device import runtimes
from bert_keras.tasks import base


def readme(
    predictor: predictor_lib.Predictor, metadata: Mapping[str, Any]
) -> str:
    """Returns the text of the .md file.

    metadata: the contents of the file's .json.
    """
    task = predictor.task
    name, model = metadata["signature"], metadata["model"]
    length = metadata["signatures"][name]
    sections = [
        _HEAD.format(task=task.name, texts=" and ".join(task.text_columns))
    ]
    outputs = [each["name"] for each in metadata["outputs"]]
    sections += _ready_made(task, metadata, outputs)
    if task.unwrapped.name == "question_answering":
        sections.append(_NO_ANSWER)
    sections.append(_runtime(metadata))
    if "strings" in metadata:
        sections.append(_STRINGS.format(**metadata["strings"]))
    shapes = ", ".join(
        f"{each['name']} {tuple(each['shape'])} {each['type']}"
        for each in metadata["outputs"]
    )
    sections.append(
        _ROW.format(length=length, longer=_longer(metadata), outputs=shapes)
    )
    for output, padding in _PADDING.items():
        if output in outputs:
            sections.append(padding)
    for output, numbers in _TOKEN_POSITIONS.items():
        if output in outputs:
            sections.append(_OFFSETS.format(numbers=numbers))
    sections.append(
        _KOTLIN.format(
            model=model,
            name=name,
            length=length,
            reads=", ".join(
                f'"{each}"' for each in predictor.model.encoder.config.inputs
            ),
            outputs=",\n".join(
                f'    "{each["name"]}" to {_kotlin(each)}'
                for each in metadata["outputs"]
            ),
        )
    )
    sections.append(
        _SWIFT.format(
            model=model.removesuffix(".tflite"),
            name=name,
            reads="\n".join(
                f'let {each["name"]} = try run.output(named: "{each["name"]}")'
                f".data  // {each['type']} {tuple(each['shape'])}"
                for each in metadata["outputs"]
            ),
        )
    )
    return "\n".join(sections)


def _ready_made(
    task: base.Task, metadata: Mapping[str, Any], outputs: Sequence[str]
) -> Iterator[str]:
    """Yields sections on the ready-made runtimes that can run the file."""
    model = metadata["model"]
    if len(metadata["signatures"]) > 1:
        yield _SEVERAL
    elif task.class_names and len(task.text_columns) == 1:
        several = metadata["settings"].get("problem_type") == "multi_label"
        yield (_CLASSES if several else _CLASSIFIER).format(model=model)
        yield _lowercasing(metadata, "scores")
        takes = runtimes.version_numbers(metadata["oldest_runtime"]) <= _SUPPORT
        yield _NL_CLASSIFIER.format(
            takes="takes this file, too"
            if takes
            else "refuses this file, for its runtime is too old"
        )
    elif outputs == ["embedding"]:
        yield _EMBEDDER.format(model=model)
        yield _lowercasing(metadata, "vectors")
    else:
        yield _NO_RUNTIME


def _lowercasing(metadata: Mapping[str, Any], answers: str) -> str:
    casing = _UNCASED if metadata["lowercase"] else _CASED
    return casing.format(answers=answers)


def _longer(metadata: Mapping[str, Any]) -> str:
    for name in ("stride", "doc_stride"):
        if stride := metadata["settings"].get(name):
            return (
                "a longer text is several rows, which begin "
                f"{stride} tokens apart"
            )
    return "a longer text is truncated"


def _runtime(metadata: Mapping[str, Any]) -> str:
    oldest = metadata["oldest_runtime"]
    version = runtimes.version_numbers(oldest)
    litert = ", or LiteRT (ai-edge-litert) 1.0.1 or newer"
    text = _RUNTIME.format(
        oldest=oldest, litert=litert * (version <= runtimes.LITERT)
    )
    if metadata["quantization"] == "int8":
        return text + _RUNTIME_INT8
    if version > runtimes.SCALES_OF_OUTPUTS:
        text += "Older ones refuse it; --quantization=float16 is for them.\n"
    return text


def _kotlin(output: Mapping[str, Any]) -> str:
    kotlin_type = {"int32": "Int", "float32": "Float"}[output["type"]]
    rows, *inner = output["shape"]
    if not inner:
        return f"{kotlin_type}Array({rows})"
    array = f"{kotlin_type}Array({inner[-1]})"
    for size in reversed([rows, *inner[:-1]]):
        array = f"Array({size}) {{ {array} }}"
    return array


_HEAD = """\
# {task} on a device

The `.tflite` file reads rows of ids, made of {texts}; its `.json` has the
inputs in their order, the outputs, the lengths, the casing, the special ids and
the settings of the task. `vocab.txt` has the wordpieces, one a line, by id. The
code below was written from these files, not run.
"""

_CLASSIFIER = """\
MediaPipe's TextClassifier takes the file without changes:

```kotlin
val classifier = TextClassifier.createFromFile(context, "{model}")
val best = classifier.classify("a fine film").classificationResult()
    .classifications().first().categories().first()
```
"""

_NL_CLASSIFIER = """\
BertNLClassifier of TFLite Support 0.4.4 {takes}.
It tokenizes as MediaPipe does.
"""

# The newest runtime needed by a file that TFLite Support 0.4.4 ran.
_SUPPORT = runtimes.SCALES_OF_OUTPUTS

_CASED = """\
**This model is cased, and MediaPipe lower-cases A to Z in every text**: it
reads "film" for "Film", whatever the vocabulary, and its {answers} differ from
this model's without a warning. Tokenize in the app and call the signature.
"""

_UNCASED = """\
MediaPipe lower-cases A to Z alone and keeps accents, where this model's
tokenizer lower-cases every letter and drops them: of texts with É or é its
{answers} differ without a warning. U+3000 and no-break spaces part no words
there, and a word of more than 100 bytes is [UNK]. Where that matters, tokenize
in the app and call the signature.
"""

_CLASSES = """\
MediaPipe's TextClassifier takes the file without changes. Any number of classes
may hold: all whose score is above 0.5.

```kotlin
val classifier = TextClassifier.createFromFile(context, "{model}")
val classes = classifier.classify("a fine film").classificationResult()
    .classifications().first().categories().filter {{ it.score() > 0.5f }}
```
"""

_SEVERAL = """\
MediaPipe wants a file of one length; this one has several, as signatures, and
an app picks the shortest that holds the text.
"""

_NO_ANSWER = """\
Where settings.unanswerable is true there is no answer when `null` is above the
best `score` by more than settings.no_answer_threshold.
"""

_EMBEDDER = """\
MediaPipe's TextEmbedder takes the file without changes, with the vocabulary:

```kotlin
val embedder = TextEmbedder.createFromFile(context, "{model}")
val one = embedder.embed("a fine film").embeddingResult().embeddings().first()
```
"""

_NO_RUNTIME = """\
No ready-made runtime reads files of this task: an app tokenizes the
text, calls the signature, and reads the numbers.
"""

_RUNTIME = """\
## Oldest runtime

This file needs TFLite {oldest} or newer{litert}.
"""

_RUNTIME_INT8 = """\
Older runtimes load the file and answer wrongly: they read one scale of the
weights instead of one for each output. tflite-runtime 2.13 and 2.14 and
ai-edge-litert 1.0.1 round otherwise than 2.10 to 2.12 and ai-edge-litert from
1.4.0 on: scores of a tiny model moved by up to 0.04.
"""

_STRINGS = """\
{model} takes strings, by the signature `{signature}`. It needs TFLite
{oldest_runtime} or newer with TensorFlow Text's ops {custom_ops}.
"""

_ROW = """\
## A row

`[CLS]` wordpieces `[SEP]`; a pair is `[CLS]` first `[SEP]` second `[SEP]`. A
row has {length} tokens: a shorter one is padded with 0 at its end, in all
inputs; {longer}.
segment_ids, where the model has them, are 1 from the second text on;
padding_mask is 1 at every token that is not padding. The answer has a fixed
size, too: {outputs}.
`run_tflite.py` of bert_keras makes such rows in plain Python, its tokenizer
included. Python knows the Unicode of its own version: characters that are newer
may give other ids than in the model (78 of them with the Unicode 14 of Python
3.11).
"""

# Name of an output -> a remark on its padding.
_PADDING = {
    "tag": "At padding tag and score are 0; at [CLS] and [SEP] ignore them.\n",
    "start": "Behind the last possible answer start and end are 0 and score is "
    "-10000.\n",
    "token_id": "The answers are those of the [MASK] tokens in their order; "
    "ignore\nwhat is behind the last of them.\n",
}

_TOKEN_POSITIONS = {
    "tag": "`tag` has a number for every token of the row; that of the first\n"
    "token of a word is the word's.",
    "start": "`start` and `end` are positions of tokens in the row, both "
    "inclusive.",
}

_OFFSETS = """\
## Offsets

{numbers}
Where in the text a token is, the app's tokenizer knows. bert_keras counts such
offsets in code points: in labels, in the answers of Python and of a server.
JavaScript, Java and Kotlin count UTF-16 units and Swift counts characters, so
an emoji before an answer moves it. The text from start to end, in JavaScript,
in Java and Kotlin, and in Swift:

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
val row = listOf({reads})
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
{reads}
```
"""
