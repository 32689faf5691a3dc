import io
import os
import subprocess
import sys

from absl.testing import absltest, parameterized

from bert_keras import streams

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")

ECHO = """
import sys
from bert_keras import streams
streams.as_utf8(sys.stdout)
with streams.until_reader_leaves():
    for line in streams.as_utf8(sys.stdin):
        print(line.strip(), flush=True)
print("the end", file=sys.stderr)
"""


class StreamsTest(parameterized.TestCase):
    def start(self, **environment):
        return subprocess.Popen(
            [sys.executable, "-c", ECHO],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **environment},
        )

    @parameterized.parameters(
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
        {},
    )
    def test_text_is_utf8_in_any_locale(self, **environment):
        text = "很 é 😀\n".encode()
        out, said = self.start(**environment).communicate(text)
        self.assertEqual((out, said), (text, b"the end\n"))

    def test_bytes_that_are_not_utf8_are_an_error_in_any_locale(self):
        process = self.start(LC_ALL="C", PYTHONUTF8="0")
        _, said = process.communicate(b"\xff\n")
        self.assertIn(b"UnicodeDecodeError", said)

    def test_a_reader_that_leaves_ends_it_quietly(self):
        process = self.start()
        process.stdin.write(b"one\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), b"one\n")
        process.stdout.close()
        _, said = process.communicate(b"two\n" * 10_000)
        self.assertEqual(said, b"the end\n")
        self.assertEqual(process.returncode, 0)

    def test_other_objects_in_place_of_a_stream_stay_as_they_are(self):
        stream = io.StringIO("很")
        self.assertIs(streams.as_utf8(stream), stream)


if __name__ == "__main__":
    absltest.main()
