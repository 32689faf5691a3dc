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
  tokens            what the network reads: token_ids, padding_mask and, where
                    it knows two segments, segment_ids, (W, seq_length) int32
                    -> the task's numbers, for a tokenizer of your own; a
                    shorter row is padded with 0 in all of them
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

import itertools
import os

import tensorflow as tf
from absl import flags

from bert_keras import console, signatures, verification
from bert_keras import predictor as predictor_lib
from bert_keras.serving import (
    compatibility,
    manifest,
    served_width,
    tf_serving_files,
)

# Also for Python: saved_model.export(predictor, folder).
from bert_keras.serving.saved_model import (  # noqa: F401
    MAX_CHARACTERS,
    PRECISIONS,
    compare,
    export,
    limited,
    next_version,
    save,
)
from bert_keras.tasks import base
from export import flags as common


def define_flags() -> None:
    common.define_checkpoint()
    flags.DEFINE_string("output", "", "Folder that contains the versions.")
    flags.DEFINE_integer(
        "version", None, "Number of the version; default: the next.", 1
    )
    flags.DEFINE_enum(
        "precision", "float32", list(PRECISIONS), "Precision of the matmuls."
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
    output = common.required("output")
    checkpoint = common.checkpoint()
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

    console.table(path, _facts(path, predictor.task))
    print(_next(output))


def _facts(path: str, task: base.Task) -> dict[str, str]:
    """What the closing table shows of a version."""
    described = manifest.read(path)
    answer = tf.saved_model.load(path).signatures[signatures.TEXT]

    def time(count: int) -> str:
        texts = tf.constant(verification.SENTENCES[:1] * count)
        raw = {name: texts for name in task.text_columns}
        return f"{common.milliseconds(lambda: answer(**raw)) / count:.1f} ms"

    return {
        "size": console.size_of(path),
        **{
            name: f"{', '.join(each['inputs'])} -> {', '.join(each['outputs'])}"
            for name, each in described["signatures"].items()
        },
        **manifest.parity(described),
        "time per text": f"{time(1)} alone, {time(32)} in a batch of 32 "
        "(a sentence)",
        "the server needs": ", ".join(described["text_ops"]),
        "TF Serving": compatibility.listed(described),
    }


def _data(path: str, task: base.Task) -> dict[str, tf.Tensor] | None:
    """Texts of the first rows of a labelled file."""
    if not path:
        return None
    examples = list(itertools.islice(task.read_examples(path), 200))
    return base.as_tensors(examples, task.text_columns)


def _next(output: str) -> str:
    folder = os.path.join(output, tf_serving_files.FOLDER)
    return (
        f"Serve it:\n  docker compose -f {folder}/docker-compose.yaml up\n"
        f"Ask it:\n  cat {folder}/README.md"
    )


if __name__ == "__main__":
    common.run(main, define_flags)
