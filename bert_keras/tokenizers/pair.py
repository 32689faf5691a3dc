"""Two vocabularies: one of the texts that are read, one of generated texts.

A task that generates texts makes such a tokenizer (`Task.extend_tokenizer`).
One folder has the files of both, the target's with PREFIX before their names.
"""

import functools
import hashlib
import operator
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from bert_keras import errors, files, options, registry
from bert_keras.tokenizers import base

PREFIX = "target."


class PairTokenizer(base.Tokenizer, tf.Module):
    """The tokenizer `source`, with another one as its `target`.

    >>> from bert_keras.tokenizers.pair import PairTokenizer
    >>> english = bert_keras.Tokenizer.from_file("vocab.txt")
    >>> signs = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "电", "影"]
    >>> pair = PairTokenizer(
    ...     english, bert_keras.Tokenizer(signs, lowercase=True))
    >>> pair.tokens(pair(["a film"])[0].numpy())
    ['a', 'film']
    >>> pair.target(["电影"]).to_list()
    [[4, 5]]

    source, target: two tokenizers that are no pairs. The target's tokens are
      one id each; InputError otherwise.
    """

    def __init__(self, source: base.Tokenizer, target: base.Tokenizer):
        super().__init__()
        for part in (source, target):
            if isinstance(part, PairTokenizer):
                raise _nested()
        if target.feature != "token_ids":
            name = registry.name_of(base.PACKAGE, type(target))
            raise errors.InputError(
                f"the tokenizer {name} cannot be a target: its tokens are "
                f"{target.feature}, and a model generates tokens of one id; "
                "choose another one."
            )
        self._source, self._target = source, target
        options.require_distinct("the files of two tokenizers", self.files)

    @property
    def source(self) -> base.Tokenizer:
        return self._source

    @property
    def target(self) -> base.Tokenizer:
        return self._target

    # Everything else of the interface is the source's; see DELEGATED.

    def __call__(
        self, text: tf.Tensor, *, special_tokens: bool = False
    ) -> tf.RaggedTensor:
        return self.source(text, special_tokens=special_tokens)

    def with_frame(self) -> base.Tokenizer:
        """Returns the pair of both with their frames' tokens."""
        source, target = self.source.with_frame(), self.target.with_frame()
        if source is self.source and target is self.target:
            return self
        return PairTokenizer(source, target)

    @classmethod
    def from_vocab(
        cls, path: str, *, lowercase: bool | None = None
    ) -> base.Tokenizer:
        raise _made_by_tasks()

    @classmethod
    def learn(
        cls, texts: Iterable[str], vocab_size: int, *, lowercase: bool
    ) -> base.Tokenizer:
        raise _made_by_tasks()

    @property
    def files(self) -> tuple[str, ...]:  # type: ignore[override]
        return _names(self.source.files, self.target.files)

    @classmethod
    def files_of(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        source, target = (
            base.files_of(_single(settings.get(name)))
            for name in ("source", "target")
        )
        return _names(source, target)

    def save(self, folder: str) -> tuple[str, ...]:
        self.source.save(folder)
        with tempfile.TemporaryDirectory() as temporary:
            for name in self.target.save(temporary):
                with open(os.path.join(temporary, name), "rb") as file:
                    path = os.path.join(folder, PREFIX + name)
                    files.write(path, file.read())
        return self.files

    @classmethod
    def read_files(  # type: ignore[override]  # its own settings
        cls,
        folder: str,
        *,
        source: Mapping[str, Any],
        target: Mapping[str, Any],
    ) -> "PairTokenizer":
        return cls(
            base.from_dict(_single(source), folder),
            _read_target(_single(target), folder),
        )

    def to_dict(self) -> dict[str, Any]:
        parts = {"source": self.source, "target": self.target}
        return super().to_dict() | {
            name: part.to_dict() for name, part in parts.items()
        }

    @functools.cached_property
    def fingerprint(self) -> str:
        prints = f"{self.source.fingerprint} {self.target.fingerprint}"
        return hashlib.sha256(prints.encode()).hexdigest()[:16]

    def __reduce__(self) -> tuple[Any, ...]:
        if self.folder is not None:
            return super().__reduce__()
        return _unpickle, (self.source, self.target)


DELEGATED = (
    *("vocabulary", "frame", "pad_id", "unk_id", "mask_id", "end_id"),
    *("feature", "vocab_size", "special_ids", "with_offsets", "word_starts"),
    *("word_ids", "detokenize", "token_texts", "tokens"),
)
for _name in DELEGATED:
    setattr(
        PairTokenizer, _name, property(operator.attrgetter(f"source.{_name}"))
    )


@functools.cache  # build it once per process, however often it is unpickled
def _unpickle(source: base.Tokenizer, target: base.Tokenizer) -> PairTokenizer:
    return PairTokenizer(source, target)


def _names(source: Iterable[str], target: Iterable[str]) -> tuple[str, ...]:
    return (*source, *(PREFIX + name for name in target))


def _single(values: Any) -> Mapping[str, Any]:
    """Returns what a `to_dict` wrote; InputError if it is a pair's."""
    if base.lookup(values) is PairTokenizer:
        raise _nested()
    return values


def _read_target(values: Mapping[str, Any], folder: str) -> base.Tokenizer:
    """Reads the target from copies of its files under their own names."""
    with tempfile.TemporaryDirectory() as temporary:
        for name in base.files_of(values):
            shutil.copyfile(
                files.fetch(os.path.join(folder, PREFIX + name)),
                os.path.join(temporary, name),
            )
        try:
            target = base.from_dict(values, temporary)
        except errors.InputError as error:
            # Name the file as it is called, also if only the folder is named.
            text, path = str(error), os.path.join(folder, PREFIX)
            text = text.replace(os.path.join(temporary, ""), path)
            text = text.replace(temporary, f"{path}*")
            raise errors.InputError(text) from None
    target.folder = None  # the copies are removed
    return target


def _nested() -> errors.InputError:
    return errors.InputError(
        "expected two tokenizers with one vocabulary each, found a pair of "
        "tokenizers in a pair."
    )


def _made_by_tasks() -> errors.InputError:
    return errors.InputError(
        "tokenizer=pair: expected a tokenizer of one vocabulary, such as "
        f"{', '.join(base.names())}; a pair is made by tasks that generate "
        "texts.",
        argument="tokenizer",
    )
