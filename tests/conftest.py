"""What absltest does when a file is run alone, and one random start, always."""

import ctypes
import ctypes.util
import gc
import re
import unittest

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
def _free_memory(request):
    """Frees a file's models and graphs, of which many are in cycles.

    pytest holds the test classes to the end, and they hold what setUpClass
    made; the file's cached functions hold what they returned.
    """
    members = list(vars(request.module).values())
    classes = {
        member: set(vars(member))
        for member in members
        if isinstance(member, type) and issubclass(member, unittest.TestCase)
    }
    yield
    for each, before in classes.items():
        for name in set(vars(each)) - before:
            delattr(each, name)
    for member in members:
        own = getattr(member, "__module__", None) == request.module.__name__
        if own and hasattr(member, "cache_clear"):
            member.cache_clear()
    gc.collect()
    name = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(name), "malloc_trim", None) if name else None
    if trim:  # glibc: give the memory back
        trim(0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks as slow the later cases of tests that are `slow_after` some."""
    for item in items:
        marker = item.get_closest_marker("slow_after")
        if marker:
            case = re.search(r"\d+$", item.name)
            assert case, f"{item.nodeid}: expected the number of a case"
            if int(case[0]) >= marker.args[0]:
                item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """Keeps what was imported out of every later collection of garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)  # traced graphs are many small objects


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Weights start alike, whatever ran before: also those of setUpClass."""
    del item
    keras.utils.set_random_seed(1)
