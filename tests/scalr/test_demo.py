"""The demo in its ten-step form, and the command line."""

import pytest
from scalr.cli import main

from tests.short_demo import check_short_demo, help_of_pretrain


@pytest.mark.slow
def test_ten_step_demo(tmp_path, capsys):
    out = tmp_path / "demo"
    check_short_demo(main, [f"--out={out}"], out, capsys, num_pictures=6)


def test_help_imports_nothing_heavy():
    printed = help_of_pretrain("scalr", ("torch", "timm", "lightning", "numba"))
    assert "--teachers" in printed
    assert "Peak learning rate" in printed


@pytest.mark.parametrize("command", ["demo", "pretrain"])
def test_overview_names_the_commands(capsys, command):
    assert main(["--help"]) == 0
    assert command in capsys.readouterr().out
