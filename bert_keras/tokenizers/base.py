"""Tokenizer: what every tokenizer states about itself.

A tokenizer is one file in this folder with one subclass of Tokenizer, found by
the name of the file. Everything that reads text reads it through what is
declared here, so no caller knows which tokenizer it has.
"""

import functools
import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from bert_keras import errors, options, registry

PACKAGE = "bert_keras.tokenizers"


class Frame(NamedTuple):
    """The ids before, between and after the segments of a row.

    Each is a sequence of none or more: BERT has one [CLS], [SEP] and [SEP].
    feature: what the network calls the packed ids.
    """

    start: tuple[Any, ...]
    between: tuple[Any, ...]
    end: tuple[Any, ...]
    feature: str = "token_ids"

    def room(self, seq_length: int, segments: int = 1) -> int:
        """Tokens of the segments that fit into a row beside the frame."""
        between = len(self.between) * (segments - 1)
        return seq_length - len(self.start) - between - len(self.end)


class Tokenizer:
    """Text to ids and back, on the host and in a graph.

    A subclass sets the attributes below and overrides the methods that raise.
    If it holds resources, such as a lookup table, it derives from tf.Module as
    well, so that a SavedModel keeps them.
    """

    vocabulary: tuple[str, ...]  # the tokens, by id
    frame: Frame
    pad_id: int
    unk_id: int
    mask_id: int | None  # None: not for masked language models
    files: tuple[str, ...]  # names of what `save` writes
    folder: str | None = None  # that it was read from

    def __call__(
        self, text: tf.Tensor, *, special_tokens: bool = False
    ) -> tf.RaggedTensor:
        """text (B,) string -> ragged (B, None) int32, without the frame.

        Bytes that are not UTF-8 are dropped. special_tokens: a literal [MASK],
        [SEP].. in the text is that token; otherwise it is text as any other.
        """
        raise NotImplementedError

    def with_offsets(
        self, text: tf.Tensor
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """text (B,) string -> (ids, starts, ends), ragged (B, None) int32 each.

        text[start:end] is what a token came from, in code points of the text
        without the bytes that are not UTF-8. ids are those of `self(text)`.
        """
        raise NotImplementedError

    def word_starts(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """ids of texts, ragged (B, None) -> bool: where a word starts.

        White space ends a word. Punctuation and Chinese characters are words
        of their own, in every tokenizer.
        """
        raise NotImplementedError

    def detokenize(self, ids: tf.RaggedTensor | tf.Tensor) -> tf.Tensor:
        """ids, ragged (B, None) or padded (B, S) -> text (B,) string.

        Without the frame and the padding.
        """
        raise NotImplementedError

    def save(self, folder: str) -> Sequence[str]:
        """Writes what `read_files` needs; returns `files`."""
        raise NotImplementedError

    @classmethod
    def read_files(cls, folder: str, **settings: Any) -> "Tokenizer":
        """The tokenizer that `save` wrote; settings are those of `to_dict`."""
        raise NotImplementedError

    @classmethod
    def from_folder(cls, folder: str, **settings: Any) -> Any:
        """`read_files`, in no graph and on the CPU.

        The tokenizer can be pickled, and processes build their own.
        """
        with tf.init_scope(), tf.device("CPU"):
            tokenizer = cls.read_files(folder, **settings)
        tokenizer.folder = folder
        return tokenizer

    def to_dict(self) -> dict[str, Any]:
        """What config.json keeps: the name, and the settings beside files.

        Raises InputError if no load could find the class.
        """
        registry.require_findable(PACKAGE, type(self), Tokenizer)
        return {"name": registry.name_of(PACKAGE, type(self))}

    @property
    def settings(self) -> dict[str, Any]:
        """What `read_files` takes beside the folder."""
        settings = self.to_dict()
        del settings["name"]
        return settings

    @functools.cached_property
    def fingerprint(self) -> str:
        """Equal where the same ids mean the same."""
        digest = hashlib.sha256(json.dumps(self.to_dict()).encode())
        with tempfile.TemporaryDirectory() as folder:
            for name in self.save(folder):
                with open(os.path.join(folder, name), "rb") as file:
                    digest.update(file.read())
        return digest.hexdigest()[:16]

    @property
    def feature(self) -> str:
        return self.frame.feature

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    @property
    def special_ids(self) -> tuple[Any, ...]:
        """The ids of the frame, which are never masked."""
        frame = self.frame
        return tuple(dict.fromkeys((*frame.start, *frame.between, *frame.end)))

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The tokens of one sequence of ids, on the host."""
        return [self.vocabulary[i] for i in ids]

    def __reduce__(self) -> tuple[Any, ...]:
        if self.folder is None:
            raise errors.InputError(
                "Expected a tokenizer of a folder, from which other processes "
                "build their own; this one was made in memory. Save it and "
                "read it with `from_folder`."
            )
        settings = tuple(self.settings.items())
        return _unpickle, (type(self), self.folder, settings)


@functools.cache  # once per process, however often it is sent there
def _unpickle(cls, folder, settings):
    return cls.from_folder(folder, **dict(settings))


def lookup(values: Mapping[str, Any]) -> type[Tokenizer]:
    """The class of the tokenizer that `to_dict` described."""
    return registry.lookup(PACKAGE, values.get("name"), Tokenizer)


def from_dict(values: Mapping[str, Any], folder: str) -> Tokenizer:
    """The tokenizer that `to_dict` described and `save` wrote.

    Raises InputError for values that do not fit its class.
    """
    if not isinstance(values, Mapping):
        raise errors.InputError(
            "expected a tokenizer's settings, an object with its name, found "
            f"{str(values)[:40]!r}."
        )
    cls = lookup(values)
    settings = {k: v for k, v in values.items() if k != "name"}
    parameters = dict(inspect.signature(cls.read_files).parameters)
    del parameters["folder"]
    required = {
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
    }
    if not required <= set(settings) <= set(parameters):
        raise errors.InputError(
            f"the tokenizer has the settings {sorted(settings)}; expected "
            f"{sorted(parameters)}."
        )
    options.check_types(cls.read_files, settings)
    return cls.from_folder(folder, **settings)
