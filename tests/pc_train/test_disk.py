"""A disk that takes no more: no good checkpoint is lost, and training goes on for a while."""

import errno
import itertools
import os
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch
from pc_data.errors import ResourceError
from pc_geometry import atomic
from pc_train import checkpoints
from pc_train.callbacks import LossCurve, read_curve
from pc_train.checkpoints import MOST_FAILED, newest_checkpoint, read_checkpoint, write_checkpoint

from tests.pc_train.faulty import run_apart, state, train
from tests.pc_train.test_callbacks import _trainer

CALLS = ("mkstemp", "write", "fsync", "replace", "fsync of the folder")
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
FAULTS = tuple(itertools.product(CALLS, ERRORS))


class Disk:
    """Lets one call of those that write a file fail, the next time that it is made."""

    def __init__(self, monkeypatch):
        self.fails, self.error = "", 0
        mkstemp, fsync, replace, fdopen = tempfile.mkstemp, os.fsync, Path.replace, os.fdopen

        def opened(*arguments, **options):
            file = fdopen(*arguments, **options)
            write = file.write
            return _File(file, lambda content: self._call("write", write, content))

        def synced(handle):
            is_folder = Path(f"/proc/self/fd/{handle}").is_dir()
            return self._call("fsync of the folder" if is_folder else "fsync", fsync, handle)

        monkeypatch.setattr(
            tempfile, "mkstemp", lambda *a, **o: self._call("mkstemp", mkstemp, *a, **o)
        )
        monkeypatch.setattr(atomic.os, "fsync", synced)
        monkeypatch.setattr(atomic.os, "fdopen", opened)
        monkeypatch.setattr(Path, "replace", lambda *a: self._call("replace", replace, *a))

    def _call(self, name, function, *arguments, **options):
        if name == self.fails:
            self.fails = ""
            raise OSError(self.error, os.strerror(self.error))
        return function(*arguments, **options)


class _File:
    """A file whose `write` is another."""

    def __init__(self, file, write):
        self.file, self.write = file, write

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *what):
        return self.file.__exit__(*what)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize(("call", "error"), FAULTS)
def test_no_fault_costs_a_good_checkpoint(tmp_path, monkeypatch, call, error):
    disk = Disk(monkeypatch)
    write_checkpoint({"step": 1, "weights": torch.ones(3)}, tmp_path / "step-00000001.ckpt")
    before = {path.name for path in tmp_path.iterdir()}
    disk.fails, disk.error = call, error
    with pytest.raises(OSError, match=os.strerror(error)):
        write_checkpoint({"step": 2, "weights": torch.ones(3)}, tmp_path / "step-00000002.ckpt")
    assert disk.fails == ""
    left = {path.name for path in tmp_path.iterdir()} - before
    assert all(name.startswith("step-00000002.") for name in left)
    assert len(left) == (call == "fsync of the folder")  # whole, though perhaps not on disk
    newest = newest_checkpoint(tmp_path)
    assert read_checkpoint(newest)["step"] == 1 + len(left)
    assert before <= {path.name for path in tmp_path.iterdir()}


def test_a_file_system_that_syncs_no_folders(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    disk.fails, disk.error = "fsync of the folder", errno.EINVAL
    write_checkpoint({"step": 1}, tmp_path / "step-00000001.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["step"] == 1


def _fail_saves(monkeypatch, numbers):
    """Let the saves of these numbers fail."""
    calls = itertools.count(1)
    write = checkpoints.write_checkpoint

    def fail_or_write(*arguments):
        if next(calls) in numbers:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(checkpoints, "write_checkpoint", fail_or_write)


def test_training_goes_on_without_a_checkpoint(tmp_path, monkeypatch, capsys):
    whole = train(tmp_path / "whole")
    _fail_saves(monkeypatch, {2, 3, 5})
    assert state(train(tmp_path / "run")) == state(whole)
    said = capsys.readouterr().err
    assert said.count("training goes on: free space, or it ends at try 3\n") == 3
    assert (
        "no checkpoint of step 6 ([Errno 28] No space left on device), the newest is of step 2;"
    ) in said
    newest = newest_checkpoint(tmp_path / "run/checkpoints")
    assert newest.name.startswith("step-00000012.")


def test_too_many_saves_fail(tmp_path, monkeypatch):
    whole = train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        _fail_saves(patch, range(3, 99))
        with pytest.raises(ResourceError, match=r"no checkpoint of step 10 .* of 3 tries; free"):
            train(tmp_path / "run")
    assert newest_checkpoint(tmp_path / "run/checkpoints").name.startswith("step-00000004.")
    assert state(train(tmp_path / "run")) == state(whole)
    assert MOST_FAILED == 3


def test_a_curve_that_cannot_be_written_is_caught_up(tmp_path, monkeypatch, capsys):
    file = tmp_path / "metrics.csv"
    curve, full = LossCurve(file), [False]
    begin = curve._begin

    def begin_or_fail(step):
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return begin(step)

    monkeypatch.setattr(curve, "_begin", begin_or_fail)
    for step in range(1, 31):
        if step == 4:
            full[0] = True
            curve._stream.close()
            curve._stream = _Full()
        full[0] = 4 <= step < 15
        curve.on_train_batch_end(_trainer(step), None, torch.tensor(step / 8), None, 0)
        if step == 14:
            assert [row[0] for row in read_curve(file)] == [1, 2, 3]
    curve.teardown(_trainer(30), None, "fit")
    assert read_curve(file) == [(step, step / 8, 0.5) for step in range(1, 31)]
    assert capsys.readouterr().err.count("metrics.csv lacks rows for now") == 1


class _Full:
    """A file on a full disk."""

    def write(self, _):
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self):
        pass


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False).returncode
    except OSError:
        done = 1
    if done:
        pytest.skip("file systems may not be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill_disk(method, feat, *, file, steps):
    """Fill the disk in the first of these steps, and empty it in the last."""
    step = method.global_step + 1
    if step == steps[0]:
        with file.open("wb", buffering=0) as stream:
            try:
                while stream.write(b"\0" * 4096):
                    pass
            except OSError:
                pass
    if step == steps[-1]:
        file.unlink()
    return feat


@pytest.mark.slow
def test_a_real_disk_is_full_for_a_while(small_disk, tmp_path):
    befall = partial(fill_disk, file=small_disk / "filler", steps=range(5, 9))
    code, said = run_apart(train, small_disk / "run", befall=befall)
    assert code == 0, said
    assert "no checkpoint of step 6 (" in said
    assert "the newest is of step 4; training goes on" in said
    assert "Traceback" not in said
    train(tmp_path / "whole")
    curves = [folder / "metrics.csv" for folder in (tmp_path / "whole", small_disk / "run")]
    assert read_curve(curves[0]) == read_curve(curves[1])
    left = read_checkpoint(newest_checkpoint(small_disk / "run/checkpoints"))["state_dict"]
    right = read_checkpoint(newest_checkpoint(tmp_path / "whole/checkpoints"))["state_dict"]
    assert all(torch.equal(left[name], right[name]) for name in right)


@pytest.mark.slow
def test_a_real_disk_stays_full(small_disk, tmp_path):
    file = small_disk / "filler"
    befall = partial(fill_disk, file=file, steps=range(5, 99))
    code, said = run_apart(train, small_disk / "run", befall=befall)
    assert code == 6, said
    assert "that was the last of 3 tries; free space, and the same command continues" in said
    assert "Traceback" not in said
    file.unlink()
    assert newest_checkpoint(small_disk / "run/checkpoints").name.startswith("step-00000004.")
    code, said = run_apart(train, small_disk / "run")
    assert code == 0, said
    train(tmp_path / "whole")
    left = read_checkpoint(newest_checkpoint(small_disk / "run/checkpoints"))["state_dict"]
    right = read_checkpoint(newest_checkpoint(tmp_path / "whole/checkpoints"))["state_dict"]
    assert all(torch.equal(left[name], right[name]) for name in right)
