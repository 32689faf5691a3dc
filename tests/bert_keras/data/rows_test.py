import collections
import gzip
import pathlib
import shutil
import tempfile

from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.data import rows

DATA = pathlib.Path(__file__).resolve().parents[4] / "shared" / "data"
SICK = "text=sentence_A,text_pair=sentence_B,label=entailment_judgment"


class RowsTest(parameterized.TestCase):
    def write(self, name, content):
        if isinstance(content, str):
            content = content.encode()
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = pathlib.Path(folder, name)
        path.write_bytes(content)
        return str(path)

    def read(self, name, content, **options):
        return list(rows.read(self.write(name, content), **options))

    @parameterized.parameters(
        ("afqmc/dev.json", "", 2000, {"0": 1386, "1": 614}),
        ("afqmc/train.json", "", 10000, {"0": 6498, "1": 3502}),
        ("chnsenticorp/dev.tsv", "", 1200, {"0": 607, "1": 593}),
        ("chnsenticorp/train.tsv", "", 9600, {"0": 4801, "1": 4799}),
        ("mrpc/dev.tsv", "", 500, {"1": 346, "0": 154}),
        ("mrpc/train.tsv", "", 3576, {"1": 2407, "0": 1169}),
        ("reference/google_bert/mrpc_glue_dev.tsv", "", None, None),
        ("ocnli/dev.json", "", 3000, {"neutral": 1103, "-": 50}),
        ("ocnli/train.json", "", 8052, {"neutral": 2765, "-": 14}),
        ("rte/dev.tsv", "", 277, {"entailment": 146}),
        ("rte/train.tsv", "", 1992, {"entailment": 1004}),
        ("sick/dev.tsv", SICK, 500, {"NEUTRAL": 282, "ENTAILMENT": 144}),
        ("sick/train.tsv", SICK, 4500, {"NEUTRAL": 2536, "ENTAILMENT": 1299}),
        ("sst2/dev.tsv", "", 872, {"1": 444, "0": 428}),
        ("sst2/train.tsv", "", 6920, {"1": 3610, "0": 3310}),
        ("stsb/dev.csv", "text=0,text_pair=1,label=2", 1500, {}),
        ("stsb/train.csv", "text=0,text_pair=1,label=2", 5749, {}),
        ("tnews/dev.json", "", 1921, {}),
        ("tnews/train.json", "text=sentence,label=label_desc", 7802,
         {"news_tech": 839, "news_world": 773}),
        ("csl_title/train.tsv", "text=abstract,target=title", 1600, {}),
        ("tatoeba_en_zh/train.tsv", "text=0,target=1", 25358, {}),
    )  # fmt: skip
    def test_real_files_hold_what_their_sources_say(
        self, name, columns, count, labels
    ):
        if not (DATA / name).exists():
            self.skipTest(f"needs shared/data/{name}")
        read = rows.read(str(DATA / name), columns=rows.parse_columns(columns))
        found = list(read)
        if count is not None:
            self.assertLen(found, count)
        seen = collections.Counter(row.get("label") for row in found)
        for label, times in (labels or {}).items():
            self.assertEqual(seen[label], times)
        self.assertEqual(read.skipped, 0)
        self.assertTrue(all(row["text"] for row in found))
        pairs = ("afqmc", "mrpc", "ocnli", "rte", "sick", "stsb", "reference")
        self.assertEqual("text_pair" in found[0], name.startswith(pairs))

    def test_stsb_scores_have_their_mean(self):
        if not (DATA / "stsb").exists():
            self.skipTest("needs shared/data/stsb")
        scores = [
            float(row["score"])
            for row in rows.read(
                str(DATA / "stsb/train.csv"), columns={"score": "2"}
            )
        ]
        self.assertAlmostEqual(sum(scores) / len(scores), 2.701, places=3)

    @parameterized.parameters(
        ("a.tsv", 'text\tlabel\nsay "hi\t1\n\na, b\t0\n'),
        ("a.tsv", '\ufefflabel\ttext\r\n1\tsay "hi\r\n0\ta, b'),
        ("a.csv", 'text,label\n"say ""hi",1\n\n"a, b",0\n'),
        ("a.csv", 'label,text\r\n1,"say ""hi"\r\n0,"a, b"\r\n'),
        ("a.jsonl", '{"text": "say \\"hi", "label": 1}\n'
         '{"label": "0", "text": "a, b", "more": null}\n\n'),
    )  # fmt: skip
    def test_formats_say_the_same(self, name, content):
        expected = [
            {"text": 'say "hi', "label": "1"},
            {"text": "a, b", "label": "0"},
        ]
        self.assertEqual(self.read(name, content), expected)
        zipped = gzip.compress(content.encode())
        self.assertEqual(self.read(f"{name}.gz", zipped), expected)

    def test_a_quoted_line_end_is_text(self):
        self.assertEqual(
            self.read("a.csv", 'text,label\n"a\nb",1\n'),
            [{"text": "a\nb", "label": "1"}],
        )

    def test_line_separators_of_unicode_end_no_row(self):
        self.assertEqual(
            self.read("a.tsv", "text\na\u2028b\x85c\n"),
            [{"text": "a\u2028b\x85c"}],
        )

    def test_values_that_are_no_strings_become_some(self):
        content = '{"text": ["a", "好"], "label": true, "score": 2.50}'
        columns = {"text": "text", "label": "label", "score": "score"}
        self.assertEqual(
            self.read("a.json", content, columns=columns),
            [{"text": '["a", "好"]', "label": "true", "score": "2.5"}],
        )

    @parameterized.parameters(
        ("question\tsentence\tlabel", "question", "sentence", "label"),
        ("id\tsentence\tlabel_desc", "sentence", None, "label_desc"),
        ("sentence\tlabel_desc\tlabel", "sentence", None, "label"),
        ("premise\thypothesis\tgold", "premise", "hypothesis", None),
        ("question2\tquestion1\tis_duplicate", "question1", "question2",
         "is_duplicate"),
        ("Text\tLabel", "Text", None, "Label"),
        ("label1\tgold_label\tsentence1\tsentence2", "sentence1", "sentence2",
         "gold_label"),
        ("text_a", "text_a", None, None),
    )  # fmt: skip
    def test_common_names_are_found(self, header, text, pair, label):
        [row] = self.read("a.tsv", f"{header}\n{header}\n")
        expected = {"text": text, "text_pair": pair, "label": label}
        self.assertEqual(row, {k: v for k, v in expected.items() if v})

    @parameterized.parameters(
        ("a.tsv", b"text\tlabel\na\t1\nb\nc\t0\n", "line 3.*2 fields.*found 1"),
        ("a.tsv", b"text\tlabel\na\t1\nb\t1\t2\nc\t0\n", "line 3.*found 3"),
        ("a.tsv", b"text\tlabel\na\t1\nb\xff\t1\nc\t0\n", "line 3.*UTF-8"),
        ("a.csv", b'text,label\n"a",1\n"b"x,1\nc,0\n', "line 3.*CSV"),
        ("a.csv", b"text,label\na,1\nb\xff,1\nc,0\n", "line 3.*UTF-8"),
        ("a.csv", b'text,label\n"a",1\nb\nc,0\n', "line 3.*2 fields"),
        ("a.json", b'{"text":"a","label":1}\n{"tex\n{"text":"c","label":0}\n',
         "line 2.*JSON"),
        ("a.json", b'{"text":"a","label":1}\n[1]\n{"text":"c","label":0}\n',
         "line 2.*JSON object"),
        ("a.json", b'{"text":"a","label":1}\n{"text":"b"}\n'
         b'{"text":"c","label":0}\n', "line 2.*'label'"),
        ("a.json", b'{"text":"a","label":1}\n{"text":"b","label":null}\n'
         b'{"text":"c","label":0}\n', "line 2.*'label'"),
    )  # fmt: skip
    def test_a_malformed_row_is_named_or_counted(self, name, content, message):
        path = self.write(name, content)
        with self.assertRaisesRegex(errors.InputError, f"{path}, {message}"):
            list(rows.read(path))
        read = rows.read(path, on_bad_row="skip")
        self.assertEqual(
            list(read),
            [{"text": "a", "label": "1"}, {"text": "c", "label": "0"}],
        )
        self.assertEqual(read.skipped, 1)

    def test_a_lost_quote_does_not_swallow_the_file(self):
        content = 'text,label\n"a,1\n' + "b,0\n" * 100_000
        path = self.write("a.csv", content)
        with self.assertRaisesRegex(errors.InputError, "line 2.*limit"):
            list(rows.read(path))

    @parameterized.parameters(
        ("a.tsv", "", None, "found none"),
        ("a.tsv", "text\tlabel\n", None, "found none"),
        ("a.jsonl", "\n\n", None, "found none"),
        ("a.tsv", "body\tgold\na\t1", None, "'body', 'gold'.*text=0"),
        ("a.tsv", "body\tgold\na\t1", {"text": "corpus"},
         "'corpus'.*'body', 'gold'"),
        ("a.csv", "a,1\n", {"text": "0", "label": "2"}, "2.*0, 1"),
        ("a.json", '{"body": 1}', {"text": "corpus"}, "'corpus'.*'body'"),
        ("a.xml", "<a/>", None, "ends in .tsv, .csv, .jsonl, .json"),
    )  # fmt: skip
    def test_files_that_do_not_fit_say_what_is_there(
        self, name, content, columns, message
    ):
        with self.assertRaisesRegex(errors.InputError, message):
            self.read(name, content, columns=columns)

    def test_a_missing_file_is_named(self):
        with self.assertRaisesRegex(errors.InputError, "nowhere.tsv"):
            list(rows.read("nowhere.tsv"))

    def test_a_label_that_is_not_named_is_found(self):
        content = "first\tsecond\tlabel\na\tb\tc\n"
        for columns, expected in (
            ({"text": "first"}, {"label": "c", "text": "a"}),
            ({"text": "label"}, {"text": "c"}),
            ({"text": "first", "label": "second"}, {"text": "a", "label": "b"}),
        ):
            self.assertEqual(
                self.read("a.tsv", content, columns=columns), [expected]
            )

    def test_columns_are_written_as_pairs(self):
        self.assertIsNone(rows.parse_columns(""))
        self.assertEqual(
            rows.parse_columns("text=#1 String, label=0"),
            {"text": "#1 String", "label": "0"},
        )
        with self.assertRaisesRegex(errors.InputError, "'sentence'"):
            rows.parse_columns("sentence")


if __name__ == "__main__":
    absltest.main()
