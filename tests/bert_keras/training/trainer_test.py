"""The loop: what happens after which step, and what a checkpoint keeps."""

import concurrent.futures
import dataclasses
import json
import os
import signal

import tensorflow as tf
from absl.testing import absltest

from bert_keras import checkpoint, errors
from bert_keras import model as model_lib
from bert_keras.networks import bert as bert_lib
from bert_keras.tasks import classification, question_answering
from bert_keras.training import (
    cluster,
    devices,
    meter,
    settings,
    state,
    step,
    trainer,
)
from tests import tiny
from tests.trainers.runs import batches

TASK = classification.Classification(seq_length=16, labels=("bad", "good"))


def stream(task, total, start=0):
    """The batches of the steps from `start` on, all of one length."""
    every = list(batches(task, total))
    spec = tf.nest.map_structure(tf.type_spec_from_value, every[0])
    return step.Batches(lambda: iter(every[start:]), spec)


class TrainerTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.run_folder = self.create_tempdir().full_path
        self.evaluated_after = []

    def trainer(self, total=8, task=TASK, **changes):
        values = {
            "log_every": 3,
            "save_every": 5,
            "max_checkpoints_to_keep": 99,
            **changes,
        }
        with devices.make_strategy("one_device").scope():
            model = model_lib.BertModel(bert_lib.BertEncoder(tiny.bert()), task)
        return trainer.Trainer(
            settings.TrainSettings(
                output=self.run_folder, batch_size=8, **values
            ),
            devices.make_strategy("one_device"),
            model,
            tiny.tokenizer(),
            total,
        )

    def train(self, run, values=(), **evaluation):
        """Trains; the evaluations give these values of the first metric."""
        values = iter(values)

        def evaluate():
            self.evaluated_after.append(run.state.step)
            value = next(values)
            if value is None:
                os.kill(os.getpid(), signal.SIGTERM)
            return {run.best_metric: value or 0.0}, {}

        run.train(
            stream(run.model.task, run.total_steps, run.state.step),
            evaluate=evaluate if evaluation else None,
            **evaluation,
        )

    def lines(self, name):
        with open(os.path.join(self.run_folder, "log.jsonl")) as file:
            lines = [json.loads(line) for line in file]
        return [line["step"] for line in lines if name in line]

    def test_actions_happen_when_due_and_after_the_last_step(self):
        self.train(self.trainer(), (0.0, 0.0), evaluate_every=6)
        self.assertEqual(self.lines("loss"), [3, 6, 8])
        self.assertEqual(self.lines("dev/accuracy"), [6, 8])
        self.assertEqual(self.evaluated_after, [6, 8])
        # The first evaluation is the best so far; equal ones are no better.
        self.assertEqual(checkpoint.steps(self.run_folder), [5, 6, 8])

    def test_evaluated_after_the_last_step_alone(self):
        self.train(self.trainer(), (0.5,), evaluate_every=0)
        self.assertEqual(self.evaluated_after, [8])

    def test_a_run_without_evaluation_has_no_best(self):
        self.train(self.trainer())
        self.assertEqual(checkpoint.steps(self.run_folder), [5, 8])
        self.assertFalse(os.path.exists(f"{self.run_folder}/best"))

    def test_early_stopping_ends_the_run_for_good(self):
        values = (0.5, 0.75, 0.25, 0.75)
        self.train(self.trainer(early_stopping=2), values, evaluate_every=1)
        self.assertEqual(self.evaluated_after, [1, 2, 3, 4])
        self.assertEqual(checkpoint.steps(self.run_folder), [1, 2, 4])
        again = self.trainer(early_stopping=2)
        self.assertEqual(again.state.step, 4)
        self.assertEqual(again.state.best_step, 2)
        self.train(again, (), evaluate_every=1)
        self.assertEqual(again.state.step, 4)

    def test_a_preempted_run_saves_the_next_step_and_leaves(self):
        before = signal.getsignal(signal.SIGTERM)
        run = self.trainer()
        with self.assertRaises(SystemExit) as stopped:
            self.train(run, (None, 0.0), evaluate_every=3)
        self.assertEqual(stopped.exception.code, trainer.STOPPED)
        # Asked after step 3: step 4 carries the flag, which is read after 5.
        self.assertEqual(checkpoint.steps(self.run_folder)[-1], 5)
        self.assertEqual(signal.getsignal(signal.SIGTERM), before)
        again = self.trainer()
        self.assertEqual(again.state, run.state)
        self.train(again)
        self.assertEqual(again.state.step, 8)

    def test_the_task_is_calibrated_as_saved_and_not_in_the_model(self):
        task = question_answering.QuestionAnswering(
            seq_length=16, unanswerable=True
        )
        run = self.trainer(total=2, task=task)
        metrics = dict.fromkeys(task.metric_names, 0.5) | {
            "best_f1_threshold": 2.5
        }
        run.train(stream(task, 2), evaluate=lambda: (metrics, {}))
        saved = checkpoint.read(self.run_folder)
        self.assertEqual(saved.task.no_answer_threshold, 2.5)
        self.assertEqual(run.model.task, task)
        # A run that resumes evaluates with the task that the user gave.
        self.assertEqual(self.trainer(total=2, task=task).model.task, task)

    def test_times_are_measured_and_the_rest_of_the_log_is_not(self):
        self.train(self.trainer())
        with open(os.path.join(self.run_folder, "log.jsonl")) as file:
            line = json.loads(file.readline())
        self.assertTrue(set(meter.TIMES) <= set(line))
        self.assertGreater(line["rows_per_second"], 0)


class PreemptionNoticeTest(absltest.TestCase):
    def test_a_flag_is_read_one_step_late(self):
        with cluster.PreemptionNotice() as notice:
            due, flags = [], []
            for step in range(5):
                if step == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                flags.append(float(notice.flag()))
                due.append(notice.is_due({"stop_requested": flags[-1]}))
        self.assertEqual(flags, [0, 0, 1, 1, 1])
        self.assertEqual(due, [False, False, False, True, True])

    def test_in_another_thread_training_works_without_it(self):
        # Python lets only the main thread handle signals.
        def use():
            with cluster.PreemptionNotice() as notice:
                return float(notice.flag())

        with concurrent.futures.ThreadPoolExecutor() as pool:
            self.assertEqual(pool.submit(use).result(), 0)


class TrainerStateTest(absltest.TestCase):
    def test_it_is_read_as_it_was_written(self):
        full = state.TrainerState(
            step=7,
            skipped=3,
            skipped_in_a_row=1,
            metrics={"accuracy": 0.5, "mcc": None},
            best=0.75,
            best_step=4,
            evaluations_without_improvement=2,
            loss_scale=128.0,
            good_steps=9,
        )
        empty = state.TrainerState()
        for each in (full, empty):
            values = json.loads(json.dumps(each.to_dict()))
            read = state.TrainerState.from_dict(each.step, values)
            self.assertEqual(read, each)
        # What checkpoints call these: a change would break all runs of before.
        self.assertEqual(
            set(full.to_dict()),
            {"loss_scale", "finite_steps", "skipped", "scores", "best"}
            | {"not_better"},
        )

    def test_an_incomplete_one_is_refused(self):
        values = state.TrainerState().to_dict()
        for name in values:
            for broken in (
                {k: v for k, v in values.items() if k != name},
                values | {name: "x"},
            ):
                with self.assertRaisesRegex(errors.InputError, "state in its"):
                    state.TrainerState.from_dict(1, broken)

    def test_the_best_value_is_finite_and_may_be_the_lowest(self):
        run = state.TrainerState()
        for number, value in enumerate((float("nan"), 2.0, 3.0, 1.0, 1.0)):
            run.compare(number, value, lower=True)
        self.assertEqual((run.best, run.best_step), (1.0, 3))
        self.assertEqual(run.evaluations_without_improvement, 1)

    def test_skipped_steps_in_a_row_are_counted_anew(self):
        run = state.TrainerState()
        counts = []
        for skipped in (True, True, False, True):
            run.count_step(skipped=skipped)
            counts.append(run.skipped_in_a_row)
        self.assertEqual(counts, [1, 2, 0, 1])
        self.assertEqual(dataclasses.replace(run).skipped, 3)


if __name__ == "__main__":
    absltest.main()
