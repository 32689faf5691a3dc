"""Pretrains the same masked LM with three libraries, in turns of a minute.

  make bench
  .venv-bench/bin/python -m benchmarks.pretraining_race --records=RECORDS \\
      --minutes=20 --output=race

The sides are `trainers.pretrain`, KerasHub's layers with Keras' `fit`, and
Hugging Face's Trainer on PyTorch. They have the same rows, network, batch size,
AdamW, warm-up and rate, which falls so slowly that it is the same for all, and
draw masks anew in each epoch. Each is a process of its own that is stopped
while the others have their turn, so that other load on the machine affects all.
Loss over time is that of the same masked dev rows, whose evaluation counts.

It writes race.json and race.png.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
from absl import flags

import benchmarks

RECORDS = flags.DEFINE_string("records", None, "Records without pairs.")
OUTPUT = flags.DEFINE_string("output", None, "The folder to write.")
MINUTES = flags.DEFINE_float("minutes", 20.0, "Minutes of each side.")
TURN = flags.DEFINE_float("turn_seconds", 60.0, "Seconds of a turn.")
BATCH = flags.DEFINE_integer("batch_size", 32, "Rows of a batch.", 1)
RATE = flags.DEFINE_float("learning_rate", 5e-4, "Rate after the warm-up.")
LAYERS = flags.DEFINE_integer("layers", 4, "Layers of the network.", 1)
WIDTH = flags.DEFINE_integer("width", 256, "Hidden size, heads of 64.", 64)
EVERY = flags.DEFINE_integer("evaluate_every", 200, "Steps between.", 1)
DEV_BATCHES = flags.DEFINE_integer("dev_batches", 20, "Batches evaluated.", 1)
SEED = flags.DEFINE_integer("seed", 1, "Seed of each side.")
NAMES = flags.DEFINE_list(
    "sides", ["bert_keras", "keras_hub", "hugging_face"], "Those that run."
)
SIDE = flags.DEFINE_string("side", None, "Internal: the side to run.")

STEPS = 1_000_000  # never reached
WARMUP = 500
SHARE = 0.15
DECAY, EPSILON, CLIP = 0.01, 1e-6, 1.0


def network():
    """Returns the fields of BertConfig."""
    return {
        "name": "bert",
        "vocab_size": len(tokenizer().vocabulary),
        "hidden_size": WIDTH.value,
        "num_layers": LAYERS.value,
        "num_heads": WIDTH.value // 64,
        "intermediate_size": 4 * WIDTH.value,
        "max_position_embeddings": 512,
    }


def opened():
    """Returns the training and the dev records."""
    from bert_keras.training import input_pipeline

    return input_pipeline.open_records(RECORDS.value)


def tokenizer():
    return opened()[0].tokenizer()


def training_rows():
    """Returns the token ids of all rows, a list of arrays without padding."""
    train, _ = opened()
    length = train.manifest["seq_length"]
    rows = train.read(np.arange(len(train)), length)["inputs/token_ids"]
    return [row[:n] for row, n in zip(rows, train.lengths, strict=True)]


def dev_batches():
    """Returns the batches that `trainers.pretrain` evaluates, as arrays."""
    from bert_keras.data import batches
    from bert_keras.tasks import masked_lm
    from bert_keras.training import input_pipeline, pretrain

    train, dev = opened()
    task = pretrain.adapted(masked_lm.MaskedLM(), train, train.tokenizer())
    sampler = input_pipeline.sampler(
        task,
        dev,
        row_length=task.seq_length,
        batch_size=BATCH.value,
        seed=SEED.value,
        shuffle=False,
    )
    stream = batches.stream(dev, sampler, stop_step=DEV_BATCHES.value)
    for batch in input_pipeline.completed(task, stream):
        labels, weights = batch["targets"]["masked_lm"]
        inputs = {name: x.numpy() for name, x in batch["inputs"].items()}
        yield inputs, labels.numpy(), weights.numpy()


class Log:
    """Writes the losses of a side to the file that its folder has."""

    def __init__(self, side):
        folder = os.path.join(OUTPUT.value, side)
        os.makedirs(folder, exist_ok=True)
        self.file = open(  # noqa: SIM115 (until the process is killed)
            os.path.join(folder, "log.jsonl"), "w", encoding="utf-8"
        )

    def write(self, step, loss):
        line = {"step": step, "dev/loss/masked_lm": float(loss)}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()


def run_bert_keras():
    path = os.path.join(OUTPUT.value, "network.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(network(), file)
    arguments = {
        "records": RECORDS.value,
        "output": os.path.join(OUTPUT.value, "bert_keras"),
        "model": path,
        "steps": STEPS,
        "batch_size": BATCH.value,
        "learning_rate": RATE.value,
        "warmup_steps": WARMUP,
        "weight_decay": DECAY,
        "clip_norm": CLIP,
        "evaluate_every": EVERY.value,
        "evaluate_batches": DEV_BATCHES.value,
        "save_every": STEPS,
        "seed": SEED.value,
        "report_to": "",
    }
    command = [sys.executable, "-m", "trainers.pretrain"]
    command += [f"--{name}={value}" for name, value in arguments.items()]
    os.execv(sys.executable, command)


def run_keras_hub():
    import keras
    import keras_hub
    import tensorflow as tf

    keras.utils.set_random_seed(SEED.value)
    length = opened()[0].manifest["seq_length"]
    mask = keras_hub.layers.MaskedLMMaskGenerator(
        vocabulary_size=network()["vocab_size"],
        mask_selection_rate=SHARE,
        mask_token_id=tokenizer().mask_id,
        mask_selection_length=int(np.ceil(SHARE * length)),
        unselectable_token_ids=list(tokenizer().special_ids),
    )
    ids = np.zeros((len(training_rows()), length), np.int32)
    for row, tokens in zip(ids, training_rows(), strict=True):
        row[: len(tokens)] = tokens

    def masked(ids):
        drawn = mask(ids)
        inputs = {
            "token_ids": drawn["token_ids"],
            "mask_positions": drawn["mask_positions"],
            "segment_ids": tf.zeros_like(ids),
            "padding_mask": tf.cast(ids != 0, tf.int32),
        }
        return inputs, drawn["mask_ids"], drawn["mask_weights"]

    data = tf.data.Dataset.from_tensor_slices(ids).shuffle(len(ids))
    data = data.repeat().batch(BATCH.value).map(masked, 2).prefetch(2)
    shape = network()
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=shape["vocab_size"],
        num_layers=shape["num_layers"],
        num_heads=shape["num_heads"],
        hidden_dim=shape["hidden_size"],
        intermediate_dim=shape["intermediate_size"],
        dropout=0.1,
    )
    model = keras_hub.models.BertMaskedLM(backbone, preprocessor=None)
    rate = keras.optimizers.schedules.PolynomialDecay(
        RATE.value, STEPS, end_learning_rate=0.0
    )

    class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            share = tf.minimum(tf.cast(step + 1, tf.float32) / WARMUP, 1.0)
            return share * rate(step)

        def get_config(self):
            return {}

    optimizer = keras.optimizers.AdamW(
        WarmUp(), weight_decay=DECAY, epsilon=EPSILON, global_clipnorm=CLIP
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    dev, log = list(dev_batches()), Log("keras_hub")

    @tf.function
    def losses(inputs, labels):
        logits = model(inputs, training=False)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    for step in itertools.count(EVERY.value, EVERY.value):
        model.fit(data, steps_per_epoch=EVERY.value, verbose=0)
        total = 0.0
        for inputs, labels, weights in dev:
            renamed = dict(inputs) | {"mask_positions": inputs["positions"]}
            del renamed["positions"]
            total += float((losses(renamed, labels).numpy() * weights).sum())
        log.write(step, total / sum(w.sum() for _, _, w in dev))


def run_hugging_face():
    import torch
    import transformers

    shape, log = network(), Log("hugging_face")
    vocabulary = os.path.join(OUTPUT.value, "hugging_face", "vocab.txt")
    with open(vocabulary, "w", encoding="utf-8") as file:
        file.write("\n".join(map(_text, tokenizer().vocabulary)) + "\n")
    words = transformers.BertTokenizerFast(vocabulary)
    model = transformers.BertForMaskedLM(
        transformers.BertConfig(
            **{k: v for k, v in shape.items() if k.endswith(("_size",))},
            num_hidden_layers=shape["num_layers"],
            num_attention_heads=shape["num_heads"],
        )
    )
    dev = list(dev_batches())
    rows = [{"input_ids": row.tolist()} for row in training_rows()]

    class Evaluate(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % EVERY.value:
                return
            model.eval()
            total = 0.0
            for inputs, labels, weights in dev:
                with torch.no_grad():
                    logits = model(
                        torch.tensor(inputs["token_ids"], dtype=torch.long),
                        torch.tensor(inputs["padding_mask"]),
                        torch.tensor(inputs["segment_ids"], dtype=torch.long),
                    ).logits
                at = torch.tensor(inputs["positions"], dtype=torch.long)
                logits = torch.take_along_dim(logits, at[..., None], 1)
                losses = torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1),
                    torch.tensor(labels.ravel(), dtype=torch.long),
                    reduction="none",
                ).numpy()
                total += float((losses * weights.ravel()).sum())
            model.train()
            log.write(
                state.global_step, total / sum(w.sum() for _, _, w in dev)
            )

    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(
            output_dir=os.path.join(OUTPUT.value, "hugging_face"),
            per_device_train_batch_size=BATCH.value,
            learning_rate=RATE.value,
            weight_decay=DECAY,
            adam_epsilon=EPSILON,
            max_grad_norm=CLIP,
            max_steps=STEPS,
            warmup_steps=WARMUP,
            save_strategy="no",
            report_to=[],
            seed=SEED.value,
            use_cpu=True,
            disable_tqdm=True,
        ),
        data_collator=transformers.DataCollatorForLanguageModeling(
            words, mlm_probability=SHARE
        ),
        train_dataset=rows,
        callbacks=[Evaluate()],
    )
    trainer.train()


def _text(token):
    return token.decode() if isinstance(token, bytes) else token


SIDES = {
    "bert_keras": run_bert_keras,
    "keras_hub": run_keras_hub,
    "hugging_face": run_hugging_face,
}


class Side:
    """A process that runs in turns, and the losses that it has logged."""

    def __init__(self, name):
        self.name, self.seconds, self.losses = name, 0.0, []
        self.log = os.path.join(OUTPUT.value, name, "log.jsonl")
        own = [f.serialize() for f in _shared() if f.value is not None]
        with open(os.path.join(OUTPUT.value, f"{name}.txt"), "w") as said:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.pretraining_race"),
                    *(f"--side={name}", *own),
                ],
                stdout=said,
                stderr=said,
            )
        self.process.send_signal(signal.SIGSTOP)

    def run(self, seconds):
        """Lets the process run; logs when it wrote a loss, in its own time."""
        self.process.send_signal(signal.SIGCONT)
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            if self.process.poll() is not None:
                sys.exit(f"error: {self.name} ended; see {self.name}.txt.")
            found = _losses(self.log)
            for step, loss in found[len(self.losses) :]:
                self.losses.append((self.seconds + passed, step, loss))
            time.sleep(0.2)
        self.process.send_signal(signal.SIGSTOP)
        self.seconds += time.monotonic() - began


def _shared():
    names = ("records", "output", "batch_size", "learning_rate", "layers")
    names += ("width", "evaluate_every", "dev_batches", "seed")
    return [flags.FLAGS[name] for name in names]


def _losses(path):
    """Returns (step, loss) of the complete lines with an evaluation."""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.endswith("\n")]
    name = "dev/loss/masked_lm"
    return [(line["step"], line[name]) for line in lines if name in line]


def main(_):
    if SIDE.value:
        SIDES[SIDE.value]()
        return
    os.makedirs(OUTPUT.value, exist_ok=True)
    sides = [Side(name) for name in NAMES.value]
    try:
        for _ in range(round(60 * MINUTES.value / TURN.value)):
            for side in sides:
                side.run(TURN.value)
    finally:
        for side in sides:
            side.process.kill()
    result = {side.name: side.losses for side in sides}
    path = os.path.join(OUTPUT.value, "race.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"conditions": benchmarks.conditions(), **result}, file)
    _draw(result)
    for name, losses in result.items():
        _, step, loss = losses[-1] if losses else (0, 0, float("nan"))
        print(f"{name}: {step:,} steps, loss {loss:.3f}")


def _draw(result):
    import matplotlib.figure

    figure = matplotlib.figure.Figure((7, 4), layout="tight")
    axes = figure.add_subplot()
    for name, losses in result.items():
        minutes = [seconds / 60 for seconds, _, _ in losses]
        axes.plot(minutes, [loss for _, _, loss in losses], label=name)
    axes.set_xlabel("minutes")
    axes.set_ylabel("masked LM loss of the dev rows")
    axes.legend()
    figure.savefig(os.path.join(OUTPUT.value, "race.png"), dpi=120)


if __name__ == "__main__":
    flags.mark_flags_as_required(["records", "output"])
    benchmarks.run(main)
