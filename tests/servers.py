"""Servers that speak as TF Serving does, with a SavedModel behind them.

Enough of its gRPC PredictionService and of its REST rows for a client to be
tried on; `refuse` makes the next requests fail with a status.
"""

import concurrent.futures
import contextlib
import http.server
import json
import threading
from collections.abc import Iterator

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class Model:
    """A loaded signature that counts its requests and may refuse some."""

    def __init__(self, path: str):
        self._served = tf.saved_model.load(path)
        self._answer = self._served.signatures["serving_default"]
        self.batches = []  # sizes, in the order they came
        self.refuse = []  # statuses of the next requests
        self.gate = threading.Event()  # unset, requests wait and are lost
        self.gate.set()

    def __call__(self, columns):
        if not self.gate.is_set():
            self.gate.wait()
            raise TypeError("nobody waits for this any more")
        (size,) = {int(tf.size(column)) for column in columns.values()}
        self.batches.append(size)
        return self._answer(**columns)


class _Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model: Model):
        self.model = model

    def Predict(self, request, context):
        if self.model.refuse:
            context.abort(self.model.refuse.pop(0), "no room")
        columns = {
            name: tf.constant(tf.make_ndarray(value))
            for name, value in request.inputs.items()
        }
        try:
            answers = self.model(columns)
        except TypeError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        reply = predict_pb2.PredictResponse()
        for name, value in answers.items():
            reply.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return reply


@contextlib.contextmanager
def grpc_server(model: Model, port: int = 0) -> Iterator[str]:
    """The address of a gRPC server, on a free port where none is named."""
    pool = concurrent.futures.ThreadPoolExecutor(2)
    server = grpc.server(pool)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _Service(model), server
    )
    port = server.add_insecure_port(f"localhost:{port}")
    server.start()
    try:
        yield f"grpc://localhost:{port}/sharp"
    finally:
        model.gate.set()
        server.stop(None).wait()
        pool.shutdown()


@contextlib.contextmanager
def rest_server(model: Model, port: int = 0) -> Iterator[str]:
    """The address of a model on a REST server, likewise."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            size = int(self.headers["Content-Length"])
            rows = json.loads(self.rfile.read(size))["instances"]
            if model.refuse:
                return self.reply(model.refuse.pop(0), {"error": "no room"})
            try:
                answers = model(
                    {
                        name: tf.constant([row[name] for row in rows])
                        for name in rows[0]
                    }
                )
            except TypeError as error:
                return self.reply(400, {"error": str(error)})
            columns = {
                name: [plain(v) for v in value.numpy().tolist()]
                for name, value in answers.items()
            }
            predictions = [
                dict(zip(columns, row, strict=True))
                for row in zip(*columns.values(), strict=True)
            ]
            return self.reply(200, {"predictions": predictions})

        def reply(self, status, body):
            body = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            # Who gave up waiting has closed the connection.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        port = server.server_address[1]
        yield f"http://localhost:{port}/v1/models/sharp"
    finally:
        model.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def other_service(protocol: str) -> Iterator[int]:
    """The port of a service that is no TF Serving."""
    if protocol == "grpc":
        pool = concurrent.futures.ThreadPoolExecutor(1)
        server = grpc.server(pool)
        port = server.add_insecure_port("localhost:0")
        server.start()
        yield port
        server.stop(None).wait()
        pool.shutdown()
        return

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


@contextlib.contextmanager
def raw_server(body: bytes, slow: str = "") -> Iterator[str]:
    """The address of a REST server that answers these bytes.

    slow: "head" or "body" comes as a byte every tenth of a second.
    """
    gone = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(body)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send(head + b"X: " + b"x" * 500, slow == "head")
                self.send(b"\r\n\r\n", False)
                self.send(body, slow == "body")

        def send(self, content, slowly):
            if not slowly:
                self.wfile.write(content)
                return
            for byte in content:
                self.wfile.write(bytes([byte]))
                if gone.wait(0.1):
                    return

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    thread = threading.Thread(
        target=server.serve_forever, args=(0.02,), daemon=True
    )
    thread.start()
    yield f"http://localhost:{server.server_address[1]}/v1/models/x"
    gone.set()
    server.shutdown()
    server.server_close()
    thread.join()


def plain(value):
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
