"""What watches a run."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pc_train.callbacks import (
    LossCurve,
    ProgressLine,
    StepSeed,
    read_columns,
    read_curve,
    read_watched,
)


def _trainer(step, rank=0):
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.5}])
    return SimpleNamespace(
        global_step=step,
        global_rank=rank,
        is_global_zero=rank == 0,
        optimizers=[optimizer],
        logger=None,
    )


def test_step_seed_depends_on_seed_step_and_rank_only():
    def draw(seed, step, rank):
        StepSeed(seed).on_train_batch_start(_trainer(step, rank), None, None, 0)
        return torch.rand(3).tolist()

    first = draw(1, 2, 0)
    torch.rand(7)
    assert draw(1, 2, 0) == first
    assert all(draw(*other) != first for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1)))


def _write(file, steps, watch=None):
    """Write rows; the value watched is a tenth of the step."""
    curve = LossCurve(file)
    for step in steps:
        outputs = torch.tensor(step / 8)
        if watch:
            outputs = {"loss": outputs, "watch": dict.fromkeys(watch, step / 10)}
        curve.on_train_batch_end(_trainer(step), None, outputs, None, 0)
    curve.teardown(_trainer(0), None, "fit")


def test_curve_of_a_resumed_run_has_each_step_once(tmp_path):
    file = tmp_path / "metrics.csv"
    _write(file, range(1, 6))
    with file.open("a") as stream:
        stream.write("6,0.5,0.")  # a kill in mid-row
    assert [step for step, _, _ in read_curve(file)] == [1, 2, 3, 4, 5]
    _write(file, range(4, 8))  # the checkpoint was taken at step 3
    assert read_curve(file) == [(step, step / 8, 0.5) for step in range(1, 8)]
    assert file.read_text().startswith("step,loss,lr\n1,0.125,0.5\n")


def test_curve_has_what_is_watched_at_every_tenth_step(tmp_path):
    file = tmp_path / "metrics.csv"
    _write(file, range(1, 24), watch=("contrast", "odd, name"))
    columns = read_columns(file)
    assert list(columns) == ["step", "loss", "lr", "contrast", "odd, name"]
    assert columns["step"].tolist() == list(range(1, 24))
    seen = ~np.isnan(columns["contrast"])
    assert columns["step"][seen].tolist() == [1, 10, 20]
    np.testing.assert_allclose(columns["odd, name"][seen], [0.1, 1, 2])
    assert read_curve(file)[-1] == (23, 23 / 8, 0.5)


def test_resumed_runs_keep_the_columns(tmp_path):
    whole, parts = tmp_path / "whole.csv", tmp_path / "parts.csv"
    _write(whole, range(1, 31), watch=("contrast", "color"))
    _write(parts, range(1, 16), watch=("contrast", "color"))
    _write(parts, range(8, 31), watch=("contrast", "color"))
    assert parts.read_text() == whole.read_text()


def test_a_file_with_other_columns_gains_those_of_the_run(tmp_path):
    file = tmp_path / "metrics.csv"
    _write(file, range(1, 16), watch=("contrast", "color"))
    _write(file, range(12, 21), watch=("spread", "color"))
    columns = read_columns(file)
    assert list(columns) == ["step", "loss", "lr", "contrast", "color", "spread"]
    at = {name: columns["step"][~np.isnan(columns[name])].tolist() for name in columns}
    assert (at["contrast"], at["color"], at["spread"]) == ([1, 10], [1, 10, 20], [20])
    assert at["loss"] == list(range(1, 21))
    _write(file, range(21, 31))  # a method that watches nothing
    assert list(read_columns(file)) == list(columns)
    assert len(read_curve(file)) == 30


def test_the_first_row_fixes_the_columns(tmp_path):
    file = tmp_path / "metrics.csv"
    curve = LossCurve(file)
    for step, name in ((9, "a"), (10, "b")):
        outputs = {"loss": torch.tensor(1.0), "watch": {name: torch.tensor(2.0)}}
        curve.on_train_batch_end(_trainer(step), None, outputs, None, 0)
    curve.on_exception(_trainer(10), None, RuntimeError())
    assert file.read_text() == "step,loss,lr,a\n9,1.0,0.5,\n10,1.0,0.5,\n"


def test_logger_gets_what_is_watched(tmp_path):
    rows = {}
    curve = LossCurve(tmp_path / "metrics.csv")
    for step in range(1, 21):
        trainer = _trainer(step)
        trainer.logger = SimpleNamespace(log_metrics=lambda row, step: rows.update({step: row}))
        outputs = {"loss": torch.tensor(1.0), "watch": {"contrast": torch.tensor(step / 4)}}
        curve.on_train_batch_end(trainer, None, outputs, None, 0)
    curve.teardown(_trainer(0), None, "fit")
    assert rows == {step: {"loss": 1.0, "lr": 0.5, "contrast": step / 4} for step in (10, 20)}


def test_other_processes_write_no_curve(tmp_path):
    curve = LossCurve(tmp_path / "metrics.csv")
    curve.on_train_batch_end(_trainer(1, rank=1), None, torch.tensor(1.0), None, 0)
    assert not any(tmp_path.iterdir())


def test_watched_values_are_numbers_with_names_of_their_own():
    weight = torch.tensor([3.0], requires_grad=True)
    watch = {"b": weight.half(), "a": 2, "c": torch.tensor(True)}
    assert read_watched({"loss": 0, "watch": watch}, 10) == {"b": 3.0, "a": 2.0, "c": 1.0}
    assert list(read_watched({"loss": 0, "watch": watch}, 1)) == ["b", "a", "c"]
    assert read_watched({"loss": 0, "watch": watch}, 11) == {}
    assert read_watched({"loss": 0}, 10) == read_watched(weight, 10) == {}
    with pytest.raises(ValueError, match=r"'a' has shape \(2,\); reduce it, e.g. to its mean"):
        read_watched({"watch": {"a": torch.ones(2)}}, 1)
    with pytest.raises(ValueError, match="must not be called step, loss, lr, got 'lr'; rename it"):
        read_watched({"watch": {"lr": 1.0}}, 1)


def test_progress_shows_the_first_watched_value(capsys):
    line = ProgressLine("title")
    for step in range(1, 13):
        trainer = _trainer(step)
        trainer.max_steps = 12
        watch = {"negative similarity": torch.tensor(step / 100), "contrast": torch.tensor(5.0)}
        line.on_train_batch_end(trainer, None, {"loss": 2.0, "watch": watch}, None, 0)
    assert "loss 2.0000, negative similarity 0.1\n" in capsys.readouterr().err


def test_no_curve(tmp_path):
    assert read_curve(tmp_path / "none.csv") == []
    assert read_columns(tmp_path / "none.csv") == {}
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert read_curve(tmp_path / "other.csv") == []
