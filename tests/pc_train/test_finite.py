"""Steps that are not finite: one ends the run, or is left out as if its scans were not there."""

import copy
import json
import math
from functools import partial

import pc_train.fitting
import pytest
import torch
from lightning.pytorch import LightningModule
from pc_data.errors import DivergedError
from pc_train.callbacks import read_curve
from pc_train.checkpoints import newest_checkpoint, read_checkpoint
from pc_train.finite import MOST_SKIPPED, read_nonfinite

from tests.pc_train.faulty import run_apart, state, train

KINDS = ("nan input", "infinite loss", "nan gradient")
PRECISIONS = ("32", "bf16-mixed", "scaled")
DEATHS = (5, 6, 7, 9)


class _GradientOnly(torch.autograd.Function):
    """Its value is its input, its gradient is not finite."""

    @staticmethod
    def forward(_, value):
        return value.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient * math.nan


def break_steps(method: LightningModule, feat, *, kind, steps, seen=None):
    """Break the steps of these numbers."""
    if seen is not None:
        seen.append(copy.deepcopy(method.state_dict()))
    if method.global_step + 1 not in steps:
        return feat
    if kind == "nan input":
        return feat * math.nan
    if kind == "infinite loss":
        return feat + 1e30
    weight = method.network[0].weight
    return feat + 0 * _GradientOnly.apply(weight.sum())


@pytest.fixture
def scaled(monkeypatch):
    """Give runs in mixed precision a gradient scaler, which a CPU's do not have by themselves."""
    make_trainer = pc_train.fitting.make_trainer

    def with_scaler(*arguments, **options):
        trainer = make_trainer(*arguments, **options)
        trainer.precision_plugin.scaler = torch.amp.GradScaler("cpu")
        return trainer

    monkeypatch.setattr(pc_train.fitting, "make_trainer", with_scaler)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_one_ends_the_run(tmp_path, kind):
    with pytest.raises(DivergedError, match=r"of step 5 .* on scans scan\d, scan\d; lower lr") as e:
        train(tmp_path, befall=partial(break_steps, kind=kind, steps={5}))
    (row,) = read_nonfinite(tmp_path / "nonfinite.jsonl")
    assert row["step"] == 5
    assert all(name in str(e.value) for name in row["scans"])
    assert ("loss" in str(e.value)) == (not math.isfinite(float(row["loss"])))
    assert not math.isfinite(float(row["gradient_norm"]))
    assert (row["seed"], len(row["step_seeds"])) == (0, 1)
    assert len(read_curve(tmp_path / "metrics.csv")) == 4
    assert read_checkpoint(newest_checkpoint(tmp_path / "checkpoints"))["global_step"] == 4


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_skipped_step_changes_nothing(tmp_path, kind, precision, capsys, request):
    if precision == "scaled":
        request.getfixturevalue("scaled")
    own = precision == "scaled" and kind == "nan gradient"  # the scaler leaves it out by itself
    seen = []
    method = train(
        tmp_path,
        befall=partial(break_steps, kind=kind, steps={5, 6}, seen=seen),
        precision="32" if precision == "32" else "bf16-mixed",
        on_nonfinite="skip",
    )
    assert all(value.isfinite().all() for value in method.state_dict().values())
    before, after = seen[4], seen[6]  # what step 5 and step 7 began with
    assert before.keys() == after.keys()
    for name in before:
        is_buffer = name == "queue" or ".1.running" in name or name.endswith("tracked")
        if not (own and is_buffer):
            assert torch.equal(before[name], after[name]), name
    assert not torch.equal(after["queue"], seen[7]["queue"])
    rows = read_nonfinite(tmp_path / "nonfinite.jsonl")
    assert [row["step"] for row in rows] == ([] if own else [5, 6])
    assert capsys.readouterr().err.count("; the step is left out\n") == len(rows)
    optimizer = read_checkpoint(newest_checkpoint(tmp_path / "checkpoints"))["optimizer_states"][0]
    assert {float(part["step"]) for part in optimizer["state"].values()} == {10.0}


@pytest.mark.usefixtures("scaled")
def test_a_scaler_may_overflow(tmp_path):
    some = partial(break_steps, kind="nan gradient", steps={5, 6})
    train(tmp_path, befall=some, precision="bf16-mixed")
    assert not (tmp_path / "nonfinite.jsonl").exists()


@pytest.mark.usefixtures("scaled")
def test_a_scaler_may_not_overflow_for_ever(tmp_path):
    always = partial(break_steps, kind="nan gradient", steps=range(100))
    with pytest.raises(DivergedError, match=r"40 steps in a row whatever its scale; train in 32"):
        train(tmp_path, befall=always, precision="bf16-mixed", num_steps=50)


def test_too_many_in_a_row(tmp_path):
    steps = {2, 3, *range(5, 20)}
    with pytest.raises(DivergedError, match=r"the loss of step 14 .* the last of 10 such steps"):
        train(
            tmp_path,
            befall=partial(break_steps, kind="nan input", steps=steps),
            num_steps=20,
            on_nonfinite="skip",
        )
    numbers = [row["step"] for row in read_nonfinite(tmp_path / "nonfinite.jsonl")]
    assert numbers == [2, 3, *range(5, 5 + MOST_SKIPPED)]


@pytest.mark.parametrize("dies_at", DEATHS)
def test_resumed_is_as_never_stopped(tmp_path, dies_at):
    """Killed before, amid and after the steps that are left out."""

    def befall(method, feat, *, dies):
        if dies and method.global_step + 1 == dies_at:
            raise RuntimeError("power cut")
        return break_steps(method, feat, kind="nan input", steps={5, 6, 7})

    options = {"on_nonfinite": "skip", "save_every": 3}
    whole = train(tmp_path / "whole", befall=partial(befall, dies=False), **options)
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "parts", befall=partial(befall, dies=True), **options)
    parts = train(tmp_path / "parts", befall=partial(befall, dies=False), **options)
    assert state(parts) == state(whole)
    for name in ("metrics.csv", "nonfinite.jsonl"):
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_steps_in_a_row_count_over_a_restart(tmp_path):
    def befall(method, feat):
        if method.global_step + 1 == 9 and next(dies):
            raise RuntimeError("power cut")
        return break_steps(method, feat, kind="nan input", steps=range(3, 99))

    dies = iter((True, False))
    for error in (RuntimeError, DivergedError):
        with pytest.raises(error, match=r"power cut|the last of 10 such steps in a row"):
            train(tmp_path, befall=befall, num_steps=30, on_nonfinite="skip")
    assert read_nonfinite(tmp_path / "nonfinite.jsonl")[-1]["step"] == 12


def test_exit_code(tmp_path):
    befall = partial(break_steps, kind="nan input", steps={2})
    code, said = run_apart(train, tmp_path, befall=befall)
    assert code == 5
    assert "error: the loss of step 2 is nan on scans " in said
    assert "Traceback" not in said


def test_torn_lines_are_left_out(tmp_path):
    file = tmp_path / "nonfinite.jsonl"
    file.write_text(json.dumps({"step": 1}) + '\n{"st')
    assert read_nonfinite(file) == [{"step": 1}]
    assert read_nonfinite(tmp_path / "none") == []
