import tensorflow as tf
from absl.testing import absltest

from bert_keras.training import scoring
from bert_keras.training import step as step_lib
from tests.trainers.runs import Run, batches


class AverageTest(absltest.TestCase):
    def test_means_are_made_once_over_all_rows(self):
        run = Run("masked_lm")
        step = step_lib.make_evaluate_step(
            run.model, run.task, strategy=run.strategy
        )
        metrics = scoring.average(step, batches(run.task, 3))
        losses, right, weight = 0.0, 0.0, 0.0
        for batch in batches(run.task, 3):
            labels, weights = batch["targets"]["masked_lm"]
            logits = run.model(batch["inputs"])["masked_lm"]
            rows = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, logits
            )
            losses += float(tf.reduce_sum(rows * weights))
            hit = tf.cast(tf.argmax(logits, -1, tf.int32) == labels, tf.float32)
            right += float(tf.reduce_sum(hit * weights))
            weight += float(tf.reduce_sum(weights))
        self.assertAlmostEqual(
            metrics["loss/masked_lm"], losses / weight, places=5
        )
        self.assertAlmostEqual(
            metrics["masked_lm_accuracy"], right / weight, places=5
        )


if __name__ == "__main__":
    absltest.main()
