"""`bert-keras` for tests, whose commands run in one process, in turns.

TensorFlow takes seconds to import, so a test with dozens of commands starts one
process, and a script in its place hands over arguments, folder and streams.
"""

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import traceback

CLIENT = """\
#!{python} -SE
import json, os, socket, sys

connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
message = json.dumps([sys.argv[1:], os.getcwd()]).encode()
socket.send_fds(connection, [message], [0, 1, 2])
sys.exit(int(connection.recv(16) or 1))
"""


def start(folder, root):
    """Starts the process and writes `folder`/bert-keras; returns the process.

    root: the folder of the checkout.
    """
    address = os.path.join(folder, "socket")
    path = os.path.join(folder, "bert-keras")
    with open(path, "w", encoding="utf-8") as file:
        file.write(CLIENT.format(python=sys.executable, address=address))
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.warm_command", address],
        cwd=root,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    process.stdout.readline()  # it listens
    return process


def serve(address):
    """Runs one command for each connection."""
    import keras
    from absl import app, flags

    from bert_keras import commands

    app.define_help_flags()
    kept = set(flags.FLAGS)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            message, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
            arguments, folder = json.loads(message)
            os.chdir(folder)
            sys.argv = ["bert-keras", *arguments]
            with _standard_streams(streams):
                code = _exit_code(commands.main)
            for name in set(flags.FLAGS) - kept:
                delattr(flags.FLAGS, name)
            keras.config.set_dtype_policy("float32")
            connection.sendall(str(code).encode())
            connection.close()


@contextlib.contextmanager
def _standard_streams(descriptors):
    """Takes descriptors for standard input, output and error."""
    before = [os.dup(number) for number in range(3)]
    files = sys.stdin, sys.stdout, sys.stderr
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", closefd=False)
        for number, mode in enumerate("rww")
    )
    try:
        yield
    finally:
        for file in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                file.flush()
        sys.stdin, sys.stdout, sys.stderr = files
        for number, descriptor in enumerate(before):
            os.dup2(descriptor, number)
            os.close(descriptor)


def _exit_code(main):
    try:
        main()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code or 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(sys.argv[1])
