"""The examples run: python blocks of READMEs, in one namespace a file, and docstrings."""

import doctest
import importlib
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parents[1]


def documents():
    """READMEs that show python, named after their folder."""
    found = []
    files = [ROOT / "README.md", *sorted(ROOT.glob("*/*/README.md"))]
    for file in files:
        if "\n```python\n" in f"\n{file.read_text()}":
            name = "root" if file.parent == ROOT else file.parent.name
            found.append(pytest.param(file, id=f"readme-{name}"))
    return found


@pytest.mark.parametrize("file", documents())
def test_readme(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what a block writes, it writes here
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(file)
    examples = list(document.examples())
    assert examples
    for example in examples:
        example.evaluate()


def modules_with_examples():
    files = sorted(ROOT.glob("*/*/src/**/*.py"))
    return [
        ".".join(file.relative_to(ROOT).with_suffix("").parts[3:])
        for file in files
        if ">>> " in file.read_text()
    ]


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstrings(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0
