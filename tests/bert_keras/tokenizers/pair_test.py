"""A tokenizer of two vocabularies: its files, its interface, its errors."""

import copy
import functools
import os
import pickle

import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, loading, model_card
from bert_keras import model as model_lib
from bert_keras.formats import google, hugging_face
from bert_keras.networks import bert
from bert_keras.tasks import classification
from bert_keras.tokenizers import base, bpe, pair, sentencepiece, wordpiece
from tests import tiny
from tests.bert_keras.tokenizers import characters

TEXTS = ["the film is good", "a dull old story", "not bad at all", ""]
CHINESE = ["电影很好", "坏电影", "好, 很好!", ""]


def words(lowercase=True):
    return wordpiece.Tokenizer(tiny.VOCABULARY, lowercase=lowercase)


@functools.cache
def signs():
    return wordpiece.Tokenizer.learn(CHINESE * 3, 12, lowercase=True)


@functools.cache
def byte_pairs():
    return bpe.BytePairTokenizer.learn(TEXTS * 4, 60, lowercase=True)


def pieces(model_type):
    return sentencepiece.SentencePieceTokenizer.learn(
        CHINESE * 3, 15, lowercase=False, model_type=model_type
    )


def letters():
    return characters.Characters("abcdefghilmnoprstuvwy.,!")


PARTS = (
    (words, signs),
    (tiny.characters, byte_pairs),
    (byte_pairs, lambda: pieces("unigram")),
    (lambda: pieces("bpe"), words),
    (letters, lambda: pieces("bpe")),
)


class PairTest(parameterized.TestCase):
    def folder(self):
        return self.create_tempdir().full_path

    def assert_same(self, actual, expected):
        """The same ids and texts, of both vocabularies."""
        for one, other in (
            (actual, expected),
            (actual.target, expected.target),
        ):
            self.assertEqual(one.fingerprint, other.fingerprint)
            self.assertEqual(one.vocabulary, other.vocabulary)
            for texts in (TEXTS, CHINESE):
                ids = one(texts)
                self.assertEqual(ids.to_list(), other(texts).to_list())
                self.assertEqual(
                    one.detokenize(ids).numpy().tolist(),
                    other.detokenize(ids).numpy().tolist(),
                )

    @parameterized.parameters(*PARTS)
    def test_a_folder_keeps_both(self, source, target):
        tokenizer = pair.PairTokenizer(source(), target())
        folder = self.folder()
        names = tokenizer.save(folder)
        self.assertCountEqual(os.listdir(folder), names)
        self.assertEqual(names, tokenizer.files)
        self.assertEqual(
            names,
            (
                *tokenizer.source.files,
                *(f"target.{name}" for name in tokenizer.target.files),
            ),
        )
        values = tokenizer.to_dict()
        self.assertEqual(
            values,
            {
                "name": "pair",
                "source": tokenizer.source.to_dict(),
                "target": tokenizer.target.to_dict(),
            },
        )
        self.assertEqual(base.files_of(values), names)
        again = base.from_dict(values, folder)
        self.assert_same(again, tokenizer)
        self.assert_same(again.source, tokenizer.source)

    @parameterized.parameters(*PARTS[:4])
    def test_it_pickles_with_and_without_a_folder(self, source, target):
        tokenizer = pair.PairTokenizer(source(), target())
        folder = self.folder()
        tokenizer.save(folder)
        settings = tokenizer.settings
        read = pair.PairTokenizer.from_folder(folder, **settings)
        for each in (read, tokenizer):
            if each is tokenizer and source is tiny.characters:
                continue  # Characters needs a folder of its own
            data = pickle.dumps(each)
            again = pickle.loads(data)
            self.assertIs(again, pickle.loads(data))
            self.assert_same(again, tokenizer)
            self.assert_same(copy.deepcopy(each), tokenizer)
            self.assert_same(copy.deepcopy(each.target), tokenizer.target)
        self.assertLess(len(pickle.dumps(read)), 1000)

    def test_all_but_its_own_members_are_the_sources(self):
        own = {
            *("target", "with_frame", "from_vocab", "learn", "files"),
            *("files_of", "save", "read_files", "to_dict", "fingerprint"),
            # These use its own members.
            *("from_folder", "folder", "settings", "learn_up_to"),
        }
        public = {
            name
            for name in {
                **vars(base.Tokenizer),
                **base.Tokenizer.__annotations__,
            }
            if not name.startswith("_")
        }
        self.assertEqual(public, own | set(pair.DELEGATED))
        self.assertEmpty(own & set(pair.DELEGATED))
        for source, target in ((words, byte_pairs), (tiny.characters, words)):
            tokenizer = pair.PairTokenizer(source(), target())
            for name in pair.DELEGATED:
                self.assertEqual(
                    str(getattr(tokenizer, name)).split(" at 0x")[0],
                    str(getattr(tokenizer.source, name)).split(" at 0x")[0],
                )
        ids = tokenizer(["the film"])
        self.assertEqual(ids.shape[2], 50)
        self.assertEqual(tokenizer.word_ids(ids).to_list()[0][0] > 2, True)

    def test_special_tokens_are_read_with_the_source(self):
        tokenizer = pair.PairTokenizer(words(), signs())
        mask = [[tokenizer.mask_id]]
        for special_tokens in (True, False):
            ids = tokenizer(["[MASK]"], special_tokens=special_tokens)
            self.assertEqual(ids.to_list() == mask, special_tokens)

    def test_the_fingerprint_is_of_both(self):
        prints = {
            tokenizer.fingerprint
            for tokenizer in (
                words(),
                words(False),
                *(
                    pair.PairTokenizer(source, target)
                    for source in (words(), words(False), signs())
                    for target in (words(), words(False), signs())
                ),
            )
        }
        self.assertLen(prints, 11)

    def test_a_remote_folder_is_read_and_written(self):
        tokenizer = pair.PairTokenizer(words(), pieces("bpe"))
        folder = f"ram://pairs/{self.id()}"
        tokenizer.save(folder)
        self.assertCountEqual(tf.io.gfile.listdir(folder), tokenizer.files)
        again = base.from_dict(tokenizer.to_dict(), folder)
        self.assert_same(again, tokenizer)
        self.assert_same(pickle.loads(pickle.dumps(again)), tokenizer)

    def test_frames_are_added_to_both(self):
        bare = byte_pairs()
        for source, target in ((bare, bare), (words(), bare), (bare, words())):
            tokenizer = pair.PairTokenizer(source, target)
            framed = tokenizer.with_frame()
            self.assertEqual(
                (framed.vocabulary, framed.target.vocabulary),
                (
                    source.with_frame().vocabulary,
                    target.with_frame().vocabulary,
                ),
            )
            self.assertIs(framed.with_frame(), framed)
        self.assertIsInstance(framed, pair.PairTokenizer)

    def test_other_targets_and_pairs_of_pairs_are_refused(self):
        both = pair.PairTokenizer(words(), signs())
        for source, target, message in (
            (words(), tiny.characters(), "characters cannot be a target"),
            (words(), both, "found a pair of tokenizers in a pair"),
            (both, words(), "found a pair of tokenizers in a pair"),
        ):
            with self.assertRaisesRegex(errors.InputError, message) as caught:
                pair.PairTokenizer(source, target)
            self.assertNotIn("\n", str(caught.exception))

    @parameterized.parameters(
        ({"source": {}}, "its tokenizer is None"),
        ({"target": None}, "expected a tokenizer's settings, .* found 'None'"),
        ({"target": "wordpiece"}, "expected a tokenizer's settings"),
        ({"source": {"name": "os"}}, "the module 'os'"),
        ({"target": {"name": "wordpiece"}}, r"settings \[\]; expected"),
        ({"target": {"name": "pair"}}, "a pair of tokenizers in a pair"),
        ({"third": {}}, r"settings \['source', 'target', 'third'\]"),
    )
    def test_what_a_folder_says_is_checked(self, change, message):
        tokenizer = pair.PairTokenizer(words(), signs())
        folder = self.folder()
        tokenizer.save(folder)
        with self.assertRaisesRegex(errors.InputError, message):
            base.from_dict(tokenizer.to_dict() | change, folder)

    def test_a_bad_file_is_named_as_it_is_called(self):
        tokenizer = pair.PairTokenizer(words(), signs())
        folder = self.folder()
        tokenizer.save(folder)
        path = os.path.join(folder, "target.vocab.txt")
        with open(path, "w") as file:
            file.write("[PAD]\n")
        with self.assertRaisesRegex(errors.InputError, f"^{path}: Expected"):
            base.from_dict(tokenizer.to_dict(), folder)
        os.remove(path)
        with self.assertRaisesRegex(errors.InputError, f"{path} is missing"):
            base.from_dict(tokenizer.to_dict(), folder)

        tokenizer = pair.PairTokenizer(words(), byte_pairs())
        tokenizer.save(folder)
        path = os.path.join(folder, "target.vocab.json")
        with open(path, "w") as file:
            file.write("{}")
        with self.assertRaisesRegex(
            errors.InputError, rf"^{folder}/target\.\*: "
        ):
            base.from_dict(tokenizer.to_dict(), folder)

    def test_it_is_neither_learned_nor_chosen(self):
        self.assertNotIn("pair", base.names())
        for call in (
            lambda: pair.PairTokenizer.learn(TEXTS, 50, lowercase=True),
            lambda: pair.PairTokenizer.from_vocab("vocab.txt"),
        ):
            with self.assertRaisesRegex(
                errors.InputError, "tokenizer=pair: .* bpe, .*made by tasks"
            ):
                call()


class Frameless(classification.Classification):
    reads_frame = False


class CheckpointTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.run_folder = self.create_tempdir().full_path
        self.tokenizer = pair.PairTokenizer(words(), byte_pairs())
        self.model = tiny.classifier()

    def save(self, step=1):
        return checkpoint.save(
            self.run_folder, self.model, self.tokenizer, step=step
        )

    def test_it_has_both_and_detects_damage(self):
        folder = self.save()
        for name in ("vocab.txt", "target.vocab.json", "target.merges.txt"):
            again = checkpoint.read(folder).tokenizer()
            self.assertEqual(again.fingerprint, self.tokenizer.fingerprint)
            path = os.path.join(folder, name)
            with open(path, "a") as file:
                file.write("\n")
            with self.assertRaisesRegex(errors.InputError, f"{path} is damag"):
                checkpoint.read(folder).tokenizer()
            folder = self.save()

    def test_old_ones_are_removed_completely(self):
        for step in (1, 2):
            self.save(step)
        checkpoint.prune(self.run_folder, 1, self.tokenizer)
        self.assertEqual(checkpoint.steps(self.run_folder), [2])
        self.assertNotIn("step-00000001", os.listdir(self.run_folder))

    def test_a_target_gets_its_frame_where_the_source_has_one(self):
        source = checkpoint.read(self.save())
        labels = {"labels": ("bad", "good"), "seq_length": 32}
        task = classification.Classification(**labels)
        framed = loading.with_frame(source, task)
        self.assertEqual(framed.tokenizer().vocabulary, words().vocabulary)
        self.assertEqual(
            framed.tokenizer().target.vocabulary,
            byte_pairs().with_frame().vocabulary,
        )
        self.assertEmpty(loading.new_tokens(framed))
        model = loading.load_model(framed, task)
        self.assertEqual(
            model.encoder.token_table.shape,
            self.model.encoder.token_table.shape,
        )
        self.assertIs(loading.with_frame(source, Frameless(**labels)), source)

    def test_formats_of_one_vocabulary_refuse_it(self):
        folder = self.create_tempdir().full_path
        model = model_lib.BertModel(bert.BertEncoder(tiny.bert()), None)
        for each in (google, hugging_face):
            with self.assertRaisesRegex(errors.InputError, "PairTokenizer"):
                each.write(folder, model, self.tokenizer)
        self.assertEmpty(os.listdir(folder))

    def test_a_model_card_has_both_sizes(self):
        card = model_card.describe(self.model, self.tokenizer, name="x")
        limits = card.sections[model_card.LIMITS]
        self.assertIn("accents are dropped from every text", limits)
        self.assertIn(f"has {len(tiny.VOCABULARY)} entries", limits)
        self.assertIn("their own, of 60 entries, without letter case", limits)
        cased = pair.PairTokenizer(words(False), pieces("bpe"))
        card = model_card.describe(self.model, cased, name="x")
        limits = card.sections[model_card.LIMITS]
        self.assertNotIn("accents", limits)
        self.assertIn("their own, of 15 entries.", limits)


if __name__ == "__main__":
    absltest.main()
