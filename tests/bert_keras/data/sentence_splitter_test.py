import itertools
import pathlib
import time

from absl.testing import absltest, parameterized

from bert_keras.data import corpus, sentence_splitter
from tests import tiny


class SplitTest(parameterized.TestCase):
    def path(self, name):
        path = pathlib.Path(tiny.SHARED_DATA, name)
        if not path.exists():
            self.skipTest(f"needs shared/data/{name}")
        return str(path)

    @parameterized.parameters(
        "Mr. Smith met Dr. A. B. Jones at 5 p.m. in the U.S.|He paid $3.50.",
        "“Why?” he asked.|“Because.”|She left...|Then it rained.",
        'He said "Stop."|She stopped.|(It was late.)|“Go (now).”|Gone.',
        "Some, e.g. this one, i.e. that.|See Fig. 3 and No. 5.|No.|I do not.",
        "The U.S. Centers for Disease Control.|J. K. Rowling wrote it.",
        "Wait — what?!|Yes!|“No!” cried Tom.|The end . . . is near.|It is.",
        "1. Introduction is here.|2. Methods follow.|Pi is 3.14 or so.",
        "Apple Inc. announced it.|Jan. 5 was cold.|He came in Jan.|It rained.",
        "it was late .|he went home , e.g. by train .",
        'He said .|" Go home . "|She went .',
        "他说：“好。”|我走了。|“走吧！”|她说。|真的？！|是的……|然后呢；|好。",
        "好「是。」|他『嗯。』|《走吧！》的作者。|（对。）|此开卷第一回也．|作者云．",
        "目的 观察疗效.|方法 用了0.5.|It works well.|再看Python 3.11。|好",
        '他说："是的。"|我走了。',
        "«Bonjour.»|Il est parti.|¿Qué?|No sé.|Как дела?|Хорошо.",
    )
    def test_sentences_end_where_a_reader_ends_them(self, marked):
        sentences = marked.split("|")
        space = "" if sentence_splitter.WIDE.search(marked) else " "
        text = space.join(sentences).replace("It works", " It works")
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
