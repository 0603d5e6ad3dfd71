"""The demo in its ten-step form, and the command line."""

import pytest
from msc.cli import main

from tests.short_demo import check_short_demo, help_of_pretrain


@pytest.mark.slow
def test_ten_step_demo(tmp_path, capsys):
    out = tmp_path / "demo"
    page = check_short_demo(main, [f"--out={out}"], out, capsys, num_pictures=8)
    assert "what was hidden" in page


def test_help_imports_nothing_heavy():
    printed = help_of_pretrain("msc", ("torch", "spconv", "lightning", "numba"))
    assert "--mask_rate" in printed
    assert "hidden in each view" in printed


@pytest.mark.parametrize(
    ("preset", "recipe"),
    [
        ("lidar", "pc-train finetune --backbone"),
        ("small", "pc-train finetune --preset rooms --data.name"),
    ],
)
def test_what_comes_next(monkeypatch, capsys, preset, recipe):
    monkeypatch.setattr("msc.pretrain.pretrain", lambda config: config.out / "weights")
    assert main(["pretrain", f"--preset={preset}", "--data.root=x"]) == 0
    assert f"next: {recipe}" in capsys.readouterr().out


def test_overview_names_the_commands(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert "demo" in printed
    assert "pretrain" in printed
