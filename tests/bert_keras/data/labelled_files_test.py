import collections
import contextlib
import gzip
import pathlib
import shutil
import tempfile
import time
from unittest import mock

from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.data import labelled_files, labels, table_rows

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
        return list(labelled_files.read(self.write(name, content), **options))

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
        read = labelled_files.read(
            str(DATA / name), columns=labelled_files.parse_columns(columns)
        )
        examples = list(read)
        if count is not None:
            self.assertLen(examples, count)
        counts = collections.Counter(row.get("label") for row in examples)
        for label, times in (labels or {}).items():
            self.assertEqual(counts[label], times)
        self.assertEqual(read.skipped, 0)
        self.assertTrue(all(row["text"] for row in examples))
        pairs = ("afqmc", "mrpc", "ocnli", "rte", "sick", "stsb", "reference")
        self.assertEqual("text_pair" in examples[0], name.startswith(pairs))

    def test_stsb_scores_have_their_mean(self):
        if not (DATA / "stsb").exists():
            self.skipTest("needs shared/data/stsb")
        scores = [
            float(row["score"])
            for row in labelled_files.read(
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

    EXCEL = (
        "Betreff;Nachricht;Kategorie\r\n"
        'Paket;"Hallo, wo ist ""es""; ich warte";Lieferung\r\n'
        ';"Guten Tag,\r\n1,50 Euro";Rechnung\r\n'
    )
    EXCEL_ROWS = (
        {"text": 'Hallo, wo ist "es"; ich warte', "label": "Lieferung"},
        {"text": "Guten Tag,\r\n1,50 Euro", "label": "Rechnung"},
    )

    @parameterized.product(separator=(";", "\t"), has_header=(True, False))
    def test_a_csv_file_may_be_split_at_semicolons_or_tabs(
        self, separator, has_header
    ):
        content, columns = self.EXCEL, {"text": "Nachricht"}
        columns["label"] = "Kategorie"
        if not has_header:
            content = content.partition("\r\n")[2]
            columns = {"text": "1", "label": "2"}
        content = content.replace(";", separator)
        expected = [
            row | {"text": row["text"].replace(";", separator)}
            for row in self.EXCEL_ROWS
        ]
        for name in ("a.csv", "a.CSV.gz"):
            data = f"\ufeff{content}".encode()
            if name.endswith("gz"):
                data = gzip.compress(data)
            read = labelled_files.read(self.write(name, data), columns=columns)
            self.assertEqual(list(read), expected)
            shown = {";": "';'", "\t": "TAB"}[separator]
            self.assertEndsWith(
                read.where(bool).warning,
                f"{name}: columns are separated by {shown}.",
            )

    def test_the_texts_of_a_file_without_a_header_may_have_commas(self):
        lines = ["a, b;1", "c;0", "d, e, f;1", "g;0"]
        columns = {"text": "0", "label": "1"}
        self.assertEqual(
            self.read("a.csv", "\n".join(lines), columns=columns),
            [
                dict(zip(columns, line.split(";"), strict=True))
                for line in lines
            ],
        )

    @parameterized.parameters(
        ("text,label;x\na;b,1\nc,2\n", None, ["a;b", "c"]),
        ("text\na;b\nc;d\n", None, ["a;b", "c;d"]),
        ('text,"a;b;c"\n"a;b;c",1\n', None, ["a;b;c"]),
        ('"a;b;c",1\n"d;e",2\n', {"text": "0"}, ["a;b;c", "d;e"]),
        ("a;b\nc\nd\n", {"text": "0"}, ["a;b", "c", "d"]),
    )
    def test_semicolons_of_texts_are_no_separators(
        self, content, columns, texts
    ):
        read = labelled_files.read(
            self.write("a.csv", content), columns=columns
        )
        self.assertEqual([row["text"] for row in read], texts)
        self.assertEqual(read.warning, "")

    def test_a_lost_quote_between_semicolons_costs_its_own_line(self):
        rows = "".join(f"row {number};x\n" for number in range(50))
        path = self.write("a.csv", f'text;label\n"lost;x\n{rows}"a;b";y\n')
        with self.assertRaisesRegex(errors.InputError, "line 2: .*quote"):
            list(labelled_files.read(path))
        read = labelled_files.read(path, on_bad_row="skip")
        self.assertLen(list(read), 51)
        self.assertEqual(read.skipped, 1)

    def test_a_file_of_semicolons_without_rows_is_named(self):
        with self.assertRaisesRegex(errors.InputError, "The file has no rows"):
            self.read("a.csv", "text;label\n")

    def test_line_separators_of_unicode_end_no_row(self):
        self.assertEqual(
            self.read("a.tsv", "text\na\u2028b\x85c\n"),
            [{"text": "a\u2028b\x85c"}],
        )

    @parameterized.parameters(
        ("true", "true"), ("2.50", "2.5"), ("1", "1"), ('" 好\\u3000"', "好")
    )
    def test_labels_that_are_no_strings_become_some(self, value, label):
        content = f'{{"text": "a", "label": {value}, "more": [1, {{}}]}}'
        self.assertEqual(
            self.read("a.json", content), [{"text": "a", "label": label}]
        )

    @parameterized.parameters(
        ("1", "1.0"), ("1.0", "1"), ("2e0", "2"), ("3", "3.00"), ("0", "-0.0")
    )
    def test_a_number_written_two_ways_is_no_two_labels(self, one, other):
        row = '{{"text": "a", "label": {}}}\n'
        path = self.write("a.jsonl", (row * 3).format(one, '"b"', other))
        for label in (labels.parse_label, labels.parse_labels):
            with self.assertRaisesRegex(
                errors.InputError, "line 3: column 'label': .*another label"
            ):
                list(labelled_files.read(path, label=label))
        self.assertLen(
            self.read("a.jsonl", row.format(one) + row.format(other),
                      label=labels.parse_number), 2,
        )  # fmt: skip
        self.assertLen(
            self.read("a.jsonl", row.format(1) + row.format("true")), 2
        )

    def test_names_of_formats_may_be_in_upper_case(self):
        for name in ("a.JSONL", "a.ndjson", "a.NDJSON.GZ", "a.Json"):
            content = b'{"text": "a"}'
            if name.endswith("GZ"):
                content = gzip.compress(content)
            self.assertEqual(self.read(name, content), [{"text": "a"}])
        self.assertEqual(self.read("a.CSV", "text\n'a'"), [{"text": "'a'"}])
        self.assertEqual(self.read("a.TSV", "text\na"), [{"text": "a"}])

    @parameterized.product(
        column=("text", "text_pair"),
        value=("null", "NaN", "3", "true", '["a"]', '{"a": 1}', "[]"),
    )
    def test_what_is_no_text_is_refused_with_line_and_column(
        self, column, value
    ):
        row = '{"text": "a", "text_pair": "b", "label": 1}\n'
        name = column.removeprefix("text_")
        bad = row.replace('"b"' if name == "pair" else '"a"', value)
        path = self.write("a.jsonl", row + bad + row)
        message = f"line 2: column '{column}': expected text, found "
        with self.assertRaisesRegex(errors.InputError, message):
            list(labelled_files.read(path))
        read = labelled_files.read(path, on_bad_row="skip")
        self.assertLen(list(read), 2)
        self.assertEqual(read.skipped, 1)
        self.assertIn("1 of 3 rows are malformed", read.warning)

    @parameterized.parameters(
        ("a.csv", "text,label\na,x\nb,{}\nc,x\n", ("", " ", "nan", "\xa0")),
        ("a.tsv", "text\tlabel\na\tx\nb\t{}\nc\tx\n", ("", "\u3000", "NaN")),
        ("a.jsonl",
         '{{"text": "a", "label": "x"}}\n{{"text": "b", "label": {}}}\n'
         '{{"text": "c", "label": "x"}}\n',
         ("null", "NaN", '""', '" "', "Infinity", "[]", '["x"]', "{}")),
    )  # fmt: skip
    def test_a_missing_label_is_a_malformed_row(self, name, content, values):
        for value in values:
            path = self.write(name, content.format(value))
            with self.assertRaisesRegex(
                errors.InputError, "line [23]: column 'label': expected .*label"
            ):
                list(labelled_files.read(path))
            read = labelled_files.read(path, on_bad_row="skip")
            self.assertEqual([row["text"] for row in read], ["a", "c"])
            self.assertEqual(read.skipped, 1)

    @parameterized.parameters(
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 5_000, "nested too deeply"),
        ('{"text": ' + "1" * 4301 + "}", "4,300 digits"),
        ('{"text": "a", "label": 1, "label": 2}', "'label' twice"),
        ('{"text": "a", "label": 1} {', "extra data at column 27"),
        ("nothing", "expecting value at column 1"),
    )
    def test_json_that_python_cannot_read_is_a_malformed_row(
        self, line, message
    ):
        path = self.write("a.json", '{"text": "a", "label": 1}\n' + line)
        with self.assertRaisesRegex(
            errors.InputError, f"line 2: expected one JSON .*{message}"
        ):
            list(labelled_files.read(path))

    def test_an_object_of_many_keys_names_the_one_that_comes_twice(self):
        keys = [f'"{number}": 1' for number in range(50_000)]
        line = "{" + ", ".join([*keys, '"49999": 2']) + "}"
        path = self.write("a.json", '{"text": "a"}\n' + line)
        start = time.process_time()
        with self.assertRaisesRegex(errors.InputError, "line 2.*'49999' twice"):
            list(labelled_files.read(path))
        # Counting each key anew takes 20 s.
        self.assertLess(time.process_time() - start, 2)

    def test_a_lone_surrogate_is_replaced(self):
        content = (
            '{"te\\ud83dxt": 1, "text": "a \\ud83d", "label": "\\ude00b"}\n'
            '{"te\\ud83dxt": 1, "text": "\\ud83d\\ude00", "label": "c"}\n'
        )
        self.assertEqual(
            self.read("a.jsonl", content),
            [
                {"text": "a \ufffd", "label": "\ufffdb"},
                {"text": "😀", "label": "c"},
            ],
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
            list(labelled_files.read(path))
        read = labelled_files.read(path, on_bad_row="skip")
        self.assertEqual(
            list(read),
            [{"text": "a", "label": "1"}, {"text": "c", "label": "0"}],
        )
        self.assertEqual(read.skipped, 1)

    WINDOWS = "CP1252 -t UTF-8 {} > utf8-a.{}, or save it as UTF-8"

    @parameterized.product(
        name=("a.tsv", "a.csv", "a.jsonl"), header=("text", "Stärke")
    )
    def test_bytes_of_windows_are_a_problem_of_the_file(self, name, header):
        texts = ["fine", "grün", *["früh"] * 3]
        if name == "a.jsonl":
            lines = [f'{{"{header}": "{t}", "label": "x"}}' for t in texts]
        else:
            separator = ",\t"["t" in name]
            lines = [f"{each}{separator}x" for each in texts]
            lines.insert(0, f"{header}{separator}label")
        path = self.write(name, "\n".join(lines).encode("cp1252"))
        hint = self.WINDOWS.format(path, name[2:])
        for skip in ("fail", "skip"):
            with self.assertRaises(errors.InputError) as caught:
                read = labelled_files.read(
                    path, columns={"text": header}, on_bad_row=skip
                )
                list(read)
            message = str(caught.exception)
            self.assertRegex(message, "line [123]: expected UTF-8, found byte")
            self.assertIn(hint, message)
            self.assertNotIn("Fix the", message)
            if header == "text" and skip == "skip":
                self.assertIn("4 of 5 rows are malformed", message)

    @parameterized.parameters((2, False), (3, True))
    def test_at_most_half_of_the_rows_may_be_left_out(self, bad, is_refused):
        rows = "a,x\nb,-\n" + "c\n" * bad
        path = self.write("a.csv", f"text,label\n{rows}")
        read = labelled_files.read(path, on_bad_row="skip").where(
            lambda row: row["label"] != "-"  # filtered rows count as rows
        )
        if not is_refused:
            self.assertLen(list(read), 1)
            return
        with self.assertRaisesRegex(
            errors.InputError,
            "a.csv: 3 of 5 rows are malformed, .*The first is line 4: "
            "expected 2 fields, found 1",
        ):
            list(read)

    def test_a_lost_quote_does_not_swallow_the_file(self):
        content = 'text,label\n"a,1\n' + "b,0\n" * 100_000
        path = self.write("a.csv", content)
        with self.assertRaisesRegex(
            errors.InputError, r"line 2.*limit.*\.jsonl, .*this opening quote"
        ):
            list(labelled_files.read(path))
        read = labelled_files.read(path, on_bad_row="skip")
        self.assertLen(list(read), 100_000)
        self.assertEqual(read.skipped, 1)

    def test_a_long_field_says_the_way_out(self):
        long = "a" * 131_073
        path = self.write("a.csv", f"text,label\n{long},1\nb,0\n")
        with self.assertRaisesRegex(
            errors.InputError, r"line 2: .*131072.*as \.tsv or \.jsonl"
        ):
            list(labelled_files.read(path))
        read = labelled_files.read(path, on_bad_row="skip")
        self.assertEqual([row["text"] for row in read], ["b"])
        self.assertLen(self.read("a.tsv", f"text\tlabel\n{long}\t1\n"), 1)

    GOOD = [(f"row {number}", str(number % 2)) for number in range(50)]

    @parameterized.named_parameters(
        ("unclosed", ['"lost,0'], [], 1),
        ("closed_by_a_quoted_row", ['"lost,0'], ['"a, b",1'], 1),
        ("closed_by_another_lost_one", ['"lost,0'], ['lost",1'], 1),
        ("in_the_label", ['lost,"0'], ['"a, b",1'], 1),
        ("at_the_end_of_a_text", ['lost,0"'], [], 0),
        ("several", ['"lost,0'] * 3, ['"a, b",1'], 3),
        ("first_of_all_twice", ['"lost,0', "x,1", '"lost,0'], [], 2),
    )
    def test_a_lost_quote_costs_its_own_line(self, before, after, lost):
        rows_ = [f"{text},{label}" for text, label in self.GOOD]
        content = "\n".join(["text,label", *before, *rows_, *after, "z,1"])
        path = self.write("a.csv", content)
        if lost:
            with self.assertRaisesRegex(errors.InputError, "line 2: .*quote"):
                list(labelled_files.read(path))
        read = labelled_files.read(path, on_bad_row="skip")
        examples = [(row["text"], row["label"]) for row in read]
        good = [*self.GOOD, ("z", "1")]
        self.assertEqual([row for row in examples if row in good], good)
        self.assertEqual(read.skipped, lost)
        self.assertLen(examples, len(content.split("\n")) - 1 - lost)

    @parameterized.parameters(
        "a\nb", "Dear Sir, hello\nBest, John", "1\n2\n3", "one,\n\ntwo",
        'he said ""so""\nand, then, left', "a,b,c\nd,e,f\n" * 3, "x\n\n\ny",
        "a,0\nb,0\nc,0", "a,1\nb,0", "a,0\n" * 20 + '""c"",0',
    )  # fmt: skip
    def test_a_text_of_several_lines_stays_one(self, text):
        lines = "".join(f'"{text}",{label}\nshort,{label}\n' for label in "01")
        for skip in ("fail", "skip"):
            examples = self.read(
                "a.csv", f"text,label\n{lines}", on_bad_row=skip
            )
            text_read = text.replace('""', '"')
            self.assertEqual(
                [(row["text"], row["label"]) for row in examples],
                [(t, n) for n in "01" for t in (text_read, "short")],
            )

    def test_a_text_that_may_be_rows_is_one_row_and_named(self):
        content = 'text,label\nd,1\n"a,0\nb,0\nc",0\nd,1\n'
        path = self.write("a.csv", content)
        with self.assertRaisesRegex(
            errors.InputError, "line 3: .*quote missing"
        ):
            list(labelled_files.read(path))
        read = labelled_files.read(path, on_bad_row="skip")
        self.assertEqual(
            [(row["text"], row["label"]) for row in read],
            [("d", "1"), ("a,0\nb,0\nc", "0"), ("d", "1")],
        )
        self.assertEqual(read.skipped, 0)
        self.assertRegex(read.warning, "a.csv: 1 rows hold .* at line 3")

    @parameterized.parameters('x","y\n', '"x,y\n"z', 'x,"y\n', '"x\n', 'x,"\n')
    def test_time_grows_with_rows_that_lost_a_quote_and_not_its_square(
        self, row
    ):
        self.enter_context(mock.patch.object(table_rows, "_MAX_REREAD", 1000))
        seconds = []
        for count in (2_000, 16_000):
            path = self.write("a.csv", "text,label\na,x\n" + row * count)
            read = labelled_files.read(path, on_bad_row="skip")
            start = time.process_time()
            self.assertEqual(next(read), {"text": "a", "label": "x"})
            with contextlib.suppress(errors.InputError):  # too many malformed
                list(read)
            seconds.append(time.process_time() - start)
        # 8 times the rows; reading the rest anew for each would take 64.
        self.assertLess(seconds[1], 20 * seconds[0] + 0.2)

    @parameterized.parameters(
        ("a\rb,1\n", "a field contains a CR; put the field in quotes"),
        ('"a"b,1\n', "text follows a closing quote"),
        ('"a,1\n', "the quote that opens here is not closed"),
    )
    def test_what_python_says_of_csv_is_said_in_plain_words(self, row, words):
        path = self.write("a.csv", f"text,label\n{row}")
        with self.assertRaisesRegex(
            errors.InputError, f"line 2: expected quoted CSV, but {words}"
        ):
            list(labelled_files.read(path))

    def test_lines_are_counted_over_texts_of_several(self):
        path = self.write("a.csv", 'text,label\n"a\nb\nc",1\nd,1\ne\n')
        with self.assertRaisesRegex(errors.InputError, "line 6: expected 2"):
            list(labelled_files.read(path))

    @parameterized.parameters(
        ("a.tsv", "", None, "found none. The file has no rows."),
        ("a.tsv", "text\tlabel\n", None, "found none. The file has no rows."),
        ("a.csv", "text,label\n", None, "found none. The file has no rows."),
        ("a.jsonl", "\n\n", None, "found none. The file has no rows."),
        ("a.csv", "a,1\n", {"text": "9" * 5000}, "expected '9{50}'.*0, 1"),
        ("a.tsv", "text\tlabel\na\t1\n", {"text": "0", "label": "1"},
         "first row is one: .*as in text=text,label=label"),
        ("a.csv", "id,Review,Sentiment\n1,a,x\n", {"text": "1", "label": "2"},
         "first row is one: .*as in text=Review,label=Sentiment"),
        ("a.csv", "sentence\na\n", {"text": "0"}, "first row is one"),
        ("a.tsv", "body\tgold\na\t1", None, "'body', 'gold'.*text=0"),
        ("a.tsv", "body\tgold\na\t1", {"text": "corpus"},
         "'corpus'.*'body', 'gold'"),
        ("a.csv", "a,1\n", {"text": "0", "label": "2"}, "2.*0, 1"),
        ("a.json", '{"body": 1}', {"text": "corpus"}, "'corpus'.*'body'"),
        ("a.xml", "<a/>", None, "ends in .tsv, .csv, .jsonl, .json"),
        ("a.csv", "text,label,label\na,0,b\n", None, "'label' and 'label'"),
        ("a.csv", "text,label,text\na,0,b\n", {"text": "text"},
         "expected one column 'text', found 2"),
        ("a.tsv", "Text\t text\tlabel\na\t0\tb\n", None, "'Text' and 'text'"),
        ("a.json", '[{"text": "a", "label": 1}]', None, "a JSON array"),
        ("a.jsonl", '\n[\n {"text": "a", "label": 1},\n]\n', None, "a JSON ar"),
        ("a.csv", "0,1,other\na,b,c\n", {"text": "0", "label": "1"},
         "positions .* or names in the first row"),
        ("a.csv", "te\udcffxt,label\na,b\n", None, "line 1: .*0xFF.*CP1252"),
        ("a.csv", 'te"x"t,"label\na,b\n', None, "line 1: .*header"),
    )  # fmt: skip
    def test_files_that_do_not_fit_say_what_is_there(
        self, name, content, columns, message
    ):
        content = content.encode("utf-8", "surrogateescape")
        for skip in ("fail", "skip"):
            with self.assertRaisesRegex(errors.InputError, message):
                self.read(name, content, columns=columns, on_bad_row=skip)

    @parameterized.product(
        name=("a.tsv", "a.csv", "a.jsonl"),
        encoding=("utf-16", "utf-16-le", "utf-16-be", "utf-32"),
    )
    def test_other_encodings_are_named(self, name, encoding):
        content = '{"text": "a", "label": "b"}\n' * 3
        if name != "a.jsonl":
            content = "text,label\na,b\n".replace(",", ",\t"["t" in name])
        path = self.write(name, content.encode(encoding))
        with self.assertRaisesRegex(errors.InputError, "expected UTF-8, found"):
            list(labelled_files.read(path, on_bad_row="skip"))

    @parameterized.parameters(
        ("a.tsv", "text\tlabel\ra\t1\rb\t0\r"),
        ("a.csv", "text,label\ra,1\rb,0"),
        ("a.csv", "text,label\ra,1\rb,0\n"),
        ("a.jsonl", '{"text": "a", "label": 1}\r{"text": "b", "label": 0}'),
    )
    def test_line_ends_of_old_macs_are_named(self, name, content):
        with self.assertRaisesRegex(errors.InputError, "found CR alone"):
            self.read(name, content, on_bad_row="skip")

    def test_a_folder_is_named_as_one(self):
        for name in ("a.tsv", "records"):
            folder = self.create_tempdir(name).full_path
            with self.assertRaisesRegex(errors.InputError, "found a folder"):
                list(labelled_files.read(folder))

    def test_a_first_object_without_a_label_is_a_malformed_row(self):
        path = self.write("a.json", '{"text": "a"}\n{"text": "b", "label": 1}')
        with self.assertRaisesRegex(errors.InputError, "missing: label"):
            list(labelled_files.read(path, needed=("text", "label")))
        read = labelled_files.read(
            path, needed=("text", "label"), on_bad_row="skip"
        )
        self.assertEqual(list(read), [{"text": "b", "label": "1"}])
        self.assertEqual(read.skipped, 1)
        path = self.write("b.json", '{"text": "a"}\n' * 3)
        with self.assertRaisesRegex(errors.InputError, "missing: label"):
            list(
                labelled_files.read(
                    path, needed=("text", "label"), on_bad_row="skip"
                )
            )

    @parameterized.parameters(
        ("0,1\na,x\n", {"text": "0", "label": "1"}),
        (",0,1\n7,a,x\n", {"text": "0", "label": "1"}),
        ("index,0,1,2\n7,a,b,x\n", {"text": "0", "label": "2"}),
        ("1,0\na,x\n", {"text": "1", "label": "0"}),
        ("a,x\n", {"text": "0", "label": "1"}),
        ("x,1,a\n", {"text": "2", "label": "0"}),
        ('"a","x"\n', {"text": "0", "label": "1"}),
    )
    def test_a_first_row_of_the_numbers_named_is_a_header(
        self, content, columns
    ):
        self.assertEqual(
            self.read("a.csv", content, columns=columns),
            [{"text": "a", "label": "x"}],
        )

    def test_blanks_around_names_of_columns_do_not_count(self):
        for columns in (None, {"text": "text", "label": "label"}):
            self.assertEqual(
                self.read("a.csv", "text, label\na, x\n", columns=columns),
                [{"text": "a", "label": "x"}],
            )

    def test_a_missing_file_is_named(self):
        with self.assertRaisesRegex(errors.InputError, "nowhere.tsv"):
            list(labelled_files.read("nowhere.tsv"))

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
        self.assertIsNone(labelled_files.parse_columns(""))
        self.assertEqual(
            labelled_files.parse_columns("text=#1 String, label=0"),
            {"text": "#1 String", "label": "0"},
        )
        with self.assertRaisesRegex(errors.InputError, "'sentence'"):
            labelled_files.parse_columns("sentence")

    def test_a_column_whose_name_has_a_comma_is_quoted(self):
        columns = labelled_files.parse_columns(
            'text="review, ""long""" , text_pair = b "c", label="x=y,z"'
        )
        expected = {"text": 'review, "long"', "text_pair": 'b "c"'}
        self.assertEqual(columns, expected | {"label": "x=y,z"})
        content = '"review, ""long""","b ""c""","x=y,z"\n1,2,3\n'
        self.assertEqual(
            self.read("a.csv", content, columns=columns),
            [{"text": "1", "text_pair": "2", "label": "3"}],
        )

    @parameterized.parameters(
        ({}, ""),
        ("label=b,text=a", "label=b,text=a"),
        ({"label": 1, "text": 0}, "text=0,label=1"),
        ({"z": "c", "label": " b ", "text": "a"}, "text=a,label=b,z=c"),
        ({"text": 'a, "b"', "label": '"c"'},
         'text="a, ""b""",label="""c"""'),
        ({"text": "x=y", "label": 'b"c'}, 'text=x=y,label=b"c'),
    )  # fmt: skip
    def test_a_mapping_of_columns_is_the_text_that_is_parsed(
        self, columns, text
    ):
        self.assertEqual(labelled_files.format_columns(columns), text)
        if not isinstance(columns, str):
            names = {k: str(v).strip() for k, v in columns.items()}
            self.assertEqual(labelled_files.parse_columns(text), names or None)

    @parameterized.parameters(
        (["a", "b"], "expected a string such as text=sentence,label=gold"),
        (None, "columns is None"),
        ({"text": None}, "for 'text', found None"),
        ({"text": True}, "found True"),
        ({"text": ["a"]}, "found .'a'."),
        ({"text": " "}, "found ' '"),
    )
    def test_columns_that_name_none_are_refused(self, columns, message):
        with self.assertRaisesRegex(errors.InputError, message):
            labelled_files.format_columns(columns)

    @parameterized.parameters(
        ('text="a,b', "'text=\"a'"), ('text="a"b', "'text=\"a\"b'"),
        ('text=""', "text="), ("text=a,text=b", "text .twice"),
        ("text=a,labl=b", "labl .unknown"), ("text=a,=b", "'=b'"),
    )  # fmt: skip
    def test_columns_that_are_no_pairs_are_refused(self, text, message):
        with self.assertRaisesRegex(errors.InputError, message):
            labelled_files.parse_columns(text, allowed=("text", "label"))


if __name__ == "__main__":
    absltest.main()
