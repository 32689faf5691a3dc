import gzip
import json
import os
import pathlib
import random
import shutil
import tempfile
import textwrap
import time
from unittest import mock

from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.data import corpus

DATA = pathlib.Path(__file__).resolve().parents[4] / "shared" / "data"


class CorpusTest(parameterized.TestCase):
    def write(self, name, content):
        if isinstance(content, str):
            content = content.encode()
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = pathlib.Path(folder, name)
        path.write_bytes(content)
        return str(path)

    def read(self, name, content, **options):
        path = self.write(name, content)
        return list(corpus.documents([path], **options))

    def data(self, name):
        if not (DATA / name).exists():
            self.skipTest(f"needs shared/data/{name}")
        return str(DATA / name)


class DocumentsTest(CorpusTest):
    def test_lines_of_one_sentence_stay_whole(self):
        text = "A first line, e.g. this\nanother one\n\n \nlast. one\n"
        self.assertEqual(
            self.read("a.txt", text),
            [["A first line, e.g. this", "another one"], ["last. one"]],
        )

    def test_lines_of_several_sentences_are_split(self):
        text = "One is. Two is.\nThree is.\r\n\nFour is. Five is.\n"
        self.assertEqual(
            self.read("a.txt", text),
            [["One is.", "Two is.", "Three is."], ["Four is.", "Five is."]],
        )

    @parameterized.parameters(
        "corpus_en/books/charlotte-bronte_jane-eyre.txt",
        "corpus_en/books/h-g-wells_the-time-machine.txt",
    )
    def test_wrapped_text_reads_as_if_it_were_not(self, name):
        path = self.data(name)
        text = pathlib.Path(path).read_text("utf-8")
        wrapped = "\n".join(
            textwrap.fill(line, 72, break_long_words=False) + "\n"
            for line in text.split("\n")
        )
        self.assertEqual(
            self.read("wrapped.txt", wrapped),
            list(corpus.documents([path])),
        )

    def test_wrapped_chinese_is_joined_without_spaces(self):
        text = "人" * 95 + "。" + "口" * 60
        wrapped = "\n".join(text[i : i + 38] for i in range(0, len(text), 38))
        self.assertEqual(
            self.read("a.txt", wrapped), [["人" * 95 + "。", "口" * 60]]
        )

    @parameterized.parameters(
        ("corpus_en/google_sample_text.txt", 3),
        ("corpus_en/books/jane-austen_pride-and-prejudice.txt", 61),
        ("corpus_en/wikitext2_valid.txt", 1160),
        ("corpus_zh/cluecorpussmall_sampled.txt", 2500),
        ("corpus_zh/classics/tang300.txt", 366),
        ("corpus_zh/novels/hongloumeng.txt", 124),
    )
    def test_real_files_hold_the_documents_they_should(self, name, count):
        self.assertLen(list(corpus.documents([self.data(name)])), count)

    def test_poems_are_not_taken_for_wrapped_text(self):
        path = self.data("corpus_zh/classics/tang300.txt")
        lines = [line.decode() for line in corpus.lines(path)]
        sentences = [s for d in corpus.documents([path]) for s in d]
        self.assertEqual(sentences, [line for line in lines if line])

    def test_a_book_without_blank_lines_is_cut_at_paragraph_ends(self):
        paragraph = "One sentence is here. Another one follows it."
        documents = self.read("a.txt", f"{paragraph}\n" * 10_000)
        self.assertGreater(len(documents), 4)
        for document in documents:
            size = sum(map(len, document))
            self.assertLess(size, corpus.MAX_DOCUMENT_LENGTH + len(paragraph))
            self.assertLen(document, len(document) // 2 * 2)

    @parameterized.parameters(
        "a.jsonl", "a.json", "a.ndjson", "a.JSONL", "a.NDJSON.GZ"
    )
    def test_json_lines_hold_text_or_sentences(self, name):
        rows = [
            {"text": "One is. Two is.\n\nThree is."},
            {"text": ["As it. Stands", " so ", ""]},
        ]
        content = ("\n".join(map(json.dumps, rows)) + "\n\n").encode()
        if name.endswith("GZ"):
            content = gzip.compress(content)
        self.assertEqual(
            self.read(name, content),
            [["One is.", "Two is.", "Three is."], ["As it. Stands", "so"]],
        )

    @parameterized.parameters(
        ("a.txt.gz", "One\nTwo\n"),
        ("a.jsonl.gz", '{"text": ["One", "Two"]}'),
        ("a.txt", "\ufeffOne\nTwo"),
    )
    def test_gzip_and_byte_order_marks_make_no_difference(self, name, content):
        content = content.encode()
        if name.endswith(".gz"):
            content = gzip.compress(content)
        self.assertEqual(self.read(name, content), [["One", "Two"]])

    def test_half_a_character_in_json_is_replaced(self):
        for text in ('"a \\ud83d b"', '["a \\ud83d b"]'):
            content = f'{{"text": {text}}}\n'
            self.assertEqual(self.read("a.jsonl", content), [["a \ufffd b"]])

    def test_another_json_field_can_be_the_text(self):
        path = self.data("scitldr/dev.jsonl")
        documents = list(corpus.documents([path], text_field="source"))
        self.assertLen(documents, 619)

    def test_lines_longer_than_a_chunk_are_whole(self):
        words = "word " * 500_000
        self.assertEqual(self.read("a.txt", words), [[words.strip()]])

    @parameterized.parameters(*range(5))
    def test_lines_are_those_of_the_bytes_wherever_chunks_end(self, seed):
        self.enter_context(mock.patch.object(corpus, "_READ_BYTES", 7))
        generator = random.Random(seed)
        content = "".join(
            generator.choices("aé\r\n", (80, 5, 5, 10), k=300)
        ).encode()
        path = self.write("a.txt", content)
        self.assertEqual(
            list(corpus.lines(path)), content.removesuffix(b"\n").split(b"\n")
        )

    @parameterized.parameters("a.txt", "a.txt.gz")
    def test_time_grows_with_the_length_of_a_line_and_not_its_square(
        self, name
    ):
        seconds = []
        for size in (1 << 23, 1 << 25):
            content = b"x" * size
            if name.endswith(".gz"):  # one member for each MB
                part = gzip.compress(content[: 1 << 20], 1)
                content = part * (size >> 20)
            path = self.write(name, content)
            with mock.patch.object(corpus, "_READ_BYTES", 1 << 14):
                start = time.process_time()
                (line,) = corpus.lines(path)
                seconds.append(time.process_time() - start)
            self.assertLen(line, size)
        # 4 times the bytes; copying what came before would take 16.
        self.assertLess(seconds[1], 8 * seconds[0] + 0.2)

    @parameterized.parameters(
        ("a.txt", b"good\nb\xffd\n", "a.txt, line 2.*UTF-8.*0xff"),
        ("a.txt", "\u3000\u3000却说曹操".encode("gb18030"), "iconv -f GB18030"),
        ("a.txt", "Kündigung des Vertrags".encode("cp1252"), "iconv -f CP1252"),
        ("a.txt", b"", "found none.*a.txt"),
        ("a.txt", b"\n \n", "found none"),
        ("a.txt.gz", gzip.compress(b"text" * 99)[:20], "cannot be read"),
        ("a.txt.gz", b"plain", "cannot be read"),
        ("a.jsonl", b'{"text": "a"}\n{"text"', "a.jsonl, line 2"),
        ("a.txt", "good\nfilm".encode("utf-16"), "UTF-8, found UTF-16"),
        ("a.txt", "good\nfilm".encode("utf-32"), "UTF-8, found UTF-32"),
        ("a.jsonl", b"[" * 100_000, "line 1.*nested too deeply"),
        ("a.jsonl", b'{"text": ' + b"1" * 5000 + b"}", "line 1.*'text'"),
        ("a.jsonl", b'{"body": "a"}', "line 1.*'text'.*body"),
        ("a.json", b'["a"]', "line 1.*one JSON object a line"),
        ("a.json", b'{"text": "a", "text": "b"}', "line 1.*'text' twice"),
        ("a.txt", "a film\na b\n".encode("utf-16-le"), "found UTF-16"),
        ("a.jsonl", '{"text": ""}\n'.encode("utf-16-be"), "found UTF-16"),
        ("a.txt", b"a film.\ra play.\r\ranother\r", "found CR alone"),
        ("a.jsonl", b'{"text": "a"}\r{"text": "b"}\n', "found CR alone"),
        ("a.csv", b"text,label\na,1\n", "a.csv: .*found a table.*as .txt"),
        ("a.TSV", b"text\tlabel\na\t1\n", "a.TSV: .*found a table.*as .txt"),
        ("a.csv.gz", gzip.compress(b"text\na\n"), "found a table"),
    )
    def test_what_does_not_fit_is_named(self, name, content, message):
        with self.assertRaisesRegex(errors.InputError, message):
            self.read(name, content)


class FilesTest(CorpusTest):
    def setUp(self):
        super().setUp()
        self.root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.root)
        for name in ("b.txt", "a.txt", "in/c.gz", "in/.hidden", "in/_DONE"):
            path = pathlib.Path(self.root, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text("text")

    @parameterized.parameters(
        ([""], ["a.txt", "b.txt", "in/c.gz"]),
        (["*.txt"], ["a.txt", "b.txt"]),
        (["b.txt", "*"], ["b.txt", "a.txt"]),
        (["in", "in/.hidden"], ["in/c.gz", "in/.hidden"]),
    )
    def test_files_folders_and_globs(self, patterns, expected):
        files = corpus.files([os.path.join(self.root, p) for p in patterns])
        self.assertEqual(
            [os.path.relpath(f, self.root) for f in files], expected
        )

    def test_a_name_that_looks_like_a_glob_is_a_name(self):
        path = pathlib.Path(self.root, "a[1].txt")
        path.write_text("text")
        self.assertEqual(corpus.files([str(path)]), [str(path)])

    @parameterized.parameters("missing.txt", "*.none", "empty")
    def test_what_is_not_there_is_named(self, name):
        os.mkdir(os.path.join(self.root, "empty"))
        with self.assertRaisesRegex(errors.InputError, name.strip("*")):
            corpus.files([os.path.join(self.root, name)])

    def relative(self, *patterns):
        files = corpus.files([os.path.join(self.root, p) for p in patterns])
        return [os.path.relpath(path, self.root) for path in files]

    def link(self, name, target):
        path = os.path.join(self.root, name)
        os.symlink(target, path, target_is_directory=True)

    @parameterized.parameters("..", ".", "../..", "../in")
    def test_a_link_back_is_not_followed(self, target):
        self.link("in/0", target)
        self.assertEqual(self.relative(""), ["a.txt", "b.txt", "in/c.gz"])

    def test_folders_that_link_to_each_other_are_read_once(self):
        for one, other in (("in", "../out"), ("out", "../in")):
            os.makedirs(os.path.join(self.root, one), exist_ok=True)
            self.link(f"{one}/link", other)
        pathlib.Path(self.root, "out", "d.txt").touch()
        files = self.relative("")
        self.assertLen(files, 4)
        self.assertEqual(
            {os.path.basename(name) for name in files},
            {"a.txt", "b.txt", "c.gz", "d.txt"},
        )

    def test_each_file_is_read_once_under_whatever_names(self):
        self.link("0", "in")
        self.link("0.txt", "b.txt")
        self.assertEqual(self.relative(""), ["0.txt", "a.txt", "in/c.gz"])
        self.assertEqual(self.relative("b.txt", "0.txt"), ["b.txt"])
        self.assertEqual(self.relative("0"), ["0/c.gz"])

    def test_a_link_out_of_the_folder_is_followed(self):
        other = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, other)
        pathlib.Path(other, "sub").mkdir()
        pathlib.Path(other, "sub", "e.txt").touch()
        self.link("in/out", other)
        self.assertEqual(self.relative("in"), ["in/c.gz", "in/out/sub/e.txt"])

    def test_hidden_folders_are_read_where_they_are_named_alone(self):
        for name in (
            ".git/d.txt", "_temporary/0/e.txt", "in/.ipynb_checkpoints/f.txt",
            "in/_x/g.txt",
        ):  # fmt: skip
            path = pathlib.Path(self.root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("text")
        self.link("in/__link", "../.git")
        self.assertEqual(self.relative(""), ["a.txt", "b.txt", "in/c.gz"])
        self.assertEqual(self.relative("in/_x"), ["in/_x/g.txt"])
        self.assertEqual(self.relative(".git", "in"), [".git/d.txt", "in/c.gz"])
        self.assertEqual(self.relative("_*/0/*"), ["_temporary/0/e.txt"])

    def test_no_pattern_is_an_error(self):
        for patterns in ([], [""]):
            with self.assertRaises(errors.InputError):
                corpus.files(patterns)


if __name__ == "__main__":
    absltest.main()
