"""Writes the demo's text: docstrings of the installed Python packages.

The folder contains:
  corpus.txt   one document per module, one docstring per line
  train.tsv    text, label: a few labelled docstrings of each package
  dev.tsv      other docstrings, which are not in the corpus

Labels are the packages with the most docstrings. Package names are replaced in
the text, so that they do not give the label away.
"""

import ast
import collections
import os
import random
import re
import sysconfig
from collections.abc import Iterator

LABELS = 8
TRAIN_PER_LABEL = 40
DEV_PER_LABEL = 100
MIN_CHARACTERS = 40  # of a labelled docstring
MAX_PER_PACKAGE = 4000  # tensorflow has more than all others together

SKIPPED_FOLDERS = {"tests", "test", "idlelib", "__pycache__", "site-packages"}
ALIASES = {"tf", "np", "stdlib", "py", "tfl", "tflite"}


def write(folder: str, seed: int = 1) -> dict[str, int]:
    """Writes the files; returns the number of docstrings of each label."""
    packages = collect()
    ranked = sorted(packages, key=lambda name: (-_count(packages[name]), name))
    labels = sorted(ranked[:LABELS])
    generator = random.Random(seed)
    names = re.compile(
        rf"\b({'|'.join(sorted(map(re.escape, {*packages, *ALIASES})))})\b",
        re.IGNORECASE,
    )

    def clean(text: str) -> str:
        return names.sub("package", " ".join(text.split()))

    train, dev = [], []
    for label in labels:
        texts = [
            text
            for module in packages[label].values()
            for text in module
            if len(text) >= MIN_CHARACTERS
        ]
        sample = generator.sample(texts, TRAIN_PER_LABEL + DEV_PER_LABEL)
        train += [(clean(text), label) for text in sample[:TRAIN_PER_LABEL]]
        dev += [(clean(text), label) for text in sample[TRAIN_PER_LABEL:]]

    os.makedirs(folder, exist_ok=True)
    _write_rows(os.path.join(folder, "train.tsv"), train)
    _write_rows(os.path.join(folder, "dev.tsv"), dev)
    held_out = {text for text, _ in dev}
    path = os.path.join(folder, "corpus.txt")
    with open(path, "w", encoding="utf-8") as file:
        for package in packages.values():
            for module in package.values():
                texts = [clean(text) for text in module]
                kept = [text for text in texts if text not in held_out]
                if kept:
                    file.write("\n".join(kept) + "\n\n")
    return {label: _count(packages[label]) for label in labels}


def collect() -> dict[str, dict[str, list[str]]]:
    """Returns {package: {module file: docstrings}}, without duplicates."""
    paths = sysconfig.get_paths()
    roots = {"stdlib": paths["stdlib"]}
    for name in sorted(os.listdir(paths["purelib"])):
        path = os.path.join(paths["purelib"], name)
        if os.path.isdir(path) and name.isidentifier():
            roots[name.strip("_")] = path
    collected: set[str] = set()
    packages = {}
    for name, root in roots.items():
        modules = collections.defaultdict(list)
        count = 0
        for path in _modules(root):
            for text in _docstrings(path):
                if text not in collected:
                    collected.add(text)
                    modules[path].append(text)
                    count += 1
            if count >= MAX_PER_PACKAGE:
                break
        packages[name] = dict(modules)
    return packages


def _modules(root: str) -> Iterator[str]:
    for parent, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        for name in sorted(files):
            if name.endswith(".py"):
                yield os.path.join(parent, name)


def _docstrings(path: str) -> Iterator[str]:
    with open(path, "rb") as file:
        source = file.read()
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # a template, or a file for another version of Python
    documented = (
        ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    )
    for node in ast.walk(tree):
        if isinstance(node, documented):
            text = ast.get_docstring(node)
            if text:
                yield text


def _count(package: dict[str, list[str]]) -> int:
    return sum(map(len, package.values()))


def _write_rows(path: str, rows: list[tuple[str, str]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write("text\tlabel\n")
        for text, label in rows:
            file.write(f"{text}\t{label}\n")
