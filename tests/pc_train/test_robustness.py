"""Corruption errors and resilience rates, and the run that measures them."""

import json
import shutil

import numpy as np
import pytest
from pc_data.corruptions.names import CORRUPTIONS, SEVERITIES
from pc_data.datasets import DataConfig
from pc_data.readers.nuscenes import NuScenes
from pc_train.networks import HEADS, open_backbone, save_model
from pc_train.robustness import score as robustness
from pc_train.robustness.config import RobustnessConfig
from pc_train.robustness.measures import (
    MINKUNET18,
    MINKUNET18_CLEAN,
    corruption_errors,
    mean_over_corruptions,
    resilience_rates,
)
from pc_train.robustness.score import score_robustness
from pc_train.scores import Score

from tests.lanes import unchecked_only

PUBLISHED = {  # mCE, mRR, clean, then the eight corruptions: Robo3D's table of nuScenes-C
    "FIDNet": (122.42, 73.33, 71.38, 64.80, 68.02, 58.97, 48.90, 48.14, 57.45, 48.76, 23.70),
    "CENet": (112.79, 76.04, 73.28, 67.01, 69.87, 61.64, 58.31, 49.97, 60.89, 53.31, 24.78),
    "FRNet": (98.63, 77.48, 77.65, 69.14, 76.58, 69.49, 54.49, 68.32, 41.43, 58.74, 43.13),
    "WaffleIron": (106.73, 72.78, 76.07, 56.07, 73.93, 49.59, 59.46, 65.19, 33.12, 61.51, 44.01),
    "PolarNet": (115.09, 76.34, 71.37, 58.23, 69.91, 64.82, 44.60, 61.91, 40.77, 53.64, 42.01),
    "MinkUNet18": (100.00, 74.44, 75.76, 53.64, 73.91, 40.35, 73.39, 68.54, 26.58, 63.83, 50.95),
    "MinkUNet34": (96.37, 75.08, 76.90, 56.91, 74.93, 37.50, 75.24, 70.10, 29.32, 64.96, 52.96),
    "Cylinder3D-S": (111.84, 72.94, 76.15, 59.85, 72.69, 58.07, 42.13, 64.45, 44.44, 60.50, 42.23),
    "Cylinder3D": (105.56, 78.08, 73.54, 61.42, 71.02, 58.40, 56.02, 64.15, 45.36, 59.97, 43.03),
    "SPVCNN18": (106.65, 74.70, 74.40, 59.01, 72.46, 41.08, 58.36, 65.36, 36.83, 62.29, 49.21),
    "SPVCNN34": (97.45, 75.10, 76.57, 55.86, 74.04, 41.95, 74.63, 68.94, 28.11, 64.96, 51.57),
    "2DPASS": (98.56, 75.24, 77.92, 64.50, 76.76, 54.46, 62.04, 67.84, 34.37, 63.19, 45.83),
    "GFNet": (92.55, 83.31, 76.79, 69.59, 75.52, 71.83, 59.43, 64.47, 66.78, 61.86, 42.30),
}
SCALR_TABLE_6 = {  # mCE, mRR and mean mIoU as ScaLR's table 6 rounds them
    "Cylinder3D": (105.6, 78.1, 57.4),
    "2DPASS": (98.6, 75.2, 58.6),
    "SPVCNN34": (97.5, 75.1, 57.5),
    "GFNet": (92.6, 83.3, 64.0),
}


# --- measures


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_table(model):
    mce, mrr, clean, *values = PUBLISHED[model]
    miou = {name: [value / 100] for name, value in zip(CORRUPTIONS, values, strict=True)}
    error = 100 * mean_over_corruptions(corruption_errors(miou, MINKUNET18))
    rate = 100 * mean_over_corruptions(resilience_rates(miou, clean / 100))
    assert error == pytest.approx(mce, abs=0.0101)  # of means that were rounded before
    assert rate == pytest.approx(mrr, abs=0.0101)
    if model in SCALR_TABLE_6:
        expected = SCALR_TABLE_6[model]
        found = (error, rate, np.mean(values))
        assert found == pytest.approx(expected, abs=0.0601)


def test_baseline_is_the_published_row():
    _, _, clean, *values = PUBLISHED["MinkUNet18"]
    assert tuple(MINKUNET18) == CORRUPTIONS
    np.testing.assert_allclose(list(MINKUNET18.values()), np.array(values) / 100)
    assert clean / 100 == MINKUNET18_CLEAN


def test_means_over_severities_are_sums_over_sums():
    mine, theirs = [0.7, 0.5, 0.3], [0.8, 0.6, 0.1]
    expected = sum(1 - x for x in mine) / sum(1 - x for x in theirs)
    assert corruption_errors({"fog": mine}, {"fog": 0.5})["fog"] == pytest.approx(expected)
    assert resilience_rates({"fog": mine}, 0.6)["fog"] == pytest.approx(sum(mine) / (3 * 0.6))


def test_measures_that_are_not_defined():
    with pytest.raises(ValueError, match=r"mIoU below 1 under snow, got none; it has fog"):
        corruption_errors({"snow": [0.5]}, {"fog": 0.5})
    with pytest.raises(ValueError, match=r"mIoU below 1 under fog, got 1"):
        corruption_errors({"fog": [0.5]}, {"fog": 1.0})
    with pytest.raises(ValueError, match=r"clean scans must be above 0 to compare with, got 0"):
        resilience_rates({"fog": [0.5]}, 0.0)


# --- settings


def config_of(street_world, run, out, **changes):
    data = DataConfig(root=street_world, split="val")
    return RobustnessConfig(run=run, data=data, out=out, num_workers=0, **changes)


@unchecked_only
def test_settings_that_make_no_sense(tmp_path):
    fields = {"run": tmp_path, "out": tmp_path, "data": DataConfig(root=tmp_path)}
    with pytest.raises(ValueError, match="corruptions must name one or more, each once, got fog"):
        RobustnessConfig(**fields, corruptions=("fog", "fog"))
    with pytest.raises(ValueError, match="severities must name one or more, each once, got none"):
        RobustnessConfig(**fields, severities=())
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        RobustnessConfig(**fields, seed=-1)
    kitti = DataConfig(root=tmp_path, name="semantickitti")
    with pytest.raises(ValueError, match="goes with the classes of nuscenes, got data semantick"):
        RobustnessConfig(**fields | {"data": kitti}, corrupted=tmp_path)
    ten = DataConfig(root=tmp_path, classes="10")
    with pytest.raises(ValueError, match="nuScenes-C holds split val alone, got 'train'"):
        RobustnessConfig(**fields, corrupted=tmp_path)
    with pytest.raises(ValueError, match="got data nuscenes with classes 10"):
        RobustnessConfig(**fields | {"data": ten}, corrupted=tmp_path)


# --- runs


@pytest.fixture(scope="module")
def probed(tmp_path_factory, street_world, backbone):
    """A finished run with a random head; no test changes it."""
    import torch

    out = tmp_path_factory.mktemp("probed") / "run"
    out.mkdir()
    named, class_names = open_backbone(backbone), NuScenes(street_world).class_names
    head = HEADS["norm_linear"](named.network.out_dim, len(class_names))
    torch.manual_seed(0)
    for weight in head.parameters():
        torch.nn.init.normal_(weight)
    card = {"class_names": list(class_names), "voxel_size": 0.5, "head": "norm_linear"}
    save_model(out, named, card=card, head=head)
    return out


@pytest.fixture
def unreported(monkeypatch):
    """Runs without a page of pictures."""
    monkeypatch.setattr("pc_train.robustness.report.report_robustness", lambda *_: None)


class Scorer:
    """Scores by what it is asked, and counts."""

    def __init__(self, monkeypatch, *, dies_at=None):
        self.asked, self.dies_at = [], dies_at
        monkeypatch.setattr(robustness, "score_model", self)

    def __call__(self, _model, _backbone, dataset, *, title, **_):
        if len(self.asked) == self.dies_at:
            raise KeyboardInterrupt
        self.asked.append((title, dataset))
        corruption = getattr(dataset, "corruption", None)
        if corruption is None:
            miou = MINKUNET18_CLEAN
        else:  # light, moderate and heavy around the published mean
            shift = SEVERITIES.index(dataset.severity) - 1
            miou = MINKUNET18[corruption] - 0.1 * shift
        return Score(miou=miou, iou={"car": float("nan")}, num_scans=2)


@pytest.fixture
def nuscenes_c(tmp_path, street_world):
    """The clean keyframes as nuScenes-C."""
    clean, root = NuScenes(street_world, split="val"), tmp_path / "nuScenes-C"
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            for file in [clean.scan_file(i) for i in range(2)] + [
                clean.label_file(i) for i in range(2)
            ]:
                place = root / name / severity / file.relative_to(street_world)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, place)
    return root


def test_clean_scans_as_nuscenes_c(probed, street_world, nuscenes_c, tmp_path):
    """Without corruption nothing is lost, through the real evaluation."""
    choice = {"corruptions": ("crosstalk",), "severities": ("light",)}
    found = score_robustness(
        config_of(street_world, probed, tmp_path / "out", corrupted=nuscenes_c, **choice)
    )
    assert found.clean > 0
    assert found.miou == {"crosstalk": (found.clean,)}
    assert found.mean_resilience == 1.0
    assert found.mean_error is None
    assert found.baseline.startswith("There is no mCE: the published baseline is of nuScenes-C")


def test_generated_corruptions_are_scored_and_shown(probed, street_world, tmp_path, monkeypatch):
    out = tmp_path / "out"
    choice = {"corruptions": ("beam_missing", "crosstalk"), "severities": ("heavy",)}
    found = score_robustness(config_of(street_world, probed, out, **choice))
    assert set(found.miou) == {"beam_missing", "crosstalk"}
    assert all(0 <= value <= 1 for values in found.miou.values() for value in values)
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 2
    assert "<td>beam missing</td>" in page
    assert "orange are points that no surface returned" in page
    assert "There is no mCE" in page
    again = score_robustness(config_of(street_world, probed, tmp_path / "again", **choice))
    assert again == found
    other = config_of(street_world, probed, tmp_path / "other", seed=1, **choice)
    scorer = Scorer(monkeypatch)
    score_robustness(other)
    assert scorer.asked[1][1].seed == 1


def test_published_baseline_scores_100(probed, street_world, nuscenes_c, tmp_path, monkeypatch):
    scorer = Scorer(monkeypatch)
    out = tmp_path / "out"
    found = score_robustness(config_of(street_world, probed, out, corrupted=nuscenes_c))
    assert found.mean_error == pytest.approx(1.0)
    assert 100 * found.mean_resilience == pytest.approx(74.44, abs=0.01)
    assert found.baseline == "MinkUNet18 (Robo3D)"
    assert [title for title, _ in scorer.asked][:2] == ["clean", "fog light (1 of 24)"]
    assert len(scorer.asked) == 25
    page = (out / "report.html").read_text()
    assert "mRR 74.4%, mCE 100.0%" in page
    assert "<th>CE (%)</th>" in page
    rows = [row for row in page.split("<tr>") if "this run" in row or "MinkUNet18</td>" in row]
    mine, theirs = (row.split("<td")[2:6] for row in rows)  # mCE, mRR, clean, fog
    assert mine == theirs
    assert "orange" not in page


@pytest.mark.usefixtures("unreported")
def test_killed_run_scores_only_what_is_missing(
    probed, street_world, tmp_path, monkeypatch, capsys
):
    config = config_of(street_world, probed, tmp_path / "out", corruptions=("fog", "snow"))
    Scorer(monkeypatch, dies_at=3)
    with pytest.raises(KeyboardInterrupt):
        score_robustness(config)
    saved = json.loads((config.out / "robustness.json").read_text())
    assert saved["clean"]["miou"] == MINKUNET18_CLEAN
    assert list(saved["corrupted"]["fog"]) == ["light", "moderate"]
    assert not (config.out / "report.html").exists()
    scorer = Scorer(monkeypatch)
    resumed = score_robustness(config)
    assert [title[:10] for title, _ in scorer.asked] == [
        "fog heavy ",
        "snow light",
        "snow moder",
        "snow heavy",
    ]
    assert "3 scores of earlier were read from" in capsys.readouterr().err
    assert score_robustness(config) == resumed  # finished: only read
    assert len(scorer.asked) == 4
    Scorer(monkeypatch)
    assert (
        score_robustness(
            config_of(street_world, probed, tmp_path / "whole", corruptions=("fog", "snow"))
        )
        == resumed
    )


@pytest.mark.usefixtures("unreported")
def test_folder_takes_more_corruptions_but_no_other_seed(
    probed, street_world, tmp_path, monkeypatch
):
    scorer, out = Scorer(monkeypatch), tmp_path / "out"
    score_robustness(config_of(street_world, probed, out, corruptions=("fog",)))
    score_robustness(config_of(street_world, probed, out, corruptions=("snow", "fog")))
    assert len(scorer.asked) == 1 + 3 + 3
    with pytest.raises(ValueError, match=r"other settings \(seed 0 -> 1\)"):
        score_robustness(config_of(street_world, probed, out, seed=1))
    assert len(scorer.asked) == 7


@pytest.mark.usefixtures("unreported")
def test_own_baseline(probed, street_world, tmp_path, monkeypatch):
    Scorer(monkeypatch)
    first = config_of(street_world, probed, tmp_path / "a", corruptions=("fog", "snow"))
    score_robustness(first)
    file = first.out / "robustness.json"
    saved = json.loads(file.read_text())
    saved["corrupted"]["fog"]["heavy"]["miou"] = 0.0
    other = tmp_path / "other.json"
    other.write_text(json.dumps(saved))
    fields = {"corruptions": ("fog",), "severities": ("light", "heavy"), "baseline": other}
    found = score_robustness(config_of(street_world, probed, tmp_path / "b", **fields))
    light = MINKUNET18["fog"] + 0.1
    expected = (2 - 2 * MINKUNET18["fog"]) / (2 - light)
    assert found.mean_error == pytest.approx(expected)
    assert found.baseline == str(other)
    lacking = fields | {"corruptions": ("fog", "crosstalk")}
    with pytest.raises(ValueError, match=r"lacks 2 of the scores .* \(crosstalk light, cross"):
        score_robustness(config_of(street_world, probed, tmp_path / "c", **lacking))
    nowhere = {"baseline": tmp_path / "nowhere.json"}
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json does not exist"):
        score_robustness(config_of(street_world, probed, tmp_path / "c", **nowhere))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"clean": 3, "corrupted": {}}', '{"clean": {"m'])
@pytest.mark.usefixtures("unreported")
def test_damaged_scores(probed, street_world, tmp_path, monkeypatch, content):
    Scorer(monkeypatch)
    config = config_of(street_world, probed, tmp_path / "out", corruptions=("fog",))
    score_robustness(config)
    (config.out / "robustness.json").write_text(content)
    with pytest.raises(ValueError, match=r"robustness\.json is damaged or no robustness\.json"):
        score_robustness(config)


def test_refusals_before_anything_is_written(probed, street_world, tmp_path, monkeypatch):
    Scorer(monkeypatch)
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError, match="root of nuScenes-C"):
        score_robustness(config_of(street_world, probed, out, corrupted=tmp_path / "nowhere"))
    ten = DataConfig(root=street_world, split="val", classes="10")
    with pytest.raises(ValueError, match=r"predicts 16 classes .* but .* has 10"):
        score_robustness(RobustnessConfig(run=probed, data=ten, out=out))
    assert not out.exists()


@pytest.mark.usefixtures("unreported")
def test_command(probed, street_world, tmp_path, monkeypatch, capsys):
    from pc_train.cli import main

    Scorer(monkeypatch)
    words = [
        *("robustness", str(probed), f"--data.root={street_world}", "--data.split=val"),
        *("--corruptions", "fog,snow", "--severities=light,heavy", "--num_workers=0"),
        *("--sensor.num_beams=32", "--sensor.height=1.8", "--sensor.max_intensity=255"),
    ]
    assert main([*words, f"--out={tmp_path / 'out'}"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("mRR 62.0")
    assert "There is no mCE" in said
    baseline = f"--baseline={tmp_path / 'out/robustness.json'}"
    assert main([*words, baseline, f"--out={tmp_path / 'b'}"]) == 0
    assert "mCE 100.00%" in capsys.readouterr().out
    assert main([*words, "--corruptions=fog,hail", f"--out={tmp_path / 'c'}"]) == 2
    assert "got 'hail'" in capsys.readouterr().err
