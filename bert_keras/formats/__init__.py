"""Other people's checkpoints, and the one place that tells them apart.

Each module reads and writes one format:

    NAME                        what a person calls it
    recognises(path) -> bool    by the files in the folder, never by its name
    read(path, *, lowercase, allow_missing) -> checkpoint.Checkpoint
    write(folder, model, tokenizer)
"""

from collections.abc import Mapping
from types import ModuleType

from bert_keras import checkpoint, errors
from bert_keras.formats import google, hugging_face, keras_hub

FORMATS: Mapping[str, ModuleType] = {
    "google": google,
    "hugging_face": hugging_face,
    "keras_hub": keras_hub,
}


def read(
    path: str, *, lowercase: bool | None = None, allow_missing: str = ""
) -> checkpoint.Checkpoint:
    """Whatever checkpoint `path` is: ours, or one of FORMATS.

    Args:
      lowercase: casing of a foreign folder's text; None = what its files say.
      allow_missing: regular expression of variables (our paths) that a
        foreign folder may lack; they keep their new values.

    Raises InputError when it is none, or does not fit.
    """
    module = find(path)
    if module is not None:
        return module.read(
            path, lowercase=lowercase, allow_missing=allow_missing
        )
    if checkpoint.is_checkpoint(path):
        return checkpoint.read(path)
    raise errors.InputError(
        f"{path} is not a checkpoint: expected a run or one of its step "
        "folders, Google's bert_config.json with an .index file, Hugging "
        "Face's config.json with model.safetensors, or a KerasHub preset."
    )


def find(path: str) -> ModuleType | None:
    """The one of FORMATS that `path` is; None: ours, or no checkpoint.

    FORMATS come first, as they are recognised by more: a run of ours only has
    to hold a file `best` or `latest`, and DeepSpeed leaves a `latest` beside
    Hugging Face's files.
    """
    for module in FORMATS.values():
        if module.recognises(path):
            return module
    return None
