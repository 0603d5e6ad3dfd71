"""Checkpoints are whole, verified, and read without executing code."""

import os

import pytest
import torch
from pc_train.checkpoints import (
    AtomicCheckpointIO,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)

DAMAGES = ("truncate", "flip", "empty")


def _save(folder, step, value=1.0):
    AtomicCheckpointIO().save_checkpoint(
        {"step": step, "weights": torch.full((3,), value)}, folder / f"step-{step:08d}.ckpt"
    )


def test_round_trip_and_last(tmp_path):
    _save(tmp_path, 5)
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest == (tmp_path / "last.ckpt").resolve()
    content = AtomicCheckpointIO().load_checkpoint(newest)
    assert content["step"] == 5
    assert content["weights"].tolist() == [1, 1, 1]


def test_keeps_the_one_before(tmp_path):
    for step in (1, 2, 3):
        _save(tmp_path, step)
    steps = [read_checkpoint(path)["step"] for path in sorted(tmp_path.glob("step-*.ckpt"))]
    assert steps == [2, 3]
    assert read_checkpoint(tmp_path / "last.ckpt")["step"] == 3


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_is_passed_over(tmp_path, damage, capsys):
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    newest = newest_checkpoint(tmp_path)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    cut = {"truncate": content[: len(content) // 2], "flip": content, "empty": b""}[damage]
    newest.write_bytes(cut)
    assert read_checkpoint(newest_checkpoint(tmp_path))["step"] == 1
    said = f"{newest} is damaged or of another run; resuming from step 1\n"
    assert capsys.readouterr().err == said


def test_of_another_run_is_passed_over(tmp_path, capsys):
    """Whole and well named, but without the weights that are trained."""
    folder, method = tmp_path, torch.nn.Linear(2, 2)
    foreign = ({"step": 3}, {"state_dict": {"weight": torch.ones(3, 2), "bias": torch.ones(2)}})
    for step, content in enumerate(({"state_dict": method.state_dict()}, foreign[0])):
        write_checkpoint(content, folder / f"step-{step:08d}.ckpt")
    own = newest_checkpoint(folder, method)
    assert own.name.startswith("step-00000000.")
    assert "damaged or of another run; resuming from step 0" in capsys.readouterr().err
    own.unlink()
    write_checkpoint(foreign[1], folder / "step-00000005.ckpt")
    with pytest.raises(ValueError, match="all checkpoints are damaged or of another run"):
        newest_checkpoint(folder, method)


def test_none_at_all(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "absent") is None


def test_none_valid(tmp_path):
    name = "step-00000001.0123456789abcdef.ckpt"
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=rf"are damaged or of another run \(.*{name}\); bring"):
        newest_checkpoint(tmp_path)


def test_a_failure_is_kept_for_all_processes(tmp_path, monkeypatch):
    """One process writes: were it to raise, the others would wait for it."""
    io, fails = AtomicCheckpointIO(), True

    def sync(_):
        if fails:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", sync)
    io.save_checkpoint({"step": 1}, tmp_path / "step-00000001.ckpt")
    assert (io.failure, newest_checkpoint(tmp_path)) == ("[Errno 28] No space left on device", None)
    fails = False
    io.save_checkpoint({"step": 2}, tmp_path / "step-00000002.ckpt")
    assert (io.failure, newest_checkpoint(tmp_path) is None) == ("", False)


def test_code_is_not_executed(tmp_path):
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(canary),)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"evil\.ckpt is damaged or holds code"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not canary.exists()


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a file; pass a checkpoint"):
        read_checkpoint(tmp_path / "none.ckpt")
