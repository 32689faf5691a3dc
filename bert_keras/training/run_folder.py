"""Identifies runs and protects their folders from other runs.

`settings.json` identifies the run of a folder: its command, its settings, and
fingerprints of its inputs. Resuming with anything else would mix two runs, so
it is refused, from Python and from the command line. Only files that the run
writes are touched.
"""

import contextlib
import dataclasses
import fnmatch
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import tensorflow as tf

from bert_keras import checkpoint, errors, files, locks, options
from bert_keras import model as model_lib
from bert_keras.data import corpus
from bert_keras.data import records as records_lib
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.training import cluster
from bert_keras.training import settings as settings_lib
from bert_keras.wrappers import base as wrappers

IDENTITY, FLAGS = "settings.json", "flags.txt"

# Glob patterns of the files that training and preparation write.
TRAINING = (
    "log.jsonl*",
    "tensorboard",
    "mlflow",
    "records",
    "profile",
    "best",
    "latest",
    "step-*",
)
PREPARATION = (
    "vocab.txt",
    "train",
    "dev",
    "plan",
    "lengths.png",
    "report.json",
)

# Command -> a flag that no other command has: identifies the command of an old
# flags.txt.
_OWN_FLAG = {"prepare": "input", "pretrain": "records", "finetune": "train"}


@dataclasses.dataclass(frozen=True)
class Identity:
    """The identity of a run: a run resumes only if the stored one is equal.

    command: prepare, pretrain or finetune. settings: dataclasses of options;
    fields with identity=False are ignored. reads: {input: the fingerprint of
    its contents, or, for the network, its config}.
    """

    command: str
    settings: tuple[Any, ...]
    reads: Mapping[str, Any]
    # Settings that the command line has no flag for.
    without_flags: Collection[str] = ()

    def fields(self) -> dict[str, dataclasses.Field[Any]]:
        return {name: field for name, field, _ in self._options()}

    def _options(self) -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
        """Yields (name, field, value) of every option, including wrappers'."""
        for each in self.settings:
            inner: Any = each
            task_wrappers: list[wrappers.Wrapper] = []
            if isinstance(each, base.Task):
                inner, task_wrappers = wrappers.unwrap(each)
            for field in dataclasses.fields(inner):
                if "help" in field.metadata:
                    yield field.name, field, getattr(inner, field.name)
            for wrapper in task_wrappers:
                for name, field in wrappers.own_options(type(wrapper)).items():
                    yield name, field, getattr(wrapper, field.name)

    def changed(self) -> dict[str, Any]:
        """Returns the settings of a command line that repeats the run.

        They are `output`, `modules`, and the settings that affect the result,
        as far as they differ from their defaults. The task, its wrappers and
        the inputs are first.
        """
        # They have identity=False, but the command does not run without them,
        # or dropout depends on them.
        needed = (
            *("output", "modules"),
            *("gradient_accumulation_steps", "pipeline_stages"),
            *("micro_batches", "strategy"),
        )
        inputs, others = {}, {}
        for name, field, value in self._options():
            if value == field.default:
                continue
            if field.metadata.get("reads"):
                inputs[name] = value
            elif name in needed or field.metadata.get("identity", True):
                others[name] = value
        fields = self.fields()
        names = {k: v for k, v in self.values().items() if k not in fields}
        changed = {**names, **inputs, **others}
        return {k: v for k, v in changed.items() if k not in self.without_flags}

    def renamed(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Renames stored settings from former names to current ones."""
        return options.with_current_names(settings, self.fields())

    def values(self) -> dict[str, Any]:
        """Returns all settings, including those with identity=False."""
        values = {name: value for name, _, value in self._options()}
        for each in self.settings:
            if isinstance(each, base.Task):
                task, task_wrappers = wrappers.unwrap(each)
                values["task"] = task.name
                if task_wrappers:
                    values["wrappers"] = ",".join(w.name for w in task_wrappers)
        return values

    def to_dict(self) -> dict[str, Any]:
        values = {
            "command": self.command,
            "settings": self.values(),
            "reads": dict(self.reads),
        }
        return json.loads(json.dumps(values))  # JSON has no tuples

    def resume_values(self) -> dict[str, Any]:
        """Returns what must be equal when a run resumes."""
        values = self.to_dict()
        for name, field in self.fields().items():
            if not field.metadata.get("identity", True):
                del values["settings"][name]
        return values

    @property
    def fingerprint(self) -> str:
        text = json.dumps(self.resume_values(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def check(
    folder: str,
    identity: Identity,
    *,
    names: Collection[str],
    has_results: bool,
) -> bool:
    """Returns whether `folder` has this identity already; writes nothing.

    False: the folder is new, or settings changed before the first result.

    Args:
      names: patterns of the files that the run will write there.
      has_results: whether the folder has results; before that, settings may
        change.

    Raises InputError if the folder belongs to another run, or if it belongs to
    no run and has files of these names.
    """
    stored = _stored_identity(folder, identity)
    if stored is None:
        _refuse_foreign_files(folder, names)
        return False
    if stored["command"] != identity.command:
        raise errors.InputError(
            f"{folder} contains the output of `{stored['command']}`, not of "
            f"`{identity.command}`. Choose another `output`.",
            argument="output",
        )
    changed = _differences(stored, identity)
    if changed and has_results:
        raise errors.InputError(
            f"{folder} was started with other settings "
            f"({'; '.join(changed)}). Continue with the "
            f"settings in {os.path.join(folder, IDENTITY)} (on a command line: "
            f"--flagfile={os.path.join(folder, FLAGS)} output={folder}), or "
            "choose another `output`.",
            argument="output",
        )
    return not changed


def write_identity(folder: str, identity: Identity) -> None:
    """Writes this run's settings.json and flags.txt; call `check` first."""
    files.write_text(
        os.path.join(folder, IDENTITY), json.dumps(identity.to_dict(), indent=1)
    )
    values = identity.values()
    text = format_flagfile(
        {k: v for k, v in values.items() if k not in identity.without_flags}
    )
    files.write_text(os.path.join(folder, FLAGS), text)


@contextlib.contextmanager
def one_writer(
    settings: settings_lib.TrainSettings, strategy: tf.distribute.Strategy
) -> Iterator[None]:
    """Locks the run folder, on the chief, against other runs."""
    if cluster.Workers(strategy).is_chief:
        with locks.hold(settings.output, break_lock=settings.break_lock):
            yield
    else:
        yield


def claim(
    settings: settings_lib.TrainSettings,
    identity: Identity,
    workers: cluster.Workers,
) -> None:
    """Checks the run folder on all workers and writes this run's identity.

    Raises InputError if the workers have different settings or inputs, or if
    the folder is another run's.
    """
    workers.require_same(
        "settings and inputs", identity.fingerprint, settings.output
    )
    check(
        settings.output,
        identity,
        names=TRAINING,
        has_results=bool(checkpoint.steps(settings.output)),
    )
    workers.barrier()  # The chief writes only after all workers have checked.
    if workers.is_chief:
        write_identity(settings.output, identity)


def refuse_inputs_inside(folder: str, **inputs: str) -> None:
    """Raises InputError if an input is inside the output folder."""
    own = files.local_path(folder)
    for name, path in inputs.items():
        local = files.local_path(path)
        if own and local and files.is_inside(local, own):
            raise errors.InputError(
                f"{name}={path} is in output={folder}, which this run "
                "writes to. Choose another `output`.",
                argument="output",
            )


def options_fingerprints(task: base.Task) -> dict[str, str]:
    """Returns fingerprints of the files named by a task's options.

    Includes the options of its wrappers.
    """
    identity = Identity("", (task,), {})
    return {
        name: contents_fingerprint(value)
        for name, field, value in identity._options()
        if field.metadata.get("reads") and value
    }


def contents_fingerprint(*paths: str) -> str:
    """Returns a fingerprint of files, or of all files of folders or globs."""
    digest = hashlib.sha256()
    for each in corpus.files(list(paths)):
        digest.update((files.checksum(each) or "").encode())
    return digest.hexdigest()[:16]


def weights_fingerprint(
    model: model_lib.BertModel, head_names: Collection[str] | None = ()
) -> str:
    """Returns a fingerprint of the encoder's weights and those of some heads.

    head_names: None means all heads.
    """
    digest = hashlib.sha256()
    head = {
        path: variable
        for path, variable in checkpoint.weights(model.head).items()
        if head_names is None or path.split("/", 1)[0] in head_names
    }
    for weights in (checkpoint.weights(model.encoder), head):
        for path, variable in sorted(weights.items()):
            digest.update(path.encode())
            digest.update(variable.numpy().tobytes())
    return digest.hexdigest()[:16]


def stored_settings(folder: str, *settings: Any) -> Mapping[str, Any]:
    """Returns the settings of a run as they are stored; {} if there is none.

    settings: dataclasses with the fields of today. Values of runs from before
    settings.json are strings.
    """
    stored = _stored_identity(folder, Identity("", settings, {}))
    return stored["settings"] if stored else {}


def _stored_identity(folder: str, identity: Identity) -> dict[str, Any] | None:
    """Returns the stored identity of a folder; None if it has none."""
    path = os.path.join(folder, IDENTITY)
    if tf.io.gfile.exists(path):
        values = files.read_json(path)
        command = values.get("command")
        settings, reads = values.get("settings"), values.get("reads")
        if (
            isinstance(command, str)
            and isinstance(settings, dict)
            and isinstance(reads, dict)
        ):
            return {
                "command": command,
                "settings": identity.renamed(settings),
                "reads": reads,
            }
        raise errors.InputError(
            f"{path} was not written by a run: expected the fields command, "
            "settings and reads. Choose another `output`.",
            argument="output",
        )
    return _identity_from_flags(folder, identity)


def _identity_from_flags(
    folder: str, identity: Identity
) -> dict[str, Any] | None:
    """Returns the identity of a run from before settings.json existed.

    Reads flags.txt. Since another program may write a file of this name, it
    must contain flags only, among them the command's own flag, output and seed,
    and there must be a checkpoint or complete records beside it.
    """
    path = os.path.join(folder, FLAGS)
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path, "rb") as file:
        text = file.read().decode("utf-8", "replace")
    values = parse_flagfile(text, names=identity.fields())
    command = next((c for c, own in _OWN_FLAG.items() if own in values), None)
    complete = (
        records_lib.is_complete(os.path.join(folder, "train"))
        if command == "prepare"
        else bool(checkpoint.steps(folder))
    )
    if (
        command is None
        or not complete
        or not {"output", "seed"} <= set(values)
        or not all(line.startswith("--") for line in text.splitlines())
    ):
        return None
    # A missing flag had its default, or did not exist yet.
    if_missing = {
        name: str(field.metadata["absent"])
        for name, field in identity.fields().items()
        if field.metadata["absent"] is not None
    }
    settings = if_missing | identity.renamed(values)
    return {"command": command, "settings": settings, "reads": None}


def _differences(
    stored_identity: Mapping[str, Any], identity: Identity
) -> list[str]:
    """Returns descriptions of the differences between two identities."""
    is_from_flags = stored_identity["reads"] is None
    fields = identity.fields()
    stored, now = stored_identity["settings"], identity.to_dict()["settings"]
    if is_from_flags:
        now = {k: str(v) for k, v in now.items() if v is not None}
    changed = []
    for name in sorted({*stored, *now}):
        field = fields.get(name)
        if field is not None and not field.metadata.get("identity", True):
            # Old runs identified input files by path, not by contents.
            if not (is_from_flags and field.metadata.get("reads")):
                continue
        # A field that settings.json lacks is newer than the run.
        if_missing = None
        if field is not None and not is_from_flags:
            if_missing = field.metadata["absent"]
        before, after = stored.get(name, if_missing), now.get(name, if_missing)
        if is_from_flags and name in identity.without_flags and before is None:
            continue
        if field is None and name not in ("task", "wrappers"):
            # A field of a later version, or of another task.
            if not is_from_flags:
                changed.append(f"{name}={before} before, unknown now")
        elif before != after:
            changed.append(
                f"{name}={'' if before is None else before} before, "
                f"{'' if after is None else after} now"
            )
    if not is_from_flags:
        reads = identity.to_dict()["reads"]
        for name in sorted({*stored_identity["reads"], *reads}):
            before, after = stored_identity["reads"].get(name), reads.get(name)
            if name == "network":
                before = _add_defaults(before)
            if before != after:
                changed.append(
                    f"other contents of {name}: {_shorten(before)} before, "
                    f"{_shorten(after)} now"
                )
    return changed


def _add_defaults(network: Any) -> Any:
    """Adds the defaults of newer fields to a stored network config."""
    try:
        values = networks.from_dict(network).to_dict()
    except (AttributeError, errors.InputError):
        return network  # a config of a later version, or a damaged one
    return json.loads(json.dumps(values))


def _shorten(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) > 60:
        text = hashlib.sha256(text.encode()).hexdigest()[:16]
    return text


def _refuse_foreign_files(folder: str, names: Collection[str]) -> None:
    if not tf.io.gfile.exists(folder):
        return
    patterns = (IDENTITY, FLAGS, *names)
    others = sorted(
        name.rstrip("/")
        for name in tf.io.gfile.listdir(folder)
        if any(fnmatch.fnmatch(name.rstrip("/"), each) for each in patterns)
    )
    if others:
        raise errors.InputError(
            f"{folder} contains {', '.join(others[:5])}, which this command "
            "did not write but would overwrite. Choose another `output`.",
            argument="output",
        )


def format_flagfile(values: Mapping[str, Any]) -> str:
    """Formats flags as the lines of a flagfile; None is omitted."""
    return "".join(
        f"--{name}={value}\n"
        for name, value in sorted(values.items())
        if value is not None
    )


def parse_flagfile(text: str, names: Collection[str] = ()) -> dict[str, str]:
    """Parses a flagfile: {flag: value}; "True" or "False" for --x and --nox.

    names: flags; --no_bias is not the negation of _bias if it is one of them.
    """
    values = {}
    for line in text.splitlines():
        if not line.startswith("--"):
            continue
        name, equals, value = line.removeprefix("--").partition("=")
        if not equals:  # absl writes --name and --noname
            negated = name.startswith("no") and name not in names
            name = name.removeprefix("no") if negated else name
            value = str(not negated)
        values[name] = value
    return values
