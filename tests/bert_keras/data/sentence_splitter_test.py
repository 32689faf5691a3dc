import itertools
import pathlib
import time

from absl.testing import absltest, parameterized

from bert_keras.data import corpus, sentence_splitter
from tests import tiny
from tests.bert_keras.data import marked_sentences


class SplitTest(parameterized.TestCase):
    def path(self, name):
        path = pathlib.Path(tiny.SHARED_DATA, name)
        if not path.exists():
            self.skipTest(f"needs shared/data/{name}")
        return str(path)

    @parameterized.parameters(*marked_sentences.CASES)
    def test_sentences_end_where_a_reader_ends_them(self, marked):
        text, sentences = marked_sentences.parse(marked)
        self.assertEqual(sentence_splitter.split(text), sentences)

    @parameterized.parameters("", "  ", "\n")
    def test_no_text_gives_no_sentence(self, text):
        self.assertEqual(sentence_splitter.split(text), [])

    @parameterized.parameters("en", "zh")
    def test_nothing_but_white_space_is_lost(self, language):
        for path in pathlib.Path(self.path(f"corpus_{language}")).rglob("*"):
            if not path.is_file():
                continue
            for line in itertools.islice(corpus.lines(str(path)), 300):
                text = line.decode()
                sentences = sentence_splitter.split(text)
                self.assertEqual(
                    "".join("".join(sentences).split()), "".join(text.split())
                )
                self.assertTrue(all(sentences))

    @parameterized.parameters(
        *(".", ". ", '."', "。", " )", "? ", '好。"', "A. ", "Mr. ", " ", "1."),
        *("—Mr.\t", "—Mr.\u00a0", "(e.g.\t", '"Mr.\t', "— p.\t7", "’,\t"),
    )
    def test_no_text_takes_quadratic_time(self, part):
        start = time.process_time()
        sentence_splitter.split("A. " + part * 50_000 + "b")
        self.assertLess(time.process_time() - start, 2)

    def test_sentence_per_line_files_are_hardly_split_further(self):
        path = self.path("corpus_zh/cluecorpussmall_sampled.txt")
        lines = [line.decode() for line in corpus.lines(path) if line]
        count = sum(len(sentence_splitter.split(line)) for line in lines)
        self.assertLess(count, 1.05 * len(lines))


if __name__ == "__main__":
    absltest.main()
