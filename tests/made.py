"""What tests share, made when the first of them asks for it."""

from collections.abc import Callable
from typing import Any


class Made(dict):
    """A dict whose missing values are made from their keys.

    So a file whose tests are left out costs nothing.
    """

    def __init__(self, make: Callable[[Any], Any]):
        super().__init__()
        self._make = make

    def __missing__(self, key: Any) -> Any:
        self[key] = self._make(key)
        return self[key]
