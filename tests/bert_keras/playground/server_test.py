"""The playground's server: what it answers, and whom and what it refuses."""

import base64
import concurrent.futures
import contextlib
import hashlib
import http.client
import io
import json
import re
import socket
import threading
import time
from unittest import mock

import pytest
from absl.testing import absltest, parameterized

from bert_keras import errors, playground
from tests.bert_keras.playground import pages

JSON = {"Content-Type": "application/json"}


def send(server, method, path, body=None, headers=()):
    """(status, headers, body) of one request, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host="Host" in dict(headers))
        headers = dict(headers)
        if body is not None and not {"Content-Length", "Transfer-Encoding"} & {
            *headers
        }:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()


def ask(server, values, **headers):
    """(status, values) of a POST /answer."""
    body = values if isinstance(values, bytes) else json.dumps(values).encode()
    status, _, reply = send(server, "POST", "/answer", body, JSON | headers)
    return status, json.loads(reply)


class ServerTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = cls.enter_context(pages.serving("classification"))

    @parameterized.parameters(*pages.CASES)
    @pytest.mark.slow_after(3)
    def test_every_task_is_answered(self, case):
        texts = pages.texts(case)
        with pages.serving(case) as server:
            _, _, model = send(server, "GET", "/model")
            columns = json.loads(model)["columns"]
            self.assertCountEqual([c["name"] for c in columns], texts)
            status, reply = ask(server, texts)
        self.assertEqual(status, 200, reply)
        self.assertNotEmpty(reply["blocks"])
        expected = pages.session(case).answer(texts)
        self.assertEqual(reply["answers"], expected["answers"])
        self.assertGreater(reply["milliseconds"], 0)

    def test_the_page_is_one_file_that_loads_nothing(self):
        status, headers, page = send(self.server, "GET", "/")
        page = page.decode()
        self.assertEqual(status, 200)
        self.assertEqual(headers["Content-Type"], "text/html; charset=utf-8")
        for pattern in (
            r"https?://", r"@import", r"url\(", r"\ssrc=", r"<link rel=\"s",
            r"\son[a-z]+=", r"\sstyle=", r"innerHTML\s*=", r"outerHTML",
            r"insertAdjacent", r"document\.write", r"\beval\(",
        ):  # fmt: skip
            self.assertNotRegex(page, pattern)

    def test_only_the_script_and_the_style_of_the_page_may_run(self):
        _, headers, page = send(self.server, "GET", "/")
        policy = dict(
            rule.split(" ", 1)
            for rule in headers["Content-Security-Policy"].split("; ")
        )
        for tag in ("script", "style"):
            (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.decode(), re.S)
            digest = hashlib.sha256(text.encode()).digest()
            source = f"'sha256-{base64.b64encode(digest).decode()}'"
            self.assertEqual(policy[f"{tag}-src"], source)
        self.assertEqual(policy["default-src"], "'none'")
        self.assertEqual(policy["connect-src"], "'self'")
        for name in ("base-uri", "form-action", "frame-ancestors"):
            self.assertEqual(policy[name], "'none'")
        self.assertEqual(policy["require-trusted-types-for"], "'script'")

    @parameterized.parameters(
        ("GET", "/", 200), ("GET", "/?id=1", 200), ("GET", "/no", 404),
        ("POST", "/answer", 411), ("OPTIONS", "/answer", 501),
        ("HEAD", "/", 200),
    )  # fmt: skip
    def test_every_answer_has_the_headers(self, method, path, status):
        got, headers, body = send(self.server, method, path, headers=JSON)
        self.assertEqual(got, status)
        for name, value in (
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.assertEqual(headers[name], value)
        self.assertIn("default-src 'none'", headers["Content-Security-Policy"])
        self.assertNotIn("Access-Control", str(headers))
        self.assertNotIn("Python", str(headers))
        self.assertEqual(bool(body), method != "HEAD")

    @parameterized.parameters(
        ("GET", "/index.html"), ("GET", "/page.html"), ("GET", "/favicon.ico"),
        ("GET", "/../../../etc/passwd"), ("GET", "/%2e%2e/page.html"),
        ("GET", "//example.com/"), ("GET", "/model/"), ("GET", "?"),
        ("GET", "/answer"), ("POST", "/"), ("POST", "/model"),
        ("POST", "/<script>"),
    )  # fmt: skip
    def test_there_are_no_other_paths(self, method, path):
        status, headers, body = send(self.server, method, path, b"", JSON)
        self.assertEqual(status, 404)
        self.assertEqual(headers["Content-Type"], "application/json")
        self.assertNotIn(b"script", body)

    @parameterized.parameters(
        "evil.com", "evil.com:8000", "localhost.evil.com", "127.0.0.1.evil.com",
        "", " ", "[::1", "a@127.0.0.1", "127.0.0.1, evil.com", "0x7f.1", None,
        "evil.com#localhost", "localhost:80:80", "\u0131.com",
    )  # fmt: skip
    def test_another_host_is_refused(self, host):
        if host and not host.isascii():
            host = host.encode()
        for method, path in (("GET", "/"), ("GET", "/model")):
            status, _, body = send(
                self.server, method, path, headers={"Host": host}
            )
            self.assertEqual(status, 421, body)
        status, reply = ask(self.server, {"text": "a"}, Host=host)
        self.assertEqual(status, 421)
        self.assertEqual([*reply], ["error"])

    @parameterized.parameters(
        "localhost", "LOCALHOST:99", "127.0.0.1", "127.0.0.1:80", "[::1]:80",
        "192.168.0.3:8000",
    )  # fmt: skip
    def test_addresses_are_accepted(self, host):
        status, _, _ = send(self.server, "GET", "/", headers={"Host": host})
        self.assertEqual(status, 200)

    @parameterized.parameters(
        {"Origin": "https://evil.com"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost:1"},
        {"Origin": "not a URL ]["},
        {"Origin": "http://["},
        {"Origin": "http://a]b"},
        {"Origin": "//[x]"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": ""},
    )
    def test_the_page_of_another_site_is_refused(self, **headers):
        status, reply = ask(self.server, {"text": "a"}, **headers)
        self.assertIn(status, (403, 415))
        self.assertEqual([*reply], ["error"])

    def test_the_own_page_is_answered(self):
        for host in ("localhost:9", "127.0.0.1", "[::1]:80"):
            status, _ = ask(
                self.server,
                {"text": "a"},
                **{
                    "Host": host,
                    "Origin": f"http://{host}",
                    "Sec-Fetch-Site": "same-origin",
                    "Content-Type": "Application/JSON; charset=utf-8",
                },
            )
            self.assertEqual(status, 200)

    @parameterized.parameters(
        (b"", "expected JSON"),
        (b"{", "expected JSON"),
        (b"\0", "expected JSON"),
        (b'{"text": "a\0"}', "expected JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b"null", "found nothing"),
        (b"NaN", "found nan"),
        (b"[]", "found a list"),
        (b'"a"', "found a string"),
        (b'{"text": 1}', "found 1"),
        (b'{"text": ["a"]}', "found a list"),
        (b'{"text": "a", "text": "b"}', "twice"),
        (b'{"texts": "a"}', "found texts"),
        (b'{"text": "a", "<b>": "b"}', "found text, <b>"),
        (b'{"text": ""}', "write one first"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5_000, "digits"),
    )
    def test_what_is_no_text_is_refused_with_a_message(self, body, message):
        status, reply = ask(self.server, body)
        self.assertEqual(status, 400)
        self.assertIn(message, reply["error"])
        self.assertNotIn("Traceback", reply["error"])
        self.assertNotIn("\n", reply["error"])

    @parameterized.parameters(
        "<script>alert(1)</script>", "</textarea><img src=x onerror=alert(1)>",
        "\u202egood\u202c \u2066film", "\ud83d good", "good \udc00", "\0",
        "a\0b", "\r\n\t", "{{7*7}}", "😀" * 50, "é" * 500, "a" * 100_000,
        "\ufeff film", "\x85\u2028", "[MASK] [SEP] [CLS]",
    )  # fmt: skip
    def test_any_text_is_answered(self, text):
        status, reply = ask(self.server, {"text": text})
        if not text.strip():
            self.assertEqual(status, 400)
            return
        self.assertEqual(status, 200, reply)
        self.assertIn(reply["answers"][0]["label"], ("bad", "so so", "好"))

    @parameterized.parameters(
        ("tagging", "text"),
        ("question_answering", "answer"),
        ("masked_lm", "token"),
    )
    def test_offsets_are_those_of_the_text_that_is_sent_back(self, case, key):
        texts = pages.texts(case)
        column = "context" if "context" in texts else "text"
        with pages.serving(case) as server:
            for odd in ("\ud83d", "\0", "\u202e", "é", "\U0001f600\u200d"):
                sent = texts | {column: f"{odd} {texts[column]}"}
                status, reply = ask(server, sent)
                self.assertEqual(status, 200, reply)
                marked = [b for b in reply["blocks"] if "spans" in b]
                (block,) = marked
                expected = []
                for answer in reply["answers"]:
                    value = answer[key]
                    expected += value if isinstance(value, list) else [value]
                self.assertEqual(
                    [
                        block["text"][span["start"] : span["end"]]
                        for span in block["spans"]
                    ],
                    list(filter(None, expected)),
                )

    def test_long_texts_are_refused(self):
        status, reply = ask(self.server, {"text": "a" * 1_000_000})
        self.assertEqual(status, 400)
        self.assertIn("at most 100,000 characters", reply["error"])
        status, reply = ask(self.server, {"text": "a" * 1_100_000})
        self.assertEqual(status, 413)
        self.assertIn("1,048,576 bytes", reply["error"])

    @parameterized.parameters(
        {"Content-Length": None}, {"Content-Length": "-1"},
        {"Content-Length": "1e3"}, {"Content-Length": "9" * 30},
        {"Transfer-Encoding": "chunked"},
        {"Transfer-Encoding": "chunked", "Content-Length": "3"},
    )  # fmt: skip
    def test_a_body_needs_its_length(self, **headers):
        status, _, _ = send(self.server, "POST", "/answer", b"", JSON | headers)
        self.assertEqual(status, 411)

    @parameterized.parameters(
        b"\0\0\0\0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.com\r\n\r\n",
        b"POST /answer HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
    )
    def test_what_is_no_request_does_no_harm(self, data):
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            address = ("127.0.0.1", self.server.server_port)
            with socket.create_connection(address) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                with connection.makefile("rb") as file:
                    reply = file.read()
        self.assertNotIn(b"Traceback", reply)
        self.assertNotIn(b"200 OK", reply)
        self.assertEqual(said.getvalue(), "")
        self.assertEqual(ask(self.server, {"text": "a"})[0], 200)

    def test_a_connection_serves_several_requests(self):
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.server.server_port
        )
        with contextlib.closing(connection):
            for _ in range(3):
                connection.request(
                    "POST", "/answer", json.dumps({"text": "a"}), JSON
                )
                reply = connection.getresponse()
                reply.read()
                self.assertEqual(reply.status, 200)

    @parameterized.parameters("GET", "HEAD")
    def test_the_body_of_a_get_is_not_parsed_as_a_request(self, method):
        body = b"GET /no HTTP/1.1\r\nHost: localhost\r\n\r\n"
        head = f"{method} / HTTP/1.1\r\nHost: localhost\r\n"
        address = ("127.0.0.1", self.server.server_port)
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(
                f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
            )
            with connection.makefile("rb") as file:
                reply = file.read()
        self.assertStartsWith(reply, b"HTTP/1.1 200")
        self.assertEqual(reply.count(b"HTTP/1.1 "), 1)


class FailingTest(absltest.TestCase):
    def _session(self, predict):
        """A session whose model answers with `predict`."""
        session = pages.session("classification")
        changed = playground.Session(session.predictor)

        class Predictor:
            task, tokenizer = session.task, session.predictor.tokenizer
            model = session.predictor.model

        Predictor.predict = staticmethod(predict)
        changed.predictor = Predictor()
        return changed

    def test_a_bug_of_the_model_is_a_line(self):
        def fail(rows):
            raise ZeroDivisionError("division\nby <b>zero</b>")

        said = io.StringIO()
        with pages.serving(self._session(fail)) as server:
            with contextlib.redirect_stderr(said):
                for _ in range(2):
                    status, reply = ask(server, {"text": "a"})
                    self.assertEqual(status, 500)
        self.assertEqual(
            reply["error"], "the model failed: ZeroDivisionError: division"
        )
        self.assertIn("Traceback", said.getvalue())  # for the terminal

    def test_numbers_that_are_not_finite_are_null(self):
        def answer(rows):
            nan = float("nan")
            return [{"label": "bad", "score": nan, "scores": [nan] * 3}]

        with pages.serving(self._session(answer)) as server:
            status, reply = ask(server, {"text": "a"})
        self.assertEqual(status, 200)
        self.assertEqual(reply["answers"][0]["scores"], [None] * 3)

    def test_the_model_is_called_by_one_request_at_a_time(self):
        running, most = threading.Semaphore(0), []
        original = pages.session("classification").predictor.predict

        def answer(rows):
            running.release()
            most.append(running._value)
            time.sleep(0.01)
            running.acquire()
            return original(rows)

        with (
            pages.serving(self._session(answer)) as server,
            concurrent.futures.ThreadPoolExecutor(8) as pool,
        ):
            texts = [{"text": word} for word in "a film is good".split()] * 4
            replies = list(pool.map(lambda each: ask(server, each), texts))
        self.assertEqual({status for status, _ in replies}, {200})
        self.assertEqual(set(most), {1})
        for text, (_, reply) in zip(texts, replies, strict=True):
            (expected,) = original([text])
            self.assertEqual(reply["answers"], [expected])

    def test_a_busy_model_refuses_in_time(self):
        session = self._session(lambda rows: [])
        with (
            mock.patch.object(playground.session, "BUSY_SECONDS", 0.01),
            session._turn(),
            pages.serving(session) as server,
        ):
            status, reply = ask(server, {"text": "a"})
        self.assertEqual(status, 503)
        self.assertIn("busy", reply["error"])


class ListenTest(parameterized.TestCase):
    def test_a_port_in_use_is_an_input_error(self):
        with playground.listen(port=0) as server:
            port = server.server_port
            with self.assertRaisesRegex(
                errors.InputError, f"port={port}: cannot listen on 127.0.0.1"
            ):
                with playground.listen(port=port):
                    pass
        with playground.listen(port=port):  # free again
            pass

    # The last one is no name that IDNA can encode.
    @parameterized.parameters("192.0.2.1", "2001:db8::1", "a..b")
    def test_a_host_of_another_machine_is_an_input_error(self, host):
        with self.assertRaisesRegex(
            errors.InputError, f"host={host}: cannot listen"
        ) as caught:
            with playground.listen(host, 0):
                pass
        self.assertEqual(caught.exception.argument, "host")

    def test_a_port_that_cannot_be_one_is_an_input_error(self):
        with self.assertRaisesRegex(errors.InputError, "port=70000: cannot"):
            with playground.listen(port=70000):
                pass

    def test_the_address_is_that_of_the_browser(self):
        for host, shown in (
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "localhost"),
            ("localhost", "localhost"),
            ("::1", "[::1]"),
        ):
            try:
                with playground.listen(host, 0) as server:
                    self.assertEqual(
                        server.url, f"http://{shown}:{server.server_port}"
                    )
            except errors.InputError:
                self.assertEqual(host, "::1")  # a machine without IPv6


if __name__ == "__main__":
    absltest.main()
