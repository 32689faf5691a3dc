"""The manifest of an exported version: metadata and the SHA-256 of each file.

A manifest is untrusted input: its structure is validated before use, and it
cannot name files outside its folder.
"""

import hashlib
import json
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from bert_keras.data import json_lines
from bert_keras.serving import compatibility

PATH = os.path.join("assets.extra", "manifest.json")
MAX_BYTES = 2**26  # limit of a manifest's size; exports write a few kilobytes
MAX_NUMBER = 1e15  # limit of the absolute value of numbers in `parity`


class DamagedError(OSError):
    """The files differ from those that were exported."""


def write(folder: str, metadata: Mapping[str, Any]) -> None:
    """Writes the manifest of a finished folder: metadata and file hashes."""
    path = os.path.join(folder, PATH)
    tf.io.gfile.makedirs(os.path.dirname(path))
    metadata = {**metadata, "files": dict(_files(folder))}
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(metadata, indent=1, ensure_ascii=False) + "\n")


def read(folder: str) -> dict[str, Any]:
    """Reads the manifest of a folder.

    Raises DamagedError if it is not valid.
    """
    path = os.path.join(folder, PATH)
    _require_regular(path)
    try:
        if tf.io.gfile.stat(path).length > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        with tf.io.gfile.GFile(path, "rb") as file:
            manifest = json_lines.loads(file.read().decode())
        _require_valid(manifest)
        return manifest
    except (tf.errors.OpError, ValueError) as error:
        raise DamagedError(
            f"{folder} is not an exported version: its {PATH} is not valid "
            f"({printable(str(error))})."
        ) from None


def check(folder: str) -> dict[str, Any]:
    """Checks every file against the manifest; returns the manifest.

    Raises DamagedError if a file differs or cannot be read.
    """
    manifest = read(folder)
    _require_inside(folder)
    expected = manifest["files"]
    try:
        actual = dict(_files(folder))
    except tf.errors.OpError as error:
        raise DamagedError(
            f"a file of {folder} cannot be read: {printable(error.message)}. "
            "Export or copy it again."
        ) from None
    differences = [
        f"{name} {state}"
        for state, names in (
            ("is missing", expected.keys() - actual.keys()),
            ("is not part of it", actual.keys() - expected.keys()),
            (
                "was changed",
                {
                    name
                    for name in expected.keys() & actual.keys()
                    if expected[name] != actual[name]
                },
            ),
        )
        for name in sorted(names)
    ]
    if differences:
        raise DamagedError(
            f"{folder} differs from the version that was exported: "
            f"{printable(', '.join(differences))}. Export or copy it again."
        )
    return manifest


def format_parity(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Formats the differences from the checkpoint's answers as table rows.

    In the manifest, "numbers" is the largest difference of two numbers.
    """
    return {
        f"difference, {source}": f"{difference['numbers']:.2g}; "
        f"{difference['agreement']:.1%} of the labels equal, on "
        f"{difference['texts']} texts"
        for source, difference in manifest["parity"].items()
    }


def printable(text: str) -> str:
    """Escapes non-printable characters, such as terminal control sequences."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _require_valid(manifest: Any) -> None:
    """Raises ValueError for a field that is missing or invalid."""

    def require(is_valid: bool, name: str, expected: str) -> None:
        if not is_valid:
            raise ValueError(f"expected {expected} as {name}")

    require(isinstance(manifest, dict), "the manifest", "an object")
    for name in ("files", "task", "signatures", "versions", "parity"):
        require(isinstance(manifest.get(name), dict), name, "an object")
    for name in ("ops", "text_ops"):
        require(_is_strings(manifest.get(name)), name, "a list of strings")
    require(
        isinstance(manifest["task"].get("name"), str),
        "task",
        "an object with a string `name`",
    )
    require(isinstance(manifest.get("precision"), str), "precision", "a string")
    require(
        all(isinstance(v, str) for v in manifest["versions"].values())
        and "tensorflow" in manifest["versions"],
        "versions",
        "an object of strings with the key `tensorflow`",
    )
    require(
        compatibility.is_version(manifest["versions"]["tensorflow"]),
        "versions.tensorflow",
        "a version such as 2.20.0",
    )
    attributes = manifest.get("attributes", {})
    require(
        isinstance(attributes, dict)
        and all(map(_is_strings, attributes.values())),
        "attributes",
        "an object of lists of strings",
    )
    for name, value in manifest["parity"].items():
        require(
            isinstance(value, dict)
            and all(
                isinstance(value.get(key), (int, float))
                # False for NaN; also works for integers too large for a float.
                and -MAX_NUMBER <= value[key] <= MAX_NUMBER
                for key in ("numbers", "agreement", "texts")
            ),
            f"parity {name}",
            "an object with the numbers `numbers`, `agreement` and `texts`",
        )
    for name, value in manifest["files"].items():
        require(_is_inside(name), f"file {name!r}", "a path inside the folder")
        require(
            isinstance(value, dict)
            and isinstance(value.get("bytes"), int)
            and isinstance(value.get("sha256"), str),
            f"file {name!r}",
            "an object with `bytes` and `sha256`",
        )


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, str) for item in value
    )


def _is_inside(name: str) -> bool:
    return (
        bool(name)
        and not name.startswith("/")
        and not re.search(r"[\\:\x00]", name)
        and posixpath.normpath(name) == name
        and name.split("/")[0] not in (".", "..")
    )


def _require_inside(folder: str) -> None:
    """Raises DamagedError for a file that may not be in a local version.

    It is a symbolic link to a folder, to nothing or out of the folder, or a
    pipe or a device.
    """
    root = os.path.realpath(folder)
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(parent, name)
            _require_regular(path)
            if not os.path.islink(path):
                continue
            target = os.path.realpath(path)
            is_inside = os.path.commonpath([root, target]) == root
            if not (is_inside and os.path.isfile(path)):
                raise DamagedError(
                    f"{printable(path)} is a link to {printable(target)}; "
                    "expected a file or a folder, or a link to a file in the "
                    "version. Replace the link with a copy."
                )


def _require_regular(path: str) -> None:
    """Raises DamagedError for a local pipe or device: reading could block."""
    if os.path.exists(path) and not (
        os.path.isfile(path) or os.path.isdir(path)
    ):
        raise DamagedError(
            f"{printable(path)} is neither a file nor a folder, as all parts "
            "of an exported version are. Export or copy it again."
        )


def _files(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (path in the folder, its size and hash), but not the manifest."""
    for parent, _, names in sorted(tf.io.gfile.walk(folder)):
        for name in sorted(names):
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, folder).replace(os.sep, "/")
            if relative == PATH.replace(os.sep, "/"):
                continue
            digest = hashlib.sha256()
            with tf.io.gfile.GFile(path, "rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
            yield (
                relative,
                {
                    "bytes": tf.io.gfile.stat(path).length,
                    "sha256": digest.hexdigest(),
                },
            )
