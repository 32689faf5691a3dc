"""Model cards: what hubs read of them, and what people write into them."""

import os
import random

import pytest
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, model_card
from bert_keras.data import json_lines
from bert_keras.tasks import classification
from tests import tiny

HOSTILE = (
    *("---", "...", "| a", "<script>", "no", "null", "1.5", "2026-01-01", "~"),
    *("a: b", "- a", "# a", "'", '"', "&a", "*a", "!a", "%a", "@a", "`a`"),
    *("a\n---\nb", "\n---\n", "\x00", "\x85", "\u2028", "\ufeff", " a ", ""),
    *("\r\n---\r\n", "a\\n---", "{a}", "[a]", "? a", "=", "<<", "\ttab"),
    *("\u202e", "很好", "😀"),
)  # fmt: skip


def load(path):
    """huggingface_hub's own reading of a card."""
    try:
        from huggingface_hub import ModelCard
    except ImportError:
        raise absltest.SkipTest("needs huggingface_hub") from None
    return ModelCard.load(path)


def described(labels=("bad", "good"), name="sst2"):
    task = classification.Classification(seq_length=32, labels=labels)
    return model_card.describe(
        tiny.classifier(), tiny.tokenizer(), name=name, task=task
    )


def measured(card=None, metrics=None, data="dev.tsv"):
    task = classification.Classification(labels=("bad", "good"))
    return model_card.with_results(
        card or described(),
        metrics or {"accuracy": 0.875, "f1_macro": 1e-05, "mcc": -1.0},
        task=task,
        data=data,
    )


class ModelCardTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        self.path = os.path.join(self.folder, model_card.FILE)

    def read(self):
        with open(self.path, encoding="utf-8", newline="") as file:
            return file.read()

    def put(self, text):
        with open(self.path, "w", encoding="utf-8", newline="") as file:
            file.write(text)

    def test_the_hubs_library_reads_what_was_written(self):
        card = measured().with_head(language=["de", "no"], license="mit")
        model_card.write(self.path, card)
        loaded = load(self.path)
        self.assertEqual(loaded.data.to_dict(), card.head)
        self.assertEqual(loaded.data.model_name, "sst2")
        self.assertEqual(
            [
                (each.metric_type, each.metric_name, each.metric_value)
                for each in loaded.data.eval_results
            ],
            [
                ("accuracy", "accuracy", 0.875),
                ("f1", "f1_macro", 1e-05),
                ("matthews_correlation", "mcc", -1.0),
            ],
        )
        for each in loaded.data.eval_results:
            self.assertEqual(each.task_type, "text-classification")
            self.assertEqual(each.dataset_name, "dev.tsv")
        self.assertIn("| `accuracy` | 0.875 |", loaded.text)

    @parameterized.parameters(*HOSTILE)
    def test_any_text_is_read_back_as_it_was(self, text):
        name = json_lines.valid_text(text)
        card = measured(described(labels=("a", name), name=name), data=name)
        card = card.with_head(license=name)
        model_card.write(self.path, card)
        self.assertEqual(load(self.path).data.to_dict(), card.head)
        parsed = model_card.parse(self.read())
        self.assertEqual(parsed.head, card.head)
        self.assertLen(parsed.sections, len(card.sections))

    def test_a_card_that_nobody_edited_is_written_anew(self):
        model_card.write(self.path, described())
        self.assertFalse(model_card.is_edited(self.path))
        self.assertTrue(model_card.write(self.path, measured()))
        self.assertEqual(self.read(), str(measured()))

    @parameterized.parameters(
        # Numbers of YAML 1.2, and of YAML 1.1.
        "5e-5", "1e-4", "1E3", "1e+3", ".5", "5.", "-1", "+1", "0o17", "0x1f",
        "017", "0b11", "1_000", "1_0.5", "12:30", "190:20:30.15", ".inf",
        "-.INF", ".NaN", "1.", "-.5e-3", "08", "1e5",
        # Booleans, null, dates, and the special values of YAML 1.1.
        "yes", "No", "y", "N", "on", "OFF", "true", "False", "null", "NULL",
        "~", "2026-11-26", "2026-11-26 12:30:00", "2026-11-26T12:30:00.5Z",
        "2001-12-14t21:59:43.10-05:00", "=", "<<", "",
    )  # fmt: skip
    def test_a_string_that_looks_like_another_type_is_quoted(self, name):
        card = measured(described(name=name), data=name)
        card = card.with_head(language=[name], license=name, **{name: name})
        text = str(card).partition("\n---\n")[0]
        for line in (
            f"  - name: {name}", f"      name: {name}", f"      type: {name}",
            f"- {name}", f"license: {name}", f"{name}: {name}",
        ):  # fmt: skip
            self.assertNotIn(f"{line}\n", f"{text}\n")
        self.assertEqual(model_card.parse(str(card)).head, card.head)

    @parameterized.parameters("sst2", "bert-base", "1st run", "e5", "nobody")
    def test_other_strings_are_not_quoted(self, name):
        self.assertIn(
            f"license: {name}\n",
            str(model_card.Card("x", {"license": name}, {})),
        )

    @parameterized.parameters(
        lambda text: text.replace("library_name", "license: mit\nlibrary_name"),
        lambda text: text + "\nMore of mine.\n",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text[: text.rindex("<!--")],
        lambda text: "Mine.\n" + text,
        lambda text: "",
        lambda text: "# My notes\n",
        lambda text: text.replace("good", "Good", 1),
    )
    def test_an_edited_card_is_kept(self, edit):
        edited = edit(str(described()))
        self.put(edited)
        self.assertTrue(model_card.is_edited(self.path))
        self.assertFalse(model_card.write(self.path, measured()))
        self.assertEqual(self.read(), edited)

    def test_a_card_is_parsed_as_it_was_written(self):
        card = measured().with_section("Intended use", "```\n## no title\n```")
        parsed = model_card.parse(str(card))
        self.assertEqual((parsed.name, parsed.head), (card.name, card.head))
        self.assertEqual(
            parsed.sections,
            {title: text.strip() for title, text in card.sections.items()},
        )
        self.assertEqual(str(parsed), str(card))
        self.assertEqual(list(parsed.sections)[-1], model_card.LIMITS)

    @parameterized.parameters(
        "language: !!timestamp x", "license: !!int ''", "license: !!bool maybe",
        "license: !!float x", "license: !!binary é",
        "license: !!python/object:os.system x", "license: 2001-99-99",
        "license: 2026-01-01T00:00:00+99:99", "license: *a", "? [a]\n: b",
        "license: " + "[" * 450 + "]" * 450, "<<: 3",
        "license: \x07", "license: !!int 0x", "license: !!int 1:x",
    )  # fmt: skip
    def test_a_head_that_yaml_cannot_read_or_write_is_an_empty_one(self, head):
        card = model_card.parse(f"---\n{head}\n---\n# x\n")
        self.assertEqual(card.name, "x")
        self.assertEqual(card.head, {})
        self.assertEqual(model_card.parse(str(card)).head, {})

    @parameterized.parameters(
        "---\n: [\n---\n# x\n", "---\n- a\n---\n# x\n", "---\n---\n# x\n",
        "---\n" + "[" * 5000 + "\n---\n# x\n", "# x\n", "\ufeff# x\r\n",
    )  # fmt: skip
    def test_a_damaged_head_is_an_empty_one(self, text):
        card = model_card.parse(text)
        self.assertEqual((card.name, card.head), ("x", {}))

    def test_of_other_libraries_cards_only_what_holds_for_copies_is_read(self):
        self.put(
            "---\nlicense: mit\nlanguage: de\nlibrary_name: transformers\n"
            "pipeline_tag: fill-mask\n---\n# other\n\n## Results\n\n0.9\n"
        )
        card = model_card.read(self.folder)
        self.assertEqual(card.head, {"license": "mit", "language": "de"})
        self.assertEqual(card.name, "other")
        self.assertEqual(card.sections, {})

    def test_random_texts_are_read_back(self):
        self.check_random_texts(30, seed=0)

    @pytest.mark.slow
    def test_many_random_texts_are_read_back(self):
        self.check_random_texts(300, seed=1)

    def check_random_texts(self, count, seed):
        letters = "".join(HOSTILE) + "\n-#`|:'\" "
        draw = random.Random(seed)
        for _ in range(count):
            text = "".join(draw.choices(letters, k=draw.randrange(1, 12)))
            card = measured(described(name=text), data=text)
            self.assertEqual(model_card.parse(str(card)).head, card.head)
            self.put(str(card))
            self.assertEqual(load(self.path).data.to_dict(), card.head)
            self.assertFalse(model_card.is_edited(self.path))


class SavedCardTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.run_folder = self.create_tempdir().full_path

    def save(self, step, **options):
        return checkpoint.save(
            self.run_folder,
            tiny.classifier(),
            tiny.tokenizer(),
            step=step,
            **options,
        )

    def card(self, *folders):
        path = os.path.join(self.run_folder, *folders, model_card.FILE)
        with open(path, encoding="utf-8") as file:
            return file.read()

    def test_the_run_shows_the_card_of_the_checkpoint_that_is_loaded(self):
        for step in (1, 2, 3):
            self.save(step, card=described(name=f"step {step}"))
        self.assertEqual(self.card(), self.card("step-00000003"))
        checkpoint.mark(self.run_folder, "best", 2)
        self.assertEqual(self.card(), self.card("step-00000002"))
        self.save(4)
        self.assertEqual(self.card(), self.card("step-00000002"))

    def test_without_a_card_the_model_tells_what_it_can(self):
        folder = self.save(1)
        card = model_card.read(folder)
        self.assertEqual(card.name, os.path.basename(self.run_folder))
        self.assertEqual(card.head["pipeline_tag"], "text-classification")
        self.assertIn("- `good`", card.sections[model_card.LABELS])
        self.assertIn("32 tokens", card.sections[model_card.LIMITS])

    def test_edited_cards_outlive_saving_and_pruning(self):
        for step in (1, 2, 3):
            folder = self.save(step)
            for path in (folder, self.run_folder):
                with open(os.path.join(path, model_card.FILE), "a") as file:
                    file.write("mine")
        self.save(3)
        checkpoint.prune(self.run_folder, 1, tiny.tokenizer())
        self.assertEqual(checkpoint.steps(self.run_folder), [3])
        first = os.path.join(self.run_folder, "step-00000001")
        self.assertEqual(os.listdir(first), [model_card.FILE])
        for folder in ("", "step-00000001", "step-00000003"):
            self.assertIn("mine", self.card(folder))

    def test_cards_that_nobody_edited_are_pruned(self):
        for step in (1, 2):
            self.save(step)
        checkpoint.prune(self.run_folder, 1, tiny.tokenizer())
        self.assertNotIn("step-00000001", os.listdir(self.run_folder))

    def test_the_checksums_do_not_cover_the_card(self):
        folder = self.save(1)
        with open(os.path.join(folder, model_card.FILE), "a") as file:
            file.write("mine")
        loaded = checkpoint.read(folder)
        self.assertNotIn(model_card.FILE, loaded.metadata["sha256"])
        loaded.tokenizer(), loaded.encoder_values(), loaded.head_values()


if __name__ == "__main__":
    absltest.main()
