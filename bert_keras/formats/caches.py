"""Finds published models in the caches of huggingface_hub and kagglehub.

    ~/.cache/huggingface/hub/models--google-bert--bert-base-uncased/
      refs/main                 the commit that the branch main points to
      snapshots/COMMIT/         its files; each appears when it is complete
    ~/.cache/kagglehub/models/keras/bert/keras/bert_base_en_uncased/
      3/                        the files of version 3
      3.complete                exists when all of them are complete
      .complete/3/NAME.complete exists when the file NAME is complete

KerasHub downloads through these two. Neither package is imported and nothing is
downloaded here: a name that is in no cache is an error that says how to get it.
"""

import glob
import os
import re
from collections.abc import Iterator, Sequence

from bert_keras.formats import published

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
# OWNER/MODEL/keras/VARIATION, perhaps with a version, or only a VARIATION.
_HANDLE = rf"(?:(?:{_PART}/){{2}}keras/{_PART}(?:/[0-9]+)?|{_PART})"
_NAME = rf"(?:{_PART}/)?{_PART}"


def is_name(path: str) -> bool:
    """Returns whether a path may be a model's name.

    Names are NAME, OWNER/NAME, a Kaggle handle, or one of these after hf:// or
    kaggle://. If NAME or OWNER is a local file or folder, it is a path. A NAME
    of letters and digits only, such as `runs`, is a path, too.
    """
    if path.startswith(published.SCHEMES):
        return _hub_name(path) is not None or _kaggle_handle(path) is not None
    if os.path.exists(path.partition("/")[0]) or path.isalnum():
        return False
    return re.fullmatch(f"{_NAME}|{_HANDLE}", path) is not None


def folders(name: str) -> list[str]:
    """Returns the folders of a model in the caches, by its name."""
    found: list[str] = []
    if (hub_name := _hub_name(name)) is not None:
        for each in published.hub_names(hub_name):
            found += _snapshots(each)
    if (handle := _kaggle_handle(name)) is not None:
        found += _kaggle_folders(handle)
    return found


def hugging_face_cache() -> str:
    """Returns huggingface_hub's folder, by its environment variables."""
    home = os.path.join(os.path.expanduser("~"), ".cache")
    home = os.path.join(os.getenv("XDG_CACHE_HOME", home), "huggingface")
    home = _expanded(os.getenv("HF_HOME", home))
    default = os.getenv("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub"))
    return _expanded(os.getenv("HF_HUB_CACHE", default))


def kaggle_cache() -> str:
    """Returns kagglehub's folder, by its environment variable."""
    home = os.path.join(os.path.expanduser("~"), ".cache", "kagglehub")
    return os.getenv("KAGGLEHUB_CACHE", home)


def advice(name: str, unreadable: Sequence[str] = ()) -> str:
    """Returns the error message for a name that is neither a path nor cached.

    unreadable: folders of the model in the caches that could not be read as a
      checkpoint.
    """
    if unreadable:
        where = (
            "it was downloaded, but there is no complete checkpoint in "
            f"{' or '.join(unreadable)}; were only some of its files "
            "downloaded?"
        )
    else:
        where = (
            f"there is no such folder, and no such model in the caches of "
            f"huggingface_hub ({hugging_face_cache()}) and kagglehub "
            f"({kaggle_cache()})."
        )
    return f"{name}: {where} {published.how_to_get(name)}"


def _hub_name(name: str) -> str | None:
    """Returns the name of a repository on Hugging Face's hub, or None."""
    name = name.removeprefix(published.HUGGING_FACE)
    return name if re.fullmatch(_NAME, name) else None


def _snapshots(name: str) -> Iterator[str]:
    """Yields the folder of a repository's branch main, if it is there."""
    repository = f"models--{name.replace('/', '--')}"
    folder = os.path.join(hugging_face_cache(), repository)
    try:
        with open(
            os.path.join(folder, "refs", "main"), encoding="utf-8"
        ) as file:
            commit = file.read().strip()
    except (OSError, UnicodeDecodeError):
        return
    snapshot = os.path.join(folder, "snapshots", commit)
    if re.fullmatch(_PART, commit) and os.path.isdir(snapshot):
        yield snapshot


def _kaggle_handle(name: str) -> str | None:
    """Returns OWNER/MODEL/keras/VARIATION[/VERSION], or None.

    A VARIATION alone is the name of a preset of KerasHub.
    """
    name = name.removeprefix(published.KAGGLE)
    if not re.fullmatch(_HANDLE, name):
        return None
    return name if "/" in name else f"keras/*/keras/{name}"


def _kaggle_folders(handle: str) -> Iterator[str]:
    """Yields the folders of a model's complete versions, the newest first."""
    parts = handle.split("/")
    variation, version = "/".join(parts[:4]), "".join(parts[4:]) or "[0-9]*"
    pattern = os.path.join(
        glob.escape(kaggle_cache()), "models", variation, version
    )
    versions = [
        path for path in glob.glob(pattern) if os.path.basename(path).isdigit()
    ]
    versions.sort(key=lambda path: int(os.path.basename(path)), reverse=True)
    yield from filter(_is_complete, versions)


def _is_complete(version: str) -> bool:
    """Returns whether kagglehub marked a version as completely downloaded.

    It marks the version, or each file of it, of which there must be one.
    """
    if os.path.exists(f"{version}.complete"):
        return True
    folder, name = os.path.split(version)
    files = [
        os.path.relpath(os.path.join(parent, each), version)
        for parent, _, names in os.walk(version)
        for each in names
    ]
    markers = os.path.join(folder, ".complete", name)
    return bool(files) and all(
        os.path.exists(os.path.join(markers, f"{file}.complete"))
        for file in files
    )


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))
