"""What features are like: measures whose values are known, and the command as a user runs it."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from pc_data.datasets import DataConfig, open_dataset
from pc_train.cli import main
from pc_train.configs import FeaturesConfig
from pc_train.networks import new_backbone, save_model
from pc_train.quality.describe import describe_features, draw_features, in_words


@pytest.fixture
def inputs(tmp_path):
    """Makes a network that gives a point's inputs back."""

    def make(*features):
        backbone = new_backbone("inputs", len(features), num_neighbors=0)
        save_model(tmp_path / "inputs", backbone, card={"features": list(features)})
        return tmp_path / "inputs"

    return make


@pytest.fixture
def config(street_world, tmp_path):
    def make(backbone, **changes):
        return FeaturesConfig(
            backbone=backbone,
            data=DataConfig(root=street_world),
            out=tmp_path / str(len(list(tmp_path.iterdir()))),
            **{"num_scans": 2, "points_per_scan": 60, "voxel_size": 0.5, **changes},
            accelerator="cpu",
        )

    return make


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr("pc_train.quality.report.report_quality", lambda *_: None)


def test_what_no_turn_changes_is_aligned(config, inputs, no_report):
    still = describe_features(config(inputs("intensity", "radius")))
    assert still.alignment == pytest.approx(0, abs=1e-5)
    assert still.out_dim == 2
    assert 1 < still.effective_rank <= 2
    assert (still.num_points, still.num_scans) == (120, 2)
    turned = describe_features(config(inputs("x", "y", "z")))
    assert turned.alignment > 0.1
    assert -8 < turned.uniformity < 0
    assert 0 < turned.spread <= 1


def test_one_direction_is_collapse(config, inputs, no_report):
    found = describe_features(config(inputs("radius")))
    assert found.uniformity == pytest.approx(0, abs=1e-5)
    assert found.effective_rank == pytest.approx(1)
    assert found.spread == pytest.approx(0, abs=1e-3)


def test_neighbours_tell_the_classes(config, inputs, no_report, monkeypatch):
    """Features that are the class itself: every neighbour is right."""

    def drawn(*arguments, **keywords):
        found = draw_features(*arguments, **keywords)
        return found._replace(feat=torch.nn.functional.one_hot(found.labels, 20).float())

    monkeypatch.setattr("pc_train.quality.describe.draw_features", drawn)
    found = describe_features(config(inputs("x", "y", "z"), num_neighbors=1))
    both = [accuracy for accuracy in found.knn_by_class.values() if accuracy == 1]
    assert len(both) >= 3
    # Only a class that the other split does not show is not found.
    assert set(found.knn_by_class.values()) <= {0.0, 1.0}
    assert found.knn_class_accuracy == np.mean(list(found.knn_by_class.values()))


def test_seeds(config, inputs, no_report):
    network = inputs("x", "y", "z")
    first, again, other = (describe_features(config(network, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_random_weights(config, backbone, no_report):
    few = {"num_scans": 1, "seed": 1}
    trained, control = (
        describe_features(config(backbone, random_weights=random, **few))
        for random in (False, True)
    )
    assert trained.uniformity != control.uniformity


def test_without_labels(config, inputs, monkeypatch):
    without = partial(open_dataset, labels=False)
    monkeypatch.setattr("pc_train.quality.describe.open_dataset", without)
    chosen = config(inputs("x", "y", "z"))
    found = describe_features(chosen)
    assert found.knn_accuracy is None
    assert found.knn_by_class == {}
    assert "kNN" not in in_words(found)
    assert "The scans have no labels." in (chosen.out / "report.html").read_text()


def test_command(inputs, street_world, tmp_path, capsys):
    network = inputs("x", "y", "z", "intensity")
    words = [
        *("features", f"--backbone={network}", f"--data.root={street_world}"),
        *("--num_scans=1", "--points_per_scan=40", "--voxel_size=0.5", "--accelerator=cpu"),
        f"--out={tmp_path / 'out'}",
    ]
    assert main(words) == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert f"alignment {found['alignment']:.3g}, uniformity {found['uniformity']:.3g}" in said
    assert f"kNN accuracy {100 * found['knn_accuracy']:.1f}%; report: " in said
    page = (tmp_path / "out" / "report.html").read_text()
    for part in ("Measures", "One scan", "What the features find alike", "Features by class"):
        assert f"<h2>{part}</h2>" in page
    assert page.count("data:image/png") == 3
    assert main(words) == 0
    again = capsys.readouterr()
    assert again.out == said
    assert "finished earlier; read from" in again.err
    assert main([*words, "--seed=1"]) == 2
    assert "belongs to a run with other settings (seed 0 -> 1)" in capsys.readouterr().err
