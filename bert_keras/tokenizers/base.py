"""The interface of tokenizers.

A tokenizer is one file in this folder with one subclass of Tokenizer, and is
found by the name of the file. Callers use only what is declared here.
"""

import functools
import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from bert_keras import errors, options, registry

PACKAGE = "bert_keras.tokenizers"


class Frame(NamedTuple):
    """The special token ids before, between and after the segments of a row.

    Each is a tuple and may be empty; BERT has ([CLS],), ([SEP],), ([SEP],).
    feature: name of the network's input for the packed ids.
    """

    start: tuple[Any, ...]
    between: tuple[Any, ...]
    end: tuple[Any, ...]
    feature: str = "token_ids"

    def capacity(self, seq_length: int, segments: int = 1) -> int:
        """Returns how many tokens fit into a row besides the special ones."""
        between = len(self.between) * (segments - 1)
        return seq_length - len(self.start) - between - len(self.end)


class Tokenizer:
    """Converts text to ids and back, eagerly and in a graph.

    A subclass sets the attributes below and overrides the methods that raise
    NotImplementedError. If it has resources, such as a lookup table, it also
    derives from tf.Module, so that they are saved in a SavedModel.
    """

    vocabulary: tuple[str, ...]  # the tokens, by id
    frame: Frame
    pad_id: int
    unk_id: int
    mask_id: int | None  # None: cannot be used for masked language models
    # Ends a text of a language model that generates; None: there is none.
    end_id: int | None = None
    files: tuple[str, ...]  # names of the files that `save` writes
    folder: str | None = None  # where it was read from

    @property
    def target(self) -> "Tokenizer":
        """The tokenizer of texts that a model generates.

        It is another one if their vocabulary is another one, as in translation
        (see `pair`), and this one otherwise.
        """
        return self

    def __call__(
        self, text: tf.Tensor, *, special_tokens: bool = False
    ) -> tf.RaggedTensor:
        """Tokenizes text (B,) string -> ids, ragged (B, None) int32.

        The frame is not added. Invalid UTF-8 is dropped. With special_tokens, a
        literal [MASK], [SEP], ... in the text becomes that token; otherwise it
        is ordinary text.
        """
        raise NotImplementedError

    def with_offsets(
        self, text: tf.Tensor
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """Tokenizes text (B,) -> (ids, starts, ends), ragged (B, None) int32.

        A token covers text[start:end] in code points, counted without invalid
        UTF-8. The ids are those of `self(text)`.
        """
        raise NotImplementedError

    def word_starts(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """Returns whether each token starts a word: ragged (B, None) -> bool.

        White space ends a word. Punctuation marks and Chinese characters must
        be words of their own.
        """
        raise NotImplementedError

    def word_ids(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """Returns each token's id in `vocabulary`, for language models.

        ids: as `self(text)`. If a token is one id, it is that id.
        """
        return ids

    def detokenize(self, ids: tf.RaggedTensor | tf.Tensor) -> tf.Tensor:
        """Converts ids, ragged (B, None) or padded (B, S), to text (B,) string.

        The frame and padding are left out.
        """
        raise NotImplementedError

    @classmethod
    def from_vocab(
        cls, path: str, *, lowercase: bool | None = None
    ) -> "Tokenizer":
        """Reads a user's vocabulary, a file or folder, not one of `save`.

        lowercase: whether text is lower-cased; None: inferred from the files.
        """
        raise errors.InputError(
            f"{_name(cls)} reads no vocabulary of other programs; write a "
            "checkpoint of it from Python.",
            argument="vocab",
        )

    @classmethod
    def learn(
        cls, texts: Iterable[str], vocab_size: int, *, lowercase: bool
    ) -> "Tokenizer":
        """Learns a vocabulary of `vocab_size` tokens from texts.

        texts: read once.
        """
        raise errors.InputError(
            f"{_name(cls)} learns no vocabulary; give `vocab`.",
            argument="vocab_size",
        )

    @classmethod
    def learn_up_to(
        cls,
        texts: Callable[[], Iterable[str]],
        vocab_size: int,
        *,
        lowercase: bool,
        **settings: Any,
    ) -> "Tokenizer":
        """Learns at most `vocab_size` tokens: fewer if the texts give fewer.

        texts: returns the texts, anew each time.
        settings: further ones of `learn`.
        """
        while True:
            try:
                return cls.learn(
                    texts(), vocab_size, lowercase=lowercase, **settings
                )
            except errors.TooLittleTextError as error:
                if error.most >= vocab_size:
                    raise
                vocab_size = error.most

    def with_frame(self) -> "Tokenizer":
        """Returns this tokenizer with tokens for the frame, if it lacks them.

        GPT is pretrained without such tokens and fine-tuned with them (Radford
        et al. 2018, section 3.3). They are the last of the vocabulary; all
        other ids stay as they are. By default, there is nothing to add.
        """
        return self

    def token_texts(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns each token as a string, (B, S, ...) -> (B, S); in a graph."""
        return tf.gather(tf.constant(self.vocabulary), ids)

    @classmethod
    def files_of(cls, settings: Mapping[str, Any]) -> Sequence[str]:
        """Returns `files` of the tokenizer with these settings."""
        del settings
        return cls.files

    def save(self, folder: str) -> Sequence[str]:
        """Writes the files that `read_files` needs; returns `files`."""
        raise NotImplementedError

    @classmethod
    def read_files(cls, folder: str, **settings: Any) -> "Tokenizer":
        """Reads the tokenizer that `save` wrote, with `settings`."""
        raise NotImplementedError

    @classmethod
    def from_folder(cls, folder: str, **settings: Any) -> Any:
        """Reads a tokenizer, on the CPU and outside of graphs.

        It can be pickled: another process reads it from the folder again.
        """
        with tf.init_scope(), tf.device("CPU"):
            tokenizer = cls.read_files(folder, **settings)
        tokenizer.folder = folder
        return tokenizer

    def to_dict(self) -> dict[str, Any]:
        """Returns what config.json stores: the name, and settings not in files.

        Raises InputError if the class could not be found again when loading.
        """
        registry.require_findable(PACKAGE, type(self), Tokenizer)
        return {"name": registry.name_of(PACKAGE, type(self))}

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `read_files` besides the folder."""
        settings = self.to_dict()
        del settings["name"]
        return settings

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash that is equal for tokenizers that produce the same ids."""
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
        """Returns the tokens of one sequence of ids, in Python."""
        return [self.vocabulary[i] for i in ids]

    def __reduce__(self) -> tuple[Any, ...]:
        if self.folder is None:
            raise errors.InputError(
                "Cannot pickle a tokenizer that was not read from a folder. "
                "Save it and read it with `from_folder`."
            )
        # As JSON, because the arguments of a cached function are hashed.
        settings = json.dumps(self.settings)
        return _unpickle, (type(self), self.folder, settings)


def _name(cls: type[Tokenizer]) -> str:
    return f"The tokenizer {registry.name_of(PACKAGE, cls)}"


def find(name: str, *, argument: str = "tokenizer") -> type[Any]:
    """Imports and returns the tokenizer of a file here, or a user's module.

    argument: the setting that names it, for messages.
    """
    short = name.removeprefix(f"{PACKAGE}.")
    if "." not in short and short not in names():
        raise errors.InputError(
            f"{argument}={name}: expected one of {', '.join(names())}, or the "
            "dotted name of a module of yours, such as my_package."
            "my_tokenizer, which is importable here; a pair is made by tasks "
            "that generate texts.",
            argument=argument,
        )
    return registry.import_class(PACKAGE, name, Tokenizer)


def names() -> list[str]:
    """Returns the names of the package's tokenizers that a user can choose.

    A pair of tokenizers is made by tasks.
    """
    return [name for name in registry.names(PACKAGE) if name != "pair"]


@functools.cache  # build it once per process, however often it is unpickled
def _unpickle(cls, folder, settings):
    return cls.from_folder(folder, **json.loads(settings))


def lookup(values: Any) -> type[Tokenizer]:
    """Returns the class of the tokenizer that `to_dict` described."""
    if not isinstance(values, Mapping):
        raise errors.InputError(
            "expected a tokenizer's settings, an object with its name, found "
            f"{str(values)[:40]!r}."
        )
    return registry.class_from_data(PACKAGE, values.get("name"), Tokenizer)


def files_of(values: Any) -> Sequence[str]:
    """Returns the files' names of the tokenizer that `to_dict` described."""
    return lookup(values).files_of(values)


def from_dict(values: Mapping[str, Any], folder: str) -> Tokenizer:
    """Reads the tokenizer that `to_dict` described and `save` wrote.

    Raises InputError for settings that do not fit its class.
    """
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
