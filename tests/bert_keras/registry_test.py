import os
import sys

from absl.testing import absltest, parameterized

from bert_keras import errors, registry
from bert_keras.tasks import base, classification

TASKS = "bert_keras.tasks"
MODULE = """
from bert_keras.tasks import base
class Mine(base.Task): pass
"""


class RegistryTest(parameterized.TestCase):
    def module(self, name, text=MODULE):
        """Writes an importable module of a package of this test's."""
        folder = self.create_tempdir().full_path
        package = f"{self.id().rpartition('.')[2]}"
        os.mkdir(os.path.join(folder, package))
        path = os.path.join(folder, package, f"{name}.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        return f"{package}.{name}"

    def test_the_files_of_a_folder_are_its_names(self):
        names = registry.names(TASKS)
        self.assertContainsSubset(["classification", "tagging"], names)
        self.assertNotIn("base", names)

    @parameterized.parameters("classification", f"{TASKS}.classification")
    def test_both_ways_find_what_comes_with_the_package(self, name):
        for way in (registry.import_class, registry.class_from_data):
            cls = way(TASKS, name, base.Task)
            self.assertIs(cls, classification.Classification)
        self.assertEqual(registry.name_of(TASKS, cls), "classification")

    def test_a_folder_gets_the_users_class_only_once_the_user_has(self):
        name = self.module("task")
        with self.assertRaisesRegex(
            registry.UnknownNameError, "its task is in the module .*modules="
        ):
            registry.class_from_data(TASKS, name, base.Task)
        self.assertNotIn(name, sys.modules)
        cls = registry.import_class(TASKS, name, base.Task)
        self.assertIs(registry.class_from_data(TASKS, name, base.Task), cls)
        self.assertEqual(registry.name_of(TASKS, cls), name)
        registry.require_findable(TASKS, cls, base.Task)

    @parameterized.parameters(
        ("os", "imported here and defines 0 tasks; expected exactly one"),
        ("os.path", "imported here and defines 0 tasks"),
        ("base", "neither one of .* nor imported here"),
        ("", "neither one of .* nor imported here"),
        (5, "its task is 5; expected the name of a module"),
        (None, "its task is None; expected the name of a module"),
        (["os"], "expected the name of a module"),
    )
    def test_a_folder_gets_nothing_else(self, name, reason):
        with self.assertRaisesRegex(registry.UnknownNameError, reason):
            registry.class_from_data(TASKS, name, base.Task)

    def test_one_module_holds_one(self):
        name = self.module("task", MODULE + "class Other(Mine): pass\n")
        with self.assertRaisesRegex(errors.InputError, "'Mine', 'Other'"):
            registry.import_class(TASKS, name, base.Task)
        cls = sys.modules[name].Mine
        with self.assertRaisesRegex(errors.InputError, "other tasks.*Other"):
            registry.require_findable(TASKS, cls, base.Task)

    def test_a_class_without_a_module_to_find_it_in_is_refused(self):
        class Local(base.Task):
            pass

        with self.assertRaisesRegex(errors.InputError, "at its top level"):
            registry.require_findable(TASKS, Local, base.Task)


if __name__ == "__main__":
    absltest.main()
