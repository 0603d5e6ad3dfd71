"""Checkpoints are whole, verified, and read without executing code."""

import os

import pytest
import torch
from pc_train.checkpoints import AtomicCheckpointIO, newest_checkpoint, read_checkpoint


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


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_damaged_is_passed_over(tmp_path, damage, capsys):
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    newest = newest_checkpoint(tmp_path)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    cut = {"truncate": content[: len(content) // 2], "flip": content, "empty": b""}[damage]
    newest.write_bytes(cut)
    assert read_checkpoint(newest_checkpoint(tmp_path))["step"] == 1
    assert capsys.readouterr().err == f"{newest} is damaged; resuming from step 1\n"


def test_none_at_all(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "absent") is None


def test_none_valid(tmp_path):
    name = "step-00000001.0123456789abcdef.ckpt"
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=rf"all checkpoints are damaged \(.*{name}\); bring one"):
        newest_checkpoint(tmp_path)


def test_full_disk_keeps_the_good_one(tmp_path, monkeypatch):
    _save(tmp_path, 1)
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        _save(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert read_checkpoint(newest_checkpoint(tmp_path))["step"] == 1


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
