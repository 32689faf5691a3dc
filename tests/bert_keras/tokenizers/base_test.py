"""What every tokenizer states, shown on WordPiece."""

import copy
import os
import pickle

import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.tokenizers import base, wordpiece
from tests import tiny


class FrameTest(absltest.TestCase):
    def test_room_is_what_the_frame_leaves(self):
        bert = base.Frame((2,), (3,), (3,))
        self.assertEqual([bert.capacity(9), bert.capacity(9, 2)], [7, 6])
        roberta = base.Frame((0,), (2, 2), (2,))
        self.assertEqual([roberta.capacity(9), roberta.capacity(9, 2)], [7, 5])
        self.assertEqual(base.Frame((), (), ()).capacity(9, 2), 9)


class WordPieceTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.tokenizer = tiny.tokenizer()

    def test_states_its_ids(self):
        self.assertEqual(self.tokenizer.frame, ((2,), (3,), (3,), "token_ids"))
        self.assertEqual(self.tokenizer.feature, "token_ids")
        self.assertEqual(self.tokenizer.special_ids, (2, 3))
        self.assertEqual(self.tokenizer.vocab_size, len(tiny.VOCABULARY))

    @parameterized.parameters(
        ("films acted", "1 0 1 0"),
        ("plot,plot plots", "1 1 1 1 0"),
        ("很好film好s", "1 1 1 1 1"),
        ("", ""),
    )
    def test_words_start_after_white_space_and_at_marks(self, text, starts):
        tokenizer = wordpiece.Tokenizer(
            [*tiny.VOCABULARY, "act", "s"], lowercase=True
        )
        actual = tokenizer.word_starts(tokenizer([text]))
        want = [bool(int(start)) for start in starts.split()]
        self.assertEqual(actual.to_list(), [want])

    def test_words_of_no_text_are_none(self):
        ids = self.tokenizer(tf.constant([], tf.string))
        self.assertEqual(self.tokenizer.word_starts(ids).shape[0], 0)
        self.assertEqual(self.tokenizer.detokenize(ids).shape, (0,))

    @parameterized.parameters(
        "the films", "plot , the plots !", "电影很好 good 坏?", "", "好"
    )
    def test_text_of_its_ids_has_the_same_ids(self, text):
        ids = self.tokenizer([text])
        (again,) = self.tokenizer.detokenize(ids).numpy()
        self.assertEqual(self.tokenizer([again]).to_list(), ids.to_list())

    def test_detokenizes_rows_without_frame_and_padding(self):
        tokens = [
            "[CLS]",
            "film",
            "##s",
            "good",
            "[SEP]",
            "电",
            "影",
            ".",
            "[SEP]",
        ]
        ids = [tiny.VOCABULARY.index(token) for token in tokens] + [0, 0]
        mask = [2, self.tokenizer.mask_id, 1, 3] + [0] * 7
        text = self.tokenizer.detokenize(tf.constant([ids, mask]))
        self.assertEqual(
            [each.decode() for each in text.numpy()],
            ["films good电影.", "[MASK] [UNK]"],
        )


class FolderTest(parameterized.TestCase):
    def test_a_folder_keeps_all_of_it(self):
        folder = self.create_tempdir().full_path
        for lowercase in (True, False):
            tokenizer = wordpiece.Tokenizer(
                tiny.VOCABULARY, lowercase=lowercase
            )
            self.assertEqual(tokenizer.save(folder), ("vocab.txt",))
            values = tokenizer.to_dict()
            self.assertEqual(
                values, {"name": "wordpiece", "lowercase": lowercase}
            )
            again = base.from_dict(values, folder)
            self.assertEqual(again.fingerprint, tokenizer.fingerprint)
            self.assertEqual(again.vocabulary, tokenizer.vocabulary)

    @parameterized.parameters(
        ({"name": "os"}, "the module 'os', which is imported .* 0 tokenizers"),
        ({"name": "base"}, "which is neither one of bpe, .*wordpiece"),
        ({}, "its tokenizer is None; expected the name of a module"),
        ({"name": "wordpiece"}, r"settings \[\]; expected \['lowercase'\]"),
        (
            {"name": "wordpiece", "lowercase": True, "path": "/"},
            r"settings \['lowercase', 'path'\]; expected \['lowercase'\]",
        ),
        ({"name": "wordpiece", "lowercase": "no"}, "lowercase is 'no'"),
    )
    def test_what_a_folder_says_is_checked(self, values, message):
        folder = self.create_tempdir().full_path
        tiny.tokenizer().save(folder)
        with self.assertRaisesRegex(errors.InputError, message):
            base.from_dict(values, folder)

    def test_it_pickles_as_its_folder_and_settings(self):
        folder = self.create_tempdir().full_path
        tiny.tokenizer().save(folder)
        tokenizer = wordpiece.Tokenizer.from_folder(folder, lowercase=True)
        data = pickle.dumps(tokenizer)
        self.assertLess(len(data), 500)
        again = pickle.loads(data)
        self.assertIs(again, pickle.loads(data))
        self.assertEqual(
            again(["films"]).to_list(), tokenizer(["films"]).to_list()
        )

    def test_wordpiece_pickles_as_its_vocabulary_where_it_has_no_folder(self):
        tokenizer = tiny.tokenizer()
        for again in (
            pickle.loads(pickle.dumps(tokenizer)),
            copy.deepcopy(tokenizer),
        ):
            self.assertEqual(again.fingerprint, tokenizer.fingerprint)

    def test_save_takes_a_folder_and_no_file(self):
        path = os.path.join(self.create_tempdir().full_path, "vocab.txt")
        with self.assertRaisesRegex(errors.InputError, "save_vocabulary"):
            tiny.tokenizer().save(path)


if __name__ == "__main__":
    absltest.main()
