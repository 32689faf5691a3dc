"""Sentences in a graph: those of `sentence_splitter`, and given ones."""

import itertools
import json
import pathlib
import time

import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras.data import corpus, graph_splitter, sentence_splitter
from tests import tiny
from tests.bert_keras.data import marked_sentences

GRAPH = tf.function(
    graph_splitter.split, input_signature=[tf.TensorSpec((None,), tf.string)]
)


def split(*texts):
    return [
        [sentence.decode() for sentence in sentences]
        for sentences in GRAPH(tf.constant(texts, tf.string)).to_list()
    ]


def ends(sentences):
    """Where sentences end, in characters that are no white space."""
    lengths = (len("".join(sentence.split())) for sentence in sentences)
    return set(itertools.accumulate(lengths))


class SplitTest(parameterized.TestCase):
    @parameterized.parameters(
        *marked_sentences.CASES,
        "Laws of F.R.S. members, by H.B.M. Smith.|The end.",
        'He saw " the film . "|It was good .|" A story',
        "他说“好！”，就走了。|《论语》。|好",
        "于2026.5天ABC好.|Da一二．|3．14是一个数．|好",
    )
    def test_sentences_end_where_a_reader_ends_them(self, marked):
        text, sentences = marked_sentences.parse(marked)
        self.assertEqual(split(text), [sentences])

    def test_a_blank_line_ends_a_sentence(self):
        self.assertEqual(
            split(
                "A heading\r\n \r\nIt\nis. So\n\n\n \u3000he is", "好\n走\n\n吧"
            ),
            [["A heading", "It\nis.", "So", "he is"], ["好\n走", "吧"]],
        )

    def test_given_sentences_are_not_split_further(self):
        self.assertEqual(
            split(
                "It is. He is.\x1e Mr. X\ny.\x1e",
                "one. Two.\x1e",
                "好。走。\x1e \x1e\x1e吧",
            ),
            [
                ["It is. He is.", "Mr. X\ny."],
                ["one. Two."],
                ["好。走。", "", "", "吧"],
            ],
        )

    def test_texts_without_words_have_no_sentences(self):
        self.assertEqual(split("", " \n\u3000\ufeff", "\x1e"), [[], [], [""]])
        self.assertEqual(split(), [])

    def test_control_characters_of_the_text_change_nothing(self):
        text = "It\x1d is\x1f. He\x1b \x1cis.\x00 See No. 5"
        self.assertEqual(split(text), [["It  is .", "He   is.\x00 See No. 5"]])
        self.assertEqual(split("It is.\x1f He is."), [["It is.", "He is."]])

    def test_invalid_utf_8_is_replaced(self):
        (sentences,) = GRAPH(tf.constant([b"It \xff is. He is."])).to_list()
        self.assertEqual(sentences[0].decode(), "It \ufffd is.")

    @parameterized.parameters(
        ("corpus_en", 0.995),
        ("corpus_zh/csl_abstracts.txt", 0.995),
        ("corpus_zh/cluecorpussmall_sampled.txt", 0.995),
        ("scitldr/dev.jsonl", 0.995),
    )
    def test_real_sentences_end_as_in_python(self, name, least):
        path = pathlib.Path(tiny.SHARED_DATA, name)
        if not path.exists():
            self.skipTest(f"needs shared/data/{name}")
        texts = []
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.suffix == ".jsonl":
                rows = map(json.loads, file.read_text().splitlines())
                texts += [" ".join(row["source"]) for row in rows]
            elif file.is_file() and "wikitext" not in file.name:
                # In wikitext, quotes have a space on both sides.
                lines = itertools.islice(corpus.lines(str(file)), 300)
                texts += [line.decode() for line in lines]
        equal = either = 0
        for text, got in zip(texts, split(*texts), strict=True):
            want = sentence_splitter.split(text)
            self.assertEqual(
                "".join("".join(got).split()), "".join(text.split())
            )
            equal += len(ends(want) & ends(got))
            either += len(ends(want) | ends(got))
        self.assertGreater(equal, 250)
        self.assertGreater(equal, least * either)

    @parameterized.parameters(
        *(".", ". ", '."', "。", " )", "? ", '好。"', "A. ", "Mr. ", " ", "1."),
        *("—Mr.\t", "(e.g.\t", "’,\t", '"', "\x1e", "U.S.", "\n"),
    )
    def test_no_text_takes_quadratic_time(self, part):
        start = time.process_time()
        split("A. " + part * 50_000 + "b")
        self.assertLess(time.process_time() - start, 2)


if __name__ == "__main__":
    absltest.main()
