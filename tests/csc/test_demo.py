"""The demo and the study in short forms, and the command line."""

import pytest
from csc.cli import main

from tests.short_demo import check_short_demo, check_short_study, help_of_pretrain


@pytest.mark.slow
def test_ten_step_demo(tmp_path, capsys):
    out = tmp_path / "demo"
    page = check_short_demo(main, [f"--out={out}"], out, capsys, num_pictures=6)
    assert "Superpixels and superpoints" in page


@pytest.mark.slow
def test_two_step_study(tmp_path, capsys, monkeypatch):
    rows = ("slidr", "semantic", "point_prototypes", "csc")
    out = tmp_path / "study"
    check_short_study(main, out, capsys, monkeypatch, rows=rows, reference="csc")


@pytest.mark.parametrize(
    ("flag", "match"),
    [
        ("--max_steps=1", "max_steps must be 0 or at least 2, got 1"),
        ("--num_seeds=0", "num_seeds must be at least 1, got 0"),
        ("--num_seed=1", "did you mean --num_seeds"),
    ],
)
def test_bad_settings_of_the_study(tmp_path, capsys, flag, match):
    assert main(["study", f"--out={tmp_path / 'study'}", flag]) == 2
    assert match in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_help_imports_nothing_heavy():
    printed = help_of_pretrain("csc", ("torch", "lightning", "numba"))
    assert "--prototype_epochs" in printed
    assert "blend mixes the prototypes" in " ".join(printed.split())


def test_overview_names_the_commands(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for command in ("demo", "prepare", "pretrain", "study"):
        assert command in printed
