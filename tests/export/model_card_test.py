"""Cards of exports and conversions: whose figures they show, whose edits."""

import os

import pytest
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, model_card, predictor
from bert_keras import model as model_lib
from bert_keras.device import tflite
from bert_keras.serving import saved_model
from bert_keras.tasks import tagging
from tests import tiny
from tests.trainers import mains
from trainers import convert

EXAMPLES = [
    {"text": "a good film", "label": "good"},
    {"text": "a bad film", "label": "bad"},
]


def load(path):
    try:
        from huggingface_hub import ModelCard
    except ImportError:
        raise absltest.SkipTest("needs huggingface_hub") from None
    return ModelCard.load(path)


class ModelCardTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        self.run_folder = self.path("run")
        self.model = tiny.classifier(activation="gelu_tanh")
        card = model_card.describe(self.model, tiny.tokenizer(), name="films")
        card = model_card.with_results(
            card, {"accuracy": 0.875}, task=self.model.task, data="dev.tsv"
        )
        checkpoint.save(
            self.run_folder, self.model, tiny.tokenizer(), step=3, card=card
        )
        # What a person adds travels along.
        path = os.path.join(self.run_folder, "step-00000003", model_card.FILE)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        text = text.replace("---\n", "---\nlicense: mit\n", 1)
        text = text.replace(
            "## Limits", "## Intended use\n\nFilms.\n\n## Limits"
        )
        mains.write(path, text)
        self.predictor = predictor.load(self.run_folder)

    def with_license(self, name):
        card = self.predictor.card.with_head(license=name)
        return predictor.Predictor(self.model, tiny.tokenizer(), card=card)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def check(self, path, *, with_results):
        loaded = load(path)
        self.assertEqual(loaded.data.license, "mit")
        self.assertEqual(loaded.data.pipeline_tag, "text-classification")
        self.assertIn("## Intended use\n\nFilms.", loaded.text)
        results = loaded.data.eval_results
        self.assertEqual(bool(results), with_results)
        if with_results:
            self.assertEqual(results[0].metric_value, 0.875)
        self.assertFalse(model_card.is_edited(path))
        return loaded

    @parameterized.parameters(("float32", True), ("bfloat16", False))
    def test_a_served_model_has_the_checkpoints_figures_if_it_is_equal(
        self, precision, equal
    ):
        output = self.path("served")
        saved_model.export(self.predictor, output, precision=precision)
        path = os.path.join(output, "serving", model_card.FILE)
        card = self.check(path, with_results=equal)
        self.assertIn("saved-model", card.data.tags)
        self.assertIn("docker compose", card.text)
        self.assertEqual("differ by at most" in card.text, not equal)

    @pytest.mark.slow
    def test_the_next_version_has_a_new_card_unless_it_was_edited(self):
        output = self.path("served")
        path = os.path.join(output, "serving", model_card.FILE)
        saved_model.export(self.predictor, output)
        saved_model.export(self.with_license("other"), output)
        self.assertEqual(load(path).data.license, "other")
        with open(path, "a", encoding="utf-8") as file:
            file.write("mine\n")
        saved_model.export(self.with_license("third"), output)
        self.assertEqual(load(path).data.license, "other")

    @parameterized.parameters(
        ("float32", 32, True), ("float32", 16, False), ("float16", 32, False)
    )
    def test_a_file_for_devices_has_them_if_it_computes_the_same(
        self, quantization, seq_length, equal
    ):
        path = tflite.export(
            self.predictor,
            self.path("mobile"),
            quantization=quantization,
            seq_length=seq_length,
            data=EXAMPLES,
            least=0.0,
        )
        card = self.check(
            f"{path.removesuffix('tflite')}md", with_results=equal
        )
        self.assertIn("tflite", card.data.tags)
        self.assertIn("`accuracy` of this file", card.text)
        self.assertEqual("was not scored on" in card.text, not equal)

    def test_an_edited_file_beside_a_model_for_devices_is_kept(self):
        path = tflite.export(self.predictor, self.path("mobile"), seq_length=16)
        readme = f"{path.removesuffix('tflite')}md"
        mains.write(readme, "mine\n")
        tflite.export(self.predictor, self.path("mobile"), seq_length=16)
        with open(readme, encoding="utf-8") as file:
            self.assertEqual(file.read(), "mine\n")

    @parameterized.parameters("bert_keras", "hugging_face", "google")
    def test_a_conversion_has_them(self, form):
        output = self.path(form)
        convert.convert(
            convert.Settings(
                checkpoint=self.run_folder, output=output, format=form
            )
        )
        path = os.path.join(output, model_card.FILE)
        card = load(path)
        self.assertEqual(card.data.license, "mit")
        self.assertEqual(card.data.eval_results[0].metric_value, 0.875)
        self.assertEqual(card.data.pipeline_tag, "text-classification")
        library = "transformers" if form == "hugging_face" else "bert_keras"
        self.assertEqual(card.data.library_name, library)
        self.assertIn("bert-keras convert", card.text)
        self.assertEqual(predictor.load(output).card.head["license"], "mit")

    def test_a_conversion_without_the_head_has_none(self):
        task = tagging.Tagging(types=("FILM",), seq_length=32)
        model = model_lib.BertModel(self.model.encoder, task)
        card = model_card.with_results(
            model_card.describe(model, tiny.tokenizer(), name="films"),
            {"f1": 0.5},
            task=task,
            data="dev.conll",
        ).with_section("Intended use", "Films.")
        checkpoint.save(
            self.path("tagger"), model, tiny.tokenizer(), step=0, card=card
        )
        convert.convert(
            convert.Settings(
                checkpoint=self.path("tagger"),
                output=self.path("hub"),
                format="keras_hub",
            )
        )
        card = load(self.path("hub", model_card.FILE))
        self.assertFalse(card.data.eval_results)
        self.assertIsNone(card.data.pipeline_tag)
        self.assertIn("An encoder without a head", card.text)
        self.assertIn("bert-keras finetune", card.text)
        for part in ("the task", "predict", "labels above", "## Labels"):
            self.assertNotIn(part, card.text)
        self.assertIn("## Intended use\n\nFilms.", card.text)

    def test_a_conversion_replaces_only_what_describes_the_model(self):
        self.edit(
            self.run_folder,
            lambda text: text.replace(
                "## Limits\n\n", "## Limits\n\n- Mine.\n"
            ).replace("\n## Labels\n", "\nNOT FOR MEDICAL USE\n\n## Labels\n"),
        )
        for form, changes in (
            ("keras_hub", {}), ("bert_keras", {"positions": 16}),
        ):  # fmt: skip
            output = self.path(form)
            convert.convert(
                convert.Settings(
                    checkpoint=self.run_folder,
                    output=output,
                    format=form,
                    **changes,
                )
            )
            text = self.read(output)
            self.assertIn("NOT FOR MEDICAL USE", text)
            self.assertIn("- Mine.\n", text)
            self.assertEqual(text.count("The vocabulary has"), 1)
            self.assertEqual(text.count(" parameters."), 1)

    def test_a_persons_card_of_the_run_goes_before_the_steps(self):
        self.edit(
            self.run_folder,
            lambda text: text.replace(
                "---\n", "---\nlicense: cc0-1.0\n", 1
            ).replace("## Labels", "NOT FOR MEDICAL USE\n\n## Labels"),
        )
        self.assert_travels("NOT FOR MEDICAL USE", license="cc0-1.0")
        # Not to a step that is named, whose card is another.
        step = predictor.load(self.path("run", "step-00000003"))
        self.assertEqual(step.card.head["license"], "mit")

    def test_a_persons_own_words_are_completed_from_the_steps_card(self):
        mains.write(
            self.path("run", model_card.FILE),
            "---\nlicense: cc0-1.0\n---\n# Mine\n\n## Use\n\nNOT MEDICAL\n",
        )
        self.assert_travels("NOT MEDICAL", license="cc0-1.0")
        self.assertEqual(predictor.load(self.run_folder).card.name, "Mine")

    def test_a_card_that_was_edited_earlier_has_the_steps_figures(self):
        self.edit(self.run_folder, lambda text: text + "\nMINE\n")
        card = model_card.with_results(
            model_card.describe(self.model, tiny.tokenizer(), name="films"),
            {"accuracy": 0.5},
            task=self.model.task,
            data="dev.tsv",
        )
        checkpoint.save(
            self.run_folder, self.model, tiny.tokenizer(), step=4, card=card
        )
        text = str(predictor.load(self.run_folder).card)
        self.assertIn("MINE", text)
        self.assertIn("value: 0.5", text)
        self.assertNotIn("0.875", text)

    def edit(self, folder, change):
        path = os.path.join(folder, model_card.FILE)
        before = self.read(folder)
        after = change(before)
        self.assertNotEqual(before, after)
        mains.write(path, after)

    def read(self, folder):
        with open(os.path.join(folder, model_card.FILE)) as file:
            return file.read()

    def assert_travels(self, words, *, license):
        """Checks the cards of copies, conversions and exports of the run."""
        loaded = predictor.load(self.run_folder)
        loaded.save(self.path("copy"))
        convert.convert(
            convert.Settings(
                checkpoint=self.run_folder, output=self.path("converted")
            )
        )
        saved_model.export(loaded, self.path("served"))
        for names in (("copy",), ("converted",), ("served", "serving")):
            text = self.read(self.path(*names))
            self.assertIn(words, text)
            head = model_card.parse(text).head
            self.assertEqual(head["license"], license)
            self.assertIn("0.875", str(head["model-index"]))

    def test_what_python_saves_has_them_until_it_is_trained_further(self):
        self.predictor.save(self.path("same"))
        loaded = load(self.path("same", model_card.FILE))
        self.assertEqual(loaded.data.eval_results[0].metric_value, 0.875)
        self.predictor.model.compile("adam")
        self.predictor.save(self.path("trained"))
        loaded = load(self.path("trained", model_card.FILE))
        self.assertFalse(loaded.data.eval_results)
        self.assertEqual(loaded.data.license, "mit")

    def test_of_another_task_only_what_the_encoder_has_is_kept(self):
        other = predictor.load(
            self.run_folder,
            task=tagging.Tagging(types=("FILM",), seq_length=32),
        )
        self.assertEqual(
            other.card.head, {"base_model": "run", "license": "mit"}
        )
        self.assertEmpty(other.card.sections)
        other.save(self.path("tagger"))
        with open(self.path("tagger", model_card.FILE)) as file:
            self.assertIn("\n# tagger\n", file.read())

    @parameterized.parameters(
        (("tiny-bert",), "tiny-bert"),
        (("models--org--tiny-bert", "snapshots", "012abc"), "org/tiny-bert"),
    )
    def test_a_trained_model_does_not_claim_what_its_base_was_trained_on(
        self, names, base_model
    ):
        source = self.path(*names)
        convert.convert(
            convert.Settings(
                checkpoint=self.run_folder,
                output=source,
                format="hugging_face",
            )
        )
        head = (
            "---\nlanguage: de\nbase_model: org/upstream\ndatasets:\n- wiki\n"
            "metrics:\n- f1\n---\n# Upstream\n"
        )
        mains.write(os.path.join(source, model_card.FILE), head)
        trained = predictor.load(
            source, task=tagging.Tagging(types=("FILM",), seq_length=32)
        )
        trained.save(self.path("tagger"))
        card = load(self.path("tagger", model_card.FILE))
        self.assertEqual(card.data.base_model, base_model)
        self.assertEqual(card.data.language, "de")
        self.assertIsNone(card.data.datasets)
        self.assertIsNone(card.data.metrics)
        self.assertEqual(card.data.model_name, None)
        self.assertIn("# tagger\n", card.text)
        # A copy was trained on what its source was.
        predictor.load(source).save(self.path("copy"))
        copied = load(self.path("copy", model_card.FILE))
        self.assertEqual(copied.data.datasets, ["wiki"])
        self.assertEqual(copied.data.base_model, "org/upstream")

    def test_a_model_with_another_vocabulary_has_other_figures(self):
        words = mains.write(self.path("words.txt"), "drugs\n")
        convert.convert(
            convert.Settings(
                checkpoint=self.run_folder,
                output=self.path("more"),
                add_words=words,
            )
        )
        card = load(self.path("more", model_card.FILE))
        self.assertFalse(card.data.eval_results)
        self.assertIn(f"{len(tiny.VOCABULARY) + 1} entries", card.text)
        self.assertIn("--add_words=", card.text)


if __name__ == "__main__":
    absltest.main()
