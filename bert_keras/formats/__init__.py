"""External checkpoint formats: Google's, Hugging Face's, KerasHub's, bilm-tf's.

Each module reads and writes one format:

    NAME                        the format's name for users
    recognises(path) -> bool    decides by the files in the folder, not by the
                                folder's name
    read(path, *, lowercase, allow_missing) -> checkpoint.Checkpoint
    write(folder, model, tokenizer)

>>> model = bert_keras.load("runs/base")
>>> bert_keras.formats.hugging_face.write("hf", model.model, model.tokenizer)
>>> bert_keras.formats.find("hf").NAME
'hugging_face'
>>> bert_keras.formats.read("hf").config == model.model.encoder.config
True
"""

from collections.abc import Mapping
from types import ModuleType

from bert_keras import checkpoint, errors
from bert_keras.formats import (
    bilm,
    caches,
    google,
    hugging_face,
    keras_hub,
)

FORMATS: Mapping[str, ModuleType] = {
    "google": google,
    "hugging_face": hugging_face,
    "keras_hub": keras_hub,
    "bilm_tf": bilm,
}


def read(
    path: str, *, lowercase: bool | None = None, allow_missing: str = ""
) -> checkpoint.Checkpoint:
    """Reads a checkpoint of any format: the native one, or one of FORMATS.

    Args:
      path: a folder, or the name of a model that huggingface_hub, kagglehub or
        KerasHub downloaded (see `caches`).
      lowercase: whether text is lower-cased, for an external folder only; None:
        as its files specify.
      allow_missing: regular expression of variables (native paths) that an
        external folder may lack; they keep their initial values.

    Raises InputError if `path` is no checkpoint, if it is inconsistent, or if
    arguments for external folders are given for a native checkpoint.
    """
    path = locate(path)
    module = find(path)
    if module is not None:
        return module.read(
            path, lowercase=lowercase, allow_missing=allow_missing
        )
    if checkpoint.is_checkpoint(path):
        _check_native(path, lowercase, allow_missing)
        return checkpoint.read(path)
    raise errors.InputError(
        f"{path} is not a checkpoint: expected a run or one of its step "
        "folders, Google's bert_config.json with an .index file, Hugging "
        "Face's config.json with model.safetensors, a KerasHub preset, or "
        "bilm-tf's options.json with weights.hdf5."
    )


def locate(path: str) -> str:
    """Returns the folder of a checkpoint: `path`, or the one in a cache.

    A path that exists is returned as it is, also if it is no checkpoint.
    Raises InputError if `path` is the name of a model that is in no cache.
    """
    if not caches.is_name(path):
        return path
    folders = caches.folders(path)
    for folder in folders:
        # `Tokenizer.from_preset` downloads a preset without its weights.
        module = find(folder)
        if module is keras_hub and not keras_hub.has_weights(folder):
            continue
        if module is not None:
            return folder
    raise errors.InputError(caches.advice(path, folders))


def find(path: str) -> ModuleType | None:
    """Returns the module in FORMATS that reads `path`.

    None if it is a native checkpoint or no checkpoint. FORMATS are tried before
    the native format, as their checks are stricter: a native run only needs a
    file `best` or `latest`, and DeepSpeed writes a `latest` beside Hugging
    Face's files.
    """
    for module in FORMATS.values():
        if module.recognises(path):
            return module
    return None


def _check_native(
    path: str, lowercase: bool | None, allow_missing: str
) -> None:
    """Raises InputError if arguments for external folders are given."""
    if lowercase is not None:
        raise errors.InputError(
            f"lowercase={lowercase}: {path} is a native checkpoint, whose "
            "config.json specifies it. Leave `lowercase` out.",
            argument="lowercase",
        )
    if allow_missing:
        raise errors.InputError(
            f"allow_missing={allow_missing}: {path} is a native checkpoint, "
            "which must have all variables. Leave `allow_missing` out.",
            argument="allow_missing",
        )
