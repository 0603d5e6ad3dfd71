"""The demo in its ten-step form, and the command line."""

import json
import subprocess
import sys

import pytest
from crossmodal.cli import main


@pytest.mark.slow
def test_ten_step_demo(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", f"--out={out}", "--num_seeds=1", "--max_steps=10"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    for measure in ("linear_probe_miou", "finetune_1pct_miou"):
        assert set(summary[measure]) == {"pretrained", "random"}
        assert all(0 < value < 1 for value in summary[measure].values())
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 6
    assert "http://" not in page
    assert "https://" not in page
    printed = capsys.readouterr()
    assert "linear probe" in printed.out
    assert "pre-training: 10 of 10" in printed.err
    assert main(["demo", f"--out={out}", "--num_seeds=1", "--max_steps=10"]) == 0
    assert json.loads((out / "summary.json").read_text()) == summary


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from crossmodal.cli import main; main(['pretrain', '--help']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'lightning', 'numba')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--num_negatives" in done.stdout
    assert "least similar units" in done.stdout


def test_overview_names_the_commands(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert "demo" in printed
    assert "pretrain" in printed
