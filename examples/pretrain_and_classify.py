# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Pretrain on your text, then classify
#
# Without any download: the text is the docstrings of Python's standard library.
# A small BERT is pretrained on them, and fine-tuned to tell which of four
# packages a docstring is from. The same classifier from random weights stands
# beside it.

# %%
import ast
import csv
import pathlib
import random
import sysconfig
import tempfile

import bert_keras

folder = pathlib.Path(tempfile.mkdtemp())
library = pathlib.Path(sysconfig.get_path("stdlib"))

# %% [markdown]
# ## The text
# One document per module, one docstring per line, an empty line between
# documents.


# %%
def docstrings(path):
    """Yields the docstrings of a module, each on one line."""
    tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield " ".join(text.split())


LABELS = ("asyncio", "email", "tkinter", "unittest")
labelled, documents = [], []
for path in sorted(library.rglob("*.py")):
    package = path.relative_to(library).parts[0]
    if package in ("site-packages", "test", "idlelib"):
        continue
    try:
        texts = list(docstrings(path))
    except SyntaxError:  # files that are wrong on purpose
        continue
    if package in LABELS:
        labelled += [
            {"text": text.replace(package, "package"), "label": package}
            for text in texts
            if len(text) >= 40
        ]
    elif texts:
        documents.append("\n".join(texts))

(folder / "corpus.txt").write_text("\n\n".join(documents), encoding="utf-8")
random.Random(1).shuffle(labelled)
train, dev = labelled[:160], labelled[160:560]
for name, rows in (("train", train), ("dev", dev)):
    with open(
        folder / f"{name}.csv", "w", newline="", encoding="utf-8"
    ) as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
print(
    len(documents),
    "documents,",
    len(train),
    "labelled rows,",
    len(dev),
    "to test on",
)

# %% [markdown]
# ## Vocabulary and records
# `prepare` learns a WordPiece vocabulary and writes tokenized records.

# %%
bert_keras.prepare(
    folder / "corpus.txt",
    output=folder / "records",
    vocab_size=4000,
    seq_length=64,
    sentence_objective="none",
)

# %% [markdown]
# ## Pretraining
# Masks are drawn anew in every epoch. The folder is a run: the same call again
# resumes it, and TensorBoard reads it.

# %%
base = bert_keras.pretrain(
    folder / "records",
    output=folder / "base",
    model="tiny",
    steps=600,
    batch_size=64,
    learning_rate=1e-3,
    evaluate_every=200,
)
for candidate in base.predict(["returns the [MASK] of the string."]):
    print(candidate)

# %% [markdown]
# ## Fine-tuning, with and without

# %%
accuracy = {}
for name, settings in (
    ("pretrained", {}),
    ("from scratch", {"from_scratch": True}),
):
    bert_keras.finetune(
        folder / "base",
        folder / "train.csv",
        folder / "dev.csv",
        task="classification",
        output=folder / name,
        epochs=8,
        batch_size=16,
        learning_rate=3e-4,
        seq_length=64,
        **settings,
    )
    accuracy[name] = bert_keras.evaluate(folder / name, folder / "dev.csv")[
        "accuracy"
    ]

most = max(LABELS, key=[row["label"] for row in train].count)
accuracy["most frequent class"] = sum(
    row["label"] == most for row in dev
) / len(dev)
print(accuracy)

# %%
assert accuracy["pretrained"] > accuracy["most frequent class"] + 0.1
