"""Who may import whom, as tables, checked against the syntax trees.

A new module of bert_keras gets a row in INSIDE: that is the moment to think
about where it belongs. Imports inside functions count like all others.
"""

import ast
import json
import os
import pathlib
import subprocess
import sys

from absl.testing import absltest

ROOT = pathlib.Path(__file__).absolute().parents[1]

# Module or folder of bert_keras -> modules and folders that it may import; the
# row with the longest name counts. Each row may import what is above it, and
# everyone commands, errors, files, options, registry and types.
_NETWORK = {
    "networks",
    "layers",
    "elmo_layers",
    "recurrent_layers",
    "recurrent_kernels",
    "kernels",
    "placement",
}
_DATA = {"sentence_objectives", "tokenizers", "data", "metrics"}
_TASKS = _DATA | {
    "networks.base",
    "tasks",
    "heads",
    "decoders",
    "transformer_decoder",
    "rnn_decoder",
    "encoder_decoder",
    "masked_rows",
    "mask_generator",
    "beams",
    "generation",
    "mask_filling",
    "kv_cache",
}
_MODEL = _NETWORK | _TASKS | {"model"}
_CHECKPOINT = _MODEL | {"checkpoint", "model_card"}
_PREDICTOR = _CHECKPOINT | {"formats", "loading", "predictor"}
_EXPORT = _PREDICTOR | {"markdown", "verification", "staging", "signatures"}
INSIDE = {
    "errors": set(),
    "keras_backend": set(),
    "types": set(),
    "options": set(),
    "former_names": set(),
    "registry": set(),
    "files": set(),
    "streams": set(),
    "locks": set(),
    "safetensors_mmap": set(),
    "named_tensors": set(),
    "checkpoint_config": set(),
    "tensorflow_import": set(),
    "kernels": set(),
    "networks.base": set(),
    "layers": {"kernels", "networks.base"},
    "recurrent_kernels": set(),
    "recurrent_layers": {"layers", "recurrent_kernels"},
    "elmo_layers": {"layers", "recurrent_kernels", "networks.base"},
    "networks": _NETWORK,
    "kv_cache": set(),
    "beams": set(),
    "generation": {"beams"},
    "mask_filling": {"tokenizers.base"},
    "heads": {"kernels", "layers", "networks.base"},
    "attention_scores": {"layers", "networks.base"},
    "decoders": {"attention_scores", "kernels", "layers", "networks.base"},
    "transformer_decoder": {"decoders", "kernels", "layers"},
    "rnn_decoder": {
        "attention_scores",
        "decoders",
        "layers",
        "recurrent_layers",
    },
    "encoder_decoder": {
        "decoders",
        "transformer_decoder",
        "rnn_decoder",
        "generation",
        "networks.base",
        "tasks.base",
        "tokenizers.base",
    },
    "mask_generator": {"heads", "layers", "networks"},
    "masked_rows": {"data", "tasks.base", "tokenizers.base"},
    "sentence_objectives": {"sentence_objectives"},
    "text": {"text"},
    "tokenizers.base": set(),
    "tokenizers": {"text", "tokenizers"},
    "data": {"sentence_objectives", "tokenizers", "data", "safetensors_mmap"},
    "metrics": {"tokenizers", "data", "metrics"},
    "tasks.base": {
        "former_names",
        "keras_backend",
        "networks.base",
        "tokenizers.base",
    },
    "tasks": _TASKS,
    "placement": set(),
    "recorded_encoder": set(),
    "exits": {"layers", "networks.base"},
    "wrappers": _TASKS
    | {"wrappers", "recorded_encoder", "exits", "layers", "networks"},
    "named_networks": {"networks"},
    "model": {"layers", "networks.base", "placement", "tasks.base"},
    "markdown": set(),
    "model_card": {"markdown", "model", "tasks.base", "tokenizers.base"},
    "optimizers": {"placement"},
    "checkpoint": _MODEL
    | {"checkpoint_config", "model_card", "named_tensors", "safetensors_mmap"},
    "formats": _CHECKPOINT | {"formats", "locks", "named_tensors"},
    "loading": _CHECKPOINT | {"formats"},
    "length_batching": set(),
    "console": {"streams"},
    "labelled_examples": {"console", "data", "tasks.base"},
    "evaluation": {"console", "tasks.base"},
    "predictor": _CHECKPOINT
    | {"formats", "loading", "length_batching"}
    | {"console", "labelled_examples", "evaluation"},
    "attention_map": {"encoder_decoder", "generation", "predictor"},
    "vector_files": set(),
    "answer_settings": {
        "exits",
        "generation",
        "mask_filling",
        "vector_files",
    },
    "static_vectors": {"tokenizers.base"},
    "token_vectors": {"data", "networks.base", "tasks.base", "tokenizers.base"},
    "word_vectors": {"formats", "predictor", "static_vectors", "token_vectors"},
    "logistic_regression": set(),
    "probing": _PREDICTOR
    | {"console", "evaluation", "labelled_examples", "length_batching"}
    | {"logistic_regression", "token_vectors"},
    "self_attention": _PREDICTOR | {"token_vectors"},
    "attention_page": {"self_attention"},
    "vocabulary_surgery": _CHECKPOINT | {"text"},
    "layer_surgery": {
        "checkpoint",
        "layers",
        "model",
        "networks",
        "vocabulary_surgery",
    },
    "commands": set(),
    "command_help": set(),
    "verification": {"tasks.base"},
    "staging": {"locks"},
    "signatures": {"predictor", "networks.base", "tasks.base"},
    "playground": _PREDICTOR | {"playground", "console", "word_vectors"},
    "training": _PREDICTOR
    | {"training", "wrappers", "console", "locks", "markdown", "optimizers"}
    | {
        "networks",
        "placement",
        "labelled_examples",
        "evaluation",
        "named_networks",
        "answer_settings",
    },
    "serving": _EXPORT | {"serving"},
    "device": _EXPORT | {"device"},
    # Trains, exports and measures: the one place where these meet.
    "compression": _EXPORT
    | {"compression", "training", "wrappers", "serving", "device"}
    | {"layer_surgery", "vocabulary_surgery"}
    | {"console", "evaluation", "labelled_examples", "locks"},
}
EVERYONE = {"commands", "errors", "files", "options", "registry", "types"}

# The other folders -> the folders they import. Trainers and export never meet,
# nor, but in compression, do training and what is served or runs on a device.
FOLDERS = {"bert_keras", "trainers", "export", "demo", "benchmarks", "tests"}
OUTSIDE = {
    "trainers": {"bert_keras", "trainers"},
    "export": {"bert_keras", "export"},
    "demo": {"bert_keras", "trainers", "export", "demo"},
    "benchmarks": FOLDERS,
    "tests": FOLDERS,
}

# The network is written in keras, so that any backend of Keras could run it.
NETWORK = (
    "layers",
    "elmo_layers",
    "recurrent_layers",
    "attention_scores",
    "decoders",
    "transformer_decoder",
    "rnn_decoder",
    "networks.bert",
    "networks.elmo",
    "networks.rnn",
    "kv_cache",
    "heads",
    "model",
)
NETWORK_IMPORTS = {
    "bert_keras",
    "keras",
    "numpy",  # for constants
    *sys.stdlib_module_names,
}

# These ask which strategy is active or which replica this is.
REPLICA_NAMES = {
    "get_replica_context",
    "get_strategy",
    "has_strategy",
    "in_cross_replica_context",
    "merge_call",
    "replica_id_in_sync_group",
}

# These may run a main from within; everyone else leaves mains alone.
MAY_IMPORT_MAINS = {"demo", "benchmarks", "tests"}


def _read():
    """Every Python file of the project: {dotted name: (path, syntax tree)}."""
    modules = {}
    for folder in sorted(FOLDERS):
        for file in sorted((ROOT / folder).rglob("*.py")):
            path = file.relative_to(ROOT)
            parts = path.with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            tree = ast.parse(file.read_text(encoding="utf-8"), str(path))
            modules[".".join(parts)] = (path, tree)
    return modules


MODULES = _read()
PACKAGES = {
    ".".join(name.split(".")[:depth])
    for name in MODULES
    for depth in range(1, name.count(".") + 1)
}


def _imports(path, tree):
    """(line, dotted name) of all that a file imports, down to the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = path.parts[: -node.level] if node.level else ()
            source = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                name = f"{source}.{alias.name}"
                is_module = name in MODULES or name in PACKAGES
                yield node.lineno, name if is_module else source


def _is_main(path, tree):
    """Whether a file is a __main__.py or compares its __name__ at the end."""
    return path.name == "__main__.py" or any(
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Compare)
        and getattr(node.test.left, "id", None) == "__name__"
        for node in tree.body
    )


def _covers(names, module):
    """Whether a module, or a folder that it is in, is among the names."""
    return any(f"{module}.".startswith(f"{name}.") for name in names)


def _row(module):
    """The row of INSIDE for a module of bert_keras, or None."""
    rows = [name for name in INSIDE if _covers([name], module)]
    return max(rows, key=len, default=None)


def _allowed(module, imported):
    """What a module may import, and whether that covers `imported`."""
    folder, _, part = module.partition(".")
    other, _, other_part = imported.partition(".")
    if folder != "bert_keras":
        return OUTSIDE[folder], other in OUTSIDE[folder]
    if not part:  # bert_keras/__init__.py gathers the public names.
        return {"bert_keras"}, other == "bert_keras"
    names = INSIDE.get(_row(part), set()) | EVERYONE
    return names, other == "bert_keras" and _covers(names, other_part)


class ImportsTest(absltest.TestCase):
    def _assert_none(self, wrong):
        wrong = list(wrong)
        self.assertEmpty(wrong, "\n" + "\n".join(wrong))

    def test_every_module_of_bert_keras_has_a_row(self):
        parts = {
            name.removeprefix("bert_keras.")
            for name in MODULES
            if name.startswith("bert_keras.")
        }
        self._assert_none(
            f"bert_keras.{part} has no row in INSIDE of "
            "tests/imports_test.py: add one that says what it may import."
            for part in sorted(parts)
            if _row(part) is None
        )
        self._assert_none(
            f"INSIDE has a row {row}, which is nothing in bert_keras."
            for row in INSIDE
            if not any(_covers([row], part) for part in parts)
        )

    def test_imports_follow_the_tables(self):
        wrong = []
        for name, (path, tree) in MODULES.items():
            for line, imported in _imports(path, tree):
                allowed, fine = _allowed(name, imported)
                if imported.split(".")[0] in FOLDERS and not fine:
                    wrong.append(
                        f"{path}:{line} imports {imported}; of this project "
                        f"it may import {', '.join(sorted(allowed))}."
                    )
        self._assert_none(wrong)

    def test_the_network_is_keras_alone(self):
        self._assert_none(
            f"{path}:{line} imports {imported}; the network is keras alone."
            for part in NETWORK
            for path, tree in [MODULES[f"bert_keras.{part}"]]
            for line, imported in _imports(path, tree)
            if imported.split(".")[0] not in NETWORK_IMPORTS
        )

    def test_bert_keras_knows_no_flags(self):
        self._assert_none(
            f"{path}:{line} imports {imported}; flags live in trainers."
            for name, (path, tree) in MODULES.items()
            if name.split(".")[0] == "bert_keras"
            for line, imported in _imports(path, tree)
            if imported.split(".")[0] == "absl"
        )

    def test_only_training_knows_replicas(self):
        self._assert_none(
            f"{path}:{node.lineno} uses a replica's context; replicas live in "
            "bert_keras/training."
            for name, (path, tree) in MODULES.items()
            if name.startswith("bert_keras.")
            and not name.startswith("bert_keras.training.")
            for node in ast.walk(tree)
            if getattr(node, "attr", getattr(node, "id", "")) in REPLICA_NAMES
        )

    def test_nothing_imports_a_main(self):
        mains = {name for name, file in MODULES.items() if _is_main(*file)}
        self._assert_none(
            f"{path}:{line} imports the main {imported}; what it needs from "
            "there belongs in a library."
            for name, (path, tree) in MODULES.items()
            if name.split(".")[0] not in MAY_IMPORT_MAINS
            for line, imported in _imports(path, tree)
            if imported in mains
        )

    def test_importing_bert_keras_is_cheap(self):
        script = (
            "import json, sys, bert_keras\n"
            "from absl import flags\n"
            "definers = list(flags.FLAGS.flags_by_module_dict())\n"
            "print(json.dumps([list(sys.modules), definers]))\n"
        )
        path = os.pathsep.join([str(ROOT), *sys.path])
        run = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        imported, definers = (
            {name.split(".")[0] for name in names}
            for names in json.loads(run.stdout.splitlines()[-1])
        )
        self.assertIn("bert_keras", imported)
        self.assertEmpty(imported & {"keras_hub", "keras_nlp", *OUTSIDE})
        self.assertEmpty(definers & FOLDERS)


if __name__ == "__main__":
    absltest.main()
