import tensorflow as tf
from absl.testing import absltest

from bert_keras.data import conll
from bert_keras.tasks import intent_slots
from tests import tiny


class IntentSlotsTest(absltest.TestCase):
    def test_each_text_counts_once_however_many_windows_it_has(self):
        task = intent_slots.IntentSlots(
            seq_length=8, stride=4, types=("PER",), intents=("ask", "tell")
        )
        rows = [
            conll.example(["film"] * words, ["O"] * words, " ")
            | {"label": label}
            for words, label in ((20, "ask"), (1, "tell"), (30, "tell"))
        ]
        raw = {
            name: tf.constant([row[name] for row in rows]) for name in rows[0]
        }
        inputs = task.preprocess(raw, tiny.tokenizer())
        example_index = inputs["example_index"].numpy()
        self.assertGreater((example_index == 2).sum(), 2)
        labels, weights = task.make_targets(raw, inputs, tiny.tokenizer())[
            "intent"
        ]
        self.assertEqual(labels.numpy().tolist(), (example_index > 0).tolist())
        first = [0, *(example_index[1:] != example_index[:-1]).nonzero()[0] + 1]
        self.assertEqual(weights.numpy().nonzero()[0].tolist(), first)
        self.assertEqual(weights.numpy().sum(), len(rows))

    def test_a_frame_is_right_where_intent_and_slots_are(self):
        task = intent_slots.IntentSlots(types=("PER",), intents=("ask", "tell"))
        example = conll.example(["film", "actor"], ["O", "B-PER"], " ")
        nothing = {"type": [], "start": [], "end": [], "score": [], "text": []}
        actor = {
            "type": ["PER"],
            "start": [5],
            "end": [10],
            "score": [1.0],
            "text": ["actor"],
        }
        answers = [
            {"intent": intent, **slots}
            for intent in ("ask", "tell")
            for slots in (actor, nothing)
        ]
        metrics = task.metrics(answers, [example | {"label": "ask"}] * 4)
        self.assertEqual(metrics["intent_accuracy"], 0.5)
        self.assertEqual(metrics["frame_accuracy"], 0.25)


if __name__ == "__main__":
    absltest.main()
