"""What absltest does when a file is run alone, and one random start, always."""

import ctypes
import ctypes.util
import gc

import keras
import pytest
from absl import flags

from tests import devices  # noqa: F401 (before any test touches TensorFlow)

flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="module", autouse=True)
def _own_flags():
    """Flags that a file's tests define end with the file."""
    before = set(flags.FLAGS)
    yield
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.fixture(scope="module", autouse=True)
def _free_memory():
    """Frees a file's models and graphs, of which many are in cycles."""
    yield
    gc.collect()
    name = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(name), "malloc_trim", None) if name else None
    if trim:  # glibc: give the memory back
        trim(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Weights start alike, whatever ran before: also those of setUpClass."""
    del item
    keras.utils.set_random_seed(1)
