"""Models that a task needs beside its own, such as a teacher."""

import tensorflow as tf

from bert_keras import errors, loading, predictor
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers
from bert_keras.training import run_folder


def bind(
    task: base.Task,
    tokenizer: tokenizers.Tokenizer,
    strategy: tf.distribute.Strategy,
) -> tuple[base.Task, dict[str, str]]:
    """Returns the task with its models, and their fingerprints by number.

    InputError for a model with another vocabulary, or with fewer positions than
    the rows have: it reads the same token ids.
    """
    fingerprints: dict[str, str] = {}

    def load(path: str) -> predictor.Predictor:
        loaded = predictor.load(path)
        if loaded.tokenizer.fingerprint != tokenizer.fingerprint:
            raise errors.InputError(
                f"{path}: expected the vocabulary of the model that learns, of "
                f"{tokenizer.vocab_size:,} entries, because both read the same "
                f"token ids; found one of {loaded.tokenizer.vocab_size:,}."
            )
        try:
            loading.check_length(task, loaded.model.encoder.config)
        except errors.InputError as error:
            raise errors.InputError(f"{path}: {error}") from None
        name = f"teacher {len(fingerprints) + 1}"
        fingerprints[name] = run_folder.weights_fingerprint(loaded.model, None)
        return loaded

    with strategy.scope():
        return task.bind(load), fingerprints
