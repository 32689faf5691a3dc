"""Google's static pretraining files: trainers.prepare beside plain Python.

  python -m benchmarks.pretraining_data --input=corpus.txt --vocab=vocab.txt

The input is rewritten as Google's script wants it, a sentence per line.
Google's create_pretraining_data.py is not at hand, so its algorithm stands
here as described in Devlin et al. 2019, appendix A.2, and in the notes of
google-research/bert: everything in memory, lists of word pieces, one
tf.train.Example at a time, `--passes` drawings. Words are cut by Hugging
Face's `tokenizers`, which is faster than Google's own tokenizer. Each side
runs alone, in a process of its own or in as many as there are cores, the plain
one on parts of the text. Ratios are of processor seconds without those of a
start, which the first line shows: most of it is TensorFlow's import.
"""

import os
import random
import resource
import subprocess
import sys
import tempfile
import time

import rich.console
import rich.table
from absl import app, flags

from bert_keras.data import corpus

INPUT = flags.DEFINE_string("input", None, "Text, as trainers.prepare reads.")
VOCAB = flags.DEFINE_string("vocab", None, "An uncased vocab.txt.")
PASSES = flags.DEFINE_integer("passes", 5, "Drawings of the same text.")
PART = flags.DEFINE_string("part", "", "k/n: what one plain process does.")
OUTPUT = flags.DEFINE_string("output", "", "Where one plain process writes.")

SEQ_LENGTH, PREDICTIONS, SHARE, SHORT = 128, 20, 0.15, 0.1


def plain(path, vocab, output, part, parts):
    """The algorithm, token by token."""
    import tensorflow as tf
    import tokenizers

    tokenizer = tokenizers.BertWordPieceTokenizer(vocab, lowercase=True)
    pieces = [
        piece
        for piece, _ in sorted(
            tokenizer.get_vocab().items(), key=lambda item: item[1]
        )
    ]
    ids = {piece: index for index, piece in enumerate(pieces)}
    with open(path, encoding="utf-8") as file:
        texts = file.read().split("\n\n")[part::parts]
    documents = []
    for text in texts:
        lines = [line for line in text.split("\n") if line.strip()]
        found = tokenizer.encode_batch(lines, add_special_tokens=False)
        sentences = [line.tokens for line in found if line.tokens]
        if sentences:
            documents.append(sentences)
    generator = random.Random(1)
    generator.shuffle(documents)
    instances = []
    for _ in range(PASSES.value):
        for number in range(len(documents)):
            instances += _of_document(documents, number, pieces, generator)
    generator.shuffle(instances)
    with tf.io.TFRecordWriter(output) as writer:
        for instance in instances:
            writer.write(_example(tf, instance, ids))


def _of_document(documents, number, pieces, generator):
    document, room = documents[number], SEQ_LENGTH - 3
    target = _target(room, generator)
    chunk, length, place = [], 0, 0
    while place < len(document):
        chunk.append(document[place])
        length += len(document[place])
        place += 1
        if length < target and place < len(document):
            continue
        split = generator.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
        first = [piece for part in chunk[:split] for piece in part]
        is_random = len(chunk) == 1 or generator.random() < 0.5
        second = []
        if is_random:
            other = generator.randrange(len(documents))
            while other == number and len(documents) > 1:
                other = generator.randrange(len(documents))
            begin = generator.randrange(len(documents[other]))
            for part in documents[other][begin:]:
                second.extend(part)
                if len(second) >= target - len(first):
                    break
            place -= len(chunk) - split  # what was not used comes again
        else:
            second = [piece for part in chunk[split:] for piece in part]
        while len(first) + len(second) > room:
            longer = first if len(first) > len(second) else second
            if generator.random() < 0.5:
                del longer[0]
            else:
                longer.pop()
        tokens = ["[CLS]", *first, "[SEP]", *second, "[SEP]"]
        segments = [0] * (len(first) + 2) + [1] * (len(second) + 1)
        yield _masked(tokens, segments, is_random, pieces, generator)
        chunk, length, target = [], 0, _target(room, generator)


def _target(room, generator):
    return generator.randint(2, room) if generator.random() < SHORT else room


def _masked(tokens, segments, is_random, pieces, generator):
    places = [i for i, t in enumerate(tokens) if t not in ("[CLS]", "[SEP]")]
    generator.shuffle(places)
    count = min(PREDICTIONS, max(1, round(len(tokens) * SHARE)))
    shown, chosen = list(tokens), []
    for place in places[:count]:
        chance = generator.random()
        if chance < 0.8:
            shown[place] = "[MASK]"
        elif chance < 0.9:
            shown[place] = pieces[generator.randrange(len(pieces))]
        chosen.append((place, tokens[place]))
    return shown, segments, is_random, sorted(chosen)


def _example(tf, instance, ids):
    tokens, segments, is_random, chosen = instance
    filling = [0] * (SEQ_LENGTH - len(tokens))
    empty = [0] * (PREDICTIONS - len(chosen))
    integers = {
        "input_ids": [ids[token] for token in tokens] + filling,
        "input_mask": [1] * len(tokens) + filling,
        "segment_ids": segments + filling,
        "masked_lm_positions": [place for place, _ in chosen] + empty,
        "masked_lm_ids": [ids[token] for _, token in chosen] + empty,
        "next_sentence_labels": [int(is_random)],
    }
    features = {
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        for name, values in integers.items()
    }
    features["masked_lm_weights"] = tf.train.Feature(
        float_list=tf.train.FloatList(value=[1.0] * len(chosen) + empty)
    )
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


def seconds(commands):
    """(wall, processor) seconds of commands that run side by side."""
    began, used = time.monotonic(), _processor()
    running = [
        subprocess.Popen(
            [sys.executable, "-m", *command],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # One core each, whatever a library starts.
            env=os.environ | {"RAYON_NUM_THREADS": "1"},
        )
        for command in commands
    ]
    if any([process.wait() for process in running]):
        raise RuntimeError(f"{commands} failed")
    return time.monotonic() - began, _processor() - used


def _processor():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def rows(pattern):
    """How many rows are in the files."""
    import tensorflow as tf

    files = tf.io.gfile.glob(pattern)
    return sum(1 for _ in tf.data.TFRecordDataset(files))


def measure(folder, text):
    """(what, ours, plain Python's) seconds; the first is a start alone."""
    start = os.path.join(folder, "start.txt")
    with open(start, "w", encoding="utf-8") as file:
        file.write("A film.\nA plot.\n\nA story.\nAn end.\n")

    def ours(name, text, workers, *more):
        return seconds(
            [
                [
                    "trainers.prepare",
                    f"--input={text}",
                    f"--vocab={VOCAB.value}",
                    f"--output={os.path.join(folder, name)}",
                    f"--workers={workers}",
                    "--lowercase",
                    "--held_out=0",
                    *more,
                ]
            ]
        )

    def theirs(name, text, parts, passes):
        return seconds(
            [
                [
                    "benchmarks.pretraining_data",
                    f"--input={text}",
                    f"--vocab={VOCAB.value}",
                    f"--part={part}/{parts}",
                    f"--passes={passes}",
                    f"--output={folder}/plain-{name}-{part}",
                ]
                for part in range(parts)
            ]
        )

    passes, cores = PASSES.value, os.cpu_count()
    google = ("--format=google", f"--passes={passes}")
    many = f"{passes} drawings, static masks"
    yield (
        "a start: four sentences",
        ours("start", start, 1, *google),
        theirs("start", start, 1, passes),
    )
    yield (
        f"{many}, 1 process",
        ours("one", text, 1, *google),
        theirs("one", text, 1, passes),
    )
    yield (
        f"{many}, {cores} processes",
        ours("many", text, cores, *google),
        theirs("many", text, cores, passes),
    )
    yield (
        "records (masks drawn in training) / one drawing",
        ours("records", text, 1),
        theirs("once", text, 1, 1),
    )


def main(_):
    if PART.value:
        part, parts = map(int, PART.value.split("/"))
        plain(INPUT.value, VOCAB.value, OUTPUT.value, part, parts)
        return
    with tempfile.TemporaryDirectory() as folder:
        text = os.path.join(folder, "text.txt")
        with open(text, "w", encoding="utf-8") as file:
            for document in corpus.documents([INPUT.value]):
                file.write("\n".join(document) + "\n\n")
        size = os.path.getsize(text) / 1e6
        table = rich.table.Table(
            title=f"{size:.1f} MB: wall seconds (processor seconds)"
        )
        for column in ("what", "ours", "plain Python", "ratio"):
            table.add_column(column)
        start = None
        for what, ours, theirs in measure(folder, text):
            start = start or (ours[1], theirs[1])
            processes = os.cpu_count() if "processes" in what else 1
            # Beside the workers runs the process that plans.
            net = (
                ours[1] - start[0] * (processes + (processes > 1)),
                theirs[1] - start[1] * processes,
            )
            table.add_row(
                what,
                f"{ours[0]:.1f} ({ours[1]:.1f})",
                f"{theirs[0]:.1f} ({theirs[1]:.1f})",
                f"{net[1] / net[0]:.1f}" if net[0] else "",
            )
        table.caption = (
            f"rows in {PASSES.value} drawings: "
            f"{rows(f'{folder}/one/train/*.tfrecord'):,} and "
            f"{rows(f'{folder}/plain-one-0'):,}"
        )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    flags.mark_flags_as_required(["input", "vocab"])
    app.run(main)
