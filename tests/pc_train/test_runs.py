"""A run folder is resumed by its own command and by no other."""

import pytest
from pc_train.runs import open_run


def test_new_then_resumed(tmp_path):
    out = tmp_path / "run"
    open_run(out, "lr: 0.1\n")
    open_run(out, "lr: 0.1\n")
    assert (out / "config.yaml").read_text() == "lr: 0.1\n"


def test_other_settings_are_refused(tmp_path):
    open_run(tmp_path / "run", "lr: 0.1\ndata: {root: a}\n")
    with pytest.raises(ValueError, match=r"data\.root 'a' -> 'b', lr 0.1 -> 0.2\); pass another"):
        open_run(tmp_path / "run", "lr: 0.2\ndata: {root: b}\n")


def test_speed_settings_may_change(tmp_path):
    open_run(tmp_path / "run", "save_every: 5\nhardware: {num_workers: 2}\n")
    open_run(tmp_path / "run", "save_every: 9\nhardware: {num_workers: 0}\n")


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="is no run of this command; pass another --out"):
        open_run(tmp_path, "lr: 0.1\n")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
