r"""Checks the files of an exported version against its manifest.

  bert-keras verify --model=served/sst2/1
  bert-keras verify --model=served/sst2/1 --server=2.18.0

Every version contains assets.extra/manifest.json: the settings of task, network
and tokenizer, the signatures, the ops a server must have, the differences from
the checkpoint's answers, and the SHA-256 of every file. A missing, changed or
new file is an error that names it. With --server it is also an error, with the
reason, if that version of TF Serving cannot serve the model.
"""

from absl import flags

from bert_keras import console
from bert_keras.serving import compatibility, manifest
from export import flags as common


def define_flags() -> None:
    flags.DEFINE_string("model", "", "A version's folder, as served/sst2/1.")
    flags.DEFINE_string(
        "server", "", "Version of a TF Serving that is to serve it, as 2.20.0."
    )


def main() -> None:
    folder, server = common.required("model"), flags.FLAGS.server
    key = compatibility.require_server(server) if server else ""
    described = manifest.check(folder)
    values = {
        "files": f"{len(described['files'])}, all as exported",
        "task": described["task"]["name"],
        "precision": described["precision"],
        "signatures": ", ".join(described["signatures"]),
        "the server needs": ", ".join(described["text_ops"]),
        "made with": ", ".join(
            " ".join(item) for item in described["versions"].items()
        ),
        **manifest.format_parity(described),
        "TF Serving": compatibility.format_servers(described),
    }
    if key:
        lacks = compatibility.problems(described, key)
        if lacks:
            raise manifest.DamagedError(
                f"TF Serving {server} cannot serve {folder}: "
                f"{manifest.printable('; '.join(lacks))}."
            )
        values[f"TF Serving {server}"] = (
            f"can serve it; {compatibility.remark(key)}"
        )
    console.table(
        folder,
        {
            manifest.printable(name): manifest.printable(value)
            for name, value in values.items()
        },
    )


def run() -> None:
    common.run(main, define_flags)


if __name__ == "__main__":
    run()
