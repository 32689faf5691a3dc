import os

import numpy as np
import tensorflow as tf
from absl.testing import absltest

from bert_keras.tasks import classification
from bert_keras.tokenizers import wordpiece
from tests import tiny

REFERENCE = os.path.join(tiny.SHARED_DATA, "reference", "google_bert")
ROWS = os.path.join(REFERENCE, "mrpc_glue_dev.tsv")
RECORDS = os.path.join(REFERENCE, "mrpc_dev_eval.tf_record")
VOCABULARY = os.path.join(
    tiny.SHARED_DATA, "vocab", "bert_uncased_en_vocab.txt"
)
# Ours -> run_classifier.py's.
NAMES = {
    "token_ids": "input_ids",
    "padding_mask": "input_mask",
    "segment_ids": "segment_ids",
}


def google_s(path):
    """Every feature of run_classifier.py's records, (T, S) or (T,)."""
    rows = []
    for record in tf.data.TFRecordDataset(path):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        rows.append({k: v.int64_list.value[:] for k, v in features.items()})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


class GoogleIdsTest(absltest.TestCase):
    def test_pairs_of_mrpc_become_what_run_classifier_made_of_them(self):
        for path in (ROWS, RECORDS, VOCABULARY):
            if not os.path.exists(path):
                self.skipTest(f"shared data is absent: {path}")
        tokenizer = wordpiece.Tokenizer.from_file(VOCABULARY)
        task = classification.Classification(seq_length=128)
        rows = list(task.read_examples(ROWS))
        task = task.adapt(rows, tokenizer)
        raw = {
            name: tf.constant([row[name] for row in rows]) for name in rows[0]
        }
        features = task.preprocess(raw, tokenizer)
        google_features = google_s(RECORDS)
        self.assertLen(rows, 408)
        self.assertLen(google_features["input_ids"], 408)
        equal = np.ones(len(rows), bool)
        for name, google_name in NAMES.items():
            value = features[name].numpy()
            # Google's rows are as long as they may be, ours as they must.
            value = np.pad(value, [(0, 0), (0, 128 - value.shape[1])])
            equal &= (value == google_features[google_name]).all(axis=1)
        print(f"{equal.sum()} of {len(rows)} pairs are equal")
        self.assertEmpty([rows[i] for i in np.flatnonzero(~equal)])
        labels, _ = task.make_targets(raw, features, tokenizer)["label"]
        np.testing.assert_array_equal(
            labels, google_features["label_ids"].ravel()
        )


if __name__ == "__main__":
    absltest.main()
