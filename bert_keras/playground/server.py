"""The web server of the playground: one page, for browsers of this machine.

It answers GET / (the page), GET /model and POST /answer (JSON). A site that the
user visits must not reach the model through the browser: requests need a Host
that no site can have (against DNS rebinding) and, if they have one, an Origin
that equals it. A JSON request of another origin fails at its preflight, to
which no CORS header is sent.
"""

import base64
import contextlib
import errno
import hashlib
import http.server
import importlib.resources
import ipaddress
import re
import socket
import socketserver
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from bert_keras import console, errors, predictor
from bert_keras.data import json_lines
from bert_keras.playground import session as session_lib
from bert_keras.playground import views as views_lib

MOST_BYTES = 1 << 20  # of a request's body
_READ_BYTES = 16 << 20  # of a larger body, so that its sender gets the answer
_IDLE_SECONDS = 30  # after which a connection is closed
_STOP_SECONDS = 10  # how long a stop waits for the answer in progress

_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class RequestError(Exception):
    """A request that is refused; the message is for the user."""

    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status = status


class Server(http.server.ThreadingHTTPServer):
    """Listens on an address; `run` answers with a session until Ctrl-C."""

    session: session_lib.Session

    def __init__(self, host: str, port: int):
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.host = host
        page = importlib.resources.files(__package__).joinpath("page.html")
        self.page = page.read_bytes()
        self.policy = content_security_policy(self.page.decode())
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's, which looks up the host's name in the network.
        socketserver.TCPServer.server_bind(self)
        self.server_name = self.host
        self.server_port = self.socket.getsockname()[1]

    @property
    def url(self) -> str:
        host = "localhost" if self.host in ("", "0.0.0.0", "::") else self.host
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.server_port}"

    def run(self, session: session_lib.Session) -> None:
        """Prints the address and answers requests until Ctrl-C."""
        self.session = session
        console.say(f"{session.name}: {self.url} (Ctrl-C ends)")
        try:
            self.serve_forever()
        except KeyboardInterrupt:
            console.say("stopped")
            # TensorFlow must not be running when the interpreter ends.
            session.wait(_STOP_SECONDS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints the traceback of a bug; a closed connection is not a bug."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "bert_keras", ""
    timeout = _IDLE_SECONDS

    def do_GET(self) -> None:
        # The body of such a request is not read. Close the connection, so that
        # the body is not parsed as the next request.
        if (
            "Content-Length" in self.headers
            or "Transfer-Encoding" in self.headers
        ):
            self.close_connection = True
        self._dispatch({"/": self._page, "/model": self._model})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self._dispatch({"/answer": self._answer})

    def _dispatch(self, paths: Mapping[str, Any]) -> None:
        try:
            require_local(self.headers.get_all("Host"), self.server.host)
            content = paths.get(self.path.partition("?")[0])
            if content is None:
                raise RequestError(
                    HTTPStatus.NOT_FOUND, "there is no such page."
                )
            self._send(HTTPStatus.OK, *content())
        except RequestError as error:
            # A body that was not read must not be taken for a request.
            self.close_connection = True
            self._send_error_json(error.status, str(error))

    def _page(self) -> tuple[str, bytes]:
        return "text/html; charset=utf-8", self.server.page

    def _model(self) -> tuple[str, bytes]:
        return _json(self.server.session.describe())

    def _answer(self) -> tuple[str, bytes]:
        require_same_origin(self.headers)
        texts = self._read_json()
        try:
            return _json(self.server.session.answer(texts))
        except errors.InputError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error)) from None
        except session_lib.BusyError as error:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            raise RequestError(status, str(error)) from None
        except Exception as error:
            traceback.print_exc()  # for the terminal; the page gets a line
            reason = (str(error).splitlines() or [""])[0][:300]
            raise RequestError(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                f"the model failed: {type(error).__name__}: {reason}",
            ) from None

    def _read_json(self) -> Any:
        content_type = self.headers.get("Content-Type", "")
        if content_type.partition(";")[0].strip().lower() != "application/json":
            raise RequestError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json."
            )
        length = self.headers.get("Content-Length", "")
        chunked = "Transfer-Encoding" in self.headers
        if chunked or not re.fullmatch("[0-9]{1,18}", length):
            raise RequestError(
                HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length."
            )
        if int(length) > MOST_BYTES:
            self._skip(min(int(length), _READ_BYTES))
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the text is too long: expected at most {MOST_BYTES:,} bytes, "
                f"found {int(length):,}.",
            )
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ConnectionAbortedError
        try:
            return json_lines.loads(body.decode("utf-8"))
        except UnicodeDecodeError:
            raise RequestError(
                HTTPStatus.BAD_REQUEST, "expected JSON in UTF-8."
            ) from None
        except json_lines.JsonError as error:
            raise RequestError(
                HTTPStatus.BAD_REQUEST, f"expected JSON: {error}."
            ) from None

    def _skip(self, count: int) -> None:
        while count > 0:
            data = self.rfile.read(min(count, 1 << 16))
            count -= len(data) or count

    def _send_error_json(self, status: int, message: str) -> None:
        self._send(status, *_json({"error": message}))

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", self.server.policy)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        """Answers malformed requests, and methods but GET, HEAD and POST."""
        self.close_connection = True
        self._send_error_json(code, message or HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing: the page shows what happens."""


def _json(values: Mapping[str, Any]) -> tuple[str, bytes]:
    body = predictor.as_json(values).encode("utf-8", "replace")
    return "application/json", body


def require_local(hosts: Sequence[str] | None, bound: str) -> None:
    """Raises RequestError unless the Host header names this machine.

    A page of evil.com whose name resolves to 127.0.0.1 sends its own name. An
    IP address, which no site can take over, and localhost are accepted with
    any port, since connections may be forwarded.
    bound: the host that the server was started with, which is accepted too.
    """
    name = _host_name(hosts[0]) if hosts and len(hosts) == 1 else ""
    if name in ("localhost", bound.lower()) and name:
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise RequestError(
            HTTPStatus.MISDIRECTED_REQUEST,
            "expected the address of this machine: open the page by localhost "
            "or by an IP address.",
        ) from None


def require_same_origin(headers: Any) -> None:
    """Raises RequestError for a request that another site's page sent."""
    origin = headers.get("Origin")
    is_own = origin is None or (
        origin.partition("://")[2].lower() == headers["Host"].lower()
    )
    site = headers.get("Sec-Fetch-Site", "none")
    if not is_own or site not in ("none", "same-origin"):
        raise RequestError(
            HTTPStatus.FORBIDDEN,
            "the request is from the page of another site.",
        )


def _host_name(host: str) -> str:
    """Returns the name in a Host header: "[::1]:8000" -> "::1"."""
    match = re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::[0-9]*)?", host)
    return (match[1] or match[2] or "").lower() if match else ""


def content_security_policy(page: str) -> str:
    """Returns a policy that allows the scripts and styles of `page` only.

    The page loads nothing and sends to its own server only; a string that
    becomes markup runs nothing.
    """
    sources = {
        tag: " ".join(
            f"'sha256-{_sha256(text)}'"
            for text in re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        )
        for tag in ("script", "style")
    }
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {sources['script']}",
            f"style-src {sources['style']}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@contextlib.contextmanager
def listen(host: str = "127.0.0.1", port: int = 8000) -> Iterator[Server]:
    """Opens the port, before a model is loaded; port 0 is a free one.

    Raises InputError if the port is in use or the host is not this machine's.
    """
    try:
        server = Server(host, port)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        number = getattr(error, "errno", None)
        is_port = isinstance(error, OverflowError) or (
            number in (errno.EADDRINUSE, errno.EACCES)
        )
        if is_port:
            raise errors.InputError(
                f"port={port}: cannot listen on {host} ({reason}); give "
                "another port, or 0 for a free one.",
                argument="port",
            ) from None
        raise errors.InputError(
            f"host={host}: cannot listen on it ({reason}); give an address of "
            "this machine, such as 127.0.0.1.",
            argument="host",
        ) from None
    with server:
        yield server


def serve(
    model: predictor.Predictor,
    *,
    name: str = "model",
    host: str = "127.0.0.1",
    port: int = 8000,
    examples: Iterable[Mapping[str, str]] = (),
    views: Sequence[type[views_lib.View]] = views_lib.VIEWS,
) -> None:
    """Serves a page to try a model, until Ctrl-C.

    name, examples, views: see `Session`.
    host: 127.0.0.1 is reached from this machine only; 0.0.0.0 from the network.
    port: 0: a free one. The address is printed.
    """
    with listen(host, port) as server:
        session = session_lib.Session(
            model, name=name, examples=examples, views=views
        )
        server.run(session)
