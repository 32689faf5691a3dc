"""Parquet files, read as tables of labelled rows, as texts, and as a corpus."""

import datetime
import decimal
import json
import math
import os
import pathlib
import tempfile
from unittest import mock

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.data import (
    corpus,
    corpus_chunks,
    labelled_files,
    labels,
    parquet,
    unlabelled_texts,
)
from bert_keras.data import records as records_lib
from bert_keras.training import prepare
from tests import tiny
from tests.trainers import mains

DATA = pathlib.Path(__file__).resolve().parents[4] / "shared" / "data"
NOT_UTF8 = pyarrow.array([b"a", b"\xff"]).view(pyarrow.string())


class Case(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name="a.parquet", **columns):
        """Two rows to a group, so that a file has several."""
        table = pyarrow.table(columns)
        pyarrow.parquet.write_table(table, self.path(name), row_group_size=2)
        return self.path(name)

    def write_json(self, name, rows):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        return mains.write(self.path(name), lines)


class LabelledRowsTest(Case):
    def test_rows_are_those_of_the_same_table_as_json(self):
        columns = {
            "sentence": ["a", "很好", "", "b\nc", "a"],
            "label": [1, 0, 1, 0, 2],
            "more": [None, [1], [], [2, 3], None],
        }
        rows = [
            dict(zip(columns, row, strict=True))
            for row in zip(*columns.values(), strict=True)
        ]
        expected = list(labelled_files.read(self.write_json("a.jsonl", rows)))
        read = labelled_files.read(self.write(**columns))
        self.assertEqual(list(read), expected)
        self.assertEqual(read.skipped, 0)

    def test_a_real_table_gives_the_rows_of_its_tsv(self):
        tsv = DATA / "sst2" / "dev.tsv"
        if not tsv.exists():
            self.skipTest("needs shared/data/sst2")
        expected = list(labelled_files.read(str(tsv)))
        texts, classes = zip(
            *((row["text"], row["label"]) for row in expected), strict=True
        )
        path = self.write(
            idx=list(range(len(texts))),
            sentence=texts,
            label=[int(each) for each in classes],
        )
        self.assertEqual(list(labelled_files.read(path)), expected)

    @parameterized.named_parameters(
        ("no text", {"text": ["a", None]}, labels.parse_label, "null"),
        ("NaN", {"text": ["a", "b"], "label": [1.0, math.nan]},
         labels.parse_label, "found nan"),
        ("no label", {"label": ["x", None]}, labels.parse_label, "null"),
        ("an empty label", {"label": ["x", " "]}, labels.parse_label, "none"),
        ("a list of texts", {"text": pyarrow.array([["a"], None])},
         labels.parse_label, "row 1.*a list"),
        ("bytes that are not UTF-8", {"text": [b"a", b"\xff"]},
         labels.parse_label, r"UTF-8 \(byte 1"),
        ("not UTF-8", {"text": NOT_UTF8}, labels.parse_label, "UTF-8"),
        ("a date", {"label": [datetime.date(2026, 1, 1)] * 2},
         labels.parse_label, "row 1.*a date"),
        ("a list", {"label": [["x"], ["y"]]}, labels.parse_label,
         "row 1.*one label"),
        ("null in a list", {"label": [["x"], [None]]}, labels.parse_labels,
         "null"),
        ("infinite", {"label": [1.0, math.inf]}, labels.parse_number,
         "finite"),
        ("no number", {"label": ["1", "x"]}, labels.parse_number, "finite"),
    )  # fmt: skip
    def test_a_malformed_row_is_named_or_counted(self, columns, label, message):
        columns = {"text": ["a", "b"], "label": ["x", "y"]} | columns
        path = self.write(**columns)
        where = "" if message.startswith("row") else "row 2.*"
        with self.assertRaisesRegex(
            errors.InputError, rf"a\.parquet, {where}{message}"
        ):
            list(labelled_files.read(path, label=label))
        examples = labelled_files.read(path, label=label, on_bad_row="skip")
        try:
            kept = len(list(examples))
        except errors.InputError:
            kept = 0
        self.assertEqual(kept + examples.skipped, 2)
        self.assertGreater(examples.skipped, 0)

    def test_several_labels_are_a_list_and_numbers_are_numbers(self):
        path = self.write(
            text=["a", "b", "c"],
            label=[["x", "y"], [], None],
            score=pyarrow.array(np.float32([0.1, 5, 2.5])),
            price=[decimal.Decimal("1.50")] * 3,
        )
        several = labelled_files.read(path, label=labels.parse_labels)
        self.assertEqual([row["label"] for row in several], ["x,y", "", ""])
        for column, expected in (
            ("score", np.float32([0.1, 5, 2.5])),
            ("price", np.float32([1.5] * 3)),
        ):
            numbers = labelled_files.read(
                path,
                columns={"text": "text", "label": column},
                label=labels.parse_number,
            )
            values = np.float32([float(row["label"]) for row in numbers])
            np.testing.assert_array_equal(values, expected)

    def test_a_dictionary_of_strings_is_text(self):
        words = pyarrow.array(["a", "b", "a"]).dictionary_encode()
        rows = labelled_files.read(self.write(text=words, label=words))
        self.assertEqual([row["text"] for row in rows], ["a", "b", "a"])

    @parameterized.parameters(
        pyarrow.binary(), pyarrow.large_binary(), pyarrow.binary(6)
    )
    def test_binary_columns_are_text_in_utf8(self, data_type):
        texts, marks = ["Größ", "很好"], ["label1", "label2"]
        as_text = self.write("text.parquet", text=texts, label=marks)
        path = self.write(
            text=pyarrow.array([text.encode() for text in texts], data_type),
            label=pyarrow.array([mark.encode() for mark in marks], data_type),
        )
        self.assertEqual(
            list(labelled_files.read(path)), list(labelled_files.read(as_text))
        )
        self.assertEqual(
            [each.digest for each in corpus.scan([path])],
            [each.digest for each in corpus.scan([as_text])],
        )
        self.assertEqual(
            list(corpus.documents([path])), list(corpus.documents([as_text]))
        )

    def test_binary_sentences_are_text_too(self):
        path = self.write(text=[[b"A b.", b"c"], [b"d"]])
        self.assertEqual(list(corpus.documents([path])), [["A b.", "c"], ["d"]])

    def test_columns_that_are_not_looked_up_are_not_read(self):
        noise = np.random.default_rng(1).bytes
        path = self.write(
            text=["a", "b"],
            label=["x", "y"],
            image=[noise(100_000) for _ in range(2)],
        )
        expected = list(labelled_files.read(path))
        # Damage the images: reading them is an error.
        data = bytearray(pathlib.Path(path).read_bytes())
        group = pyarrow.parquet.read_metadata(path).row_group(0)
        start = group.column(2).dictionary_page_offset
        data[start : start + 1000] = bytes(1000)
        pathlib.Path(path).write_bytes(data)
        self.assertEqual(list(labelled_files.read(path)), expected)
        self.assertLen(list(corpus.scan([path])), 2)
        with self.assertRaisesRegex(errors.InputError, "cannot be read: "):
            list(labelled_files.read(path, columns={"text": "image"}))

    def test_two_columns_of_one_name_are_refused(self):
        arrays = [pyarrow.array(["a"])] * 2
        table = pyarrow.Table.from_arrays(arrays, names=["text", "text"])
        pyarrow.parquet.write_table(table, self.path("a.parquet"))
        with self.assertRaisesRegex(errors.InputError, "Rename the others"):
            list(labelled_files.read(self.path("a.parquet")))

    @parameterized.parameters(0, 3, 20, 60, 200, -1, -8, -60)
    def test_a_damaged_file_is_refused(self, size):
        path = self.write(text=["word " * 9] * 50, label=list(range(50)))
        data = pathlib.Path(path).read_bytes()
        pathlib.Path(path).write_bytes(data[:size])
        with self.assertRaisesRegex(errors.InputError, "cannot be read: "):
            list(labelled_files.read(path))

    def test_the_message_on_a_missing_file_is_a_sentence(self):
        path = os.path.join(self.create_tempdir().full_path, "no.parquet")
        with self.assertRaisesRegex(errors.InputError, r"no such file\.$"):
            parquet.count(path)

    def test_an_empty_or_a_missing_file_is_refused(self):
        none = pyarrow.array([], pyarrow.string())
        with self.assertRaisesRegex(errors.InputError, "found none"):
            list(labelled_files.read(self.write(text=none, label=none)))
        with self.assertRaisesRegex(errors.InputError, "no such file"):
            list(labelled_files.read(self.path("none.parquet")))

    def test_without_the_package_the_message_says_how_to_install_it(self):
        path = self.write(text=["a"])
        with mock.patch("importlib.util.find_spec", return_value=None):
            with self.assertRaisesRegex(
                errors.InputError, r"pip install 'bert-keras\[parquet\]'"
            ):
                list(labelled_files.read(path))

    def test_texts_to_predict_on_are_rows_too(self):
        path = self.write(question=["q", "r"], context=["c", "d"], id=[1, 2])
        rows = unlabelled_texts.read(path, ("question", "context"), "")
        self.assertEqual(
            list(rows),
            [
                {"question": "q", "context": "c"},
                {"question": "r", "context": "d"},
            ],
        )
        path = self.write(review=["a", "b"])
        rows = unlabelled_texts.read(path, ("text",), "text=review,label=x")
        self.assertEqual(list(rows), [{"text": "a"}, {"text": "b"}])


class CorpusTest(Case):
    TEXTS = [
        f"Story {number} is old. The film is good.\nA new line!" * (number % 3)
        for number in range(23)
    ]

    def test_documents_are_those_of_the_same_texts_as_json(self):
        lists = [["A b.", "c"], [], ["d"]]
        for texts in (self.TEXTS, lists):
            rows = [{"text": text} for text in texts]
            as_json = self.write_json("a.jsonl", rows)
            path = self.write(text=texts, number=list(range(len(texts))))
            self.assertEqual(
                list(corpus.documents([path])),
                list(corpus.documents([as_json])),
            )
            self.assertEqual(
                [each.digest for each in corpus.scan([path])],
                [each.digest for each in corpus.scan([as_json])],
            )

    def test_any_part_of_the_documents_can_be_read(self):
        path = self.write(text=self.TEXTS)
        scanned = list(corpus.scan([path]))
        complete = list(corpus.read(scanned))
        for part in (slice(3), slice(5, 15), slice(1, 15, 4), slice(14, 15)):
            self.assertEqual(list(corpus.read(scanned[part])), complete[part])

    def test_rows_after_the_last_requested_one_are_not_decoded(self):
        num_rows = 40 * parquet._ROWS
        path = self.path("a.parquet")
        pyarrow.parquet.write_table(
            pyarrow.table(
                {"text": [f"{row} good." for row in range(num_rows)]}
            ),
            path,
            row_group_size=num_rows // 2,
        )
        decoded = []

        class File(pyarrow.parquet.ParquetFile):
            def iter_batches(self, *arguments, **keywords):
                for batch in super().iter_batches(*arguments, **keywords):
                    decoded.append(batch.num_rows)
                    yield batch

        indices = [*range(5), num_rows // 2 + 1]
        with mock.patch.object(pyarrow.parquet, "ParquetFile", File):
            values = list(parquet.values(path, "text", indices))
        self.assertEqual(values, [f"{row} good." for row in indices])
        self.assertEqual(decoded, [parquet._ROWS] * 2)

    @parameterized.parameters("read", "values")
    def test_memory_does_not_grow_with_a_group_of_rows(self, name):
        path = self.path("a.parquet")
        noise = np.random.default_rng(1)
        texts = [noise.bytes(500).hex() for _ in range(20_000)]
        pyarrow.parquet.write_table(
            pyarrow.table({"text": texts}), path, compression="none"
        )
        reader = {
            "read": lambda: labelled_files.read(path),
            "values": lambda: parquet.values(path, "text"),
        }[name]
        before = pyarrow.total_allocated_bytes()
        peak = max(pyarrow.total_allocated_bytes() - before for _ in reader())
        self.assertLess(peak, os.path.getsize(path) / 3)

    def test_progress_ends_with_the_size_of_the_files(self):
        paths = [self.write(f"{n}.parquet", text=self.TEXTS) for n in (1, 2)]
        position = corpus.Position()
        list(corpus.scan(paths, position=position))
        self.assertEqual(position.bytes, sum(map(os.path.getsize, paths)))

    @parameterized.parameters(
        ({"text": ["a", None]}, "row 2.*null"), ({"text": [1, 2]}, "row 1.*1"),
        ({"body": ["a"]}, "one column 'text', found the columns 'body'"),
        ({"text": NOT_UTF8}, "row 2: expected UTF-8"),
        ({"text": [b"a", b"b\xff"]}, r"row 2: expected UTF-8 \(byte 2"),
        ({"text": [[b"a"], [b"b", b"\xff"]]}, r"row 2: expected UTF-8"),
    )  # fmt: skip
    def test_what_is_no_text_is_refused(self, columns, message):
        with self.assertRaisesRegex(errors.InputError, message):
            list(corpus.documents([self.write(**columns)]))

    def test_chunks_are_those_of_the_same_texts_as_json(self):
        texts = [f"{number} Größe 很好." * 9 for number in range(200)]
        bytes_of_text = sum(len(text.encode()) for text in texts)
        rows = [{"text": text, "id": text} for text in texts]
        chunks = {}
        for path in (self.write(text=texts), self.write_json("a.jsonl", rows)):
            partition = corpus_chunks.Partition(
                corpus.scan([path]),
                held_out=0.1,
                chunk_bytes=bytes_of_text // 10,
            )
            chunks[path] = [
                (
                    chunk.split,
                    chunk.number,
                    [document.digest for document in chunk.documents],
                )
                for chunk in partition
            ]
            self.assertEqual(partition.num_bytes, bytes_of_text)
        as_parquet, as_json = chunks.values()
        self.assertEqual(as_parquet, as_json)
        self.assertBetween(len(as_parquet), 9, 11)

    def test_a_remote_file_is_read_where_it_is(self):
        path = self.write(text=self.TEXTS)
        remote = "ram://parquet/a.parquet"
        tf.io.gfile.makedirs(os.path.dirname(remote))
        tf.io.gfile.copy(path, remote, overwrite=True)
        temporary = self.path("temporary")
        os.mkdir(temporary)
        with mock.patch.object(tempfile, "tempdir", temporary):
            scanned = list(corpus.scan([remote]))
            part = list(corpus.read(scanned[5:15]))
            rows = list(labelled_files.read(remote))
        self.assertEqual(
            part, list(corpus.read(list(corpus.scan([path]))[5:15]))
        )
        self.assertEqual(rows, list(labelled_files.read(path)))
        self.assertEmpty(os.listdir(temporary))

    def test_a_damaged_remote_file_is_refused(self):
        remote = "ram://parquet/damaged.parquet"
        tf.io.gfile.makedirs(os.path.dirname(remote))
        data = pathlib.Path(self.write(text=self.TEXTS)).read_bytes()
        for size in (0, 3, 60, len(data) - 8):
            with tf.io.gfile.GFile(remote, "wb") as file:
                file.write(data[:size])
            with self.assertRaisesRegex(errors.InputError, "cannot be read: "):
                list(corpus.scan([remote]))

    def test_another_column_can_be_the_text(self):
        texts = [f"{number} is good." for number in range(50)]
        same = {"vocab_size": 40, "seq_length": 32, "dev_fraction": 0.0}
        others = [{"body": t, "text": 1} for t in texts]
        shards = {}
        for name, path, settings in (
            ("text", self.write("text.parquet", text=texts), {}),
            (
                "body",
                self.write("body.parquet", body=texts, text=[1] * 50),
                {"text_field": "body"},
            ),
            (
                "json",
                self.write_json("body.jsonl", others),
                {"text_field": "body"},
            ),
        ):
            prepare.prepare(path, output=self.path(name), **same, **settings)
            records = records_lib.Records(self.path(f"{name}/train"))
            shards[name] = [
                shard["sha256"] for shard in records.manifest["shards"]
            ]
        self.assertEqual(shards["body"], shards["text"])
        self.assertEqual(shards["json"], shards["text"])

    def test_the_message_on_a_missing_column_names_a_flag(self):
        for path in (
            self.write(body=["One good."]),
            self.write_json("a.jsonl", [{"body": "One good."}]),
        ):
            code, _, error = mains.call(
                "trainers.prepare",
                input=path,
                output=self.path("none"),
                vocab_size=40,
            )
            self.assertEqual(code, 1)
            self.assertRegex(error, r"'body'.* in --text_field\.$")

    @pytest.mark.slow
    def test_records_are_those_of_the_same_texts_as_json(self):
        texts = [text for text in self.TEXTS if text] * 9
        texts = [f"{text} {number}" for number, text in enumerate(texts)]
        vocabulary = mains.write(
            self.path("vocab.txt"), "\n".join(tiny.VOCABULARY)
        )
        as_json = self.write_json("a.jsonl", [{"text": t} for t in texts])
        as_parquet = self.write(text=texts)
        shards = []
        for name, path, workers in (
            ("json", as_json, 1),
            ("parquet", as_parquet, 1),
            ("parallel", as_parquet, 2),
        ):
            prepare.prepare(
                path,
                output=self.path(name),
                vocab=vocabulary,
                seq_length=32,
                dev_fraction=0.1,
                shard_mb=0.001,
                workers=workers,
            )
            records = records_lib.Records(self.path(f"{name}/train"))
            shards.append(
                [shard["sha256"] for shard in records.manifest["shards"]]
            )
        # Several chunks, so that several workers share the file.
        self.assertGreater(len(shards[0]), 5)
        self.assertEqual(shards[1], shards[0])
        self.assertEqual(shards[2], shards[0])


if __name__ == "__main__":
    absltest.main()
