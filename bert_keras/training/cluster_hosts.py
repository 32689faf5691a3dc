"""Which machines train together, from the environment of a scheduler.

TF_CONFIG says it in TensorFlow's own words. SLURM and Kubernetes have other
variables, of which a TF_CONFIG is made.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bert_keras import errors

TF_CONFIG = "TF_CONFIG"
# Of an Indexed Job of Kubernetes: all workers as HOST:PORT, the same in every
# pod, and this pod's index, which Kubernetes sets.
HOSTS, INDEX = "WORKER_HOSTS", "JOB_COMPLETION_INDEX"
# Set by srun for each task, and not in the script that calls it.
SLURM_TASKS = "SLURM_STEP_NUM_TASKS"
EXAMPLE = (
    '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)

_FIRST_PORT, _PORTS = 20_000, 10_000  # below those that Linux gives to clients


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The workers of a run.

    source: the variables that say so.
    jobs: their addresses, HOST:PORT, by job.
    """

    source: str
    jobs: Mapping[str, Sequence[str]]
    task: tuple[str, int]  # the job and the index of this process

    @property
    def count(self) -> int:
        return sum(map(len, self.jobs.values()))

    def tf_config(self) -> str:
        job, index = self.task
        task = {"type": job, "index": index}
        return json.dumps({"cluster": dict(self.jobs), "task": task})


def read(environment: Mapping[str, str] | None = None) -> Hosts | None:
    """Returns the workers that the environment names; None if it names none.

    TF_CONFIG counts before SLURM's variables, and these before those of
    Kubernetes. InputError for values that do not define the workers and this
    process.
    """
    values = os.environ if environment is None else environment
    if values.get(TF_CONFIG):
        return _of_tf_config(values[TF_CONFIG])
    if _number(values, SLURM_TASKS, 1) > 1:
        return _of_slurm(values)
    if values.get(HOSTS):
        return _of_kubernetes(values)
    return None


def _of_tf_config(text: str) -> Hosts:
    try:
        values = json.loads(text)
        jobs = {
            job: hosts
            for job, hosts in values["cluster"].items()
            if job in ("chief", "worker")
        }
        task = values["task"]
        jobs[task["type"]][task["index"]]
        return Hosts(TF_CONFIG, jobs, (task["type"], task["index"]))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise errors.InputError(
            f"TF_CONFIG: expected JSON like {EXAMPLE}, with this machine as "
            f"the task; found {text}."
        ) from None


def _of_slurm(values: Mapping[str, str]) -> Hosts:
    """Makes the hosts of a step of SLURM, whose tasks are the workers."""
    nodes = list(expand(_required(values, "SLURM_STEP_NODELIST")))
    counts = _tasks_per_node(_required(values, "SLURM_STEP_TASKS_PER_NODE"))
    count, index = (
        _number(values, name) for name in (SLURM_TASKS, "SLURM_PROCID")
    )
    if len(nodes) != len(counts) or sum(counts) != count or index >= count:
        raise errors.InputError(
            f"SLURM: expected {count} tasks on {len(nodes)} nodes, found "
            f"SLURM_STEP_TASKS_PER_NODE={values['SLURM_STEP_TASKS_PER_NODE']} "
            f"and SLURM_PROCID={index}. Start the command with srun."
        )
    layout = values.get("SLURM_DISTRIBUTION", "block")
    if max(counts) > 1 and not layout.startswith("block"):
        raise errors.InputError(
            f"SLURM_DISTRIBUTION={layout}: expected block, in which "
            "neighbouring tasks share a node; start srun with that "
            "distribution, or set TF_CONFIG."
        )
    # Steps of other jobs may have tasks on the same node.
    port = _FIRST_PORT + _number(values, "SLURM_JOB_ID", 0) % _PORTS
    addresses = [
        f"{node}:{port + number}"
        for node, tasks in zip(nodes, counts, strict=True)
        for number in range(tasks)
    ]
    return Hosts("SLURM", {"worker": addresses}, ("worker", index))


def _of_kubernetes(values: Mapping[str, str]) -> Hosts:
    """Makes the hosts of an Indexed Job, whose pods are the workers."""
    addresses = list(expand(values[HOSTS]))
    index = _number(values, INDEX)
    wrong = [each for each in addresses if not re.search(r".:\d+$", each)]
    if wrong or index >= len(addresses):
        raise errors.InputError(
            f"{HOSTS}={values[HOSTS]}: expected HOST:PORT of each worker, "
            "such as train-[0-3].train:12345, and this one among them; found "
            f"{len(addresses)}, {wrong[0] if wrong else 'and'} {INDEX}={index}."
        )
    return Hosts(HOSTS, {"worker": addresses}, ("worker", index))


def expand(names: str) -> Iterator[str]:
    """Yields the names of a list, as SLURM writes it: a[1-3,07],b -> a1, ...

    Leading zeros are kept: a[08-10] is a08, a09, a10. A name may have several
    pairs of brackets.
    """
    found = re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", names)
    if ",".join(found) != names:
        raise _not_a_list(names)
    for name in found:
        yield from _expanded(name, names)


def _expanded(name: str, names: str) -> Iterator[str]:
    match = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", name)
    if match is None:
        if not name or set(name) & set("[] "):
            raise _not_a_list(names)
        yield name
        return
    before, ranges, after = match.groups()
    for each in ranges.split(","):
        bounds = re.fullmatch(r"(\d+)(?:-(\d+))?", each)
        if bounds is None:
            raise _not_a_list(names)
        first, last = bounds[1], bounds[2] or bounds[1]
        if not int(first) <= int(last) < int(first) + 100_000:
            raise _not_a_list(names)
        for number in range(int(first), int(last) + 1):
            rest = f"{before}{number:0{len(first)}}{after}"
            yield from _expanded(rest, names)


def _not_a_list(names: str) -> errors.InputError:
    return errors.InputError(
        f"{names}: expected names of machines, such as a[1-3,07],b."
    )


def _tasks_per_node(text: str) -> list[int]:
    """Expands SLURM's numbers of tasks: 2(x3),1 -> [2, 2, 2, 1]."""
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise errors.InputError(
                f"SLURM_STEP_TASKS_PER_NODE={text}: expected numbers such as "
                "2(x3),1."
            )
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _required(values: Mapping[str, str], name: str) -> str:
    if not values.get(name):
        raise errors.InputError(
            f"{SLURM_TASKS}={values[SLURM_TASKS]}, but {name} is not set. "
            "Start the command with srun, or set TF_CONFIG."
        )
    return values[name]


def _number(values: Mapping[str, str], name: str, default: Any = None) -> int:
    text = values.get(name, default)
    try:
        number = int(text)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise errors.InputError(
            f"{name}: expected a whole number of 0 or more, found {text!r}."
        )
    return number
