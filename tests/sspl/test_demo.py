"""The demos in their ten-step form, and the command line."""

import pytest
from sspl.cli import main

from tests.short_demo import check_short_demo, help_of_pretrain


@pytest.mark.slow
@pytest.mark.parametrize("world", ["streets", "rooms"])
def test_ten_step_demo(world, tmp_path, capsys):
    words = [f"--world={world}", f"--out={tmp_path}"]
    page = check_short_demo(main, words, tmp_path / world, capsys, num_pictures=9)
    assert "t-SNE" in page


def test_help_imports_nothing_heavy():
    printed = help_of_pretrain("sspl", ("torch", "spconv", "lightning", "numba"))
    assert "--max_volumes" in printed
    assert "that its local crop keeps" in printed


def test_wrong_world(capsys):
    assert main(["demo", "--world=forest"]) == 2
    assert "streets" in capsys.readouterr().err


def test_overview_names_the_commands(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert "demo" in printed
    assert "pretrain" in printed
