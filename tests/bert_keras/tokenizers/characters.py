"""A tokenizer in one file: characters as tokens, looked up in a table."""

import os

import tensorflow as tf

from bert_keras import files
from bert_keras.tokenizers import base

SPECIAL = ("[PAD]", "[UNK]", "[START]", "[END]", "[MASK]")


class Characters(base.Tokenizer, tf.Module):
    """Of each known character, two tokens: `▁a` where it starts a word."""

    files = ("characters.txt",)
    pad_id, unk_id, mask_id = 0, 1, 4
    frame = base.Frame((2,), (3,), (3,))

    def __init__(self, characters: str):
        super().__init__()
        self.characters = characters
        self.vocabulary = sum(((c, f"▁{c}") for c in characters), SPECIAL)
        ids = len(SPECIAL) + 2 * tf.range(len(characters))
        ids = tf.lookup.KeyValueTensorInitializer(list(characters), ids)
        self.table = tf.lookup.StaticHashTable(ids, self.unk_id)

    @classmethod
    def read_files(cls, folder: str) -> "Characters":
        data = tf.io.read_file(os.path.join(folder, cls.files[0]))
        return cls(data.numpy().decode())

    def save(self, folder: str) -> tuple[str, ...]:
        files.write_text(os.path.join(folder, self.files[0]), self.characters)
        return self.files

    def __call__(self, text, *, special_tokens: bool = False):
        return self.with_offsets(text)[0]

    def with_offsets(self, text):
        text = tf.strings.unicode_split(text, "UTF-8", errors="ignore")
        index = tf.ragged.range(tf.cast(text.row_lengths(), tf.int32))
        space = tf.strings.regex_full_match(text.values, r"\s")
        alone = tf.strings.regex_full_match(text.values, r"[\p{P}\p{Han}]")
        after = tf.concat([[False], alone | space], 0)[:-1]
        ids = self.table.lookup(text.values)
        starts = (alone | after | (index.values == 0)) & (ids != self.unk_id)
        ids = index.with_values(ids + tf.cast(starts, tf.int32))
        kept = index.with_values(~space)
        ids, index = (tf.ragged.boolean_mask(x, kept) for x in (ids, index))
        return ids, index, index + 1

    def word_starts(self, ids):
        return ids.with_values((ids.values % 2 == 0) | (ids.values == 1))

    def detokenize(self, ids):
        text = tf.strings.reduce_join(tf.gather(self.vocabulary, ids), axis=-1)
        text = tf.strings.regex_replace(text, r"\[(PAD|START|END)\]", "")
        return tf.strings.strip(tf.strings.regex_replace(text, "▁", " "))
