r"""Writes a checkpoint as a SavedModel that takes text, for TF Serving.

  python -m export.saved_model --checkpoint=runs/sst2 --output=served/sst2

writes served/sst2/1, the next time served/sst2/2, and so on. A version
appears whole or not at all: it is written beside, opened again, compared with
the model it came from on English and Chinese sentences, and moved into place
when the answers are equal. A server that watches the folder takes it up by
itself.

Signatures:

  serving_default   strings (T,): text, or text and text_pair
                    -> what trainers.predict answers: label, score, ...
  tokens            token_ids, segment_ids, padding_mask (W, S) int32
                    -> the task's numbers, for a tokenizer of your own

Any number of texts, none included, of any length; bytes that are not UTF-8
are passed over. The vocabulary is inside, there is nothing to copy along.

With TF Serving, whose images hold the ops of TensorFlow Text:

  docker run -p 8501:8501 -v "$PWD/served/sst2:/models/sst2" \
    -e MODEL_NAME=sst2 tensorflow/serving
  curl localhost:8501/v1/models/sst2:predict \
    -d '{"instances": ["a fine film"]}'

In Python, where nothing of this project is needed:

  import tensorflow as tf, tensorflow_text
  answer = tf.saved_model.load("served/sst2/1").signatures["serving_default"]
  answer(text=tf.constant(["a fine film"]))
"""

import json
import os
import shlex

import tensorflow as tf
from absl import flags

from bert_keras import errors
from bert_keras import predictor as predictor_lib
from export import artifact, command

TEXT, TOKENS = "serving_default", "tokens"

# The same graph on the same machine: only the order of sums may change.
LARGEST_DIFFERENCE = 1e-4


def export(
    predictor: predictor_lib.Predictor,
    output: str,
    version: int | None = None,
) -> str:
    """Writes `output`/<version>, None being the next; returns its path.

    Raises ExportError, and leaves nothing, when the written model answers
    otherwise than the predictor.
    """
    free = next_version(output)
    path = os.path.join(output, str(version or free))
    if tf.io.gfile.exists(path):
        raise errors.InputError(
            f"{path} is there already and may be in use; the next free "
            f"version is {free}."
        )
    with artifact.aside(output, os.path.basename(path)) as folder:
        save(predictor, folder)
        compare(tf.saved_model.load(folder), predictor).require(
            numbers=LARGEST_DIFFERENCE, agreement=1.0
        )
        tf.io.gfile.rename(folder, path)
    return path


def next_version(output: str) -> int:
    """One more than the highest version in a folder, which may not exist."""
    if not tf.io.gfile.isdir(output):
        return 1
    names = [name.rstrip("/") for name in tf.io.gfile.listdir(output)]
    return 1 + max((int(name) for name in names if name.isdecimal()), default=0)


def save(predictor: predictor_lib.Predictor, folder: str) -> None:
    """Writes the predictor's two graphs, and of Python nothing."""
    text = {
        name: tf.TensorSpec((None,), tf.string, name=name)
        for name in predictor.task.texts
    }
    artifact.save(
        predictor,
        folder,
        {
            TEXT: (predictor.text, text),
            TOKENS: (predictor.tokens, artifact.token_specs(None, None)),
        },
    )


def compare(served, predictor: predictor_lib.Predictor) -> artifact.Difference:
    """Both signatures of a loaded SavedModel against the predictor."""
    raw = artifact.texts(predictor.task)
    inputs = predictor.task.inputs(raw, predictor.tokenizer)
    tokens = {name: inputs[name] for name in artifact.TOKENS}
    answers = artifact.compare(
        served.signatures[TEXT](**raw),
        predictor.text(**raw),
        ranked=predictor.task.ranked,
    )
    decoded = artifact.compare(
        served.signatures[TOKENS](**tokens),
        predictor.tokens(**tokens),
        ranked=predictor.task.ranked,
    )
    return artifact.Difference(
        max(answers.numbers, decoded.numbers),
        min(answers.agreement, decoded.agreement),
    )


def define_flags() -> None:
    flags.DEFINE_string("checkpoint", "", "A run, or one of its step folders.")
    flags.DEFINE_string("output", "", "Folder that the versions lie in.")
    flags.DEFINE_integer(
        "version", None, "Number of the version; default: the next.", 1
    )


def main() -> None:
    output = command.required("output")
    predictor = predictor_lib.load(command.required("checkpoint"))
    path = export(predictor, output, flags.FLAGS.version)

    served = tf.saved_model.load(path)
    difference = compare(served, predictor)
    answer = served.signatures[TEXT]

    def time(count: int) -> str:
        texts = tf.constant(artifact.SENTENCES[:1] * count)
        raw = {name: texts for name in predictor.task.texts}
        return f"{command.milliseconds(lambda: answer(**raw)) / count:.1f} ms"

    command.table(
        path,
        {
            "size": command.megabytes(path),
            **{
                name: _shown(graph)
                for name, graph in sorted(served.signatures.items())
            },
            "difference": f"{difference.numbers:.2g} on "
            f"{len(artifact.SENTENCES)} texts, all labels equal",
            "time per text": f"{time(1)} alone, {time(32)} in a batch of 32 "
            "(a sentence)",
        },
        then=_next(output, predictor.task.texts),
    )


def _next(output: str, texts: tuple[str, ...]) -> str:
    name = os.path.basename(os.path.abspath(output))
    mount = shlex.quote(f"{os.path.abspath(output)}:/models/{name}")
    row = {text: "a fine film" for text in texts}
    instance = row if len(row) > 1 else "a fine film"
    request = shlex.quote(json.dumps({"instances": [instance]}))
    return (
        f"Serve it:\n  docker run -p 8501:8501 -v {mount} "
        f"-e MODEL_NAME={name} tensorflow/serving\n"
        f"Ask it:\n  curl localhost:8501/v1/models/{name}:predict "
        f"-d {request}"
    )


def _shown(graph) -> str:
    _, inputs = graph.structured_input_signature
    outputs = graph.structured_outputs
    return f"{', '.join(sorted(inputs))} -> {', '.join(sorted(outputs))}"


if __name__ == "__main__":
    command.run(main, define_flags)
