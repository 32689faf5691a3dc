r"""Sends lines of text or JSON to a model in TF Serving and prints its answers.

  bert-keras client --url=http://localhost:8501/v1/models/sst2 < texts
  bert-keras client --url=grpc://localhost:8500/sst2 < texts

A line is a text; a line that starts with { is a JSON object with the model's
columns, such as text and text_pair, or question and context. Answers are JSON
lines in the order of the texts.

Padding is removed from lists. If a model returns `count`, it is the full number
of items; if the model lists fewer, a message on standard error says so at the
end.

A request has --batch_size texts. If the server is not ready or overloaded, the
request is repeated with randomized exponential backoff until --deadline seconds
after the first attempt. If it refuses connections, the client waits --start_up
seconds: TF Serving opens its ports once its models are loaded. If another
service answers on the port, the client exits at once.

In Python:

  from export import client
  with client.connect("grpc://localhost:8500/sst2") as ask:
      answers = list(ask.predict({"text": text} for text in texts))
"""

import codecs
import http.client
import itertools
import json
import queue
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import grpc
import tenacity
import tensorflow as tf
import urllib3
from absl import flags
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from bert_keras import errors, streams
from bert_keras.data import json_lines
from export import flags as common

Example = Mapping[str, str]

FIRST_PAUSE, MAX_PAUSE = 0.1, 5.0  # seconds
START_UP = 10.0  # seconds
MAX_SECONDS = (
    1_000_000.0  # seconds; sockets allow timeouts of a few weeks at most
)
# HTTP statuses worth a retry: the server is overloaded, or a proxy has no
# server yet. Any other error would repeat.
BUSY = (429, 502, 503)
# HTTP statuses of another service, or of an unknown model name.
NO_MODEL = (404, 405, 501)
MAX_ERROR_LENGTH = 2000  # characters; other services send whole HTML pages

# Parts of gRPC's error details: no connection, and a peer without HTTP/2.
_NO_CONNECTION = ("failed to connect", "errors resolving", "DNS resolution")
_NO_GRPC = ("HTTP/2", "http1.x")
_CHECK = (
    "Check the host, the port (TF Serving has gRPC on 8500 and REST on 8501) "
    "and the model's name"
)


class ServerError(OSError):
    """The server refused a request, or did not answer before the deadline."""


class UnavailableError(ServerError):
    """The server is temporarily unavailable; a retry may succeed."""


class NoConnectionError(UnavailableError):
    """The connection failed: the server is starting, or the URL is wrong."""


class Client:
    """Sends examples in batches; a context manager that closes the connection.

    send: (examples, seconds) -> one answer per example; raises UnavailableError
      if a retry may succeed, otherwise ServerError.
    deadline: seconds for each batch, including retries and their pauses.
    start_up: seconds to wait for the connection, at most `deadline`.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Example], float], list[dict[str, Any]]],
        close: Callable[[], None],
        *,
        batch_size: int = 32,
        deadline: float = 30.0,
        start_up: float = START_UP,
        pause: float = FIRST_PAUSE,
    ):
        _check_settings(batch_size, deadline, start_up)
        self._send, self._close = send, close
        self.batch_size, self.deadline = batch_size, deadline
        self.start_up = min(start_up, deadline)
        self._pause = tenacity.wait_random_exponential(
            multiplier=pause, max=MAX_PAUSE
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def predict(self, examples: Iterable[Example]) -> Iterator[dict[str, Any]]:
        """Yields an answer for each example, in order, without NumPy arrays.

        If the model returns `count`, padding is removed from lists: they have
        `count` items, or all that the model lists. Otherwise they stay padded.
        """
        if isinstance(examples, (str, bytes, Mapping)):
            raise errors.InputError(
                'expected a list of rows as {"text": "..."}, found '
                f"{json_lines.name_of(examples)}."
            )
        examples = map(_checked, examples)
        while batch := list(itertools.islice(examples, self.batch_size)):
            for example in batch:
                if example.keys() != batch[0].keys():
                    raise errors.InputError(
                        "expected the same columns in all rows; found "
                        f"{sorted(batch[0])} and {sorted(example)}."
                    )
            answers = self._ask(batch)
            if len(answers) != len(batch):
                raise ServerError(
                    f"expected {len(batch)} answers, got {len(answers)}."
                )
            yield from map(without_padding, answers)

    def _ask(self, batch: Sequence[Example]) -> list[dict[str, Any]]:
        end = time.monotonic() + self.deadline
        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnavailableError),
            wait=self._pause,
            stop=self._is_over,
            reraise=True,
        )
        return tries(
            lambda: self._send(batch, max(0.001, end - time.monotonic()))
        )

    def _is_over(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome and state.outcome.exception()
        most = (
            self.start_up
            if isinstance(error, NoConnectionError)
            else self.deadline
        )
        since_start = state.seconds_since_start or 0.0
        return since_start + state.upcoming_sleep >= most


def _check_settings(batch_size: Any, deadline: Any, start_up: Any) -> None:
    if type(batch_size) is not int or batch_size < 1:
        raise errors.InputError(
            "batch_size: expected a whole number of texts from 1, found "
            f"{batch_size!r}."
        )
    for name, value, least in (
        ("deadline", deadline, "more than 0"),
        ("start_up", start_up, "at least 0"),
    ):
        holds = (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and 0 <= value <= MAX_SECONDS  # NaN is not
            and (value > 0 or name == "start_up")
        )
        if not holds:
            raise errors.InputError(
                f"{name}: expected seconds, {least} and at most "
                f"{MAX_SECONDS:,.0f}, found {value!r}."
            )


def _checked(example: Any) -> Example:
    """Validates an example and replaces lone surrogates by U+FFFD.

    UTF-8 cannot encode lone surrogates.
    """
    if not isinstance(example, Mapping) or not example:
        raise errors.InputError(
            'expected each row as {"text": "..."} with the columns of the '
            f"model, found {example!r:.60}."
        )
    for name, value in example.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise errors.InputError(
                f"expected strings, found {json_lines.name_of(value)} in the "
                f"column {name!r:.60}."
            )
    return {
        json_lines.valid_text(name): json_lines.valid_text(value)
        for name, value in example.items()
    }


def connect(url: str, **settings: Any) -> Client:
    """Connects to http(s)://HOST:8501/v1/models/NAME or grpc://HOST:8500/NAME.

    `settings` are the keyword arguments of Client.
    """
    try:
        url_parts = urllib.parse.urlsplit(url)
        host, _ = url_parts.hostname, url_parts.port  # ValueError: out of range
        # Fail here if the host name is invalid for DNS.
        (host or "").encode("idna")
    except ValueError as error:
        host, reason = "", f" ({error})"
    else:
        reason = ""
    if host and url_parts.path.strip("/"):
        if url_parts.scheme in ("http", "https"):
            return _rest(url, settings)
        if url_parts.scheme == "grpc":
            return _grpc(url_parts.netloc, url_parts.path.strip("/"), settings)
    raise errors.InputError(
        f"--url={url}: expected http://HOST:8501/v1/models/NAME or "
        f"grpc://HOST:8500/NAME{reason}."
    )


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Runs `call` in a thread; TimeoutError if it takes more than `seconds`.

    A socket's own timeout never expires if the server keeps sending single
    bytes. After a timeout the thread is abandoned.
    """
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put((call(), None))
        except Exception as error:  # of any type: raised below
            done.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return result


def _rows(url: str, reply: Any) -> list[dict[str, Any]]:
    """Returns the predictions of a REST reply; ServerError if it has none."""
    try:
        rows = reply.json()["predictions"]
    except (ValueError, LookupError, TypeError, RecursionError):
        rows = None
    if not isinstance(rows, list):
        raise ServerError(
            f"{url} answered without predictions, so it is not TF Serving's. "
            f"{_CHECK}."
        )
    for row in rows:
        if not isinstance(row, dict):
            raise ServerError(
                f"{url} answered {row!r:.60} for a text; expected the model's "
                "outputs by name. Of a single output TF Serving's REST gives "
                "no name: ask for it by grpc://HOST:8500/NAME."
            )
    return rows


def _rest(url: str, settings: Mapping[str, Any]) -> Client:
    pool = urllib3.PoolManager(retries=False)

    def send(examples, seconds):
        def call():
            return pool.request(
                "POST",
                f"{url.rstrip('/')}:predict",
                json={"instances": list(examples)},
                timeout=urllib3.Timeout(total=seconds),
            )

        try:
            # Longer than urllib3's own timeout, so that its more specific
            # connection error comes first.
            reply = _within(seconds + 0.1, call)
        except (TimeoutError, urllib3.exceptions.ReadTimeoutError):
            raise ServerError(
                f"no answer from {url} within the deadline."
            ) from None
        except (
            urllib3.exceptions.NewConnectionError,
            urllib3.exceptions.ConnectTimeoutError,
        ) as error:
            raise NoConnectionError(
                f"no connection to {url}: {error}. {_CHECK}, and that the "
                "server runs."
            ) from None
        except urllib3.exceptions.ProtocolError as error:
            if isinstance(error.args[-1], http.client.BadStatusLine) and not (
                isinstance(error.args[-1], http.client.RemoteDisconnected)
            ):
                raise ServerError(
                    f"what listens at {url} does not speak HTTP. {_CHECK}; of "
                    "the gRPC port the URL is grpc://HOST:PORT/NAME."
                ) from None
            # For example, a container's published port without a server yet.
            raise NoConnectionError(
                f"{url} closed the connection: {error}. {_CHECK}, and that "
                "the server runs."
            ) from None
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(f"cannot ask {url}: {error}. {_CHECK}.") from None
        if reply.status == 200:
            return _rows(url, reply)
        error_class = UnavailableError if reply.status in BUSY else ServerError
        text = reply.data.decode("utf-8", "replace")[:MAX_ERROR_LENGTH]
        check = f" {_CHECK}." if reply.status in NO_MODEL else ""
        raise error_class(f"{url} answered {reply.status}: {text}{check}")

    return Client(send, pool.clear, **settings)


def _grpc(target: str, name: str, settings: Mapping[str, Any]) -> Client:
    channel = grpc.insecure_channel(
        target,
        # No limit on the size of answers; the default is 4 MB.
        # min_reconnect_backoff: a port that accepts connections and stays
        # silent fails after 5 seconds; the default is 20.
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.min_reconnect_backoff_ms", 5000),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ],
    )
    service = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def send(examples, seconds):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = name
        for column in examples[0]:
            values = [
                example[column].encode("utf-8", "replace")
                for example in examples
            ]
            request.inputs[column].CopyFrom(tf.make_tensor_proto(values))
        try:
            reply = service.Predict(request, timeout=seconds)
        except grpc.RpcError as error:
            raise _grpc_error(error, target) from None
        try:
            columns = {
                column: _strings(tf.make_ndarray(value).tolist())
                for column, value in reply.outputs.items()
            }
            return [
                dict(zip(columns, row, strict=True))
                for row in zip(*columns.values(), strict=True)
            ]
        # An output is a scalar, has too few rows, or has an unknown dtype.
        except (TypeError, ValueError) as error:
            raise ServerError(
                f"{target} answered outputs without a row for each text "
                f"({error}). {_CHECK}."
            ) from None

    return Client(send, channel.close, **settings)


def _grpc_error(error: grpc.RpcError, target: str) -> ServerError:
    """Converts a gRPC error to the matching ServerError class."""
    busy = {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
    no_model = {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND}
    details = error.details() or ""
    if error.code() == grpc.StatusCode.UNAVAILABLE:
        if any(sign in details for sign in _NO_GRPC):
            return ServerError(
                f"what listens at {target} does not speak gRPC. "
                f"{_CHECK}; of the REST port the URL is "
                "http://HOST:PORT/v1/models/NAME."
            )
        if any(sign in details for sign in _NO_CONNECTION):
            return NoConnectionError(
                f"no connection to {target}: {details}. {_CHECK}, and "
                "that the server runs."
            )
    error_class = UnavailableError if error.code() in busy else ServerError
    check = f" {_CHECK}." if error.code() in no_model else ""
    return error_class(
        f"{target} answered {error.code().name}: "
        f"{details[:MAX_ERROR_LENGTH]}{check}"
    )


def _strings(value: Any) -> Any:
    if isinstance(value, list):
        return [_strings(item) for item in value]
    return (
        value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    )


def without_padding(answer: dict[str, Any]) -> dict[str, Any]:
    """Truncates padded lists of an answer to its `count`, if it has one."""
    count = _count(answer)
    if count is None:
        return answer

    def is_padded(value: Any) -> bool:
        # Do not truncate other lists, such as an embedding vector.
        return isinstance(value, list) and all(
            item in ("", -1, 0) for item in value[count:]
        )

    return {
        name: value[:count] if is_padded(value) else value
        for name, value in answer.items()
    }


def _count(answer: Mapping[str, Any]) -> int | None:
    """Returns the answer's `count`, or None if it has no valid one."""
    count = answer.get("count")
    return count if type(count) is int and count >= 0 else None


def _listed(answer: Mapping[str, Any]) -> int:
    """Returns the length of the answer's longest list."""
    lists = [v for v in answer.values() if isinstance(v, list)]
    return max(map(len, lists), default=0)


def read(lines: Iterable[str]) -> Iterator[Example]:
    """Parses lines of text or JSON; InputError names an invalid line."""
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if number == 1:
            line = line.removeprefix("\ufeff")
        if "\r" in line:
            raise errors.InputError(
                f"line {number}: expected lines that end in LF or CR LF, found "
                "a CR within one. Convert the input, for example with "
                "tr '\\r' '\\n'; within a text of JSON write \\r."
            )
        if not line.startswith("{"):
            yield {"text": json_lines.valid_text(line)}
            continue
        example = json_lines.object_of(line, number)
        if not example:
            raise errors.InputError(
                f"line {number}: expected the model's columns, found none."
            )
        for name, value in example.items():
            if not isinstance(value, str):
                raise errors.InputError(
                    f"line {number}: expected strings, found "
                    f"{json_lines.name_of(value)} in the column {name!r}."
                )
        yield example


class Decoded:
    """Decodes lines as UTF-8; `replaced` are the numbers of invalid lines.

    Invalid bytes become U+FFFD; the server would drop them silently.
    """

    def __init__(self, lines: Iterable[bytes]):
        self._lines = lines
        self.replaced: list[int] = []

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(self._lines, 1):
            if number == 1 and line.startswith(
                (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            ):
                raise errors.InputError(
                    "expected UTF-8, found UTF-16. Convert the input, for "
                    "example with iconv -f UTF-16 -t UTF-8."
                )
            try:
                yield line.decode()
            except UnicodeDecodeError:
                self.replaced.append(number)
                yield line.decode("utf-8", "replace")


def define_flags() -> None:
    flags.DEFINE_string("url", "", "Of the model: http://... or grpc://...")
    flags.DEFINE_integer("batch_size", 32, "Texts in a request.", 1)
    flags.DEFINE_float(
        "deadline", 30.0, "Seconds for a request with its further tries.", 0.0
    )
    flags.DEFINE_float(
        "start_up",
        START_UP,
        "Seconds, at most --deadline, to wait for a server that takes no "
        "connection.",
        0.0,
    )


def main() -> None:
    settings = flags.FLAGS
    if sys.stdin is None:  # closed by the shell
        raise errors.InputError(
            "standard input is closed; expected texts there, a line each."
        )
    with connect(
        common.required("url"),
        batch_size=settings.batch_size,
        deadline=settings.deadline,
        start_up=settings.start_up,
    ) as client:
        # Bytes, not sys.stdin: UTF-8 in any locale, and a lone CR does not end
        # a line.
        lines, less = Decoded(sys.stdin.buffer), []
        with streams.until_reader_leaves():
            for number, answer in enumerate(client.predict(read(lines)), 1):
                print(json.dumps(answer, ensure_ascii=False), flush=True)
                count = _count(answer) or 0
                if count > _listed(answer):
                    less.append((number, _listed(answer), count))
    if lines.replaced:
        _say(
            f"{len(lines.replaced)} lines were not UTF-8, the first of them "
            f"line {lines.replaced[0]}; U+FFFD was put for the bytes that are "
            "none."
        )
    if less:
        number, listed, count = less[0]
        _say(
            f"{len(less)} answers list less than was found, the first that of "
            f"line {number}: {listed} of {count}. An export with a larger "
            "--max_entities lists more."
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def run() -> None:
    common.run(main, define_flags)


if __name__ == "__main__":
    run()
