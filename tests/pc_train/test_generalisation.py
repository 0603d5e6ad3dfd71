"""Other datasets than the one trained on, and datasets of which some scans alone have labels."""

import json

import numpy as np
import pytest
from pc_data import DataError
from pc_data.datasets import DataConfig, open_dataset
from pc_train.cli import main
from pc_train.limited import labelled_scans

from tests.pc_data.layouts import make_world


@pytest.fixture
def without_report(monkeypatch):
    monkeypatch.setattr("pc_train.downstream.report_segmentation", lambda *_, **__: None)


def _evaluate(run, root, name, out, *more):
    data = [f"--data.root={root}", f"--data.name={name}", "--data.split=val", "--num_workers=0"]
    return main(["evaluate", str(run), *data, f"--out={out}", *more])


@pytest.mark.parametrize(
    ("name", "classes"),
    [("semantickitti", "10"), pytest.param("semanticposs", "6", marks=pytest.mark.slow)],
)
def test_classes_that_datasets_share(probe_words, without_report, tmp_path, capsys, name, classes):
    run, root = tmp_path / "run", make_world(name, tmp_path / "world")
    assert main(probe_words(run, f"--data.classes={classes}", "--max_steps=1")) == 0
    assert _evaluate(run, root, name, tmp_path / "shared", f"--data.classes={classes}") == 0
    score = json.loads((tmp_path / "shared" / "scores.json").read_text())
    assert len(score["iou"]) == int(classes)
    assert 0 <= score["miou"] <= 1
    capsys.readouterr()
    assert _evaluate(run, root, name, tmp_path / "own") == 2
    said = capsys.readouterr().err
    assert f"{run} predicts {classes} classes (" in said
    assert "are asked for by --data.classes 10 or 6, in training too" in said
    assert not (tmp_path / "own").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["semanticposs", "pandaset", "pointcept"])
def test_other_datasets(probe_words, without_report, tmp_path, name):
    root = make_world(name, tmp_path / "world")
    words = probe_words(tmp_path / "run", f"--data.root={root}", f"--data.name={name}")
    assert main([*words, "--max_steps=1"]) == 0


class _Partly(list):
    """A dataset that knows which of its scans have labels."""

    root, split, scene_names = "here", "val", ("a", "b")
    class_names, num_classes = ("car", "road"), 2
    intensity_mean, intensity_std = 1.0, 2.0

    def __init__(self, scans, labelled):
        super().__init__(scans)
        self._labelled = np.array(labelled, np.int64)

    def labelled(self):
        return self._labelled

    def scene_of(self, index):
        return "ab"[index % 2]


def test_scans_with_labels_alone():
    chosen = labelled_scans(_Partly(["p", "q", "r", "s"], [1, 2]))
    assert list(chosen) == ["q", "r"]
    assert [chosen.scene_of(i) for i in range(len(chosen))] == ["b", "a"]
    for name in ("root", "split", "scene_names", "class_names", "num_classes", "intensity_std"):
        assert getattr(chosen, name) == getattr(_Partly, name)
    with pytest.raises(DataError, match="here: no scan of split 'val' has labels"):
        labelled_scans(_Partly(["p"], []))


def test_datasets_with_all_labels_stay(street_world):
    dataset = open_dataset(DataConfig(root=street_world))
    assert labelled_scans(dataset) is dataset


@pytest.mark.slow
def test_waymo(probe_words, without_report, tmp_path):
    from pc_data.synthetic.waymo import make_street_waymo

    root = tmp_path / "world"
    make_street_waymo(
        root,
        num_scenes=2,
        seed=3,
        frames_per_scene=3,
        image_size=(64, 48),
        top_shape=(64, 400),
        short_shape=(20, 60),
        label_every=2,
    )
    out = tmp_path / "run"
    words = probe_words(out, f"--data.root={root}", "--data.name=waymo", "--batch_size=2")
    assert main([*words, "--max_steps=1"]) == 0  # of three frames the first and the last
    assert json.loads((out / "scores.json").read_text())["num_scans"] == 2
    assert _evaluate(out, root, "waymo", tmp_path / "val") == 0
