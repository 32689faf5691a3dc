r"""Exports a checkpoint as a SavedModel with text inputs, for TF Serving.

  bert-keras export-savedmodel --checkpoint=runs/sst2 --output=served/sst2

writes served/sst2/1, the next time served/sst2/2, and so on. On a file system
a version appears atomically: it is written to a staging folder, loaded again,
compared with the checkpoint on English and Chinese sentences (and on the
examples of --data), and moved into place if the answers are equal. A server
that watches the folder loads it by itself.

Signatures:

  serving_default   strings (T,): text, or text and text_pair, or question and
                    context -> the outputs of trainers.predict: label, score,
                    ...
  tokens            the network's inputs, (W, seq_length) int32: token_ids,
                    padding_mask and, if it has two segments, segment_ids
                    -> the task's raw outputs, for a tokenizer of your own; pad
                    a shorter row with 0 in all of them
  classify          inputs (T,): serialized tf.Examples -> classes (T, C),
                    scores (T, C), if the task has classes
  with_settings     as serving_default, and max_new_tokens, temperature, top_k,
                    top_p and seed (T,), if the task continues texts; of
                    these, a beam search has max_new_tokens only

No output's width depends on the batch, so a server may split and join requests.
Entities are padded to --max_entities with "", -1 and 0; `count` is their full
number, of which at most --max_entities are listed.

A request may have any number of texts, also none, of any length; bytes that are
not UTF-8 are dropped. A text is truncated to --max_characters; `truncated` is
true if it was longer than that, or than the task reads. The SavedModel contains
the vocabulary. A batch is split by length, to avoid computing on padding.

A version's folder assets.extra contains TF Serving's warm-up requests and a
manifest (bert-keras verify). Beside the versions, the folder `serving`
contains configurations, a compose file and a README with the model card and
example requests; existing files are not overwritten, but for a README that
nobody edited.

  --precision=bfloat16   matmuls in bfloat16 with weights of half the size, for
                         CPUs with AVX512_BF16 or AMX; the rest stays float32

Use in Python, without this project:

  import tensorflow as tf, tensorflow_text
  answer = tf.saved_model.load("served/sst2/1").signatures["serving_default"]
  answer(text=tf.constant(["a fine film"]))
"""

import itertools
import os
from collections.abc import Iterable, Mapping

import tensorflow as tf
from absl import flags

from bert_keras import console, model_card, signatures, verification
from bert_keras.data import unlabelled_texts
from bert_keras.serving import (
    compatibility,
    manifest,
    served_width,
    tf_serving_files,
)

# Re-exported for use from Python: saved_model.export(predictor, folder).
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
    common.define_answer_settings()
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
        "Labelled rows of yours, or for a language model texts; the answers to "
        "the first 200 are compared, too.",
    )


def main() -> None:
    output = common.required("output")
    precision = flags.FLAGS.precision
    reference = predictor = common.load()
    if precision != "float32":
        predictor = common.load(precision=precision)
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

    card = os.path.join(output, tf_serving_files.FOLDER, model_card.FILE)
    if model_card.is_edited(card):
        console.say(f"{card} was edited and is kept as it is")
    console.table(path, _facts(path, predictor.task))
    print(_next(output))


def _facts(path: str, task: base.Task) -> dict[str, str]:
    """Returns the rows of the printed summary of a version."""
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
        **manifest.format_parity(described),
        "time per text": f"{time(1)} alone, {time(32)} in a batch of 32 "
        "(a sentence)",
        "the server needs": ", ".join(described["text_ops"]),
        "TF Serving": compatibility.format_servers(described),
    }


def _data(path: str, task: base.Task) -> dict[str, tf.Tensor] | None:
    """Returns the texts of a file's first 200 examples.

    A task that learns from records has no labelled files: it gets a text file.
    """
    if not path:
        return None
    rows: Iterable[str | Mapping[str, str]]
    if type(task).read_examples is base.Task.read_examples:
        rows = unlabelled_texts.read(path, task.text_columns)
    else:
        rows = task.read_examples(path)
    examples = [
        unlabelled_texts.parse(row, task.text_columns, number)
        if isinstance(row, str)
        else row
        for number, row in enumerate(itertools.islice(rows, 200), start=1)
    ]
    return base.as_tensors(examples, task.text_columns)


def _next(output: str) -> str:
    folder = os.path.join(output, tf_serving_files.FOLDER)
    return (
        f"Serve it:\n  docker compose -f {folder}/docker-compose.yaml up\n"
        f"Ask it:\n  cat {folder}/README.md"
    )


def run() -> None:
    common.run(main, define_flags)


if __name__ == "__main__":
    run()
