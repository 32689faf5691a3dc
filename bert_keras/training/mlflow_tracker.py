"""Reports a run to MLflow: settings, metrics by step, pictures as artifacts.

The address is MLFLOW_TRACKING_URI's, else a SQLite file in the run's folder
`mlflow`. The experiment is MLFLOW_EXPERIMENT_NAME's, else "bert_keras".
"""

import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlflow
import mlflow.entities
import tensorflow as tf

from bert_keras import console, errors, files
from bert_keras.training import metric_writer

FOLDER, RUN_ID = "mlflow", "run_id"
URI, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"

# MLflow's limits: characters of a parameter, parameters of a call.
_LONGEST_PARAMETER, _MOST_PARAMETERS = 6000, 100
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")  # of metrics and parameters


class MlflowTracker:
    """Reports a run to MLflow, and a resumed run to the same MLflow run.

    MLflow keeps every value that it gets, so values of steps that it has are
    not sent again. If it fails during training, the run continues without it;
    run again, the missing values are sent from the log.

    lines: of the log, up to the step at which the run starts.
    """

    def __init__(
        self,
        run: str,
        lines: Sequence[metric_writer.Line],
        settings: Mapping[str, Any],
    ):
        self.folder = os.path.join(run, FOLDER)
        self.uri = os.environ.get(URI) or self._local_uri(run)
        self.failed = False
        self._last_steps: dict[str, int] = {}  # name of a metric -> step
        try:
            self.client = mlflow.MlflowClient(tracking_uri=self.uri)
            self.run_id = self._run_id(run, settings)
        except Exception as error:  # also of the database and its driver
            raise errors.InputError(
                f"MLflow at {self.uri} cannot be used: {_reason(error)}. Set "
                f"{URI} to another one, or leave mlflow out of `report_to`.",
                argument="report_to",
            ) from None
        for line in lines:
            self.write(line)

    def write(self, line: metric_writer.Line) -> None:
        step = int(line["step"])
        now = int(time.time() * 1000)
        values = {
            _NOT_IN_NAMES.sub("_", name): value
            for name, value in line.items()
            if name != "step" and value is not None
        }
        metrics = [
            mlflow.entities.Metric(name, value, now, step)
            for name, value in values.items()
            if step > self._last_steps.get(name, -1)
        ]
        self._last_steps |= {metric.key: step for metric in metrics}
        self._send(lambda: self.client.log_batch(self.run_id, metrics=metrics))

    def picture(self, step: int, name: str, png: bytes) -> None:
        folder, _, stem = name.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary:
            path = os.path.join(temporary, f"{stem}-{step:08d}.png")
            files.write(path, png)
            self._send(
                lambda: self.client.log_artifact(
                    self.run_id, path, folder or None
                )
            )

    def close(self, *, finished: bool) -> None:
        status = "FINISHED" if finished else "KILLED"
        self._send(lambda: self.client.set_terminated(self.run_id, status))

    def _send(self, call: Callable[[], object]) -> None:
        """Calls MLflow; after an error, says so and calls it no more."""
        if self.failed:
            return
        try:
            call()
        except Exception as error:  # MLflow's, its database's or the network's
            self.failed = True
            console.say(
                f"MLflow at {self.uri} failed, so this run continues without "
                f"it: {_reason(error)}; the same command later sends what is "
                "missing"
            )

    def _local_uri(self, run: str) -> str:
        own = files.local_path(self.folder)
        if own is None:
            raise errors.InputError(
                f"output={run} is not local, where MLflow's database would "
                f"be; set {URI} to the address of a server.",
                argument="report_to",
            )
        path = os.path.abspath(own)
        if unsafe := {"?", "%"}.intersection(path):
            raise errors.InputError(
                f"output={run}: the path of MLflow's database would contain "
                f"{' and '.join(sorted(unsafe))}, which have a meaning in its "
                f"URL. Choose another folder, or set {URI}.",
                argument="output",
            )
        os.makedirs(path, exist_ok=True)
        return f"sqlite:///{path}/mlflow.db"

    def _run_id(self, run: str, settings: Mapping[str, Any]) -> str:
        """Returns the run's id in MLflow; makes a new one for a new run."""
        path = os.path.join(self.folder, RUN_ID)
        if tf.io.gfile.exists(path):
            with tf.io.gfile.GFile(path) as file:
                run_id = file.read().strip()
            self._resume(run_id)
            return run_id
        name = os.path.basename(os.path.abspath(run))
        created = self.client.create_run(self._experiment(), run_name=name)
        run_id = created.info.run_id
        parameters = [
            mlflow.entities.Param(
                _NOT_IN_NAMES.sub("_", key), str(value)[:_LONGEST_PARAMETER]
            )
            for key, value in settings.items()
            if value is not None
        ]
        for start in range(0, len(parameters), _MOST_PARAMETERS):
            part = parameters[start : start + _MOST_PARAMETERS]
            self.client.log_batch(run_id, params=part)
        files.write_text(path, f"{run_id}\n")
        return run_id

    def _resume(self, run_id: str) -> None:
        known = self.client.get_run(run_id).data.metrics
        for name in known:
            history = self.client.get_metric_history(run_id, name)
            self._last_steps[name] = max(metric.step for metric in history)
        self.client.update_run(run_id, status="RUNNING")

    def _experiment(self) -> str:
        name = os.environ.get(EXPERIMENT) or "bert_keras"
        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None:
            return experiment.experiment_id
        artifacts = None
        if not os.environ.get(URI):  # MLflow's default is the working folder.
            artifacts = os.path.abspath(os.path.join(self.folder, "artifacts"))
        return self.client.create_experiment(name, artifacts)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
