r"""Writes a checkpoint as a SavedModel that takes text, for TF Serving.

  python -m export.saved_model --checkpoint=runs/sst2 --output=served/sst2

writes served/sst2/1, the next time served/sst2/2, and so on. On a file system
a version appears whole or not at all: it is written beside, opened again,
compared with the model it came from on English and Chinese sentences, and with
--data on rows of yours, and moved into place when the answers are equal. A
server that watches the folder takes it up by itself.

Signatures:

  serving_default   strings (T,): text, or text and text_pair, or question and
                    context -> what trainers.predict answers: label, score, ...
  tokens            token_ids, segment_ids, padding_mask (W, seq_length) int32
                    -> the task's numbers, for a tokenizer of your own; a
                    shorter row is padded with 0 in all three
  classify          inputs (T,): serialized tf.Examples -> classes (T, C),
                    scores (T, C), where the task has classes

No answer has a width that depends on the batch, so a server may split and join
requests. Entities are padded to --max_entities with "", -1 and 0; `count` says
how many there are, also where they are more than that and the rest is left out.

Any number of texts, none included, of any length; bytes that are not UTF-8
are passed over. A text is read up to --max_characters; `truncated` says where
it was longer than that, or than the task reads. The vocabulary is inside. A
batch is split by length, so that short texts do not pay for the longest.

In the folder of a version, assets.extra holds the requests that TF Serving
answers before it takes real ones, and a manifest (python -m export.verify).
Beside the versions, the folder `serving` holds configurations, a compose file
and a README with requests to try; what is there already stays as it is.

  --precision=bfloat16   products in bfloat16, in half the space: for CPUs with
                         AVX512_BF16 or AMX; all else stays float32

In Python, where nothing of this project is needed:

  import tensorflow as tf, tensorflow_text
  answer = tf.saved_model.load("served/sst2/1").signatures["serving_default"]
  answer(text=tf.constant(["a fine film"]))
"""

import dataclasses
import functools
import importlib.metadata
import itertools
import os
import platform
import re
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from absl import flags
from tensorflow.core.protobuf import saved_model_pb2

from bert_keras import artifact, errors
from bert_keras import predictor as predictor_lib
from bert_keras.serving import (
    compatibility,
    manifest,
    served_width,
    tf_serving_files,
)
from export import command

MAX_CHARACTERS = 100_000
TOKEN_ROWS = 32

METHODS = {artifact.CLASSIFY: "tensorflow/serving/classify"}


@dataclasses.dataclass(frozen=True)
class Precision:
    """How far answers may be from those in float32."""

    numbers: float  # largest difference; scores lie in 0..1
    agreement: float  # smallest share of texts with the same labels


PRECISIONS = {
    # The same graph on the same machine: only the order of sums may change.
    "float32": Precision(numbers=1e-4, agreement=1.0),
    "bfloat16": Precision(numbers=0.1, agreement=0.9),
}


def export(
    predictor: predictor_lib.Predictor,
    output: str,
    version: int | None = None,
    *,
    reference: predictor_lib.Predictor | None = None,
    precision: str = "float32",
    data: Mapping[str, tf.Tensor] | None = None,
    max_characters: int = MAX_CHARACTERS,
    max_entities: int = served_width.MAX_ENTITIES,
) -> str:
    """Writes `output`/<version>, None being the next; returns its path.

    reference: the model in float32, where the predictor has another precision.
    data: texts of the user's, on which both are compared, too.

    Raises ExportError, and leaves nothing, when the written model answers
    otherwise than the reference.
    """
    free = next_version(output)
    path = os.path.join(output, str(version or free))
    if tf.io.gfile.exists(path):
        raise errors.InputError(
            f"{path} is there already and may be in use; the next free "
            f"version is {free}."
        )
    name = os.path.basename(os.path.abspath(output))
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise errors.InputError(
            f"--output={output}: its last part names the model in the server's "
            "addresses; expected letters, digits, '_', '-' and '.'."
        )
    task, reference = predictor.task, reference or predictor
    limits = {"max_characters": max_characters, "max_entities": max_entities}
    with artifact.aside(output, os.path.basename(path)) as folder:
        save(predictor, folder, **limits)
        tf_serving_files.warm_up(
            os.path.join(folder, tf_serving_files.WARM_UP), name, task
        )
        served, parity = tf.saved_model.load(folder), {}
        allowed = PRECISIONS[precision]
        for what, raw in {"sentences": None, "data": data}.items():
            if what == "data" and not raw:
                continue
            found = compare(served, reference, raw, **limits)
            found.require(numbers=allowed.numbers, agreement=allowed.agreement)
            parity[what] = dataclasses.asdict(found)
        facts = _facts(folder, predictor)
        manifest.write(
            folder,
            facts
            | {
                "model": name,
                "version": int(os.path.basename(path)),
                "precision": precision,
                **limits,
                "parity": parity,
            },
        )
        tf_serving_files.write(
            output,
            name,
            task,
            max_entities=max_entities,
            text_ops=facts["text_ops"],
        )
        tf.io.gfile.rename(folder, path)
    return path


def next_version(output: str) -> int:
    """One more than the highest version in a folder, which may not exist."""
    if not tf.io.gfile.isdir(output):
        return 1
    names = [name.rstrip("/") for name in tf.io.gfile.listdir(output)]
    return 1 + max((int(name) for name in names if name.isdecimal()), default=0)


def save(
    predictor: predictor_lib.Predictor,
    folder: str,
    *,
    max_characters: int,
    max_entities: int,
) -> None:
    """Writes the predictor's graphs, and of Python nothing."""
    names, classes = predictor.task.text_columns, predictor.task.class_names
    text = limited(
        predictor, max_characters=max_characters, max_entities=max_entities
    )

    def classify(inputs):
        feature = tf.io.FixedLenFeature((), tf.string)
        raw = tf.io.parse_example(inputs, dict.fromkeys(names, feature))
        scores = text(**raw)["scores"]
        every = tf.broadcast_to(tf.constant(classes), tf.shape(scores))
        return {"classes": every, "scores": scores}

    def strings(*arguments):
        return {
            name: tf.TensorSpec((None,), tf.string, name=name)
            for name in arguments
        }

    signatures = {
        artifact.TEXT: (text, strings(*names)),
        artifact.TOKENS_OF_TEXT: (
            functools.partial(served_width.tokens, predictor),
            artifact.token_specs(None, predictor.task.seq_length),
        ),
    }
    if classes:
        signatures[artifact.CLASSIFY] = (classify, strings("inputs"))
    served_width.require(artifact.save(predictor, folder, signatures))
    # A server offers its Classify call for this method alone.
    methods = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater
    updater = methods(folder)
    for name in signatures.keys() & METHODS.keys():
        updater.replace_method_name(name, METHODS[name])
    updater.save()


def limited(
    predictor: predictor_lib.Predictor,
    *,
    max_characters: int = MAX_CHARACTERS,
    max_entities: int = served_width.MAX_ENTITIES,
) -> Callable[..., dict[str, tf.Tensor]]:
    """`predictor.text` of the first characters, its lists of a set width.

    "truncated" is true as well where those are not all characters.
    """

    def text(**raw):
        kept = {
            name: tf.strings.substr(value, 0, max_characters, "UTF8_CHAR")
            for name, value in raw.items()
        }
        answers = predictor.text(**kept)
        cut = [
            tf.strings.length(value) > tf.strings.length(kept[name])
            for name, value in raw.items()
        ]
        truncated = tf.reduce_any([answers["truncated"], *cut], axis=0)
        answers = answers | {"truncated": truncated}
        return served_width.fit(answers, predictor.task, max_entities)

    return text


def compare(
    served,
    predictor: predictor_lib.Predictor,
    raw: Mapping[str, tf.Tensor] | None = None,
    **limits: int,
) -> artifact.Difference:
    """All signatures of a loaded SavedModel against the predictor.

    raw: texts under the task's names; None: the sentences of `artifact`.
    limits: those of `limited`.
    """
    task = predictor.task
    raw = raw or artifact.texts(task)
    inputs = task.preprocess(raw, predictor.tokenizer)
    # All at once, unlike texts: a few rows show what there is to see.
    padding = [[0, 0], [0, task.seq_length - inputs["token_ids"].shape[1]]]
    tokens = {
        name: tf.pad(inputs[name][:TOKEN_ROWS], padding)
        for name in artifact.TOKENS
    }
    answers = limited(predictor, **limits)(**raw)
    pairs = [
        (served.signatures[artifact.TEXT](**raw), answers),
        (
            served.signatures[artifact.TOKENS_OF_TEXT](**tokens),
            predictor.tokens(**tokens),
        ),
    ]
    if task.class_names:
        texts = {name: value.numpy() for name, value in raw.items()}
        examples = tf.constant(artifact.examples(texts), tf.string)
        classes = [task.class_names] * len(answers["scores"])
        pairs.append(
            (
                served.signatures[artifact.CLASSIFY](inputs=examples),
                {
                    "classes": tf.constant(classes),
                    "scores": answers["scores"],
                },
            )
        )
    found = [
        artifact.compare(got, want, ranked=task.ranked_outputs)
        for got, want in pairs
    ]
    return artifact.Difference(
        max(difference.numbers for difference in found),
        min(difference.agreement for difference in found),
        len(next(iter(raw.values()))),
    )


def _facts(folder: str, predictor: predictor_lib.Predictor) -> dict[str, Any]:
    """What a manifest says of the graphs and of what they were made from."""
    path = os.path.join(folder, "saved_model.pb")
    with tf.io.gfile.GFile(path, "rb") as file:
        saved = saved_model_pb2.SavedModel.FromString(file.read())
    (graph,) = saved.meta_graphs
    ops = sorted(op.name for op in graph.meta_info_def.stripped_op_list.op)
    packages = ("tensorflow", "tensorflow-text", "keras")
    return {
        "task": predictor.task.to_dict(),
        "bert": predictor.model.encoder.config.to_dict(),
        "tokenizer": {
            "lowercase": predictor.tokenizer.lowercase,
            "fingerprint": predictor.tokenizer.fingerprint,
        },
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
        "signatures": {
            name: {
                "method": signature.method_name,
                "inputs": _tensors(signature.inputs),
                "outputs": _tensors(signature.outputs),
            }
            for name, signature in sorted(graph.signature_def.items())
            if not name.startswith("__")
        },
        "ops": ops,
        "attributes": compatibility.attributes(graph.graph_def),
        # What plain TensorFlow does not have: the server must.
        "text_ops": [name for name in ops if not hasattr(tf.raw_ops, name)],
    }


def _tensors(tensors) -> dict[str, list[Any]]:
    return {
        name: [
            tf.as_dtype(info.dtype).name,
            [None if d.size < 0 else d.size for d in info.tensor_shape.dim],
        ]
        for name, info in sorted(tensors.items())
    }


def define_flags() -> None:
    command.define_checkpoint()
    flags.DEFINE_string("output", "", "Folder that the versions lie in.")
    flags.DEFINE_integer(
        "version", None, "Number of the version; default: the next.", 1
    )
    flags.DEFINE_enum(
        "precision", "float32", list(PRECISIONS), "Of the products."
    )
    flags.DEFINE_integer(
        "max_characters",
        MAX_CHARACTERS,
        "A text is read up to here, and the answer says so.",
        1,
    )
    flags.DEFINE_integer(
        "max_entities",
        served_width.MAX_ENTITIES,
        "Entities in an answer; `count` says how many there were.",
        1,
    )
    flags.DEFINE_string(
        "data",
        "",
        "Labelled rows of yours; the answers to the first 200 are compared, "
        "too.",
    )


def main() -> None:
    output = command.required("output")
    checkpoint = command.checkpoint()
    precision = flags.FLAGS.precision
    reference = predictor = predictor_lib.load(checkpoint)
    if precision != "float32":
        predictor = predictor_lib.load(checkpoint, precision=precision)
    path = export(
        predictor,
        output,
        flags.FLAGS.version,
        reference=reference,
        precision=precision,
        data=_data(flags.FLAGS.data, reference.task),
        max_characters=flags.FLAGS.max_characters,
        max_entities=flags.FLAGS.max_entities,
    )

    served, found = tf.saved_model.load(path), manifest.read(path)
    answer = served.signatures[artifact.TEXT]

    def time(count: int) -> str:
        texts = tf.constant(artifact.SENTENCES[:1] * count)
        raw = {name: texts for name in predictor.task.text_columns}
        return f"{command.milliseconds(lambda: answer(**raw)) / count:.1f} ms"

    command.table(
        path,
        {
            "size": command.megabytes(path),
            **{
                name: f"{', '.join(it['inputs'])} -> {', '.join(it['outputs'])}"
                for name, it in found["signatures"].items()
            },
            **{
                f"difference, {what}": f"{it['numbers']:.2g}; "
                f"{it['agreement']:.1%} of the labels equal, on "
                f"{it['texts']} texts"
                for what, it in found["parity"].items()
            },
            "time per text": f"{time(1)} alone, {time(32)} in a batch of 32 "
            "(a sentence)",
            "the server needs": ", ".join(found["text_ops"]),
            "TF Serving": ", ".join(compatibility.servers(found))
            or "none known can serve it",
        },
        then=_next(output),
    )


def _data(path: str, task) -> dict[str, tf.Tensor] | None:
    """Texts of the first rows of a labelled file."""
    if not path:
        return None
    rows = list(itertools.islice(task.read_examples(path), 200))
    return {
        name: tf.constant([row[name] for row in rows], tf.string)
        for name in task.text_columns
    }


def _next(output: str) -> str:
    folder = os.path.join(output, tf_serving_files.FOLDER)
    return (
        f"Serve it:\n  docker compose -f {folder}/docker-compose.yaml up\n"
        f"Ask it:\n  cat {folder}/README.md"
    )


if __name__ == "__main__":
    command.run(main, define_flags)
