"""What is read from runs' folders, whole, unfinished and damaged."""

from pathlib import Path

import pytest
from pc_train.run_folders import read_run, short_names


def _folder(path, settings, **files):
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(settings)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


SETTINGS = {
    "demo": "num_seeds: 2\nmax_steps: 0\n",
    "study": "num_seeds: 2\nmax_steps: 0\nstudy: A study\n",
    "evaluate": "run: r\ndata: {root: d}\nprecise: false\n",
    "probe": "backbone: b\nval_split: val\nhead: linear\n",
    "finetune": "backbone: b\nval_split: val\nhead: linear\nlayer_decay: 0.5\n",
    "pretrain": "data: {root: d}\nepochs: 1\nbatch_size: 2\nstart_from: null\n",
}


@pytest.mark.parametrize("command", SETTINGS)
def test_commands_are_known_by_their_settings(tmp_path, command):
    run = read_run(_folder(tmp_path / "run", SETTINGS[command]))
    assert (run.command, run.is_finished, run.state) == (command, False, "unfinished")


def test_state(tmp_path):
    curve = "step,loss,lr\n1,0.5,0.1\n1200,0.4,0.1\n1201,0"
    run = read_run(_folder(tmp_path / "a", SETTINGS["probe"], metrics__csv=curve))
    assert run.state == "unfinished, step 1,200"
    run = read_run(_folder(tmp_path / "b", SETTINGS["probe"], scores__json='{"miou": 1}'))
    assert (run.state, run.result) == ("finished", {"miou": 1})


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_result(tmp_path, text):
    run = read_run(_folder(tmp_path / "a", SETTINGS["demo"], summary__json=text))
    with pytest.raises(ValueError, match=r"summary.json is damaged.*let its command run again"):
        run.result  # noqa: B018


def test_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no config\.yaml, so it is no run's folder"):
        read_run(tmp_path)
    with pytest.raises(ValueError, match=r"not compared, by its settings \(color, size, ...\)"):
        read_run(_folder(tmp_path / "a", "color: red\nsize: 3\n"))


def test_short_names_tell_all_apart():
    paths = [Path(p) for p in ("/r/a/probe", "/r/b/probe", "/r/b/tuned", "/r/b")]
    assert short_names(paths) == ["a/probe", "b/probe", "tuned", "b"]
    assert short_names([Path("/x"), Path("/y/x")]) == ["//x", "y/x"]
    assert short_names([]) == []
