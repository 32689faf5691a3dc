"""GPT is fine-tuned with tokens that it was pretrained without."""

import contextlib
import io
import json
import os
import tempfile

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint, layer_surgery, loading
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import causal_lm, classification, multiple_choice
from bert_keras.tokenizers import bpe
from bert_keras.wrappers import auxiliary_lm
from tests import sharp, tiny

TEXTS = ["the film is good", "a dull old story", "not bad at all", "the plot"]
FRAME = bpe.FRAME
ROWS = "text\ttext_pair\tlabel\n" + "".join(
    f"{text}\t{other}\t{label}\n"
    for text, other, label in (
        ("the film is good", "a film", "yes"),
        ("a dull old story", "good", "no"),
        ("not bad at all", "not bad", "yes"),
        ("the plot", "a good story", "no"),
    )
    * 2
)


def gpt(**changes):
    return tiny.bert(**bert.GPT | {"dropout": 0.0} | changes)


class NewTokensTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.path = lambda _, name: os.path.join(folder.name, name)
        cls.start = os.path.join(folder.name, "gpt")
        cls.rows = os.path.join(folder.name, "rows.tsv")
        with open(cls.rows, "w") as file:
            file.write(ROWS)
        cls.tokenizer = bpe.BytePairTokenizer.learn(
            TEXTS * 4, 60, lowercase=True
        )
        task = causal_lm.CausalLM(seq_length=16).adapt([], cls.tokenizer)
        model = model_lib.BertModel(
            gpt(vocab_size=cls.tokenizer.vocab_size).build_encoder(), task
        )
        sharp.spread(model, 1)
        cls.table = model.encoder.token_table.numpy()
        checkpoint.save(cls.start, model, cls.tokenizer, step=0)

    def load(self, task, seed=1):
        keras.utils.set_random_seed(seed)
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            model = bert_keras.load(self.start, task=task)
        return model, said.getvalue()

    def test_a_task_gets_three_rows_of_the_table(self):
        task = classification.Classification(labels=("a", "b"), seq_length=16)
        model, said = self.load(task)
        self.assertEqual(model.tokenizer.vocabulary[-3:], FRAME)
        self.assertEqual(said.count("\n"), 1)
        self.assertIn("<start>, <delimiter>, <extract>", said)
        table = model.model.encoder.token_table.numpy()
        np.testing.assert_array_equal(table[:-3], self.table)
        self.assertBetween(table[-3:].std(), 0.01, 0.03)
        config = model.model.encoder.config
        self.assertEqual(config.vocab_size, len(table))
        again, _ = self.load(task)
        np.testing.assert_array_equal(again.model.encoder.token_table, table)
        other, _ = self.load(task, seed=2)
        difference = np.abs(other.model.encoder.token_table.numpy() - table)
        self.assertGreater(difference[-3:].min(), 0)

    def test_rows_are_as_wide_as_the_table(self):
        folder = self.path("narrow")
        source = bert_keras.load(self.start)
        narrow = layer_surgery.factorize_tokens(source.model, 5)
        checkpoint.save(folder, narrow, self.tokenizer, step=0)
        task = classification.Classification(labels=("a", "b"), seq_length=16)
        with contextlib.redirect_stderr(io.StringIO()):
            model = bert_keras.load(folder, task=task).model
        table = model.encoder.embeddings.token_table.numpy()
        self.assertEqual(table.shape, (len(self.table) + 3, 5))
        np.testing.assert_array_equal(
            table[:-3], narrow.encoder.embeddings.token_table
        )

    def test_the_language_model_itself_is_unchanged(self):
        model, said = self.load(None)
        self.assertEqual(model.tokenizer.vocabulary, self.tokenizer.vocabulary)
        self.assertEqual(said, "")
        task = model.task.with_settings(seq_length=12)
        self.assertEqual(self.load(task)[1], "")

    def test_wordpiece_has_a_frame_already(self):
        folder = self.path("bert")
        checkpoint.save(folder, tiny.classifier(), tiny.tokenizer(), step=0)
        source = checkpoint.read(folder)
        task = classification.Classification(labels=("a", "b"))
        self.assertIs(loading.with_frame(source, task), source)

    @parameterized.parameters(
        (
            classification.Classification(labels=("a", "b")),
            {"text": "the plot"},
            ["<start> the plot <extract>"],
        ),
        (
            classification.Classification(labels=("a", "b"), pair=True),
            {"text": "the plot", "text_pair": "not bad"},
            ["<start> the plot <delimiter> not bad <extract>"],
        ),
        (
            classification.Classification(
                labels=("a", "b"), pair=True, pair_order="both"
            ),
            {"text": "the plot", "text_pair": "not bad"},
            [
                "<start> the plot <delimiter> not bad <extract> "
                "<start> not bad <delimiter> the plot <extract>"
            ],
        ),
        (
            multiple_choice.MultipleChoice(
                num_choices=2, question_with="context", joined=False
            ),
            {
                **{"context": "the plot", "question": "is"},
                **{"choice_a": "good", "choice_b": "bad"},
            },
            [
                "<start> the plot is <delimiter> good <extract>",
                "<start> the plot is <delimiter> bad <extract>",
            ],
        ),
    )
    def test_rows_are_those_of_figure_1(self, task, row, expected):
        tokenizer = self.tokenizer.with_frame()
        raw = {name: tf.constant([text]) for name, text in row.items()}
        features = task.preprocess(raw, tokenizer)
        for ids, mask, text in zip(
            features["token_ids"].numpy(),
            features["padding_mask"].numpy(),
            expected,
            strict=True,
        ):
            tokens = "".join(tokenizer.tokens(ids[mask > 0]))
            tokens = tokens.replace("</w>", " ")
            for token in FRAME:
                tokens = tokens.replace(token, f" {token} ")
            self.assertEqual(" ".join(tokens.split()), text)

    def test_a_class_is_linear_in_the_last_tokens_state(self):
        """Radford et al. 2018, equation 3: softmax(h W)."""
        task = classification.Classification(
            labels=("a", "b"), pair=True, seq_length=16
        )
        model, _ = self.load(task)
        sharp.spread(model.model.head, 3)
        rows = [("the plot", "good"), ("a dull old story", "not bad")]
        raw = {
            name: tf.constant(column)
            for name, column in zip(
                task.text_columns, zip(*rows, strict=True), strict=True
            )
        }
        features = task.preprocess(raw, model.tokenizer)
        hidden = model.model.encoder(
            token_ids=features["token_ids"],
            padding_mask=features["padding_mask"],
        )["hidden"][-1].numpy()
        score = model.model.head.label.score
        for answer, state, mask in zip(
            model.predict(rows),
            hidden,
            features["padding_mask"].numpy(),
            strict=True,
        ):
            last = np.float64(state[mask.sum() - 1])
            logits = last @ score.kernel.numpy() + score.bias.numpy()
            expected = np.exp(logits) / np.exp(logits).sum()
            np.testing.assert_allclose(answer["scores"], expected, atol=1e-5)

    def test_a_run_saves_them_and_resumes(self):
        task = auxiliary_lm.AuxiliaryLM(
            classification.Classification(seq_length=16, pair_order="both")
        )
        settings = {"task": task, "epochs": 2, "batch_size": 4, "log_every": 1}
        settings |= {"output": self.path("run")}
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            model = bert_keras.finetune(
                self.start, self.rows, self.rows, **settings
            )
        self.assertEqual(said.getvalue().count("the vocabulary gets"), 1)
        self.assertEqual(model.tokenizer.vocabulary[-3:], FRAME)
        self.assertEqual(type(model.task), classification.Classification)
        (log,) = (
            [json.loads(line) for line in file]
            for file in [open(self.path("run/log.jsonl"))]
        )
        self.assertIn("loss/auxiliary_lm", log[0])
        one = bert_keras.finetune(self.start, self.rows, self.rows, **settings)
        self.assertEqual(
            one.predict([("the plot", "bad")]),
            model.predict([("the plot", "bad")]),
        )
        # From the run to another task: the tokens are there.
        other = classification.Classification(labels=("x", "y"), seq_length=16)
        more = bert_keras.load(self.path("run"), task=other)
        self.assertEqual(
            more.tokenizer.vocab_size, self.tokenizer.vocab_size + 3
        )


if __name__ == "__main__":
    absltest.main()
