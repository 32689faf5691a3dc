"""Networks by the name of a published size, or described in a JSON file."""

import os

from bert_keras import errors, files
from bert_keras.networks import base, bert, elmo, rnn

NAMES = (*bert.NAMES, *elmo.SIZES, *rnn.SIZES)


def parse(model: str, *, vocab_size: int | None = None) -> base.NetworkConfig:
    """Returns the config of a published size, or of a JSON file.

    Args:
      model: one of NAMES, or the path of a `.json` file with BertConfig's
        fields, or with another network's fields and its "name".
      vocab_size: replaces the file's, or that of the published network.
    """
    if model in elmo.SIZES:
        return elmo.named(model, vocab_size=vocab_size or elmo.VOCABULARY)
    if model in rnn.SIZES:
        return rnn.named(model, vocab_size=vocab_size or bert.UNCASED_ENGLISH)
    if model in bert.NAMES:
        return bert.named(model, vocab_size=vocab_size or bert.UNCASED_ENGLISH)
    if not model.endswith(".json") or not os.path.exists(model):
        raise errors.InputError(
            f"model={model}: expected one of {', '.join(NAMES)}, or a JSON "
            "file that exists.",
            argument="model",
        )
    values = files.read_json(model)
    if vocab_size:
        values["vocab_size"] = vocab_size
    try:
        return base.from_dict(values)
    except errors.InputError as error:
        raise errors.InputError(f"{model}: {error}") from None
