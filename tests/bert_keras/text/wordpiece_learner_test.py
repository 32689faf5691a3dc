import itertools
import pathlib
import random
import time

from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.text import wordpiece_learner
from bert_keras.tokenizers import wordpiece

DATA = pathlib.Path(__file__).resolve().parents[3] / ".." / "shared" / "data"

# Every pair of letters is as frequent as every other: nothing but ties.
TIES = ["".join(word) for word in itertools.permutations("abcdef", 4)] * 2

ENGLISH = ["the cat sat on the mat", "That hat, the rat! Thatch the hut."] * 5
CHINESE = ["中国人民银行发行人民币。", "中文和English混合。"] * 5


class LearnTest(parameterized.TestCase):
    def test_frequent_pairs_become_pieces(self):
        self.assertEqual(
            wordpiece_learner.learn(["ab ab abc"] * 3, 13, lowercase=True),
            [*wordpiece.SPECIAL_TOKENS]
            + ["a", "b", "c", "##a", "##b", "##c", "ab", "abc"],
        )

    @parameterized.parameters(20, 25, 40, 77)
    def test_the_same_text_gives_the_same_list(self, size):
        lists = {
            tuple(wordpiece_learner.learn(texts, size, lowercase=True))
            for texts in (TIES, TIES, TIES, TIES[::-1], [" ".join(TIES)])
        }
        self.assertLen(lists, 1)

    @parameterized.product(
        texts=(ENGLISH, CHINESE, ENGLISH + CHINESE),
        size=(6, 7, 8, 12, 20, 35),
        lowercase=(True, False),
    )
    def test_the_size_is_exact(self, texts, size, lowercase):
        pieces = wordpiece_learner.learn(texts, size, lowercase=lowercase)
        self.assertLen(pieces, size)
        self.assertLen(set(pieces), size)
        self.assertSequenceEqual(pieces[:5], wordpiece.SPECIAL_TOKENS)

    @parameterized.parameters((ENGLISH,), (CHINESE,), (TIES,))
    def test_a_text_that_is_too_small_says_how_much_it_gives(self, texts):
        with self.assertRaises(errors.InputError) as caught:
            wordpiece_learner.learn(texts, 10_000, lowercase=True)
        most = int(str(caught.exception).split("Request ")[1].split()[0])
        self.assertLen(
            wordpiece_learner.learn(texts, most, lowercase=True), most
        )
        with self.assertRaises(errors.InputError):
            wordpiece_learner.learn(texts, most + 1, lowercase=True)

    @parameterized.parameters(
        ([], 100), ([""], 100), (["\x00 \t"], 100), (["abc"], 100), (ENGLISH, 5)
    )
    def test_refuses(self, texts, size):
        with self.assertRaisesRegex(errors.InputError, "special tokens"):
            wordpiece_learner.learn(texts, size, lowercase=True)

    def test_nothing_is_learned_from_words_that_are_always_unknown(self):
        generator = random.Random(1)
        long = "".join(generator.choices("abcdefgh", k=200_000))
        text = "gab head fade cafe badge egad " * 9
        start = time.process_time()
        vocabulary = wordpiece_learner.learn(
            [text, long, text, long], 32, lowercase=True
        )
        # A tenth of a second; merging the long word took 15.
        self.assertLess(time.process_time() - start, 3)
        alone = [word for word in vocabulary[5:] if len(word.strip("#")) > 1]
        self.assertTrue(all(word.strip("#") in text for word in alone))

    def test_reads_the_text_once(self):
        texts = iter(ENGLISH)
        self.assertLen(wordpiece_learner.learn(texts, 35, lowercase=True), 35)
        self.assertEmpty(list(texts))

    def test_casing_is_kept_or_folded(self):
        texts = ["Émile THAT", "Σ"] * 3
        folded = "".join(wordpiece_learner.learn(texts, 25, lowercase=True)[5:])
        self.assertEqual(folded, folded.lower())
        self.assertNotIn("é", folded)
        self.assertIn("É", wordpiece_learner.learn(texts, 26, lowercase=False))

    def test_chinese_characters_stand_alone(self):
        pieces = wordpiece_learner.learn(CHINESE, 36, lowercase=True)
        self.assertContainsSubset(["中", "国", "。", "en"], pieces)
        self.assertNoCommonElements(["##国", "##。", "中国"], pieces)

    def test_rare_characters_make_room_for_frequent_pieces(self):
        rare = [chr(0x4E00 + i) * 2 for i in range(500)]
        words = ["unbelievable believers believe in belief"] * 1000
        pieces = wordpiece_learner.learn(words + rare, 60, lowercase=True)
        self.assertIn("believe", pieces)
        self.assertContainsSubset("unbeliavrsf", pieces)

    def test_what_is_learned_is_a_vocabulary(self):
        pieces = wordpiece_learner.learn(ENGLISH + CHINESE, 69, lowercase=True)
        tokenizer = wordpiece.Tokenizer(pieces, lowercase=True)
        ids = tokenizer(ENGLISH + CHINESE)
        self.assertNotIn(tokenizer.unk_id, ids.values.numpy())

    @parameterized.parameters("sst2/train.tsv", "tnews/train.json")
    def test_real_text_is_covered(self, name):
        if not (DATA / name).exists():
            self.skipTest(f"real data is absent: {DATA / name}")
        lines = (DATA / name).read_text("utf-8").split("\n")
        pieces = wordpiece_learner.learn(lines, 5000, lowercase=True)
        self.assertEqual(
            pieces,
            wordpiece_learner.learn(reversed(lines), 5000, lowercase=True),
        )
        tokenizer = wordpiece.Tokenizer(pieces, lowercase=True)
        ids = tokenizer(lines).values.numpy()
        self.assertLess((ids == tokenizer.unk_id).mean(), 2e-3)


if __name__ == "__main__":
    absltest.main()
