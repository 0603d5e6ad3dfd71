"""What watches a run."""

from types import SimpleNamespace

import pytest
import torch
from pc_train.callbacks import FiniteLoss, LossCurve, StepSeed, read_curve


def _trainer(step, rank=0):
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.5}])
    return SimpleNamespace(
        global_step=step,
        global_rank=rank,
        is_global_zero=rank == 0,
        optimizers=[optimizer],
        logger=None,
    )


def test_finite_loss():
    batch = SimpleNamespace(names=("a", "b"))
    FiniteLoss().on_train_batch_end(_trainer(3), None, {"loss": torch.tensor(1.0)}, batch, 0)
    with pytest.raises(ValueError, match="loss of step 3 is nan on scans a, b; lower lr"):
        FiniteLoss().on_train_batch_end(
            _trainer(3), None, {"loss": torch.tensor(torch.nan)}, batch, 0
        )


def test_step_seed_depends_on_seed_step_and_rank_only():
    def draw(seed, step, rank):
        StepSeed(seed).on_train_batch_start(_trainer(step, rank), None, None, 0)
        return torch.rand(3).tolist()

    first = draw(1, 2, 0)
    torch.rand(7)
    assert draw(1, 2, 0) == first
    assert all(draw(*other) != first for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1)))


def test_curve_of_a_resumed_run_has_each_step_once(tmp_path):
    file = tmp_path / "metrics.csv"

    def run(steps, start):
        curve = LossCurve(file)
        curve.on_train_start(_trainer(start), None)
        for step in steps:
            curve.on_train_batch_end(_trainer(step), None, torch.tensor(step / 8), None, 0)
        curve.teardown(_trainer(0), None, "fit")

    run(range(1, 6), 0)
    with file.open("a") as stream:
        stream.write("6,0.")  # a kill in mid-row
    run(range(4, 8), 3)  # the checkpoint was taken at step 3
    assert read_curve(file) == [(step, step / 8, 0.5) for step in range(1, 8)]


def test_no_curve(tmp_path):
    assert read_curve(tmp_path / "none.csv") == []
