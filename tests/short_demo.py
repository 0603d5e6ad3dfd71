"""What every app's demo and command line must do, in its shortest form."""

import json
import subprocess
import sys

from pc_data.synthetic import make_street_nuscenes

from tests.fork_server import fork_rows


def check_short_demo(main, words, out, capsys, *, num_pictures):
    """Run a demo of one seed and ten steps, twice; the second time nothing is done again.

    Returns the report's text.
    """
    words = ["demo", *words, "--num_seeds=1", "--max_steps=10"]
    assert main(words) == 0
    summary = json.loads((out / "summary.json").read_text())
    for measure in ("linear_probe_miou", "finetune_1pct_miou"):
        assert set(summary[measure]) == {"pretrained", "random"}
        assert all(0 < value < 1 for value in summary[measure].values())
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= num_pictures
    assert '"title":"error, linear probe, pretrained"' in page
    assert "http://" not in page
    assert "https://" not in page
    assert len(page) < 6e6
    (pretraining,) = out.glob("seed0/pretrain/report.html")
    assert '"title":"features"' in pretraining.read_text()
    printed = capsys.readouterr()
    assert "linear probe" in printed.out
    assert "pre-training: 10 of 10" in printed.err
    assert main(words) == 0
    assert json.loads((out / "summary.json").read_text()) == summary
    return page


def check_short_study(main, out, capsys, monkeypatch, *, rows, reference):
    """Run a study of one seed and two steps, twice; the second time nothing is done again."""
    monkeypatch.setattr("pc_train.demos.worlds.make_street_nuscenes", _make_two_scenes)
    monkeypatch.setattr("pc_train.downstream.report_segmentation", lambda *_, **__: None)  # slow
    fork_rows(monkeypatch)
    words = ["study", f"--out={out}", "--num_seeds=1", "--max_steps=2"]
    assert main(words) == 0
    result = json.loads((out / "study.json").read_text())
    assert list(result["rows"]) == ["random", *rows]
    for name in rows:
        row = result["rows"][name]
        assert row["seconds_per_step"] > 0
        assert row["peak_bytes"] > 100e6
        assert {"linear_probe_miou", "finetune_1pct_miou"} < set(row)
    lines = capsys.readouterr().out.splitlines()[2 : 3 + len(rows)]
    titles = [name.replace("_", " ") for name in rows]
    assert [line.split("  ")[0] for line in lines] == ["random weights", *titles]
    assert "(1.0x)" in lines[1 + rows.index(reference)]
    assert "data:image/png" in (out / "report.html").read_text()
    monkeypatch.setattr("pc_train.demos.study_cost._run_apart", None)
    monkeypatch.setattr("pc_train.downstream.fit", None)
    assert main(words) == 0
    assert json.loads((out / "study.json").read_text()) == result


def _make_two_scenes(root, **settings):
    """A smaller world than that of the short demo, which the demo's own test makes."""
    make_street_nuscenes(root, **settings | {"num_scenes": 2, "image_size": (224, 126)})


def help_of_pretrain(app, heavy):
    """What `APP pretrain --help` prints; it must not import what is heavy."""
    code = (
        f"import sys; from {app}.cli import main; main(['pretrain', '--help']);"
        f"sys.exit(any(name in sys.modules for name in {heavy!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
