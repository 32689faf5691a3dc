"""The text of docs/: links, the index, and what the pages have to mention.

Nothing is imported: names of settings, flags and messages are read from syntax
trees.
"""

import ast
import functools
import pathlib
import re

from absl.testing import absltest

from docs.extensions import docstrings

ROOT = pathlib.Path(__file__).absolute().parents[1]
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(DOCS)): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
}
FENCE = re.compile(r"^(```+)([^\n`]*)\n(.*?)^\1 *$", re.M | re.S)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")

# The classes whose options are tables in the pages.
SETTINGS = (
    *(
        f"bert_keras.training.settings.{name}"
        for name in (
            *("PrepareSettings", "TrainSettings", "PretrainSettings"),
            "FinetuneSettings",
        )
    ),
    "bert_keras.training.evaluate.EvaluateSettings",
    "bert_keras.compression.search.CompressSettings",
    "trainers.convert.Settings",
    "trainers.playground.Settings",
    "trainers.probe.Settings",
)
# Commands whose options are described in the text.
DESCRIBED = ("trainers/predict.py", "trainers/describe.py")

# Headings of messages that others print: TensorFlow, pip, the system.
FOREIGN = (
    *("Illegal instruction", "... undefined symbol ...", "Op type not"),
    *("No matching distribution", "ResourceExhaustedError", "Didn't find op"),
    "... answered 404",
)


def directives(page, name):
    """The argument and the body of each directive of a page."""
    return [
        (info[len(name) + 2 :].strip(), body)
        for _, info, body in FENCE.findall(PAGES[page])
        if info.startswith(f"{{{name}}}")
    ]


def anchors(page):
    """The anchors of a page's headings, as MyST and GitHub make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", PAGES[page]), flags=re.M)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }


def listed(page):
    """The pages in the tables of contents of a page."""
    patterns = [
        line.strip()
        for _, body in directives(page, "toctree")
        for line in body.split("\n")
        if line.strip() and not line.startswith(":")
    ]
    folder = (DOCS / page).parent
    return {
        str(path.resolve().relative_to(DOCS))
        for pattern in patterns
        for path in folder.glob(f"{pattern}.md")
    }


def options(path, name):
    """The fields of a class that are declared by `options.option`."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    (cls,) = (
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return [
        node.target.id
        for node in cls.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) == "options.option"
    ]


def files(*folders):
    return [
        path
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def names(folder):
    """The names of the files that define a task, a wrapper and so on."""
    return [
        path.stem
        for path in files(folder)
        if path.stem not in ("__init__", "base")
    ]


@functools.cache
def strings():
    """All strings of the library and its commands, without backticks.

    A value that is formatted into a message is "\\0".
    """
    result = []
    for path in files("bert_keras", "trainers", "export"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else "\0"
                    for part in node.values
                ]
                result.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                result.append(node.value)
    return [text.replace("`", "") for text in result]


def is_printed(message):
    """Whether a string of the code has the parts of a message, in order.

    message: as a command prints it, with "..." for other text.
    """
    parts = [part.strip() for part in message.replace("--", "").split("...")]
    pattern = re.compile(
        ".*?".join(re.escape(part) for part in parts if part), re.S
    )
    return any(pattern.search(text) for text in strings())


class LinksTest(absltest.TestCase):
    def test_every_link_leads_to_a_file_and_a_heading(self):
        wrong = []
        for page, text in PAGES.items():
            for target in LINK.findall(FENCE.sub("", text)):
                if "://" in target:
                    continue
                name, _, anchor = target.partition("#")
                path = (DOCS / page).parent / name if name else DOCS / page
                if not path.exists():
                    wrong.append(f"{page}: {target} is no file")
                    continue
                other = str(path.resolve().relative_to(DOCS))
                if anchor and anchor not in anchors(other):
                    wrong.append(f"{page}: {target} is no heading")
        self.assertEmpty(wrong)

    def test_every_included_file_exists(self):
        for page in PAGES:
            for path, _ in directives(page, "literalinclude"):
                self.assertTrue(((DOCS / page).parent / path).exists(), path)

    def test_every_page_is_in_a_table_of_contents(self):
        found = set().union(*map(listed, PAGES))
        self.assertEqual(found | {"index.md"}, set(PAGES))

    def test_the_index_links_to_every_page_of_its_folder(self):
        links = set(LINK.findall(PAGES["index.md"]))
        pages = {page for page in PAGES if "/" not in page} - {"index.md"}
        self.assertEmpty(pages - links)


class MentionsTest(absltest.TestCase):
    def test_every_option_of_the_settings_is_in_a_table(self):
        for dotted in SETTINGS:
            module, _, name = dotted.rpartition(".")
            fields = options(f"{module.replace('.', '/')}.py", name)
            self.assertNotEmpty(fields, dotted)
            shown = set()
            for page in PAGES:
                for argument, body in directives(page, "settings"):
                    if argument == dotted:
                        only = re.search("^:only:(.*)$", body, re.M)
                        shown |= set(only[1].split() if only else fields)
            self.assertEqual(shown, set(fields), dotted)

    def test_every_task_and_wrapper_has_a_table_of_its_options(self):
        shown = {
            argument.split(".")[-2]
            for page in PAGES
            for argument, _ in directives(page, "settings")
        }
        for folder in ("tasks", "wrappers"):
            self.assertEmpty(set(names(f"bert_keras/{folder}")) - shown)

    def test_every_task_is_in_the_table_of_tasks(self):
        for task in names("bert_keras/tasks"):
            self.assertIn(f"`{task}", PAGES["finetuning/index.md"])

    def test_every_command_and_its_flags_are_mentioned(self):
        text = "\n".join(PAGES.values())
        for path in files("trainers", "export"):
            source = path.read_text(encoding="utf-8")
            flags = re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', source)
            if str(path.relative_to(ROOT)) in DESCRIBED:
                flags += options(path.relative_to(ROOT), "Settings")
            for flag in flags:
                self.assertIn(f"--{flag}", text, path)
            if path.stem == "run_tflite":
                self.assertIn("run_tflite.py", text)
            elif '__name__ == "__main__"' in source:
                folder = path.parent.name
                name = path.stem.replace("_", "")
                if folder == "export" and name in ("savedmodel", "tflite"):
                    name = f"export-{name}"
                self.assertIn(f"bert-keras {name}", text)

    def test_every_public_name_is_in_the_api(self):
        source = (ROOT / "bert_keras/__init__.py").read_text(encoding="utf-8")
        values = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in ast.parse(source).body
            if isinstance(node, ast.Assign)
            and node.targets[0].id in ("_PUBLIC", "_MODULES")
        }
        for name in (*values["_PUBLIC"], *values["_MODULES"]):
            self.assertIn(f"`{name}`", PAGES["api/index.md"])

    def test_every_recipe_is_mentioned(self):
        text = PAGES["benchmarks.md"]
        for path in (ROOT / "trainers" / "recipes").glob("*.flags"):
            self.assertIn(f"`{path.stem}`", text)

    def test_every_network_and_format_is_mentioned(self):
        text = PAGES["api/networks.md"] + PAGES["api/checkpoints.md"]
        for name in names("bert_keras/networks"):
            self.assertIn(f"bert_keras.networks.{name}", text)
        for name in ("bilm", "google", "hugging_face", "keras_hub"):
            self.assertIn(f"bert_keras.formats.{name}", text)


class MessagesTest(absltest.TestCase):
    def test_the_messages_of_troubleshooting_are_those_of_the_code(self):
        page = FENCE.sub("", PAGES["troubleshooting.md"])
        messages = re.findall("^### `([^`]*)`", page, re.M)
        self.assertGreater(len(messages), 40)
        unknown = [
            message
            for message in messages
            if not message.startswith(FOREIGN) and not is_printed(message)
        ]
        self.assertEmpty(unknown)

    def test_messages_in_tables_of_errors_are_those_of_the_code(self):
        unknown = [
            f"{page}: {message}"
            for page, text in PAGES.items()
            for table in re.findall(r"^\| Message \|.*?\n\n", text, re.M | re.S)
            for message in re.findall(r"^\| `([^`]*)`", table, re.M)
            if not message.startswith(FOREIGN) and not is_printed(message)
        ]
        self.assertEmpty(unknown)


class DocstringsTest(absltest.TestCase):
    """How the site's extension turns docstrings into reStructuredText."""

    def convert(self, text, *arguments):
        return "\n".join(docstrings.to_rst(text.split("\n"), arguments))

    def test_code_and_what_else_would_be_markup(self):
        self.assertEqual(
            self.convert("Adds `a_b` to x_ and *y*, |z|.").strip(),
            r"Adds ``a_b``\  to x\_ and \*y\*, \|z\|.",
        )

    def test_arguments_are_described_with_and_without_a_title(self):
        for text in (
            "Loads.\n\nArgs:\n  path: a folder,\n    or none.\n  seed: a seed.",
            "Loads.\n\npath: a folder,\n  or none.\nseed: a seed.",
        ):
            self.assertIn(
                ":param path: a folder, or none.\n:param seed: a seed.",
                self.convert(text, "path", "seed"),
            )

    def test_a_sentence_after_the_arguments_is_a_sentence(self):
        text = "Loads.\n\npath: a folder.\nRaises InputError if it is none."
        result = self.convert(text, "path")
        self.assertIn("\nRaises InputError if it is none.\n", result)
        self.assertIn(":param path: a folder.", result)

    def test_other_names_are_text(self):
        result = self.convert("scores: they are high.", "path")
        self.assertNotIn(":param", result)

    def test_an_indented_paragraph_is_shown_as_it_is(self):
        result = self.convert("A run:\n\n    run/\n      best\n\nThe end.")
        self.assertIn(".. code-block:: text\n\n   run/\n     best\n", result)


if __name__ == "__main__":
    absltest.main()
