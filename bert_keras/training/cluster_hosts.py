"""Which machines train together, from the environment of a scheduler.

TF_CONFIG says it in TensorFlow's own words. SLURM and Kubernetes have other
variables, of which a TF_CONFIG is made.
"""

import dataclasses
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence

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

_FIRST_PORT, _PORTS = 20_000, 12_000  # below those that Linux gives to clients
_MOST = 100_000  # machines


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
    if _number(values, SLURM_TASKS, "1") > 1:
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
        job, index = values["task"]["type"], values["task"]["index"]
        if all(isinstance(hosts, list) for hosts in jobs.values()):
            if isinstance(index, int) and 0 <= index < len(jobs[job]):
                return Hosts(TF_CONFIG, jobs, (job, index))
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise errors.InputError(
        f"TF_CONFIG: expected JSON like {EXAMPLE}, with this machine as "
        f"the task; found {text}."
    )


def _of_slurm(values: Mapping[str, str]) -> Hosts:
    """Makes the hosts of a step of SLURM, whose tasks are the workers."""
    named, per_node = "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE"
    for name in (named, per_node):
        if not values.get(name):
            raise errors.InputError(
                f"{SLURM_TASKS}={values[SLURM_TASKS]}, but {name} is not set. "
                "Start the command with srun, or set TF_CONFIG."
            )
    nodes = expand(values[named], named)
    counts = _tasks_per_node(values[per_node], per_node)
    count, index = (
        _number(values, name) for name in (SLURM_TASKS, "SLURM_PROCID")
    )
    if len(nodes) != len(counts) or sum(counts) != count or index >= count:
        raise errors.InputError(
            f"SLURM: expected {count} tasks on {len(nodes)} nodes, found "
            f"{per_node}={values[per_node]} and SLURM_PROCID={index}. Of a "
            "step with several kinds of nodes each knows its own tasks only; "
            "set TF_CONFIG."
        )
    layout = values.get("SLURM_DISTRIBUTION", "block")
    if max(counts) > 1 and not layout.startswith(("block", "*")):
        raise errors.InputError(
            f"SLURM_DISTRIBUTION={layout}: expected block, in which "
            "neighbouring tasks share a node; start srun with that "
            "distribution, or set TF_CONFIG."
        )
    # Other steps and jobs, whose numbers are near, may be on the same node.
    job, step = (
        _number(values, name, "0") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")
    )
    port = _FIRST_PORT + (64 * job + 1024 * step) % _PORTS
    addresses = [
        f"{node}:{port + number}"
        for node, tasks in zip(nodes, counts, strict=True)
        for number in range(tasks)
    ]
    return Hosts("SLURM", {"worker": addresses}, ("worker", index))


def _of_kubernetes(values: Mapping[str, str]) -> Hosts:
    """Makes the hosts of an Indexed Job, whose pods are the workers."""
    addresses = expand(values[HOSTS].strip(), HOSTS)
    index = _number(values, INDEX)
    wrong = [each for each in addresses if not _is_address(each)]
    if wrong or len({*addresses}) < len(addresses):
        raise errors.InputError(
            f"{HOSTS}={values[HOSTS]}: expected another HOST:PORT for each "
            "worker, such as train-[0-3].train:12345; found "
            f"{wrong[0] if wrong else 'one of them twice'}."
        )
    if index >= len(addresses):
        raise errors.InputError(
            f"{HOSTS}={values[HOSTS]} names {len(addresses)} workers, and this "
            f"one is {INDEX}={index}, counted from 0."
        )
    return Hosts(HOSTS, {"worker": addresses}, ("worker", index))


def _is_address(text: str) -> bool:
    match = re.fullmatch(r"[\w.-]+:(\d{1,5})", text)
    return match is not None and 0 < int(match[1]) < 65_536


def expand(names: str, variable: str) -> list[str]:
    """Expands a list, as SLURM writes it: a[1-3,07],b -> a1, a2, a3, a07, b.

    Leading zeros are kept: a[08-10] is a08, a09, a10. A name may have several
    pairs of brackets. variable: where the list is from, for the message of an
    InputError.
    """
    found = re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", names)
    expanded = []
    if ",".join(found) == names:
        for name in found:
            each = itertools.islice(_expanded(name.strip()), _MOST + 1)
            expanded += list(each)
    if not expanded or not all(expanded) or len(expanded) > _MOST:
        raise errors.InputError(
            f"{variable}={names}: expected names of machines, such as "
            f"a[1-3,07],b, at most {_MOST:,}."
        )
    return expanded


def _expanded(name: str) -> Iterator[str]:
    """Yields the names that a name with brackets stands for; "" if wrong."""
    match = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", name)
    if match is None:
        yield "" if set(name) & set("[] \n\t") else name
        return
    before, ranges, after = match.groups()
    for each in ranges.split(","):
        bounds = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", each)
        if bounds is None:
            yield ""
            return
        first, last = bounds[1], bounds[2] or bounds[1]
        if int(last) < int(first):
            yield ""
            return
        for number in range(int(first), int(last) + 1):
            yield from _expanded(f"{before}{number:0{len(first)}}{after}")


def _tasks_per_node(text: str, variable: str) -> list[int]:
    """Expands SLURM's numbers of tasks: 2(x3),1 -> [2, 2, 2, 1]."""
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,5})(?:\(x(\d{1,5})\))?", part)
        if match is None:
            raise errors.InputError(
                f"{variable}={text}: expected numbers such as 2(x3),1."
            )
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _number(
    values: Mapping[str, str], name: str, default: str | None = None
) -> int:
    text = values.get(name, default)
    if text is None:
        raise errors.InputError(
            f"{name}: expected a whole number of 0 or more; it is not set."
        )
    if not re.fullmatch(r"\d{1,15}", text.strip()):
        raise errors.InputError(
            f"{name}={text}: expected a whole number of 0 or more."
        )
    return int(text)
