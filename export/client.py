r"""Asks a model that TF Serving serves: lines or JSON lines in, answers out.

  python -m export.client --url=http://localhost:8501/v1/models/sst2 < texts
  python -m export.client --url=grpc://localhost:8500/sst2 < texts

A line is a text; one that begins with { is a JSON object with the columns of
the model, as text and text_pair, or question and context. Answers are JSON
lines in the order of the texts.

Lists hold what was found and no padding. `count`, where a model gives it, is
the true number; where it is more than the model lists, a line on standard error
says so in the end.

--batch_size texts make a request. A server that is not ready or has no room is
asked again, each time after a longer pause of random length, until --deadline
seconds have gone by since the first try. One that takes no connection is waited
for --start_up seconds: TF Serving opens its ports when its models are loaded. A
port where something else answers ends the client at once.

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

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds
START_UP = 10.0  # seconds
LONGEST = 1_000_000.0  # seconds; sockets take no more than some weeks
# The server is full, or a proxy finds none: a moment later it may answer.
# Anything else it would refuse again.
BUSY = (429, 502, 503)
# Another service, or no model of this name.
NO_MODEL = (404, 405, 501)
MOST_OF_AN_ERROR = 2000  # characters; another service answers with whole pages

# What gRPC tells where no server answered, and where one did not speak HTTP/2.
_NO_CONNECTION = ("failed to connect", "errors resolving", "DNS resolution")
_NO_GRPC = ("HTTP/2", "http1.x")
_CHECK = (
    "Check the host, the port (TF Serving has gRPC on 8500 and REST on 8501) "
    "and the model's name"
)


class ServerError(OSError):
    """The server refused a request, or gave no answer in time."""


class UnavailableError(ServerError):
    """Nobody answered, but somebody may soon."""


class NoConnectionError(UnavailableError):
    """Nothing listens there: a server that is starting, or a wrong address."""


class Client:
    """Sends rows in batches; a context manager that closes the connection.

    send: (rows, seconds) -> one answer a row; raises UnavailableError where
      another try may help, and ServerError where it will not.
    deadline: seconds for each batch, pauses and further tries included.
    start_up: of these, the seconds to wait for a first connection.
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
            multiplier=pause, max=LONGEST_PAUSE
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def predict(self, examples: Iterable[Example]) -> Iterator[dict[str, Any]]:
        """An answer for each row, in order; lists and strings, no arrays.

        Lists hold `count` items, or all where that is more than the model
        lists; of a model without `count` they are padded.
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
            and 0 <= value <= LONGEST  # NaN is not
            and (value > 0 or name == "start_up")
        )
        if not holds:
            raise errors.InputError(
                f"{name}: expected seconds, {least} and at most "
                f"{LONGEST:,.0f}, found {value!r}."
            )


def _checked(example: Any) -> Example:
    """The row with U+FFFD for lone surrogates, which no UTF-8 has."""
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
    """A Client of http(s)://HOST:8501/v1/models/NAME or grpc://HOST:8500/NAME.

    `settings` are those of Client.
    """
    try:
        url_parts = urllib.parse.urlsplit(url)
        host, _ = url_parts.hostname, url_parts.port  # ValueError: out of range
        # The labels of a name, as the system is asked for it.
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
    """What the call returns or raises; TimeoutError where it takes longer.

    A server that sends a byte now and then never lets a socket time out. The
    thread of such a call is left to itself.
    """
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put((call(), None))
        except Exception as error:  # of whatever kind: raised below
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
    """The answers in a body of TF Serving; ServerError where there are none."""
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
            # A little longer: where no connection is made, that is said.
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
            # As a container's port that leads to no server yet.
            raise NoConnectionError(
                f"{url} closed the connection: {error}. {_CHECK}, and that "
                "the server runs."
            ) from None
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(f"cannot ask {url}: {error}. {_CHECK}.") from None
        if reply.status == 200:
            return _rows(url, reply)
        error_class = UnavailableError if reply.status in BUSY else ServerError
        text = reply.data.decode("utf-8", "replace")[:MOST_OF_AN_ERROR]
        check = f" {_CHECK}." if reply.status in NO_MODEL else ""
        raise error_class(f"{url} answered {reply.status}: {text}{check}")

    return Client(send, pool.clear, **settings)


def _grpc(target: str, name: str, settings: Mapping[str, Any]) -> Client:
    channel = grpc.insecure_channel(
        target,
        # Long texts and their answers; the standard limit is 4 MB.
        # A port that takes connections and is mute fails as soon as one that
        # takes none is tried again; the standard is 20 seconds.
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
        # A tensor without rows, of fewer rows, or of no numbers and strings.
        except (TypeError, ValueError) as error:
            raise ServerError(
                f"{target} answered outputs without a row for each text "
                f"({error}). {_CHECK}."
            ) from None

    return Client(send, channel.close, **settings)


def _grpc_error(error: grpc.RpcError, target: str) -> ServerError:
    """What a failed call means for whoever asked."""
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
        f"{details[:MOST_OF_AN_ERROR]}{check}"
    )


def _strings(value: Any) -> Any:
    if isinstance(value, list):
        return [_strings(item) for item in value]
    return (
        value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    )


def without_padding(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with lists of `count` items, if it has a `count`."""
    count = _count(answer)
    if count is None:
        return answer

    def is_padded(value: Any) -> bool:
        # Not a vector, which another task may give beside its lists.
        return isinstance(value, list) and all(
            item in ("", -1, 0) for item in value[count:]
        )

    return {
        name: value[:count] if is_padded(value) else value
        for name, value in answer.items()
    }


def _count(answer: Mapping[str, Any]) -> int | None:
    """What the model counts; None where it counts nothing."""
    count = answer.get("count")
    return count if type(count) is int and count >= 0 else None


def _listed(answer: Mapping[str, Any]) -> int:
    """The length of the longest list."""
    lists = [v for v in answer.values() if isinstance(v, list)]
    return max(map(len, lists), default=0)


def read(lines: Iterable[str]) -> Iterator[Example]:
    """The rows of lines; InputError names a line that is none."""
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
    """Lines of bytes as text; `replaced` are those that were not UTF-8.

    The server would pass over such bytes; here they become U+FFFD.
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
        # Not by the locale, and a CR alone ends no line.
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


if __name__ == "__main__":
    common.run(main, define_flags)
