"""The online probe: the classifier by an oracle, the same score offline, weights untouched."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pc_data.datasets import DataConfig, open_dataset
from pc_train.networks import open_backbone
from pc_train.online_probe import OnlineProbe, ProbeScore, _fit, probe_features
from pc_train.tables import read_table


@pytest.mark.parametrize(("points", "width", "classes"), [(200, 5, 3), (3, 8, 4), (1, 2, 2)])
def test_ridge_regression_by_least_squares(points, width, classes):
    rng = np.random.default_rng(0)
    feature = torch.from_numpy(rng.normal(3, [1, *[5] * (width - 1)], (points, width)))
    label = torch.from_numpy(rng.integers(0, classes, points))
    weight = _fit(feature, label, num_classes=classes).numpy()
    mean, std = feature.numpy().mean(0), feature.numpy().std(0).clip(1e-6)
    centred = (feature.numpy() - mean) / std
    target = np.eye(classes)[label.numpy()]
    # The penalty as rows of their own.
    tall = np.vstack([centred, math.sqrt(1e-3 * points) * np.eye(width)])
    aim = np.vstack([target - target.mean(0), np.zeros((width, classes))])
    expected = np.linalg.lstsq(tall, aim, rcond=None)[0]
    np.testing.assert_allclose(
        feature.numpy() @ weight[:-1] + weight[-1],
        centred @ expected + target.mean(0),
        atol=1e-8,
    )


def test_classes_that_a_line_tells_apart(monkeypatch):
    def gather(backbone, dataset, num_scans):
        label = torch.arange(60) % 3
        noise = 0.01 * torch.randn(60, 3, generator=torch.Generator().manual_seed(num_scans))
        return torch.eye(3)[label].double() + noise, label

    monkeypatch.setattr("pc_train.online_probe._gather", gather)
    dataset = SimpleNamespace(num_classes=3)
    score = probe_features(None, dataset, dataset, num_scans=2)
    assert score == (1.0, 1.0)


@pytest.fixture
def opened(backbone):
    return open_backbone(backbone)


def _trainer(step, *, first=True, num_steps=100):
    logged = []
    logger = SimpleNamespace(log_metrics=lambda row, step: logged.append((step, row)))
    return SimpleNamespace(
        global_step=step, is_global_zero=first, max_steps=num_steps, logger=logger, logged=logged
    )


def test_a_look_leaves_no_trace_and_equals_the_offline_score(
    street_world, opened, tmp_path, capsys
):
    data, network = DataConfig(root=street_world), opened.network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.eval()
    sources = [open_dataset(data, split=split) for split in ("train", "val")]
    offline = probe_features(opened, *sources, num_scans=2)
    assert 0 < offline.miou <= offline.accuracy < 1
    network.train()
    frozen = next(iter(network.children()))
    frozen.eval()  # modes are put back one by one
    state = torch.random.get_rng_state()
    probe = OnlineProbe(data, opened, tmp_path / "probe.csv", every=5, num_scans=2)
    trainer = _trainer(0)
    probe.on_train_start(trainer, None)
    for step in (4, 5, 6, 100):
        trainer.global_step = step
        probe.on_train_batch_end(trainer, None, None, None, 0)
    read = read_table(tmp_path / "probe.csv")
    assert read["step"].tolist() == [0, 5, 100]
    np.testing.assert_allclose(read["miou"], offline.miou, atol=1e-9)
    np.testing.assert_allclose(read["accuracy"], offline.accuracy, atol=1e-9)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert network.training
    assert not frozen.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(value.grad is None for value in network.parameters())
    assert [step for step, _ in trainer.logged] == [0, 5, 100]
    assert "step 5: a linear probe is right on" in capsys.readouterr().err


def test_a_resumed_run_does_not_look_at_its_first_step(street_world, opened, tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr(
        "pc_train.online_probe.probe_features",
        lambda *_, **__: looks.append(1) or ProbeScore(0.5, 0.25),
    )
    probe = OnlineProbe(
        DataConfig(root=street_world), opened, tmp_path / "probe.csv", every=5, num_scans=1
    )
    probe.table.begin(0)
    for step in (0, 5, 10):
        probe.table.append(step, (0.1, 0.1))
    probe.on_train_start(_trainer(7), None)
    assert not looks
    assert read_table(tmp_path / "probe.csv")["step"].tolist() == [0, 5]


def test_other_processes_do_not_look(street_world, opened, tmp_path):
    probe = OnlineProbe(
        DataConfig(root=street_world), opened, tmp_path / "probe.csv", every=5, num_scans=1
    )
    trainer = _trainer(0, first=False)
    probe.on_train_start(trainer, None)
    trainer.global_step = 5
    probe.on_train_batch_end(trainer, None, None, None, 0)
    assert not (tmp_path / "probe.csv").exists()


def test_a_dataset_without_labels(street_world, opened):
    dataset = open_dataset(DataConfig(root=street_world), labels=False)
    with pytest.raises(
        ValueError, match=r"no point of 2 scans of .*, split train, is labelled; pass"
    ):
        probe_features(opened, dataset, dataset, num_scans=2)
