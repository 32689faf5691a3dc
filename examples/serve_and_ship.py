# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Serve it, ship it
#
# A classifier becomes a SavedModel that takes strings, as TF Serving would load
# it, and a TFLite file that takes token ids, as a phone would.

# %%
import csv
import pathlib
import tempfile

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 (the ops of the tokenizer)

import bert_keras
from bert_keras.device import tflite
from bert_keras.serving import saved_model

folder = pathlib.Path(tempfile.mkdtemp())
good = [
    "a fine film",
    "great acting and a good plot",
    "i liked it",
    "wonderful",
]
bad = ["a dull film", "bad acting and a weak plot", "i hated it", "awful"]
with open(folder / "train.csv", "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["text", "label"])
    writer.writerows([text, "positive"] for text in good)
    writer.writerows([text, "negative"] for text in bad)
(folder / "corpus.txt").write_text("\n".join((good + bad) * 4))

# %% [markdown]
# ## A model
# Eight sentences are enough to show the way from weights to files.

# %%
bert_keras.prepare(
    folder / "corpus.txt",
    output=folder / "records",
    vocab_size=80,
    seq_length=16,
    sentence_objective="none",
    deduplicate=False,
)
bert_keras.pretrain(
    folder / "records",
    output=folder / "base",
    model="tiny",
    steps=2,
    batch_size=4,
)
model = bert_keras.finetune(
    folder / "base",
    folder / "train.csv",
    folder / "train.csv",
    task="classification",
    output=folder / "reviews",
    epochs=30,
    batch_size=8,
    learning_rate=1e-3,
    seq_length=32,
)
answers = model.predict(good + bad)
print([answer["label"] for answer in answers])

# %% [markdown]
# ## A server's view
# The SavedModel holds the tokenizer: strings in, labels and scores out. Export
# compares its answers with the checkpoint's before anything is published.

# %%
version = saved_model.export(model, folder / "served")
served = tf.saved_model.load(version).signatures["serving_default"]
output = served(text=tf.constant(good + bad))
np.testing.assert_allclose(
    output["scores"].numpy(),
    [answer["scores"] for answer in answers],
    atol=1e-5,
)
print(output["label"].numpy())

# %% [markdown]
# ## A phone's view
# Ids in, scores out; vocabulary and labels are in the file's metadata.

# %%
path = tflite.export(
    model, folder / "mobile", quantization="dynamic", seq_length=16
)
size = pathlib.Path(path).stat().st_size
print(f"{size / 1e6:.1f} MB")
