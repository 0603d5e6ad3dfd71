"""Every python block of every README runs, in order, in one namespace a file."""

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
