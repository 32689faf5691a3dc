import contextlib
import io
import json
import os
import socket
import sys
import tempfile
import time
from unittest import mock

import grpc
from absl.testing import absltest, flagsaver, parameterized

from bert_keras import errors
from bert_keras.serving import saved_model
from export import client
from tests import servers, sharp

TEXTS = ["a very good film", "坏 电影", "", "😀 dull plot"] * 3

BUSY = {"grpc": grpc.StatusCode.UNAVAILABLE, "rest": 503}
BAD = {"grpc": grpc.StatusCode.INTERNAL, "rest": 500}


class ClientTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.predictor = sharp.make("classification")
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        path = saved_model.export(cls.predictor, folder)
        cls.model = servers.Model(path)
        cls.urls = {
            "grpc": stack.enter_context(servers.grpc_server(cls.model)),
            "rest": stack.enter_context(servers.rest_server(cls.model)),
        }

    def setUp(self):
        super().setUp()
        self.model.batches.clear()
        self.model.refuse.clear()

    def ask(self, protocol, texts=TEXTS, **settings):
        settings = {"pause": 1e-3, **settings}
        with client.connect(self.urls[protocol], **settings) as asked:
            return list(asked.predict({"text": text} for text in texts))

    def run_main(self, url, lines):
        """Lines of standard output, and all of standard error."""
        lines = io.TextIOWrapper(io.BytesIO(lines), "utf-8")
        out, err = io.StringIO(), io.StringIO()
        if "url" not in client.flags.FLAGS:
            client.define_flags()
        with (
            flagsaver.as_parsed(url=url),
            mock.patch.object(sys, "stdin", lines),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            client.main()
        return out.getvalue().splitlines(), err.getvalue()

    @parameterized.parameters("grpc", "rest")
    def test_answers_are_the_models_in_order(self, protocol):
        answers = self.ask(protocol, batch_size=5)
        self.assertEqual(self.model.batches, [5, 5, 2])
        expected = self.predictor.predict(TEXTS)
        self.assertEqual(
            [a["label"] for a in answers], [a["label"] for a in expected]
        )
        for answer, wanted in zip(answers, expected, strict=True):
            self.assertSequenceAlmostEqual(
                answer["scores"], wanted["scores"], delta=1e-5
            )
            self.assertIs(answer["truncated"], False)

    @parameterized.parameters("grpc", "rest")
    def test_no_texts_are_no_request(self, protocol):
        self.assertEmpty(self.ask(protocol, texts=[]))
        self.assertEmpty(self.model.batches)

    @parameterized.parameters("grpc", "rest")
    def test_a_busy_server_is_asked_again(self, protocol):
        self.model.refuse = [BUSY[protocol]] * 3
        self.assertLen(self.ask(protocol), len(TEXTS))
        self.assertEmpty(self.model.refuse)
        self.assertEqual(self.model.batches, [len(TEXTS)])

    @parameterized.parameters("grpc", "rest")
    def test_a_server_that_fails_is_asked_once(self, protocol):
        self.model.refuse = [BAD[protocol]] * 2
        with self.assertRaisesRegex(client.ServerError, "no room") as caught:
            self.ask(protocol)
        self.assertNotIsInstance(caught.exception, client.UnavailableError)
        self.assertLen(self.model.refuse, 1)

    @parameterized.parameters("grpc", "rest")
    def test_tries_end_with_the_deadline(self, protocol):
        self.model.refuse = [BUSY[protocol]] * 100_000
        # The last try may be cut off by it.
        with self.assertRaisesRegex(client.ServerError, "(?i)room|deadline"):
            self.ask(protocol, deadline=0.2)
        self.assertLess(len(self.model.refuse), 100_000 - 1)
        self.assertEmpty(self.model.batches)

    @parameterized.parameters("grpc", "rest")
    def test_an_answer_after_the_deadline_is_an_error(self, protocol):
        self.model.gate.clear()
        self.addCleanup(self.model.gate.set)
        with self.assertRaisesRegex(client.ServerError, "(?i)deadline"):
            self.ask(protocol, deadline=0.2)

    @parameterized.parameters(
        "grpc://localhost:1/sharp", "http://localhost:1/v1/models/sharp"
    )
    def test_where_nobody_listens(self, url):
        began = time.monotonic()
        with client.connect(url, deadline=30, start_up=0.2) as asked:
            with self.assertRaisesRegex(
                client.NoConnectionError, "Check the host, the port"
            ):
                list(asked.predict([{"text": "a"}]))
        self.assertLess(time.monotonic() - began, 10)

    @parameterized.parameters("grpc", "rest")
    def test_a_server_that_starts_is_waited_for(self, protocol):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        url = {
            "grpc": f"grpc://localhost:{port}/sharp",
            "rest": f"http://localhost:{port}/v1/models/sharp",
        }[protocol]
        start = {"grpc": servers.grpc_server, "rest": servers.rest_server}
        asked, tries = client.connect(url, pause=1e-2), []
        send = asked._send

        def counted(rows, seconds):
            tries.append(len(rows))
            if len(tries) == 3:
                stack.enter_context(start[protocol](self.model, port))
            return send(rows, seconds)

        with contextlib.ExitStack() as stack, asked:
            with mock.patch.object(asked, "_send", counted):
                self.assertLen(list(asked.predict([{"text": "a"}])), 1)
        self.assertGreater(len(tries), 2)

    @parameterized.product(
        url=(
            "grpc://localhost:{}/sharp",
            "http://localhost:{}/v1/models/sharp",
        ),
        protocol=("grpc", "rest"),
    )
    def test_another_service_ends_the_first_try(self, url, protocol):
        with servers.other_service(protocol) as port:
            asked, tries = client.connect(url.format(port), pause=1e-3), []
            send = asked._send

            def counted(rows, seconds):
                tries.append(len(rows))
                return send(rows, seconds)

            with asked, mock.patch.object(asked, "_send", counted):
                with self.assertRaisesRegex(
                    client.ServerError, "8500 and REST on 8501"
                ):
                    list(asked.predict([{"text": "a"}]))
        self.assertLen(tries, 1)

    @parameterized.parameters("grpc", "rest")
    def test_a_column_that_is_not_the_models(self, protocol):
        with client.connect(self.urls[protocol]) as asked:
            with self.assertRaisesRegex(client.ServerError, "question"):
                list(asked.predict([{"question": "who?"}]))

    def test_rows_of_unlike_columns(self):
        with client.connect(self.urls["grpc"]) as asked:
            rows = [{"text": "a"}, {"text": "a", "text_pair": "b"}]
            with self.assertRaisesRegex(errors.InputError, "text_pair"):
                list(asked.predict(rows))

    @parameterized.parameters(
        (["abc"], "'abc'"),
        ("abc", "a string"),
        ({"text": "abc"}, "an object"),
        ([{}], "the columns of the model"),
        ([None], "None"),
        ([{"text": None}], "null.* in the column 'text'"),
        ([{"text": b"abc"}], "bytes in the column 'text'"),
        ([{5: "abc"}], "the column 5"),
    )
    def test_rows_that_are_none(self, rows, message):
        for url in self.urls.values():
            with client.connect(url) as asked:
                with self.assertRaisesRegex(errors.InputError, message):
                    list(asked.predict(rows))
        self.assertEmpty(self.model.batches)

    @parameterized.parameters("grpc", "rest")
    def test_half_a_character_is_answered(self, protocol):
        self.assertEqual(
            self.ask(protocol, ["\ud800 film"]),
            self.ask(protocol, ["\ufffd film"]),
        )

    @parameterized.parameters(
        *(("batch_size", value) for value in (0, -1, 2.5, True, None)),
        *(
            ("deadline", value)
            for value in (0, -1, float("nan"), float("inf"), 1e12, "9", None)
        ),
        *(("start_up", value) for value in (-1, float("nan"), float("inf"))),
    )
    def test_a_setting_that_cannot_be(self, name, value):
        for url in self.urls.values():
            with self.assertRaisesRegex(errors.InputError, f"{name}: .*found"):
                client.connect(url, **{name: value})

    @parameterized.parameters(
        *(b"null", b'"x"', b"5", b"[1.0]", b'["good"]', b'{"a": 1}'),
        *(b'{"predictions": 5}', b'{"predictions": null}', b"{", b"\xff"),
        *(b'{"predictions": {"a": [1]}}', b"[" * 100_000),
        b'{"predictions": ' + b"[" * 100_000,
    )
    def test_a_reply_that_is_not_tf_servings(self, body):
        with servers.raw_server(body) as url:
            with client.connect(url) as asked:
                with self.assertRaisesRegex(
                    client.ServerError, "without predictions"
                ):
                    list(asked.predict([{"text": "a"}]))

    @parameterized.parameters("0.5", '"good"', "null", "[0.1, 0.2]")
    def test_a_single_output_has_no_name_over_rest(self, value):
        with servers.raw_server(b'{"predictions": [%s]}' % value.encode()) as u:
            with client.connect(u) as asked:
                with self.assertRaisesRegex(client.ServerError, "grpc://HOST"):
                    list(asked.predict([{"text": "a"}]))

    @parameterized.parameters(
        ({"count": "2"},),
        ({"count": -1, "type": ["A", ""]},),
        ({"count": 2.5},),
    )
    def test_a_count_that_is_none_cuts_no_list(self, answer):
        body = json.dumps({"predictions": [answer]}).encode()
        with servers.raw_server(body) as url:
            out, _ = self.run_main(url, b"a\n")
        self.assertEqual(list(map(json.loads, out)), [answer])

    @parameterized.parameters("head", "body")
    def test_a_byte_now_and_then_keeps_no_deadline_open(self, part):
        with servers.raw_server(b" " * 500, slow=part) as url:
            began = time.monotonic()
            with client.connect(url, deadline=0.5) as asked:
                with self.assertRaisesRegex(client.ServerError, "the deadline"):
                    list(asked.predict([{"text": "a"}]))
        self.assertLess(time.monotonic() - began, 5)

    def test_closed_standard_input_is_said(self):
        if "url" not in client.flags.FLAGS:
            client.define_flags()
        with (
            flagsaver.as_parsed(url=self.urls["rest"]),
            mock.patch.object(sys, "stdin", None),
            self.assertRaisesRegex(errors.InputError, "standard input"),
        ):
            client.main()

    @parameterized.parameters(
        *(f"{kind}://[::1/v1/models/x" for kind in ("http", "grpc")),
        "http://localhost:99999999/v1/models/x",
        "http://localhost:port/v1/models/x",
        "http://a..b/v1/models/x",
        "http:///v1/models/x",
        "grpc://:8500/x",
    )
    def test_a_host_or_port_that_is_none(self, url):
        with self.assertRaisesRegex(errors.InputError, "expected http://"):
            client.connect(url)

    @parameterized.parameters(
        "localhost:8501", "http://localhost:8501", "grpc://localhost:8500", ""
    )
    def test_an_address_that_is_none(self, url):
        with self.assertRaisesRegex(errors.InputError, "expected http://"):
            client.connect(url)

    @parameterized.parameters("grpc", "rest")
    def test_the_command_reads_lines_and_writes_json_lines(self, protocol):
        lines = 'a film\n{"text": "很好"}\n\n'.encode() + b"\xff film\n"
        out, err = self.run_main(self.urls[protocol], lines)
        self.assertIn("1 lines were not UTF-8, the first of them line 4", err)
        answers = list(map(json.loads, out))
        expected = self.predictor.predict(["a film", "很好", "", "film"])
        self.assertEqual(
            [a["label"] for a in answers], [a["label"] for a in expected]
        )

    def test_a_reader_that_leaves_ends_it_quietly(self):
        lines = io.TextIOWrapper(io.BytesIO(b"a film\n" * 9), "utf-8")
        reader, writer = os.pipe()
        os.close(reader)
        if "url" not in client.flags.FLAGS:
            client.define_flags()
        with (
            flagsaver.as_parsed(url=self.urls["rest"], batch_size="3"),
            mock.patch.object(sys, "stdin", lines),
            open(writer, "w", encoding="utf-8") as out,
            contextlib.redirect_stdout(out),
        ):
            client.main()
        self.assertEqual(self.model.batches, [3])

    def test_lists_are_without_padding_and_say_where_more_was_found(self):
        predictor = sharp.make("tagging")
        rows = ["a film 电影 好 坏 " * 8, "", "好 电影"]
        expected = predictor.predict(rows)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            path = os.path.join(folder, "1")
            saved_model.save(
                predictor, path, max_characters=1000, max_entities=4
            )
            model = servers.Model(path)
            for server in (servers.grpc_server, servers.rest_server):
                url = stack.enter_context(server(model))
                out, err = self.run_main(url, "\n".join(rows).encode())
                for want, line in zip(expected, out, strict=True):
                    answer = json.loads(line)
                    self.assertEqual(answer["count"], len(want["type"]))
                    for name in ("type", "text", "start", "end"):
                        self.assertEqual(answer[name], want[name][:4], name)
                count = len(expected[0]["type"])
                self.assertGreater(count, 4)
                self.assertIn(f"1: 4 of {count}", err)

    @parameterized.parameters(
        {"scores": [0.5, 0.25], "label": "good"},
        {"type": ["A", "", ""], "start": [3, -1, -1]},
        {"count": 1, "embedding": [0.5, 0.25]},
    )
    def test_what_is_no_padding_stays(self, **answer):
        self.assertEqual(client.without_padding(answer), answer)

    @parameterized.parameters(
        ('{"text": 5}', "5 in the column 'text'"),
        ('{"text": null}', "null.* in the column 'text'"),
        ('{"text": NaN}', "nan in the column 'text'"),
        ('{"text": true}', "true in the column 'text'"),
        ('{"text": "a", "text_pair": {}}', "object in the column 'text_pair'"),
        ('{"a": ["b"]}', "a list in the column 'a'"),
    )
    def test_a_line_whose_values_are_no_strings(self, line, type_name):
        with self.assertRaisesRegex(
            errors.InputError, f"line 2: expected strings, found .*{type_name}"
        ):
            list(client.read(["a", line]))

    @parameterized.parameters(
        ("{", "line 2 begins with"),
        ('{"text": "a"} b', "line 2 begins with"),
        ('{"a": ' + "[" * 100_000, "line 2 .* nested too deeply"),
        ('{"text": ' + "9" * 5_000 + "}", "line 2 .* 4,300 digits"),
        ('{"text": "a", "text": "b"}', "line 2 .* key 'text' twice"),
        ("{}", "line 2: expected the model's columns"),
        ("a\rb", "line 2: .* CR within"),
    )
    def test_a_line_that_is_none(self, line, message):
        with self.assertRaisesRegex(errors.InputError, message):
            list(client.read(["a", line]))

    def test_what_only_marks_or_breaks_the_encoding(self):
        half = '{"text": "\\ud83d film"}'
        self.assertEqual(
            [row["text"] for row in client.read(["\ufeff" + half, half])],
            ["\ufffd film"] * 2,
        )
        self.assertEqual(
            list(client.read(["\ufeffa\r\n", "\ufeffb", "c\ud83d"])),
            [{"text": "a"}, {"text": "\ufeffb"}, {"text": "c\ufffd"}],
        )
        lines = client.Decoded([b"a\n", b"\xff b\n", b"\xe5\n"])
        self.assertEqual(list(lines), ["a\n", "\ufffd b\n", "\ufffd\n"])
        self.assertEqual(lines.replaced, [2, 3])
        with self.assertRaisesRegex(errors.InputError, "iconv -f UTF-16"):
            list(client.Decoded(["a".encode("utf-16")]))


if __name__ == "__main__":
    absltest.main()
