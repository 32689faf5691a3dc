import dataclasses
import glob
import os
import re

from absl.testing import absltest

from bert_keras.tasks import base
from bert_keras.training import settings

FOLDER = os.path.join(
    os.path.dirname(__file__), "..", "..", "trainers", "recipes"
)
SETTINGS = {
    "pretrain": settings.PretrainSettings,
    "finetune": settings.FinetuneSettings,
}


class RecipesTest(absltest.TestCase):
    def test_every_recipe_names_its_command_and_flags_that_exist(self):
        paths = glob.glob(os.path.join(FOLDER, "*.flags"))
        self.assertNotEmpty(paths)
        for path in paths:
            with open(path) as file:
                text = file.read()
            command = re.match(r"# python -m trainers\.(\w+)", text)[1]
            self.assertIn(f"recipes/{os.path.basename(path)}", text)
            self.assertIn("Expected", text)
            fields = dataclasses.fields(SETTINGS[command])
            types = {f.name: type(f.default) for f in fields}
            for name, value in re.findall(r"^--(\w+)=(.*)$", text, re.M):
                if name == "task":
                    task_class = base.find(value)
                    types |= {
                        f.name: type(f.default)
                        for f in dataclasses.fields(task_class)
                    }
                    continue
                self.assertIn(name, types, path)
                types[name](value)


if __name__ == "__main__":
    absltest.main()
