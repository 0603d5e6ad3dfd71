"""The alarm that features have become all alike."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from pc_data.batch import PointBatch
from pc_data.loading import Samples
from pc_data.scan import Scan
from pc_train.callbacks import read_columns, read_curve
from pc_train.collapse import CollapseAlarm, lowest_spread
from pc_train.fitting import fit
from pc_train.hardware import HardwareConfig
from pc_train.health import GRADIENT_NORM
from torch import nn

SPREAD, SIMILARITY = "feature spread", "negative similarity"


def _warnings(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if "collapsing" in line]


def _watch(alarm, values, start=0):
    """One value a step, from the step after `start` on."""
    trainer = SimpleNamespace(global_step=start, is_global_zero=True)
    alarm.on_train_start(trainer, None)
    for step, watch in enumerate(values, start + 1):
        trainer.global_step = step
        alarm.on_train_batch_end(trainer, None, {"loss": 0.0, "watch": watch}, None, 0)


def test_evenly_drawn_directions_are_far_from_the_limit():
    rng = np.random.default_rng(0)
    for channels in (16, 96):
        feat = rng.normal(size=(2000, channels))
        spread = (feat / np.linalg.norm(feat, axis=1, keepdims=True)).std(0).mean()
        assert 9 < spread / lowest_spread(channels) < 11


def test_one_warning_until_recovery(capsys):
    alarm = CollapseAlarm({SPREAD: 0.1})
    good, bad = {SPREAD: torch.tensor(0.2)}, {SPREAD: torch.tensor(0.01)}
    _watch(alarm, [good] * 30 + [bad] * 200)
    (line,) = _warnings(capsys)
    assert "at step 80, feature spread has been below 0.1 for 50 steps (now 0.01)" in line
    assert "a lower lr, a higher temperature or mask rate, or more pairs" in line
    _watch(alarm, [bad] * 60 + [good] * 60 + [bad] * 60)
    assert [line.split(",")[0] for line in _warnings(capsys)] == [
        "the features are collapsing: at step 50",
        "the features are collapsing: at step 170",
    ]
    _watch(alarm, [bad] * 60 + [good] * 20 + [bad] * 60)  # too short to have recovered
    assert len(_warnings(capsys)) == 1


def test_short_excursions_are_no_collapse(capsys):
    good, bad = {SPREAD: 0.2, SIMILARITY: 0.5}, {SPREAD: 0.01, SIMILARITY: 0.99}
    _watch(CollapseAlarm({SPREAD: 0.1}), ([bad] * 40 + [good] * 10) * 5)
    assert not _warnings(capsys)


def test_both_limits_make_one_warning(capsys):
    _watch(CollapseAlarm({SPREAD: 0.1}), [{SPREAD: 0.01, SIMILARITY: 0.99, "loss a": 1.0}] * 100)
    (line,) = _warnings(capsys)
    assert "below 0.1 for 50 steps (now 0.01) and negative similarity has been above 0.95" in line


def test_what_is_not_watched_or_has_no_limit_or_no_value_is_not_judged(capsys):
    for watch in ({}, {"contrast": 9.0}, {SPREAD: 0.0}, {SIMILARITY: float("nan")}):
        _watch(CollapseAlarm({}), [watch] * 100)
    assert not _warnings(capsys)


def test_window_counts_from_where_a_run_is_resumed(capsys):
    alarm = CollapseAlarm({SPREAD: 0.1}, window=20)
    _watch(alarm, [{SPREAD: 0.0}] * 15, start=1000)
    assert not _warnings(capsys)
    _watch(alarm, [{SPREAD: 0.0}] * 25, start=1000)
    assert "at step 1,020" in _warnings(capsys)[0]


def test_limit_of_something_else():
    with pytest.raises(ValueError, match="got 'feature spred'; the nearest is 'feature spread'"):
        CollapseAlarm({"feature spred": 0.1})


class _Method(LightningModule):
    """Features of points; those of a degenerate network are all the same."""

    def __init__(self, *, is_degenerate, dies_at):
        super().__init__()
        self.network = nn.Linear(3, 8)
        self.is_degenerate = is_degenerate
        self.dies_at = dies_at
        self.collapse_limits = {SPREAD: lowest_spread(8)}

    def training_step(self, batch):
        if self.global_step == self.dies_at:
            raise RuntimeError("power cut")
        feat = self.network(batch.feat)
        if self.is_degenerate:
            feat = feat * 0 + self.network.bias
        unit = nn.functional.normalize(feat, dim=1).detach()
        similarity = unit @ unit.T
        watch = {
            SIMILARITY: similarity[~torch.eye(len(unit), dtype=torch.bool)].mean(),
            SPREAD: unit.std(0).mean(),
        }
        return {"loss": feat.square().mean(), "watch": watch}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class _Clouds:
    def __len__(self):
        return 2

    def __getitem__(self, index):
        xyz = np.random.default_rng(index).normal(size=(50, 3)).astype(np.float32)
        return Scan(name=str(index), xyz=xyz)


def _sample(scan, rng):
    xyz = torch.from_numpy(scan.xyz)
    zero = torch.zeros(len(scan), dtype=torch.int64)
    return PointBatch(names=(scan.name,), xyz=xyz, feat=xyz, batch=zero)


def _run(out, num_steps, *, is_degenerate=False, dies_at=None):
    torch.manual_seed(0)
    fit(
        _Method(is_degenerate=is_degenerate, dies_at=dies_at),
        Samples([(_Clouds(), _sample)], seed=0),
        batch_size=2,
        out=out,
        num_steps=num_steps,
        seed=0,
        title="test",
        hardware=HardwareConfig(accelerator="cpu", num_workers=0),
        save_every=8,
    )


@pytest.mark.parametrize("is_degenerate", [True, False])
def test_a_run_warns_if_and_only_if_its_features_collapse(tmp_path, capsys, is_degenerate):
    _run(tmp_path, 70, is_degenerate=is_degenerate)
    lines = _warnings(capsys)
    assert len(lines) == is_degenerate
    columns = read_columns(tmp_path / "metrics.csv")
    assert list(columns) == ["step", "loss", "lr", SIMILARITY, SPREAD, GRADIENT_NORM]
    seen = columns["step"][~np.isnan(columns[SPREAD])]
    assert seen.tolist() == [1, 10, 20, 30, 40, 50, 60, 70]


def test_a_resumed_run_has_the_columns_of_one_that_was_not(tmp_path):
    _run(tmp_path / "whole", 30)
    with pytest.raises(RuntimeError, match="power cut"):
        _run(tmp_path / "parts", 30, dies_at=21)
    _run(tmp_path / "parts", 30)
    whole, parts = (tmp_path / name / "metrics.csv" for name in ("whole", "parts"))
    assert whole.read_text() == parts.read_text()
    assert [step for step, _, _ in read_curve(parts)] == list(range(1, 31))
