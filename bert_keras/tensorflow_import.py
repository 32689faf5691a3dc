"""Imports TensorFlow without the log lines that it prints while loading."""

import os
import re
import sys
import tempfile

# Lines that C++ prints before it reads its log level (TensorFlow 2.21).
_NOISE = re.compile(
    r"WARNING: All log messages before absl::InitializeLog"
    r"|[IW]\d{4} "
    r"|E\d{4} .*(cuInit|Unable to register cu)"
    r"|To enable the following instructions"
)


def import_tensorflow() -> None:
    """Imports TensorFlow; mains call it before any other import.

    Errors and other lines on standard error are still shown.
    """
    # Level 2 would show oneDNN's remarks as errors; real errors are exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            import tensorflow
            import tensorflow_text  # noqa: F401

            tensorflow.config.list_physical_devices()  # finds GPUs
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines():
                if not _NOISE.match(line):
                    print(line, file=sys.stderr)
