"""Checks that Keras' backend is TensorFlow, without importing Keras."""

import json
import os
import sys
from typing import Any

VARIABLE = "KERAS_BACKEND"


def require_tensorflow() -> None:
    """Raises ImportError, named VARIABLE, if Keras has another backend.

    The text is one line. Without this check, Keras would fail first: with
    "No module named 'jax'", or later in the middle of a call.
    """
    backend, source = configured()
    if backend != "tensorflow":
        raise ImportError(
            "bert_keras runs on Keras' TensorFlow backend, but Keras' backend "
            f"is {backend!r} ({source}); set the environment variable "
            f"{VARIABLE}=tensorflow before Keras is imported.",
            name=VARIABLE,
        )


def in_console_command() -> bool:
    """Returns whether this process was started as `bert-keras`."""
    name, _ = os.path.splitext(
        os.path.basename(sys.argv[0] if sys.argv else "")
    )
    return name == "bert-keras"


def configured() -> tuple[str, str]:
    """Returns Keras' backend and what sets it.

    Keras' own rules: the variable, else keras.json, else TensorFlow. If Keras
    is imported already, it is the backend that it has.
    """
    keras: Any = sys.modules.get("keras")
    if hasattr(keras, "backend"):  # not while Keras is being imported
        return keras.backend.backend(), "Keras is imported already"
    if backend := os.environ.get(VARIABLE):
        return backend, f"{VARIABLE}={backend}"
    path = _config_path()
    try:
        with open(path, encoding="utf-8") as file:
            backend = json.load(file).get("backend")
    except (OSError, ValueError, AttributeError):
        backend = None  # Keras ignores such a file, or reports it
    return backend or "tensorflow", path


def _config_path() -> str:
    folder = os.environ.get("KERAS_HOME")
    if folder is None:
        home = os.path.expanduser("~")
        # As Keras: a home that cannot be written is replaced by /tmp.
        home = home if os.access(home, os.W_OK) else "/tmp"
        folder = os.path.join(home, ".keras")
    return os.path.expanduser(os.path.join(folder, "keras.json"))
