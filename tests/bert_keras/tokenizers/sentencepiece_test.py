import os
import pickle
import tempfile
import time
import unicodedata

import sentencepiece as library
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.text import albert_text, sentencepiece_model
from bert_keras.tokenizers import base
from bert_keras.tokenizers import sentencepiece as sentencepiece_lib
from tests.bert_keras.tokenizers.nasty import NASTY

LINES = (
    "The films were filmed in the film studio, and the finest film won.",
    "A banana, bananas and an ananas: nananana na banana!",
    "Filming the finest studios in a fine, final season (banana's season).",
    "In 1999, 2000, 1,999 and 19.99 dollars; 8 88 888 8888 88888.",
    "Цена фильма выросла; фильмы и цены.",
    "中文电影很好。电影，中文！ 한국어 한국",
    "naïve cafés: Café, NAÏVE, cafés ``quoted'' '''' ```",
)
TEXTS = LINES * 3
KINDS = (("unigram", True), ("unigram", False), ("bpe", True))


def learned(model_type="unigram", lowercase=True, size=100):
    return sentencepiece_lib.SentencePieceTokenizer.learn(
        TEXTS, size, lowercase=lowercase, model_type=model_type
    )


def plain(**settings):
    """A model with SentencePiece's own special pieces."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "text.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(TEXTS))
        prefix = os.path.join(folder, "m")
        library.SentencePieceTrainer.train(
            input=path,
            model_prefix=prefix,
            minloglevel=2,
            **{"vocab_size": 100} | settings,
        )
        with open(f"{prefix}.model", "rb") as file:
            return file.read()


def of_library(tokenizer):
    return library.SentencePieceProcessor(model_proto=tokenizer.model)


def normalized(texts, tokenizer):
    """What ALBERT does first, in Python (its preprocess_text)."""
    rows = []
    for text in texts:
        text = text.replace("\0", "")
        if tokenizer.is_albert:
            text = text.replace("``", '"').replace("''", '"')
        if tokenizer.lowercase:
            text = unicodedata.normalize("NFKD", text)
            text = "".join(
                c for c in text if not unicodedata.category(c).startswith("M")
            ).lower()
        rows.append(text)
    return rows


class IdsTest(parameterized.TestCase):
    @parameterized.parameters(*KINDS)
    def test_are_those_of_the_library(self, model_type, lowercase):
        tokenizer = learned(model_type, lowercase)
        texts = NASTY + TEXTS
        expected = of_library(tokenizer).encode(normalized(texts, tokenizer))
        for text, ids, other in zip(
            texts, tokenizer(texts).to_list(), expected, strict=True
        ):
            self.assertEqual(ids, other, msg=ascii(text))

    @parameterized.parameters(
        {"model_type": "unigram"},
        {"model_type": "bpe"},
        {"model_type": "char"},
        {"model_type": "unigram", "byte_fallback": True, "vocab_size": 360},
        {"model_type": "bpe", "byte_fallback": True, "vocab_size": 360},
        {"model_type": "unigram", "add_dummy_prefix": False},
        {"model_type": "unigram", "normalization_rule_name": "identity"},
        {"model_type": "unigram", "user_defined_symbols": ["film", "<x>"]},
    )
    def test_of_other_models_are_those_of_the_library(self, **settings):
        tokenizer = sentencepiece_lib.SentencePieceTokenizer(
            plain(**settings), lowercase=False
        )
        texts = NASTY + TEXTS
        expected = of_library(tokenizer).encode(normalized(texts, tokenizer))
        for text, ids, other in zip(
            texts, tokenizer(texts).to_list(), expected, strict=True
        ):
            self.assertEqual(ids, other, msg=ascii(text))
        ids, *_ = tokenizer.with_offsets(texts)
        self.assertEqual(ids.to_list(), expected)

    def test_a_comma_is_split_from_a_number(self):
        model = learned().model
        text = ["in 1999, and"]
        with_comma = _with_piece(model, "▁1999,", score=-0.1)
        # [CLS] and [SEP] make it ALBERT's.
        tokenizer = sentencepiece_lib.SentencePieceTokenizer(
            with_comma, lowercase=True
        )
        raw = library.SentencePieceProcessor(model_proto=with_comma)
        self.assertIn("▁1999,", raw.encode(text[0], out_type=str))
        tokens = tokenizer.tokens(tokenizer(text)[0].numpy())
        self.assertNotIn("▁1999,", tokens)
        self.assertIn(",", tokens)
        again = sentencepiece_lib.SentencePieceTokenizer(
            tokenizer.model, lowercase=True
        )
        self.assertEqual(again.fingerprint, tokenizer.fingerprint)

    @parameterized.parameters(*KINDS)
    def test_equal_texts_give_equal_files_of_the_requested_size(
        self, model_type, lowercase
    ):
        first = learned(model_type, lowercase)
        self.assertEqual(first.model, learned(model_type, lowercase).model)
        self.assertLen(first.vocabulary, 100)
        self.assertEqual(
            first.vocabulary[:5], ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
        )
        self.assertNotIn(b"/tmp", first.model)
        self.assertNotIn(b".tsv", first.model)

    def test_what_cannot_be_learned_is_refused(self):
        for texts, size, message in (
            (TEXTS, 5000, "Request [0-9]+ or fewer"),
            (TEXTS, 6, "Expected a size above 6"),
            (TEXTS, 20, "special or single characters"),
            ([], 100, "a text of 0 distinct characters"),
        ):
            with self.assertRaisesRegex(errors.InputError, message):
                sentencepiece_lib.SentencePieceTokenizer.learn(
                    texts, size, lowercase=True
                )


class TextTest(parameterized.TestCase):
    @parameterized.parameters(*KINDS)
    def test_offsets_are_exact(self, model_type, lowercase):
        tokenizer = learned(model_type, lowercase)
        texts = list(NASTY + TEXTS) + [b"caf\xc3 \xffa\xc3(b"]
        ids, starts, ends = tokenizer.with_offsets(texts)
        self.assertEqual(ids.to_list(), tokenizer(texts).to_list())
        count = 0
        rows = zip(
            texts, *(x.to_list() for x in (ids, starts, ends)), strict=True
        )
        for text, row, first, last in rows:
            if isinstance(text, bytes):
                text = text.decode("utf-8", "ignore")
            for token, start, end in zip(row, first, last, strict=True):
                self.assertTrue(0 <= start < end <= len(text), ascii(text))
                piece = tokenizer.vocabulary[token].removeprefix("▁")
                if token == tokenizer.unk_id or not piece:
                    continue
                # The piece, of the model's own normalisation of its source.
                (form,) = normalized([text[start:end]], tokenizer)
                form = of_library(tokenizer).normalize(form)
                self.assertIn(
                    piece.replace("ς", "σ"),
                    form.replace("ς", "σ"),
                    ascii((text, start, end)),
                )
                count += 1
        self.assertGreater(count, 300)

    @parameterized.parameters(*KINDS)
    def test_offsets_are_those_of_the_library(self, model_type, lowercase):
        tokenizer = learned(model_type, lowercase)
        texts = LINES[:5]  # of which no character changes its length
        _, starts, ends = tokenizer.with_offsets(texts)
        for text, first, last in zip(
            texts, starts.to_list(), ends.to_list(), strict=True
        ):
            (clean,) = normalized([text], tokenizer)
            self.assertLen(clean, len(text))
            pieces = of_library(tokenizer).encode(clean, return_type="proto")
            data, expected = clean.encode(), []
            for piece in pieces.pieces:
                start = len(data[: piece.begin].decode())
                end = len(data[: piece.end].decode())
                start += len(text[start:end]) - len(text[start:end].lstrip())
                expected.append((start, max(end, start + 1)))
            self.assertEqual(list(zip(first, last, strict=True)), expected)

    def test_a_tie_is_decided_as_by_the_library(self):
        # 8 88 and 88 8 have the same score; the op with offsets decides
        # otherwise.
        tokenizer = learned()
        texts = ["(8888888)", "888 88888", "x 8888"]
        ids, starts, ends = tokenizer.with_offsets(texts)
        expected = of_library(tokenizer).encode(texts)
        self.assertEqual(ids.to_list(), expected)
        for text, row, first, last in zip(
            texts, *(x.to_list() for x in (ids, starts, ends)), strict=True
        ):
            self.assertEqual(
                "".join(
                    text[a:b]
                    for t, a, b in zip(row, first, last, strict=True)
                    if tokenizer.vocabulary[t] != "▁"
                ),
                text.replace(" ", ""),
            )

    def test_words_start_at_blanks_punctuation_and_chinese(self):
        tokenizer = learned()
        ids = tokenizer(["banana's film (season) 电影 na", "", "na"])
        starts = tokenizer.word_starts(ids)
        words = []
        for row, flags in zip(ids.to_list(), starts.to_list(), strict=True):
            for token, flag in zip(tokenizer.tokens(row), flags, strict=True):
                if flag:
                    words.append("")
                words[-1] += token.removeprefix("▁")
        self.assertEqual(
            words[:7], ["banana", "'", "s", "film", "(", "season", ")"]
        )
        self.assertEqual("".join(words[7:-2]), "电影")
        self.assertEqual(words[-2:], ["na", "na"])

    def test_ids_become_text_again(self):
        for tokenizer in (learned(), learned("bpe")):
            ids = tokenizer(["A naïve film, 电影!", ""])
            text = ["a naive film, 电影!", ""]
            self.assertEqual(
                [t.decode() for t in tokenizer.detokenize(ids).numpy()], text
            )
            (start,), _, (end,) = tokenizer.frame[:3]
            row = [start, *ids[0].numpy(), end]
            padded = tf.constant([row + [tokenizer.pad_id] * 4])
            self.assertEqual(
                tokenizer.detokenize(padded).numpy()[0].decode(), text[0]
            )

    def test_bytes_become_characters_again(self):
        tokenizer = sentencepiece_lib.SentencePieceTokenizer(
            plain(byte_fallback=True, model_type="bpe", vocab_size=360),
            lowercase=False,
        )
        ids = tokenizer(["A 👍 film"])
        self.assertNotIn(tokenizer.unk_id, ids.to_list()[0])
        self.assertEqual(
            tokenizer.detokenize(ids).numpy()[0].decode(), "A 👍 film"
        )

    def test_literal_special_tokens_are_words_unless_asked_for(self):
        tokenizer = learned()
        text = ["film [MASK] na[SEP]film"]
        plain_ids = tokenizer(text).to_list()[0]
        self.assertNotIn(tokenizer.mask_id, plain_ids)
        tokens = tokenizer.tokens(
            tokenizer(text, special_tokens=True)[0].numpy()
        )
        self.assertEqual(
            [t for t in tokens if t != "▁"],
            ["▁film", "[MASK]", "▁na", "[SEP]", "▁film"],
        )

    def test_special_ids_are_those_of_the_model(self):
        tokenizer = learned()
        self.assertEqual(tokenizer.frame[:3], ((2,), (3,), (3,)))
        self.assertEqual(
            (tokenizer.pad_id, tokenizer.unk_id, tokenizer.mask_id), (0, 1, 4)
        )
        self.assertEqual(tokenizer.end_id, 3)
        other = sentencepiece_lib.SentencePieceTokenizer(
            plain(pad_id=3), lowercase=False
        )
        self.assertEqual(other.frame[:3], ((1,), (2,), (2,)))
        self.assertEqual(
            (other.pad_id, other.unk_id, other.mask_id), (3, 0, None)
        )
        self.assertFalse(other.is_albert)


class GraphTest(parameterized.TestCase):
    @parameterized.product(
        model_type=("unigram", "bpe"), special_tokens=(True, False)
    )
    def test_gives_int32_rows_for_any_batch(self, model_type, special_tokens):
        tokenizer = learned(model_type)
        graph = tf.function(
            lambda text: tokenizer(text, special_tokens=special_tokens),
            input_signature=[tf.TensorSpec([None], tf.string)],
        )
        offsets = tf.function(
            tokenizer.with_offsets,
            input_signature=[tf.TensorSpec([None], tf.string)],
        )
        library_ids = of_library(tokenizer).encode
        for batch in ([], [""], ["", "film", ""]):
            text = tf.constant(batch, tf.string)
            for ids in (graph(text), offsets(text)[0]):
                self.assertEqual(ids.dtype, tf.int32)
                self.assertEqual(ids.row_splits.dtype, tf.int64)
                self.assertEqual(ids.shape.as_list(), [len(batch), None])
                self.assertEqual(ids.to_list(), [library_ids(t) for t in batch])

    @parameterized.parameters("unigram", "bpe")
    def test_a_saved_model_contains_it(self, model_type):
        tokenizer, module = learned(model_type), tf.Module()
        signature = [tf.TensorSpec([None], tf.string)]
        module.tokenizer = tokenizer  # its resource
        module.tokenize = tf.function(tokenizer, input_signature=signature)
        module.offsets = tf.function(
            tokenizer.with_offsets, input_signature=signature
        )
        folder = self.enter_context(tempfile.TemporaryDirectory())
        tf.saved_model.save(module, folder)
        loaded = tf.saved_model.load(folder)
        text = tf.constant(NASTY)
        self.assertEqual(
            loaded.tokenize(text).to_list(), tokenizer(NASTY).to_list()
        )
        for ours, other in zip(
            tokenizer.with_offsets(text), loaded.offsets(text), strict=True
        ):
            self.assertEqual(ours.to_list(), other.to_list())

    @parameterized.parameters("unigram", "bpe")
    def test_works_in_a_dataset(self, model_type):
        tokenizer = learned(model_type)
        rows = tf.data.Dataset.from_tensor_slices(list(LINES)).batch(3)
        ids = [
            row
            for batch in rows.map(lambda text: tokenizer.with_offsets(text)[0])
            for row in batch.to_list()
        ]
        self.assertEqual(ids, tokenizer(list(LINES)).to_list())

    @parameterized.parameters(
        "a", "banana", "film ", "中", "é", "[SEP]", "\u0301\u0316", "''"
    )
    def test_time_grows_with_the_length_and_not_its_square(self, unit):
        text = [unit * (100_000 // len(unit.encode()))]
        tokenizer = learned()
        for read in (tokenizer, tokenizer.with_offsets):
            start = time.process_time()
            read(text)
            self.assertLess(time.process_time() - start, 4)


class FilesTest(parameterized.TestCase):
    @parameterized.parameters(*KINDS)
    def test_a_folder_is_read_as_it_was_saved(self, model_type, lowercase):
        tokenizer = learned(model_type, lowercase)
        folder = self.create_tempdir().full_path
        self.assertEqual(tokenizer.save(folder), ("spiece.model",))
        again = base.from_dict(tokenizer.to_dict(), folder)
        self.assertEqual(again.fingerprint, tokenizer.fingerprint)
        self.assertEqual(again(NASTY).to_list(), tokenizer(NASTY).to_list())

    def test_it_pickles_with_and_without_a_folder(self):
        tokenizer, folder = learned(), self.create_tempdir().full_path
        tokenizer.save(folder)
        read = sentencepiece_lib.SentencePieceTokenizer.from_folder(
            folder, lowercase=True
        )
        self.assertLess(len(pickle.dumps(read)), 500)
        for each in (tokenizer, read):
            again = pickle.loads(pickle.dumps(each))
            self.assertEqual(again(LINES).to_list(), tokenizer(LINES).to_list())

    def test_casing_is_inferred_from_the_pieces(self):
        folder = self.create_tempdir().full_path
        for lowercase in (True, False):
            learned(lowercase=lowercase).save(folder)
            again = sentencepiece_lib.SentencePieceTokenizer.from_vocab(folder)
            self.assertEqual(again.lowercase, lowercase)

    @parameterized.parameters(b"", b"text\n", b"\xff" * 50, b"\n\x80")
    def test_another_file_is_refused(self, content):
        path = self.create_tempdir().create_file("x.model").full_path
        with open(path, "wb") as file:
            file.write(content)
        with self.assertRaisesRegex(errors.InputError, "a model of Sentence"):
            sentencepiece_lib.SentencePieceTokenizer.from_vocab(path)

    def test_a_missing_file_is_refused(self):
        folder = self.create_tempdir().full_path
        with self.assertRaisesRegex(errors.InputError, "cannot be read"):
            sentencepiece_lib.SentencePieceTokenizer.from_vocab(folder)

    def test_a_truncated_model_is_refused(self):
        model = learned().model
        for size in (1, 10, 100):
            with self.assertRaises(errors.InputError):
                sentencepiece_lib.SentencePieceTokenizer(
                    model[:-size], lowercase=True
                )

    @parameterized.parameters(
        (b"\x0a\x04\x0a\x02\xe2\x96", "such as spiece"),  # half a character
        (b"\x0a\x02\x08\x05", "such as spiece"),  # a piece that is a number
        (b"\x0a\x00", "library cannot read"),  # an empty piece
        (b"\x0a\x07\x0a\x05[CLS]", "library cannot read"),  # twice
        (b"\x1a\x0a\x12\x08" + b"\xff" * 8, "library cannot read"),  # table
    )
    def test_a_damaged_model_is_refused(self, added, message):
        model = learned("bpe").model + added
        with self.assertRaisesRegex(errors.InputError, message):
            sentencepiece_lib.SentencePieceTokenizer(model, lowercase=True)

    def test_the_pieces_are_those_the_library_reads(self):
        model = learned("bpe").model
        parsed = sentencepiece_model.parse(model)
        other = library.SentencePieceProcessor(model_proto=model)
        self.assertEqual(parsed.type, sentencepiece_model.BPE)
        self.assertLen(parsed.pieces, other.vocab_size())
        for index, piece in enumerate(parsed.pieces):
            self.assertEqual(piece.text, other.id_to_piece(index))
            self.assertAlmostEqual(
                piece.score, other.get_score(index), places=5
            )
            self.assertEqual(
                piece.type == sentencepiece_model.CONTROL,
                other.is_control(index),
            )

    def test_unused_pieces_are_never_produced(self):
        tokenizer = learned()
        larger = tokenizer.with_unused(["[unused_row100]", "[unused_row101]"])
        self.assertEqual(larger.vocab_size, tokenizer.vocab_size + 2)
        self.assertEqual(larger(TEXTS).to_list(), tokenizer(TEXTS).to_list())


class NormalizationTest(parameterized.TestCase):
    @parameterized.parameters(True, False)
    def test_is_alberts(self, lowercase):
        tokenizer = learned(lowercase=lowercase)
        texts = [t for t in NASTY + LINES if "Σ" not in t]
        clean = albert_text.normalize(
            tf.constant(texts), lowercase=lowercase, join_quotes=True
        )
        self.assertEqual(
            [text.decode() for text in clean.numpy()],
            normalized(texts, tokenizer),
        )


def _with_piece(model, text, *, score):
    """Appends a normal piece, made by the library's own message class."""
    from sentencepiece import sentencepiece_model_pb2

    message = sentencepiece_model_pb2.ModelProto.FromString(model)
    message.pieces.add(piece=text, score=score)
    return message.SerializeToString()


if __name__ == "__main__":
    absltest.main()
