"""What each token of a generated text read of its source."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bert_keras import encoder_decoder, errors, generation
from bert_keras import predictor as predictor_lib


class AttentionMap(NamedTuple):
    """The weights of S source tokens for each of T generated tokens.

    The rows of `weights` (T, S) add up to 1. `source` has the special tokens of
    the row, and `target` its end, if the text ended.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    weights: np.ndarray


def attention_map(
    predictor: predictor_lib.Predictor, text: str
) -> AttentionMap:
    """Generates the target of a text, and returns what its tokens read.

    Of a Transformer it is the mean of the heads in the decoder's last layer.

    Raises InputError if the model has no decoder that attends to a source, or
    if its weights are damaged.

    >>> from bert_keras import attention_map, tasks
    >>> task = tasks.SequenceToSequence(decoder="gru", max_target_length=8)
    >>> tokenizer = bert_keras.Tokenizer.from_file("vocab.txt")
    >>> model = bert_keras.load("minilm", task=task.adapt([], tokenizer))
    >>> found = attention_map.attention_map(model, "a fine film")
    >>> found.source
    ('[CLS]', 'a', 'fine', 'film', '[SEP]')
    >>> found.weights.shape == (len(found.target), 5)
    True
    """
    task = predictor.task.unwrapped
    if not (isinstance(task, encoder_decoder.EncoderDecoder) and task.attends):
        raise errors.InputError(
            f"{predictor.task.name}: expected a model that generates a text "
            "and attends to its source; this one does not."
        )
    decoder: Any = predictor.model.head.by_name()[encoder_decoder.HEAD]
    features = task.preprocess(
        {"text": tf.constant([text])}, predictor.tokenizer
    )
    encoder = predictor.model.encoder
    inputs = {name: features[name] for name in encoder.config.inputs}
    with generation.checked():
        found = predictor.tokens(**inputs)
    length = int(found["length"][0, 0])
    ids = found["ids"][:1, 0, :length].numpy()
    if length < task.num_new_tokens:
        ids = np.append(ids, [[task.end_id]], axis=1)
    inputs = task.add_derived_features(inputs)
    source = task.read_source(encoder, inputs, training=False)
    memory = decoder.read_source(source)
    state = decoder.first_state(source, ids.shape[1])
    last, rows = tf.constant([task.start_id]), []
    for token in ids[0]:
        _, state = decoder.step(last, state, memory, encoder.token_table)
        rows.append(state["attention"][0].numpy())
        last = tf.constant([int(token)])
    row = task.encoder_rows(inputs, encoder.config.inputs)
    names = predictor.tokenizer.token_texts(row[predictor.tokenizer.feature])
    is_token = source.mask[0].numpy()
    return AttentionMap(
        tuple(
            name.decode() for name in np.ravel(names.numpy())[is_token].tolist()
        ),
        tuple(predictor.tokenizer.target.tokens(ids[0].tolist())),
        np.array(rows)[:, is_token],
    )
