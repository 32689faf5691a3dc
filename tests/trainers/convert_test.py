import itertools
import json
import os

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bert_keras import (
    checkpoint,
    errors,
    formats,
    loading,
    locks,
    predictor,
    vocabulary_surgery,
)
from bert_keras import model as model_lib
from bert_keras.formats import keras_hub
from bert_keras.networks import bert
from bert_keras.tasks import causal_lm
from tests import sharp, tiny
from trainers import convert

# Formats of BERT; bilm_tf stores ELMo alone.
EXTERNAL = tuple(name for name in formats.FORMATS if name != "bilm_tf")
FORMATS = (convert.NATIVE, *EXTERNAL)


def no_task(**changes):
    return model_lib.BertModel(bert.BertEncoder(tiny.bert(**changes)), None)


MODELS = {
    "classification": tiny.classifier,
    "masked_lm": tiny.masked_lm_model,
    "none": no_task,
}
# Classifiers whose answers are not the softmax of a layer on the pooler.
OTHER_CLASSIFIERS = {
    "multi-label": {"problem_type": "multi_label"},
    "regression": {"problem_type": "regression", "labels": ()},
    "mean": {"pooling": "mean"},
    "layers": {"pooling": "layers"},
}
TEXTS = ("a good film", "the plots dulled, very bad!")


class ConvertTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def saved(self, task="classification", **changes):
        """A run of a model without zeros, and the model."""
        model = MODELS[task](**{"activation": "gelu_tanh"} | changes)
        random = np.random.default_rng(0)
        for variable in model.trainable_variables:
            variable.assign(random.normal(0, 0.3, variable.shape))
        checkpoint.save(self.path("run"), model, tiny.tokenizer(), step=7)
        return model

    def convert(self, output="out", source="run", **settings):
        return convert.convert(
            convert.Settings(
                checkpoint=self.path(source),
                output=self.path(output),
                **settings,
            )
        )

    def saved_gpt(self):
        task = causal_lm.CausalLM(seq_length=32, max_new_tokens=6)
        config = tiny.bert(**bert.GPT, intermediate_size=64)
        model = model_lib.BertModel(config, task.adapt([], tiny.tokenizer()))
        sharp.spread(model, 1)
        checkpoint.save(self.path("run"), model, tiny.tokenizer(), step=7)
        return predictor.load(self.path("run")).predict(TEXTS)

    @pytest.mark.slow
    def test_gpt_becomes_hugging_faces_and_comes_back(self):
        answers = self.saved_gpt()
        summary = self.convert("hf", format="hugging_face")
        self.assertStartsWith(summary["difference of weights"], "0 at most")
        self.convert("back", "hf")
        for name in ("hf", "back"):
            again = predictor.load(self.path(name))
            self.assertEqual(again.predict(TEXTS), answers)

    def test_a_gpt_with_more_words_continues_alike(self):
        answers = self.saved_gpt()
        self.convert("more", add_words=self.write("words.txt", "zebra\n"))
        again = predictor.load(self.path("more"))
        self.assertEqual(again.task.vocab_size, len(tiny.VOCABULARY) + 1)
        for new, old in zip(again.predict(TEXTS), answers, strict=True):
            self.assertEqual(new["tokens"][:1], old["tokens"][:1])

    @parameterized.product(task=tuple(MODELS), format=FORMATS)
    def test_every_format_takes_every_weight(self, task, format):
        model = self.saved(task)
        summary = self.convert(format=format)
        self.assertStartsWith(summary["difference of weights"], "0 at most")
        written = formats.read(self.path("out"))
        self.assertEqual(written.config, model.encoder.config)
        written_values = written.encoder_values()
        for name, value in checkpoint.weights(model.encoder).items():
            np.testing.assert_array_equal(value, written_values[name])
        dropped = summary.get("dropped", "").split(", ")
        headless = task == "none" or "the head" in dropped
        self.assertEqual(written.task is None, headless)
        # The summary is of the written checkpoint.
        self.assertEqual(summary["task"].startswith("none"), headless)
        self.assertEqual("difference of answers" in summary, not headless)
        command = "finetune" if headless else "predict"
        self.assertIn(command, summary["next"])

    def save_classifier(self, **settings):
        """A run of a classifier without zeros."""
        task = tiny.classifier().task.with_settings(**settings)
        encoder = bert.BertEncoder(tiny.bert(activation="gelu_tanh"))
        model = model_lib.BertModel(encoder, task)
        random = np.random.default_rng(0)
        for variable in model.trainable_variables:
            variable.assign(random.normal(0, 0.3, variable.shape))
        checkpoint.save(self.path("run"), model, tiny.tokenizer(), step=7)

    @parameterized.product(name=tuple(OTHER_CLASSIFIERS), format=EXTERNAL)
    def test_a_head_is_written_only_if_it_answers_the_same(self, name, format):
        self.save_classifier(**OTHER_CLASSIFIERS[name])
        if format == "keras_hub":
            summary = self.convert(format=format)
            self.assertEqual(summary["dropped"], "the head")
            self.assertIsNone(formats.read(self.path("out")).task)
        elif (name, format) == ("multi-label", "hugging_face"):
            self.convert(format=format)
            with open(os.path.join(self.path("out"), "config.json")) as file:
                config = json.load(file)
            # Without it, transformers would answer with a softmax.
            self.assertEqual(
                config["problem_type"], "multi_label_classification"
            )
            before, after = map(
                predictor.load, (self.path("run"), self.path("out"))
            )
            self.assertEqual(before.predict(TEXTS), after.predict(TEXTS))
        else:
            with self.assertRaisesRegex(errors.InputError, "problem_type"):
                self.convert(format=format)
            self.assertFalse(formats.find(self.path("out")))

    @parameterized.parameters("problem_type", "pooling")
    def test_a_head_that_is_read_in_another_way_is_noticed(self, name):
        other = {"problem_type": "multi_label", "pooling": "mean"}
        self.save_classifier(**{name: other[name]})
        write = convert.checkpoint.save

        def wrong(folder, model, tokenizer, *, task=None, **options):
            task = model.task.with_settings(
                problem_type="single_label", pooling="first"
            )
            return write(folder, model, tokenizer, task=task, **options)

        with absltest.mock.patch.object(convert.checkpoint, "save", wrong):
            with self.assertRaisesRegex(RuntimeError, "Do not use it"):
                self.convert()

    def test_an_encoder_alone_is_resized_and_fine_tuned(self):
        self.saved("none")
        words = self.write("words.txt", "filming\n")
        self.convert(add_words=words, positions=100)
        written = checkpoint.read(self.path("out"))
        self.assertIsNone(written.task)
        model = loading.load_model(written, tiny.classifier().task)
        self.assertEqual(model.encoder.token_table.shape, (37, 16))
        with self.assertRaisesRegex(errors.InputError, "without a head"):
            predictor.load(self.path("out"))

    def test_from_format_to_format_and_back(self):
        self.saved()
        chain = ("run", *EXTERNAL, convert.NATIVE)
        for source, target in itertools.pairwise(chain):
            summary = self.convert(target, source, format=target)
            source = convert.NATIVE if source == "run" else source
            self.assertEqual(summary["format"], f"{source} -> {target}")
        one = checkpoint.read(self.path("run"))
        other = checkpoint.read(self.path(convert.NATIVE))
        for values in ("encoder_values", "head_values"):
            original, converted = (
                getattr(one, values)(),
                getattr(other, values)(),
            )
            self.assertEqual(set(original), set(converted))
            for name, value in original.items():
                np.testing.assert_array_equal(value, converted[name])

    def test_a_run_keeps_its_step_and_its_answers(self):
        self.saved()
        self.convert()
        self.assertEqual(checkpoint.read(self.path("out")).step, 7)
        before, after = map(
            predictor.load, (self.path("run"), self.path("out"))
        )
        self.assertEqual(before.predict(TEXTS), after.predict(TEXTS))

    def test_vocabulary_and_positions_are_resized(self):
        self.saved()
        summary = self.convert(
            add_words=self.write("words.txt", "filming\n\n good \nunheard\n"),
            trim_to=self.write("texts.txt", "\n".join(TEXTS)),
            positions=16,
        )
        written = checkpoint.read(self.path("out"))
        vocabulary = written.tokenizer().vocabulary
        self.assertEqual(summary["vocabulary"], f"36 -> {len(vocabulary)}")
        self.assertEqual(summary["positions"], "64 -> 16")
        self.assertEqual(vocabulary[-2:], ("filming", "unheard"))
        self.assertNotIn("story", vocabulary)
        answers = predictor.load(self.path("out")).predict(TEXTS)
        expected = predictor.load(self.path("run")).predict(TEXTS)
        for answer, other in zip(answers, expected, strict=True):
            np.testing.assert_allclose(
                answer["scores"], other["scores"], atol=1e-6
            )

    def test_strings_of_json_are_texts(self):
        self.saved()
        rows = [{"text": "很 film"}, {"text": ["old"], "n": 3, "label": "bad"}]
        lines = "\n".join(map(json.dumps, rows))
        self.convert(trim_to=self.write("rows.jsonl", f"{lines}\n"))
        vocabulary = checkpoint.read(self.path("out")).tokenizer().vocabulary
        self.assertEqual(set(vocabulary[5:]), {"很", "film", "old", "bad"})
        broken = self.write("broken.json", "{\n")
        with self.assertRaisesRegex(errors.InputError, "json, line 1"):
            self.convert("other", trim_to=broken)

    def test_what_of_a_text_cannot_be_read_is_named_and_not_left_out(self):
        self.saved()
        for name, content, message in (
            ("rows.txt", b"film\nold \xff film\n", "line 2.*UTF-8"),
            ("rows.txt", "film".encode("utf-16"), "UTF-16"),
            ("rows.jsonl", b"[" * 100_000, "line 1.*JSON"),
            ("rows.jsonl", b'{"a": ' + b"1" * 5000 + b"}", "line 1.*JSON"),
        ):
            path = self.path(name)
            with open(path, "wb") as file:
                file.write(content)
            options = ("trim_to", "add_words")
            for option in options if name.endswith("txt") else options[:1]:
                with self.assertRaisesRegex(errors.InputError, message):
                    self.convert("other", **{option: path})

    def test_half_a_character_in_json_is_one_that_cannot_be_shown(self):
        self.saved()
        path = self.write("rows.jsonl", '{"text": "film \\ud83d old"}\n')
        self.convert(trim_to=path)
        vocabulary = checkpoint.read(self.path("out")).tokenizer().vocabulary
        self.assertEqual(set(vocabulary[5:]), {"film", "old"})

    def test_casing_of_a_foreign_folder_can_be_said(self):
        self.saved()
        self.convert(format="keras_hub")
        self.convert("cased", "out", lowercase=False)
        cased = checkpoint.read(self.path("cased"))
        self.assertFalse(cased.tokenizer().lowercase)

    def test_a_full_folder_is_refused(self):
        self.saved()
        self.convert()
        with self.assertRaisesRegex(errors.InputError, "not empty"):
            self.convert()
        os.mkdir(self.path("empty"))
        self.convert("empty")
        with self.assertRaisesRegex(errors.InputError, "is a file"):
            self.convert(self.write("file", ""))

    def test_the_lock_of_a_killed_conversion_is_not_a_file_of_the_user(self):
        self.saved()
        os.mkdir(self.path("out"))
        with locks.hold(self.path("out")):
            with self.assertRaisesRegex(errors.InputError, "being written by"):
                self.convert()
            lock = os.path.join("out", locks.NAME)
            with open(self.path(lock)) as file:
                text = file.read()
        self.write(lock, text)  # a killed process leaves it
        self.convert()
        self.assertNotIn(locks.NAME, os.listdir(self.path("out")))

    @parameterized.parameters("checkpoint", "output")
    def test_a_missing_flag_is_named(self, name):
        names = {"checkpoint": "x", "output": self.path("y")} | {name: ""}
        with self.assertRaisesRegex(errors.InputError, f"`{name}` is missing"):
            convert.convert(convert.Settings(**names))

    @parameterized.parameters("embeddings/token", "label/score/bias")
    def test_a_weight_written_wrongly_is_noticed(self, name):
        self.saved()
        write = keras_hub.write

        def wrong(folder, model, tokenizer):
            model = vocabulary_surgery.resize_positions(model, 64)  # a copy
            parts = checkpoint.weights(model.encoder)
            parts |= checkpoint.weights(model.head)
            parts[name].assign(parts[name] + 1e-3)
            write(folder, model, tokenizer)

        with absltest.mock.patch.object(keras_hub, "write", wrong):
            with self.assertRaisesRegex(RuntimeError, "Do not use it"):
                self.convert(format="keras_hub")


if __name__ == "__main__":
    absltest.main()
