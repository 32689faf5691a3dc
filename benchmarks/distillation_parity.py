"""The losses of distillation beside a computation in PyTorch, in float64.

  make bench
  .venv-bench/bin/python -m benchmarks.distillation_parity

A student of 2 layers learns from a teacher of 4, both random and without
dropout, at random tokens with padding. The other side reads the weights alone
and has a Transformer, a softmax and the losses of its own. Beside each term
stands the gradient of the student's query, key and value kernels.
"""

import keras
import numpy as np
import rich.console
import rich.table
import tensorflow as tf
import torch

import benchmarks
from bert_keras import checkpoint
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import classification
from bert_keras.wrappers import distillation

ROWS, LENGTH, VOCABULARY, HEADS = 6, 12, 50, 4
# Settings, hidden size of the student. The teacher is 32 wide.
CASES = {
    "soft, temperature 1": ({"soft": 1.0, "temperature": 1.0}, 16),
    "soft, temperature 4": ({"soft": 0.7, "temperature": 4.0}, 16),
    "cosine": ({"soft": 0.0, "cosine": 1.0}, 32),
    "hidden, layers 2,4": ({"soft": 0.0, "hidden": 1.0}, 32),
    "hidden, layers 1,3, projected": (
        {"soft": 0.0, "hidden": 1.0, "layers": "1,3"},
        16,
    ),
    "attention, layers 2,4": ({"soft": 0.0, "attention": 1.0}, 16),
    "attention, layers 1,4": (
        {"soft": 0.0, "attention": 1.0, "layers": "1,4"},
        16,
    ),
}


def config(layers, width):
    return bert.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_layers=layers,
        num_heads=HEADS,
        intermediate_size=2 * width,
        max_position_embeddings=LENGTH,
        initializer_range=0.4,
        dropout=0.0,
        attention_dropout=0.0,
    )


class Network:
    """A post-LN Transformer with the weights of one of ours."""

    def __init__(self, model):
        self.config = model.encoder.config
        self.weights = {
            path: torch.tensor(
                value.numpy(), dtype=torch.float64, requires_grad=True
            )
            for part in (model.encoder, model.head)
            for path, value in checkpoint.weights(part).items()
        }

    def norm(self, x, name):
        gamma, beta = (self.weights[f"{name}/{n}"] for n in ("gamma", "beta"))
        epsilon = self.config.layer_norm_epsilon
        return torch.nn.functional.layer_norm(
            x, x.shape[-1:], gamma, beta, epsilon
        )

    def dense(self, x, name):
        weights = self.weights
        return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    def __call__(self, tokens, mask):
        """Returns logits, hidden states and scores (B, N, S, S) by layer."""
        weights = self.weights
        x = weights["embeddings/token"][tokens]
        x = x + weights["embeddings/segment"][0]
        x = x + weights["embeddings/position"][: tokens.shape[1]]
        hidden, scores = [self.norm(x, "embeddings/norm")], []
        for layer in range(self.config.num_layers):
            x, name = hidden[-1], f"block_{layer}"
            split = self.dense(x, f"{name}/attention/qkv").unflatten(
                -1, (3, HEADS, -1)
            )
            query, key, value = split.permute(2, 0, 3, 1, 4)
            score = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
            scores.append(score)
            score = score.masked_fill(~mask[:, None, None], -1e9)
            mixed = (score.softmax(-1) @ value).transpose(1, 2).flatten(2)
            out = self.dense(mixed, f"{name}/attention/out")
            x = self.norm(x + out, f"{name}/attention_norm")
            inner = torch.nn.functional.gelu(
                self.dense(x, f"{name}/feed_forward/inner")
            )
            out = self.dense(inner, f"{name}/feed_forward/outer")
            hidden.append(self.norm(x + out, f"{name}/feed_forward_norm"))
        pooled = torch.tanh(self.dense(hidden[-1][:, 0], "pooler"))
        return self.dense(pooled, "label/score"), hidden, scores


def expected(student, teacher, tokens, mask, row_weights, settings):
    """Returns the term that the settings ask for, weighted by them."""
    logits, hidden, scores = student(tokens, mask)
    with torch.no_grad():
        gold_logits, gold_hidden, gold_scores = teacher(tokens, mask)
    layers = [int(n) for n in settings.get("layers", "2,4").split(",")]
    if settings["soft"]:
        temperature = settings["temperature"]
        gold = (gold_logits / temperature).softmax(-1)
        own = (logits / temperature).log_softmax(-1)
        divergence = torch.nn.functional.kl_div(
            own, gold, reduction="none"
        ).sum(-1)
        weight = settings["soft"] * temperature**2
        return weight * (divergence * row_weights).sum() / row_weights.sum()
    is_token = mask.double()
    if "cosine" in settings:
        angle = torch.nn.functional.cosine_similarity(
            hidden[-1], gold_hidden[-1], dim=-1
        )
        per_token = 1 - angle
    elif "hidden" in settings:
        differences = []
        for number, layer in enumerate((0, *layers)):
            state = hidden[number]
            name = "embeddings" if number == 0 else "layers"
            kernel = student.weights.get(f"distillation/{name}/kernel")
            if kernel is not None:
                state = state @ kernel
            squares = (state - gold_hidden[layer]) ** 2
            differences.append(squares.mean(-1))
        per_token = sum(differences) / len(differences)
    else:
        keys = is_token[:, None, None]
        count = keys.sum(-1)
        differences = []
        for score, layer in zip(scores, layers, strict=True):
            gap = score - gold_scores[layer - 1]
            mean = (gap * keys).sum(-1) / count
            squares = ((gap - mean[..., None]) ** 2 * keys).sum(-1) / count
            differences.append(squares.mean(1))
        per_token = sum(differences) / len(differences)
    return (per_token * is_token).sum() / is_token.sum()


def measured(student, features, targets):
    """Returns our term, as training weighs it, and its gradients."""
    task = student.task
    (term,) = [name for name in task.loss_weights if name != "label"]
    kernels = [
        value.value
        for path, value in checkpoint.weights(student.encoder).items()
        if path.endswith("qkv/kernel")
    ]
    with tf.GradientTape() as tape:
        outputs = student(features, targets=targets, training=True)
        total = task.loss(outputs, features, targets)[term]
        loss = task.loss_weights[term] * total
        loss /= tf.reduce_sum(targets[term][1])
    gradients = tape.gradient(loss, kernels)
    return float(loss), [tf.convert_to_tensor(g).numpy() for g in gradients]


def compare(settings, width):
    """Returns our loss, PyTorch's, and the largest gap of the gradients."""
    keras.utils.set_random_seed(1)
    random = np.random.default_rng(1)
    plain = classification.Classification(labels=("a", "b", "c"))
    teacher = model_lib.BertModel(config(4, 32).build_encoder(), plain)
    task = distillation.Distillation(plain, teacher="teacher", **settings)
    found = type("Found", (), {"model": teacher, "tokenizer": None})
    student = model_lib.BertModel(
        config(2, width).build_encoder(), task.bind(lambda path: found)
    )
    tokens = random.integers(VOCABULARY, size=(ROWS, LENGTH))
    lengths = random.integers(3, LENGTH + 1, size=ROWS)
    mask = np.arange(LENGTH) < lengths[:, np.newaxis]
    row_weights = random.uniform(0.5, 2, size=ROWS)
    features = {
        "token_ids": tf.constant(tokens, tf.int32),
        "segment_ids": tf.zeros((ROWS, LENGTH), tf.int32),
        "padding_mask": tf.constant(mask, tf.int32),
    }
    labels = tf.zeros(ROWS, tf.int32)
    targets = {"label": (labels, tf.constant(row_weights, tf.float32))}
    features, targets = student.task.randomize(features, targets, None)
    loss, gradients = measured(student, features, targets)
    other = Network(student)
    gold = expected(
        other,
        Network(teacher),
        torch.tensor(tokens),
        torch.tensor(mask),
        torch.tensor(row_weights),
        settings,
    )
    gold.backward()
    gaps = []
    for number, own in enumerate(gradients):
        grad = other.weights[f"block_{number}/attention/qkv/kernel"].grad
        # None: the loss does not depend on it.
        grad = np.zeros_like(own) if grad is None else grad.numpy()
        gaps.append(np.abs(own - grad).max() / max(1e-12, np.abs(grad).max()))
    gap = max(gaps)
    return loss, gold.item(), gap


def main(_):
    table = rich.table.Table(title="losses of distillation")
    for column in ("term", "ours", "PyTorch", "difference", "of gradients"):
        table.add_column(column)
    for name, (settings, width) in CASES.items():
        ours, gold, gap = compare(settings, width)
        difference = abs(ours - gold) / abs(gold)
        table.add_row(
            name,
            f"{ours:.7f}",
            f"{gold:.7f}",
            f"{difference:.1e}",
            f"{gap:.1e}",
        )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
