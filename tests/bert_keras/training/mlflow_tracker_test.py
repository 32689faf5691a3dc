"""Runs as MLflow's own client lists them."""

import os
from unittest import mock

from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint, console, errors
from bert_keras.training import metric_writer, trainer
from tests import tiny
from tests.trainers import mains

try:
    metric_writer.parse("mlflow")
except errors.InputError as error:
    raise absltest.SkipTest(str(error)) from None

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
import mlflow  # noqa: E402

SETTINGS = {
    "task": "classification",
    "epochs": 2,
    "batch_size": 8,
    "seq_length": 16,
    "log_every": 1,
    "save_every": 2,
    "report_to": "tensorboard,mlflow",
}


class MlflowTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        self.rows = mains.write(
            self.path("rows.tsv"), "text\tlabel\n" + mains.ROWS
        )
        self.output = self.path("run")
        self.init = self.path("init")
        checkpoint.save(
            self.init, tiny.masked_lm_model(), tiny.tokenizer(), step=0
        )
        without = {"MLFLOW_TRACKING_URI": "", "MLFLOW_EXPERIMENT_NAME": ""}
        self.enterContext(mock.patch.dict(os.environ, without))

    def path(self, name):
        return os.path.join(self.folder, name)

    def finetune(self, **changes):
        settings = SETTINGS | {"output": self.output} | changes
        return bert_keras.finetune(self.init, self.rows, self.rows, **settings)

    def client(self, uri=None):
        uri = uri or f"sqlite:///{self.output}/mlflow/mlflow.db"
        return mlflow.MlflowClient(tracking_uri=uri)

    def only_run(self, client, name="bert_keras"):
        experiment = client.get_experiment_by_name(name)
        (run,) = client.search_runs([experiment.experiment_id])
        return run

    def history(self, client, run):
        return {
            name: [
                (each.step, each.value)
                for each in client.get_metric_history(run.info.run_id, name)
            ]
            for name in run.data.metrics
        }

    def logged(self):
        """{name: [(step, value)]} of log.jsonl."""
        values = {}
        for line in metric_writer.read(self.output):
            for name, value in line.items():
                if name != "step" and value is not None:
                    values.setdefault(name, []).append((line["step"], value))
        return values

    def test_the_client_lists_settings_metrics_and_pictures(self):
        self.finetune()
        client = self.client()
        run = self.only_run(client)
        self.assertEqual(run.info.run_name, "run")
        self.assertEqual(run.info.status, "FINISHED")
        self.assertEqual(run.data.params["task"], "classification")
        self.assertEqual(run.data.params["learning_rate"], "5e-05")
        self.assertEqual(self.history(client, run), self.logged())
        self.assertIn("dev/accuracy", run.data.metrics)
        pictures = client.list_artifacts(run.info.run_id, "dev")
        self.assertEqual(
            [each.path for each in pictures],
            ["dev/confusion-00000002.png", "dev/confusion-00000004.png"],
        )
        self.assertTrue(run.info.artifact_uri.startswith(self.output))

    def test_a_resumed_run_continues_the_same_run_of_mlflow(self):
        save = trainer.Trainer._save

        def save_and_stop(self, step):
            if step == 4:  # after it was logged
                raise KeyboardInterrupt
            save(self, step)

        with mock.patch.object(trainer.Trainer, "_save", save_and_stop):
            with self.assertRaises(KeyboardInterrupt):
                self.finetune()
        client = self.client()
        stopped = self.only_run(client)
        self.assertEqual(stopped.info.status, "KILLED")
        self.finetune(max_checkpoints_to_keep=7)
        run = self.only_run(client)
        self.assertEqual(run.info.run_id, stopped.info.run_id)
        self.assertEqual(run.info.status, "FINISHED")
        history = self.history(client, run)
        for name, expected in (("loss", [1, 2, 3, 4]), ("dev/mcc", [2, 4])):
            self.assertEqual([step for step, _ in history[name]], expected)

    def test_the_environment_names_another_place(self):
        uri = f"sqlite:///{self.path('mine.db')}"
        values = {
            "MLFLOW_TRACKING_URI": uri,
            "MLFLOW_EXPERIMENT_NAME": "films",
        }
        with mock.patch.dict(os.environ, values):
            self.finetune()
        self.assertEqual(
            self.only_run(self.client(uri), "films").info.status, "FINISHED"
        )
        self.assertEqual(os.listdir(f"{self.output}/mlflow"), ["run_id"])

    def test_a_place_that_does_not_answer_is_refused_before_training(self):
        values = {
            "MLFLOW_TRACKING_URI": "http://localhost:9",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        }
        with mock.patch.dict(os.environ, values):
            with self.assertRaisesRegex(
                errors.InputError, "http://localhost:9 cannot be used"
            ):
                self.finetune()
        self.assertEmpty(checkpoint.steps(self.output))

    @parameterized.parameters(
        ("mysql://u:p@localhost/x", "mysql://u:p@localhost/x cannot be used"),
        ("./mlruns", "mlruns cannot be used"),
    )
    def test_a_driver_or_store_that_is_missing_is_one_line(self, uri, message):
        with mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": uri}):
            with self.assertRaisesRegex(errors.InputError, message):
                self.finetune()

    @parameterized.parameters("what?", "100%41")
    def test_a_path_that_has_a_meaning_in_a_url_is_refused(self, name):
        self.output = self.path(name)
        with self.assertRaisesRegex(errors.InputError, "Choose another folder"):
            self.finetune()
        self.assertNoCommonElements(os.listdir(self.folder), ["what", "100A"])

    def test_a_run_outlives_its_tracker_and_sends_the_rest_later(self):
        log_batch = mlflow.MlflowClient.log_batch

        def fail(self, run_id, metrics=(), **values):
            if metrics and metrics[0].step > 1:
                raise mlflow.exceptions.MlflowException("gone")
            return log_batch(self, run_id, metrics=metrics, **values)

        with mock.patch.object(mlflow.MlflowClient, "log_batch", fail):
            with console.console.capture() as captured:
                self.finetune()
        self.assertEqual(captured.get().count("continues without it"), 1)
        client = self.client()
        first = self.history(client, self.only_run(client))
        self.assertEqual([step for step, _ in first["loss"]], [1])
        self.finetune()
        run = self.only_run(client)
        self.assertEqual(self.history(client, run), self.logged())

    def test_names_that_mlflow_refuses_become_others(self):
        writer = metric_writer.MetricWriter(
            self.output,
            start=0,
            report_to=("mlflow",),
            settings={"a@b": "x" * 9999},
        )
        writer.write(1, {"P@1 (%)": 0.5, "loss": float("inf")})
        writer.close(finished=True)
        run = self.only_run(self.client())
        self.assertEqual(run.data.metrics, {"P_1 ___": 0.5})
        self.assertLen(run.data.params["a_b"], 6000)


if __name__ == "__main__":
    absltest.main()
