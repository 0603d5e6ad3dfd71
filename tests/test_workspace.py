"""House rules that a script can check."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MEMBERS = sorted(file.parent for file in ROOT.glob("*/*/pyproject.toml"))
MODULES = sorted(file for member in MEMBERS for file in member.glob("src/**/*.py"))
VAGUE = {"base", "common", "core", "helper", "helpers", "misc", "tools", "util", "utils"}
LIGHT = (
    "pc_data",
    "pc_geometry",
    "pc_2dteachers",
    "pc_train",
    "scalr.cli",
    "msc.cli",
    "crossmodal.cli",
    "csc.cli",
    "sspl.cli",
    "pc_train.cli",
)
HEAVY = ("torch", "timm", "lightning")


def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def relative(path):
    return str(path.relative_to(ROOT))


each_member = pytest.mark.parametrize("member", MEMBERS, ids=relative)
each_module = pytest.mark.parametrize("module", MODULES, ids=relative)


def test_something_was_found():
    names = {member.name for member in MEMBERS}
    assert {"pc-geometry", "pc-data", "pc-backbones", "pc-2dteachers", "pc-losses"} <= names
    assert {"pc-train", "crossmodal", "csc", "msc", "scalr", "sspl"} <= names
    assert len(MODULES) > 40


@each_member
def test_versions_move_together(member):
    assert project(member)["version"] == project(ROOT)["version"]


@each_member
def test_files_of_a_member(member):
    assert len((member / "README.md").read_text().splitlines()) > 5
    assert (member / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    packages = [
        folder for folder in (member / "src").iterdir() if (folder / "__init__.py").exists()
    ]
    assert len(packages) == 1
    assert (packages[0] / "py.typed").is_file()
    assert not any((member / name).exists() for name in ("setup.py", "setup.cfg", "ruff.toml"))


@each_member
def test_tools_are_configured_at_the_root(member):
    """All but the name of the module, where it is not that of the distribution."""
    tools = tomllib.loads((member / "pyproject.toml").read_text()).get("tool", {})
    assert tools in ({}, {"uv": {"build-backend": {"module-name": member.name}}})


@each_member
def test_siblings_are_admitted_in_their_current_version(member):
    """`>=0.1,<0.2` for version 0.1.x: neither too old nor shut out."""
    siblings = {project(folder)["name"] for folder in MEMBERS}
    current = version(project(ROOT)["version"])
    about = project(member)
    extras = [line for lines in about.get("optional-dependencies", {}).values() for line in lines]
    for line in [*about["dependencies"], *extras]:
        name = re.match(r"[\w.-]+", line)[0]
        if name not in siblings:
            continue
        found = re.fullmatch(rf"{name}(?:\[[\w,]+\])?>=([\d.]+),<([\d.]+)", line)
        assert found, f"{line}: give a range such as {name}>=0.1,<0.2"
        assert version(found[1]) <= current < version(found[2]), line


def version(text):
    return (*map(int, text.split(".")), 0, 0, 0)[:3]


def test_every_member_is_installed_by_the_root():
    wanted = {project(member)["name"] for member in MEMBERS}
    assert wanted <= set(project(ROOT)["dependencies"])


@each_module
def test_module_is_short_and_well_named(module):
    assert len(module.read_text().splitlines()) <= 500
    assert module.stem not in VAGUE
    assert not VAGUE & set(module.relative_to(ROOT).parts)


@each_module
def test_module_says_what_it_is(module):
    assert ast.get_docstring(ast.parse(module.read_text()))


@pytest.mark.parametrize("module", [m for m in MODULES if m.name == "__init__.py"], ids=relative)
def test_init_only_reexports(module):
    """`from x import y as y`, at most 15 names; lazily, by `__getattr__`, where y is heavy."""
    tree = ast.parse(module.read_text())
    kinds = (ast.FunctionDef, ast.ClassDef)
    defined = [node.name for node in ast.walk(tree) if isinstance(node, kinds)]
    assert set(defined) <= {"__getattr__", "__dir__"}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = [name for node in imports for name in node.names if name.asname]
    assert all(name.asname == name.name for name in names)
    assert len(names) <= 15
    if not defined:
        assert all(isinstance(node, ast.ImportFrom) for node in tree.body[1:])
        assert len(names) == sum(len(node.names) for node in imports)


@pytest.mark.parametrize("name", LIGHT)
def test_import_is_light(name):
    """A command line that answers at once imports no network library."""
    script = f"import sys, {name}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
