"""The mean over the last part of a run: which steps, and the same whether killed or not."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from pc_data.datasets import DataConfig
from pc_train.configs import ProbeConfig
from pc_train.downstream import evaluate, probe
from pc_train.hardware import HardwareConfig
from pc_train.last_scores import LastScores, steps_to_score
from pc_train.networks import new_backbone, save_model
from pc_train.scores import Score
from pc_train.segmentation import LinearProbe
from safetensors.torch import load_file


@pytest.mark.parametrize(
    ("num_steps", "last", "num_scores", "steps"),
    [
        (1000, 0.15, 3, (900, 950, 1000)),
        (100, 0.15, 15, tuple(range(86, 101))),
        (100, 0.15, 1, (100,)),
        (10, 0.15, 5, (9, 10)),
        (1, 0.15, 5, (1,)),
        (7, 0.99, 100, (1, 2, 3, 4, 5, 6, 7)),
    ],
)
def test_steps(num_steps, last, num_scores, steps):
    assert steps_to_score(num_steps, last=last, num_scores=num_scores) == steps


@pytest.mark.parametrize("num_steps", [1, 2, 13, 400, 9999])
def test_steps_are_in_the_last_part(num_steps):
    steps = steps_to_score(num_steps, last=0.15, num_scores=5)
    assert steps[-1] == num_steps
    assert all(0.85 * num_steps < step for step in steps)
    assert len(steps) == min(5, len(steps))


def test_mean_by_hand():
    confusions = [np.array([[3, 1], [0, 0]]), np.array([[2, 2], [0, 1]])]
    made = iter(
        Score(miou=miou, iou={"a": miou, "b": b, "c": np.nan}, num_scans=4, confusion=counts)
        for miou, b, counts in zip((0.2, 0.4), (np.nan, 0.5), confusions, strict=True)
    )
    last = LastScores((8, 10), lambda: next(made))
    trained = []
    module = SimpleNamespace(train=lambda: trained.append(True))
    for step in range(1, 11):
        last.on_train_batch_end(SimpleNamespace(global_step=step), module, None, None, 0)
    assert len(trained) == 2  # back in training after each
    again = LastScores((8, 10), None)
    again.load_state_dict(json.loads(json.dumps(last.state_dict())))
    for one in (last, again):
        mean = one.mean()
        assert mean.miou == pytest.approx(0.3)
        assert mean.iou["a"] == pytest.approx(0.3)
        assert mean.iou["b"] == 0.5
        assert np.isnan(mean.iou["c"])
        assert mean.miou_by_step == {"8": 0.2, "10": 0.4}
        assert mean.num_scans == 4
        assert mean.confusion.tolist() == [[5, 3], [0, 1]]


@pytest.fixture
def config(street_world, tmp_path):
    save_model(tmp_path / "inputs", new_backbone("inputs", 5, num_neighbors=0), card={})

    def make(out, **changes):
        return ProbeConfig(
            backbone=tmp_path / "inputs",
            data=DataConfig(root=street_world),
            out=out,
            max_steps=6,
            batch_size=1,
            max_points=300,
            voxel_size=1.0,
            lr=0.05,
            hardware=HardwareConfig(accelerator="cpu", num_workers=0),
            **{"mean_of_last": 0.5, "num_scores": 3, "save_every": 2, **changes},
        )

    return make


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr("pc_train.downstream.report_segmentation", lambda *_, **__: None)


def test_mean_of_a_run(config, street_world, tmp_path):
    score = probe(config(tmp_path / "run"))
    assert list(score.miou_by_step) == ["4", "5", "6"]
    assert score.miou == pytest.approx(sum(score.miou_by_step.values()) / 3)
    assert "mean of those after several steps" in (tmp_path / "run" / "report.html").read_text()
    val = DataConfig(root=street_world, split="val")
    end = evaluate(tmp_path / "run", val, out=tmp_path / "val", num_workers=0)
    assert end.miou == score.miou_by_step["6"]
    assert probe(config(tmp_path / "run")).miou_by_step == score.miou_by_step  # as read


@pytest.mark.parametrize("dies_at", [3, 5])
def test_killed_and_resumed_equals_never_killed(config, no_report, tmp_path, monkeypatch, dies_at):
    whole = probe(config(tmp_path / "whole"))
    plain = probe(config(tmp_path / "plain", mean_of_last=0.0))
    assert plain.miou == whole.miou_by_step["6"]  # evaluating does not disturb the training
    step = LinearProbe.training_step

    def dies(self, batch):
        if self.global_step == dies_at:
            raise RuntimeError("killed")
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(LinearProbe, "training_step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            probe(config(tmp_path / "parts"))
    assert probe(config(tmp_path / "parts")).miou_by_step == whole.miou_by_step
    heads = [
        load_file(tmp_path / name / "head.safetensors") for name in ("whole", "parts", "plain")
    ]
    for name, value in heads[0].items():
        assert all((value == head[name]).all() for head in heads[1:])


def test_killed_before_the_report(config, no_report, tmp_path, monkeypatch):
    def dies(*_, **__):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("pc_train.downstream.save_model", dies)
        with pytest.raises(RuntimeError, match="killed"):
            probe(config(tmp_path / "run"))
        patch.setattr("pc_train.downstream.score_model", dies)  # nothing is scored again
        with pytest.raises(RuntimeError, match="killed"):
            probe(config(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr("pc_train.downstream.score_model", dies)
        assert len(probe(config(tmp_path / "run")).miou_by_step) == 3
