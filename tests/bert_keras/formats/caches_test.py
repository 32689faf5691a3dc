"""Models by name: the caches of huggingface_hub and kagglehub."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import unittest
from unittest import mock

from absl.testing import absltest, parameterized

from bert_keras import errors, formats
from bert_keras.formats import caches, published
from tests import tiny

COMMIT, OTHER = "a" * 40, "b" * 40
BASE = "google-bert/bert-base-uncased"
PRESET = "bert_base_en_uncased"


def has(package):
    return unittest.skipIf(
        importlib.util.find_spec(package) is None, f"without {package}"
    )


def write(path, text=""):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


class Case(parameterized.TestCase):
    """Caches in a folder of the test's own, and no network."""

    def setUp(self):
        super().setUp()
        self.root = self.create_tempdir().full_path
        self.hub = os.path.join(self.root, "hub")
        self.kaggle = os.path.join(self.root, "kagglehub")
        caches_of_test = {
            "HF_HUB_CACHE": self.hub,
            "KAGGLEHUB_CACHE": self.kaggle,
        }
        self.enter_context(mock.patch.dict(os.environ, caches_of_test))
        self.enter_context(
            mock.patch.object(socket, "socket", side_effect=AssertionError)
        )
        # Names are relative paths, and a path that exists is no name.
        empty = self.create_tempdir("empty").full_path
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(empty)

    def snapshot(self, name, commit=COMMIT, main=None):
        """A repository's snapshot; main: the commit of its branch main."""
        repository = os.path.join(
            self.hub, "models--" + name.replace("/", "--")
        )
        if main:
            write(os.path.join(repository, "refs", "main"), main)
        folder = os.path.join(repository, "snapshots", commit)
        os.makedirs(folder)
        return folder

    def version(self, number, name=PRESET, model="bert"):
        folder = os.path.join(
            self.kaggle, "models", "keras", model, "keras", name, str(number)
        )
        write(os.path.join(folder, "config.json"))
        return folder


class HuggingFaceTest(Case):
    def test_main_names_the_snapshot(self):
        self.snapshot(BASE, OTHER)
        expected = self.snapshot(BASE, COMMIT, main=COMMIT)
        self.assertEqual(caches.folders(BASE), [expected])
        self.assertEqual(caches.folders(f"hf://{BASE}"), [expected])

    def test_without_main_no_revision_is_guessed(self):
        self.snapshot(BASE, COMMIT)
        self.assertEqual(caches.folders(BASE), [])

    @parameterized.parameters(
        (BASE, "bert-base-uncased"), ("bert-base-uncased", BASE)
    )
    def test_a_name_is_found_with_and_without_its_owner(self, stored, name):
        expected = self.snapshot(stored, main=COMMIT)
        self.assertEqual(caches.folders(name), [expected])

    def test_the_owner_of_other_models_is_not_guessed(self):
        self.snapshot("somebody/bert-base-uncased", main=COMMIT)
        self.snapshot("google-bert/bert-of-mine", main=COMMIT)
        self.assertEqual(caches.folders("bert-base-uncased"), [])
        self.assertEqual(caches.folders("bert-of-mine"), [])

    @has("huggingface_hub")
    def test_huggingface_hub_finds_the_same_file(self):
        import huggingface_hub

        self.snapshot(BASE, OTHER)
        folder = self.snapshot(BASE, COMMIT, main=COMMIT)
        blob = write(os.path.join(folder, "..", "..", "blobs", "c0"), "{}")
        path = os.path.join(folder, "config.json")
        os.symlink(os.path.relpath(blob, folder), path)
        found = huggingface_hub.try_to_load_from_cache(
            BASE, "config.json", cache_dir=self.hub
        )
        self.assertEqual(found, path)
        (ours,) = caches.folders(BASE)
        self.assertEqual(os.path.join(ours, "config.json"), found)

    @has("huggingface_hub")
    def test_huggingface_hub_reads_the_same_variables(self):
        script = (
            "import json, os, sys\n"
            "from huggingface_hub import constants\n"
            "print(json.dumps(constants.HF_HUB_CACHE))"
        )
        names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")
        names += ("XDG_CACHE_HOME",)
        plain = {k: v for k, v in os.environ.items() if k not in names}
        plain["HOME"] = self.root
        cases = [
            {name: os.path.join("/cache", name) for name in names[first:]}
            for first in range(len(names) + 1)
        ]
        cases += [{"HF_HOME": "~/mine"}, {"HF_HUB_CACHE": "$HOME/hub"}]
        for variables in cases:
            environment = plain | variables
            theirs = subprocess.run(
                [sys.executable, "-c", script],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            with mock.patch.dict(os.environ, environment, clear=True):
                self.assertEqual(
                    caches.hugging_face_cache(), json.loads(theirs), variables
                )


class KaggleTest(Case):
    def test_the_newest_complete_version_is_first(self):
        for number in (9, 10, 11):
            self.version(number)
        for number in (9, 10):
            write(self.version(number) + ".complete")
        expected = [self.version(10), self.version(9)]
        for name in (PRESET, f"kaggle://keras/bert/keras/{PRESET}"):
            self.assertEqual(caches.folders(name), expected)
        self.assertEqual(
            caches.folders(f"keras/bert/keras/{PRESET}/9"), expected[1:]
        )

    def test_files_downloaded_one_by_one_are_complete_together(self):
        folder = self.version(3)
        inner = write(os.path.join(folder, "assets/tokenizer/vocabulary.txt"))
        markers = os.path.join(os.path.dirname(folder), ".complete", "3")
        write(os.path.join(markers, "config.json.complete"))
        self.assertEqual(caches.folders(PRESET), [])
        name = os.path.relpath(inner, folder)
        write(os.path.join(markers, f"{name}.complete"))
        self.assertEqual(caches.folders(PRESET), [folder])

    @has("kagglehub")
    def test_kagglehub_finds_the_same_folder(self):
        from kagglehub import cache, handle

        folder = self.version(3)
        write(folder + ".complete")
        name = f"keras/bert/keras/{PRESET}/3"
        model = handle.parse_model_handle(name)
        self.assertEqual(cache.Cache().load_from_cache(model), folder)
        self.assertEqual(caches.folders(name), [folder])
        # And a file that it marks is marked here.
        os.remove(folder + ".complete")
        cache.Cache().mark_as_complete(model, "config.json")
        self.assertEqual(caches.folders(name), [folder])

    @has("keras_hub")
    def test_presets_are_those_of_keras_hub(self):
        import keras_hub

        presets = keras_hub.models.BertBackbone.presets
        for each in published.PUBLISHED:
            handle = presets[each.preset]["kaggle_handle"]
            self.assertTrue(
                handle.startswith(f"kaggle://keras/bert/keras/{each.preset}/")
            )


class ReadTest(Case):
    def test_a_hugging_face_model_is_read_by_its_name(self):
        written = os.path.join(self.root, "written")
        formats.FORMATS["hugging_face"].write(
            written, tiny.classifier(), tiny.tokenizer()
        )
        folder = self.snapshot(BASE, main=COMMIT)
        for name in os.listdir(written):
            os.symlink(os.path.join(written, name), os.path.join(folder, name))
        source = formats.read("bert-base-uncased")
        self.assertEqual(source.folder, folder)
        self.assertEqual(source.task.labels, ("bad", "good"))

    @has("keras_hub")
    def test_a_preset_is_read_by_its_name(self):
        folder = self.version(3)
        os.remove(os.path.join(folder, "config.json"))
        model = tiny.classifier(
            activation="gelu_tanh", layer_norm_epsilon=1e-12
        )
        formats.FORMATS["keras_hub"].write(folder, model, tiny.tokenizer())
        write(folder + ".complete")
        self.assertEqual(formats.read(PRESET).folder, folder)
        # A newer version of which only the tokenizer was downloaded.
        newer = self.version(5)
        for name in ("config.json", "tokenizer.json"):
            shutil.copy(os.path.join(folder, name), newer)
        write(newer + ".complete")
        self.assertEqual(formats.read(PRESET).folder, folder)

    def test_a_path_that_exists_is_never_looked_up(self):
        self.snapshot("bert-base-uncased", main=COMMIT)
        os.mkdir("bert-base-uncased")
        self.assertEqual(
            formats.locate("bert-base-uncased"), "bert-base-uncased"
        )
        with self.assertRaisesRegex(errors.InputError, "is not a checkpoint"):
            formats.read("bert-base-uncased")

    def test_a_path_in_an_existing_folder_is_no_name(self):
        os.mkdir("runs")
        for path in (
            "runs/base",
            "./base",
            "/base",
            "../base",
            "a/b/c",
            "base",
        ):
            with self.assertRaisesRegex(
                errors.InputError, f"{path} is not a checkpoint"
            ):
                formats.read(path)

    def test_a_folder_with_some_files_alone_is_named(self):
        folder = self.snapshot(BASE, main=COMMIT)
        write(os.path.join(folder, "config.json"), '{"model_type": "bert"}')
        with self.assertRaisesRegex(
            errors.InputError, f"{folder}.*only some of its files.*hf download"
        ):
            formats.read(BASE)


class AdviceTest(Case):
    def message(self, name):
        with self.assertRaises(errors.InputError) as caught:
            formats.read(name)
        return str(caught.exception)

    @parameterized.parameters(
        "bert-base-chinese",
        "google-bert/bert-base-chinese",
        "hf://google-bert/bert-base-chinese",
        "bert_base_zh",
        "kaggle://keras/bert/keras/bert_base_zh/3",
    )
    def test_a_published_model_has_a_command_per_source(self, name):
        message = self.message(name)
        self.assertStartsWith(message, f"{name}: there is no such folder")
        for part in (
            self.hub,
            self.kaggle,
            "`hf download google-bert/bert-base-chinese config.json ",
            "kagglehub.model_download('keras/bert/keras/bert_base_zh')",
            "/2018_11_03/chinese_L-12_H-768_A-12.zip && unzip ",
        ):
            self.assertIn(part, message)

    def test_what_a_command_downloads_is_found_by_the_name_to_give(self):
        for each in published.PUBLISHED:
            message = self.message(each.preset)
            for name in (each.preset, each.hugging_face):
                if name:
                    self.assertIn(f"(then give {name})", message)
                    self.assertTrue(caches.is_name(name))

    def test_another_model_has_its_own_command_and_those_of_bert(self):
        message = self.message("dmis-lab/biobert-v1.1")
        self.assertIn("`hf download dmis-lab/biobert-v1.1`", message)
        self.assertIn(f"keras/bert/keras/{PRESET}", message)
        message = self.message("albert_base_en_uncased")
        self.assertIn("'keras/bert/keras/albert_base_en_uncased'", message)
        self.assertIn("curl -O https://", message)


if __name__ == "__main__":
    absltest.main()
