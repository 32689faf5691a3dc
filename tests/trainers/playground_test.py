"""The command: its address, its one-line errors, and its end by Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request

import pytest
from absl.testing import absltest

from bert_keras import checkpoint, playground
from tests import sharp, tiny
from tests.trainers import mains


@pytest.mark.slow
class PlaygroundTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.run_ = os.path.join(folder.name, "run")
        model = sharp.make("classification").model
        checkpoint.save(cls.run_, model, tiny.tokenizer(), step=1)
        cls.data = mains.write(
            os.path.join(folder.name, "dev.tsv"),
            # The first row has no text, so that it is not offered.
            "text\tlabel\n\tbad\na <i>fine</i> film\tbad\nold plot\t好\n",
        )

    def start(self, **flags):
        process = subprocess.Popen(
            [sys.executable, "-m", "trainers.playground"]
            + [f"--checkpoint={self.run_}"]
            + [f"--{name}={value}" for name, value in flags.items()],
            stderr=subprocess.PIPE,
            cwd=mains.ROOT,
            text=True,
            # A test run in the background would hand on that it ignores it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.addCleanup(process.kill)
        self.addCleanup(process.stderr.close)
        return process

    def test_it_prints_its_address_and_ends_by_ctrl_c(self):
        process = self.start(port=0, data=self.data)
        said = ""
        while "Ctrl-C" not in said:
            line = process.stderr.readline()
            self.assertTrue(line, said)
            said += line
        url = re.search(r"http://127\.0\.0\.1:\d+", said)[0]
        with urllib.request.urlopen(f"{url}/model") as reply:
            model = json.load(reply)
        self.assertEqual(
            model["examples"],
            [{"text": "a <i>fine</i> film"}, {"text": "old plot"}],
        )
        self.assertTrue(model["name"].endswith("/run"), model["name"])
        request = urllib.request.Request(
            f"{url}/answer",
            json.dumps({"text": "a film"}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:
            self.assertIn("label", json.load(reply)["answers"][0])
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, rest)
        self.assertEqual(rest.strip(), "stopped")

    def test_a_port_in_use_is_one_line_before_the_model_is_loaded(self):
        with playground.listen(port=0) as server:
            port = server.server_port
            process = self.start(port=port)
            _, said = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 1)
        (line,) = said.strip().splitlines()
        self.assertStartsWith(line, f"error: --port={port}: cannot listen")


if __name__ == "__main__":
    absltest.main()
