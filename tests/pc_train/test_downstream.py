"""Probing and evaluation as a user runs them: whose score is read, and what is refused when."""

import json
import re
import shutil
from pathlib import Path

import pytest
from pc_train.cli import main
from pc_train.scores import read_confusion
from pc_train.segmentation import iou_per_class


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return tmp_path_factory.mktemp("finished")


@pytest.fixture
def probed(places, probe_words):
    """A finished run that no test changes."""
    out = places / "run"
    if not (out / "scores.json").is_file():
        assert main(probe_words(out)) == 0
    return out


@pytest.fixture
def evaluate(street_world):
    def call(run, out, *more):
        data = [f"--data.root={street_world}", "--data.split=val", "--num_workers=0"]
        return main(["evaluate", str(run), *data, f"--out={out}", *more])

    return call


def _score(folder):
    return json.loads((folder / "scores.json").read_text())


def _said(capsys):
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert "\n" not in said
    return said


def test_report_shows_what_it_should(probed):
    page = (probed / "report.html").read_text()
    parts = ["One scan to look at", "Classes", "What is taken for what", "Loss"]
    parts += ["The scan in a picture", "What the features find alike", "Configuration"]
    assert re.findall("<h2>(.*?)</h2>", page) == parts
    assert page.count("data:image/png") == 5
    titles = re.findall('"title":"(.*?)"', page)
    assert titles == ["ground truth", "prediction", "error", "features", "intensity", "height"]
    assert len(page) < 6e6


def test_confusion_is_kept_and_agrees_with_the_score(probed):
    names, counts = read_confusion(probed)
    iou = dict(zip(names, iou_per_class(counts), strict=True))
    assert {k: v for k, v in iou.items() if v == v} == pytest.approx(
        {k: v for k, v in _score(probed)["iou"].items() if v == v}
    )


def test_finished_run_is_read_and_said_once(probed, probe_words, monkeypatch, capsys):
    capsys.readouterr()
    assert main(probe_words(probed)) == 0
    said = capsys.readouterr()
    assert said.err == f"finished earlier; read from {probed / 'scores.json'}\n"
    assert said.out.startswith("mIoU ")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main(probe_words(probed)) == 0
    assert capsys.readouterr() == ("", "")


def test_evaluation_scores_as_the_run_did(probed, evaluate, tmp_path):
    assert _score(probed)["miou"] > 0
    assert evaluate(probed, tmp_path / "val") == 0
    assert _score(tmp_path / "val") == _score(probed)
    assert evaluate(probed, tmp_path / "val") == 0  # its own folder


def test_evaluation_overwrites_nothing(probed, evaluate, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pc_train.downstream.score_model", None)  # it must not come to this
    before = {path: path.read_bytes() for path in probed.iterdir() if path.is_file()}
    capsys.readouterr()
    assert evaluate(probed, probed) == 2
    assert "belongs to a run with other settings" in _said(capsys)
    assert {path: path.read_bytes() for path in probed.iterdir() if path.is_file()} == before
    file = tmp_path / "file"
    file.write_text("precious")
    assert evaluate(probed, file) == 2
    assert "is no run of this command" in _said(capsys)


def test_other_weights_at_the_same_place(backbone, probe_words, tmp_path, capsys):
    import torch
    from pc_train.networks import open_backbone, save_model

    mine = Path(shutil.copytree(backbone, tmp_path / "mine"))
    words = probe_words(tmp_path / "run", f"--backbone={mine}", "--max_steps=1")
    assert main(words) == 0
    named = open_backbone(mine)
    with torch.no_grad():
        next(named.network.parameters()).add_(1)
    save_model(mine, named, card={})
    capsys.readouterr()
    assert main(words) == 2
    assert "backbone.safetensors has changed since the run" in _said(capsys)


def _cut(file):
    file.write_bytes(file.read_bytes()[:100])


def _of_other_size(file):
    from safetensors.torch import load_file, save_file

    save_file(
        {key: value[..., :3].contiguous() for key, value in load_file(file).items() if value.ndim},
        file,
        metadata={"class_names": '["car"]'},
    )


@pytest.mark.parametrize("damage", [_cut, _of_other_size])
def test_damaged_head(probed, evaluate, tmp_path, capsys, damage):
    run = Path(shutil.copytree(probed, tmp_path / "run"))
    damage(run / "head.safetensors")
    capsys.readouterr()
    assert evaluate(run, tmp_path / "val") == 2
    assert "head.safetensors is damaged or of another backbone" in _said(capsys)


@pytest.mark.parametrize("content", ['{"miou": 0.', "[]", '{"other": 1}'])
def test_damaged_score(probed, probe_words, tmp_path, capsys, content):
    run = Path(shutil.copytree(probed, tmp_path / "run"))
    (run / "scores.json").write_text(content)
    capsys.readouterr()
    assert main(probe_words(run)) == 2
    assert "scores.json is damaged" in _said(capsys)


def test_wrong_backbones(probe_words, tmp_path, capsys):
    run, empty, text = tmp_path / "unfinished", tmp_path / "empty", tmp_path / "notes.txt"
    run.mkdir()
    (run / "config.yaml").write_text("lr: 1\n")
    empty.mkdir()
    text.write_text("hello, this is no backbone\n")
    for path, match in (
        (run, "is not finished: it holds no backbone.safetensors yet"),
        (empty, "holds neither backbone.safetensors nor ckpt_last.pth or model.pth"),
        (text, "notes.txt cannot be read as plain tensors"),
    ):
        assert main(probe_words(tmp_path / "out", f"--backbone={path}")) == 2
        assert match in _said(capsys)


def test_fraction_that_fills_no_batch(probe_words, tmp_path, capsys):
    words = probe_words(tmp_path / "out", "--fraction=0.01", "--batch_size=2")
    assert main(words) == 2
    assert "fraction 0.01 of 2 scans leaves 1, fewer than batch_size 2" in _said(capsys)


@pytest.fixture
def unlabelled(street_world, tmp_path):
    """A world whose validation scans, and they alone, have lost their labels."""
    from pc_data.datasets import DataConfig, open_dataset

    world = Path(shutil.copytree(street_world, tmp_path / "world"))
    val = open_dataset(DataConfig(root=world, split="val"))
    lost = {str(val.label_file(i).relative_to(world)) for i in range(len(val))}
    table = next(world.glob("v1.0-*/lidarseg.json"))
    rows = [row for row in json.loads(table.read_text()) if row["filename"] not in lost]
    table.write_text(json.dumps(rows))
    table.with_name("panoptic.json").unlink()  # else its classes take their place
    return world


def test_no_labels_to_evaluate_on(probed, unlabelled, probe_words, evaluate, tmp_path, capsys):
    capsys.readouterr()
    assert main(probe_words(tmp_path / "out", f"--data.root={unlabelled}")) == 3
    assert "of split 'val'" in _said(capsys)
    assert not (tmp_path / "out").exists()
    assert evaluate(probed, tmp_path / "val", f"--data.root={unlabelled}") == 3
    assert "has no labels; a score needs a split with labels" in _said(capsys)
    assert not (tmp_path / "val").exists()
