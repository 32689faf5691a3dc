"""The whole life of a model from Python, as a user without our mains."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest

from tests import tiny
from tests.trainers import mains

ROOT = pathlib.Path(__file__).absolute().parents[1]

SCRIPT = """
import json, os, pathlib, sys
import bert_keras
from bert_keras.device import tflite
from bert_keras.serving import saved_model

def refused(call, *arguments, **settings):
    try:
        call(*arguments, **settings)
    except bert_keras.InputError as error:
        return str(error)

folder = pathlib.Path(sys.argv[1])
report = bert_keras.prepare(
    [folder / "corpus.txt"], output=folder / "records",
    vocab=folder / "vocab.txt", seq_length=32, dev_fraction=0.1,
)
base = bert_keras.pretrain(
    folder / "records", output=folder / "base", model=folder / "model.json",
    steps=2, batch_size=8, masked_lm_prob=0.2,
)
rows = folder / "rows.tsv"
same = dict(output=folder / "tuned", epochs=1, batch_size=8, seq_length=16,
            precision="mixed_bfloat16")
tuned = bert_keras.finetune(
    folder / "base", rows, rows, task="classification", **same)
found = {
    "report": report,
    "filled": base.predict(["the [MASK] is good"]),
    "answers": tuned.predict(["a good film"]),
    "loaded": bert_keras.load(str(folder / "tuned")).predict(["a good film"]),
    "metrics": bert_keras.evaluate(folder / "tuned", rows),
    "served": saved_model.export(tuned, str(folder / "served")),
    "device": tflite.export(tuned, str(folder / "device"), seq_length=16),
    "policy": tuned.model.dtype_policy.name,
    "modules": sorted({name.split(".")[0] for name in sys.modules}),
    "steps": sorted(os.listdir(folder / "tuned")),
    "again": bert_keras.finetune(
        folder / "base", rows, rows, task="classification", **same,
    ).predict(["a good film"]),
    "other": refused(
        bert_keras.finetune, folder / "base", rows, rows,
        task="classification", learning_rate=1e-3, **same),
    "misspelt": refused(
        bert_keras.finetune, folder / "base", rows, rows,
        task="classification", output=folder / "x", epoch=3),
    "of_task": refused(
        bert_keras.finetune, folder / "base", rows, rows,
        task=tuned.task, output=folder / "x", seq_length=8),
    "of_records": refused(
        bert_keras.pretrain, folder / "records", output=folder / "x",
        seq_length=8),
}
print(json.dumps(found))
"""


class PythonApiTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp()
        for name, text in (
            ("corpus.txt", mains.CORPUS),
            ("vocab.txt", "\n".join(tiny.VOCABULARY)),
            ("model.json", json.dumps(tiny.bert().to_dict())),
            ("rows.tsv", "text\tlabel\n" + mains.ROWS),
        ):
            mains.write(os.path.join(cls.folder, name), text)
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT, cls.folder],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        if process.returncode:
            raise AssertionError(process.stderr)
        cls.results = json.loads(process.stdout.splitlines()[-1])

    def test_text_becomes_records_a_base_and_a_classifier(self):
        self.assertGreater(self.results["report"]["training rows"], 10)
        (filled,) = self.results["filled"]
        self.assertLen([token for token in filled["token"] if token], 1)
        (answer,) = self.results["answers"]
        self.assertIn(answer["label"], ("bad", "good"))
        self.assertEqual(self.results["answers"], self.results["loaded"])
        self.assertBetween(self.results["metrics"]["accuracy"], 0, 1)

    def test_it_is_exported_for_a_server_and_for_a_phone(self):
        for path in (self.results["served"], self.results["device"]):
            self.assertTrue(os.path.exists(path), path)

    def test_no_main_and_no_flags_are_needed(self):
        self.assertNoCommonElements(
            self.results["modules"], {"trainers", "export", "demo", "tests"}
        )

    def test_the_policy_of_training_is_not_left_behind(self):
        self.assertEqual(self.results["policy"], "float32")

    def test_the_same_call_again_gives_the_same_model(self):
        self.assertEqual(self.results["again"], self.results["answers"])

    def test_other_settings_on_the_same_folder_are_refused(self):
        self.assertRegex(
            self.results["other"],
            r"tuned was .* \(learning_rate=5e-05 before, 0.001 now\)",
        )

    def test_a_keyword_of_nobody_is_refused_by_name(self):
        self.assertEqual(
            self.results["misspelt"],
            "epoch is not a setting; did you mean epochs?",
        )
        self.assertRegex(
            self.results["of_task"], "seq_length is a field of the"
        )
        self.assertRegex(
            self.results["of_records"], "seq_length is not a setting"
        )


if __name__ == "__main__":
    absltest.main()
