"""Runs that survive: killed at any moment, inside a write, on a full disk; bit by bit the same."""

import errno
import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from io import BufferedWriter, FileIO
from pathlib import Path

import numpy as np
import pytest
import torch
from pc_train.callbacks import read_columns
from pc_train.checkpoints import AtomicCheckpointIO, newest_checkpoint, read_checkpoint
from pc_train.demos.study_cost import recorded_steps

from tests.fork_server import Trial, run_app, run_to_end, wait_until

STEPS, SAVE_EVERY = 12, 3
KILLS, KILLS_PER_RUN = 10, 4
FEWEST_CALLS = 8  # of a save
MEMORY = Path("/dev/shm")  # another file system than that of the temporary files
ROOM = 256 << 20  # bytes that the runs of an app take there

COMMON = ["pretrain", "--preset=small", "--hardware.accelerator=cpu", f"--max_steps={STEPS}"]
COMMON += [f"--save_every={SAVE_EVERY}"]
IMAGES = ["--batch_size=1", "--image_size=[64,128]"]
APPS = {
    "scalr": ["--batch_size=1", "--max_points=400"],
    "crossmodal": [*IMAGES, "--num_units=48", "--num_negatives=16"],
    "csc": [*IMAGES, "--dim=16"],
    "msc": [
        *("--data.name=scannet", "--batch_size=2", "--voxel_size=0.2"),
        *("--match_radius=0.3", "--max_pairs=128", "--mask_size=0.5"),
    ],
    "sspl": [
        *("--batch_size=2", "--projection_dim=16", "--hidden_dim=32", "--num_clusters=8"),
        *("--max_points=3000", "--volume_size=0.8", "--queue_size=300", "--num_negatives=64"),
        "--refresh_every=4",
    ],
}
# What a checkpoint holds besides weights and optimiser, and the loss that it serves.
STATE = {
    "csc": ({"bank.point", "bank.pixel", "bank.present"}, "prototypes"),
    "sspl": ({"queue.feature", "queue.labels", "queue.num_pushed"}, "across"),
}


def _other_disk():
    """In memory, where that takes a run; else beside the temporary files, or a container fails."""
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    return MEMORY if has_room else None


@pytest.fixture(scope="module")
def commands(street_world, rooms, tmp_path_factory):
    """The words of each app, but for the folder of the run."""
    folder = tmp_path_factory.mktemp("superpixels")
    words = ["prepare", "--preset=offline", f"--data.root={street_world}", "--num_clusters=8"]
    more = ["--image_size=[112,224]", "--jobs=1", "--accelerator=cpu", f"--out={folder / 'made'}"]
    code, said = run_to_end("csc", [*words, *more], folder)
    assert code == 0, said
    roots = {"msc": rooms, "sspl": rooms}
    made = {}
    for app, flags in APPS.items():
        made[app] = [*COMMON, f"--data.root={roots.get(app, street_world)}", *flags]
    made["csc"].append(f"--superpixels={folder / 'made'}")
    return made


@pytest.fixture(scope="module")
def whole_runs(commands, tmp_path_factory):
    """By app: a run that was never killed, and its seconds; made when first asked for."""
    made = {}

    def whole(app):
        if app not in made:
            out = tmp_path_factory.mktemp(app) / "run"
            begun = time.monotonic()
            code, said = run_to_end(app, [*commands[app], f"--out={out}"], out.parent)
            assert code == 0, said
            made[app] = out, time.monotonic() - begun
        return made[app]

    return whole


def _newest(out):
    """Name of the newest good checkpoint, which has step and digest; empty if there is none."""
    path = newest_checkpoint(out / "checkpoints")
    return path.name if path else ""


def _step(name):
    return int(name.split(".")[0].removeprefix("step-") or 0)


def _require_same(out, whole):
    """Everything that a checkpoint holds, the curve, and the weights for others."""
    one, other = (read_checkpoint(newest_checkpoint(run / "checkpoints")) for run in (out, whole))
    _require_equal(one, other, "checkpoint")
    for curve in {path.name for path in whole.glob("*.csv")} - {"pace.csv"}:  # of the clock
        assert (out / curve).read_text() == (whole / curve).read_text(), curve
    assert len(read_columns(out / "metrics.csv")["step"]) == STEPS
    first, second = (run / "backbone.safetensors" for run in (out, whole))
    assert first.read_bytes() == second.read_bytes()
    assert (out / "report.html").is_file()


def _require_equal(one, other, where):
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            _require_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            _require_equal(*pair, f"{where}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def _run_counted(app, words, steps, fault_at):
    """The app, its steps written down; it kills itself at a call of its first save, if told to."""
    if fault_at:
        patch, save = pytest.MonkeyPatch(), AtomicCheckpointIO.save_checkpoint

        def save_and_die(*words, **options):
            with faults(fault_at, _die):
                save(*words, **options)

        patch.setattr(AtomicCheckpointIO, "save_checkpoint", save_and_die)
    with recorded_steps(Path(steps)):
        return run_app(app, words)


class Run:
    """A run that is started again and again until it ends.

    Args:
        app: Which.
        words: Of its command line, but for the folder.
        out: The folder.
        work: For what belongs to the test.
    """

    def __init__(self, app, words, out, work):
        self.app, self.words, self.out, self.work = app, words, out, work
        self.trials = []
        self.kills = self.early = self.inside = 0

    def go_on(self, *flags, seconds=240.0, fault_at=0):
        """Until it ends, which returns True, or is killed after so many seconds or by itself."""
        before, hidden = _newest(self.out), _hidden(self.out)
        steps, said = self.work / "steps.csv", self.work / "said.txt"
        for file in (steps, said):
            file.unlink(missing_ok=True)
        words = [*self.words, f"--out={self.out}", *flags]
        trial = Trial(_run_counted, self.app, words, str(steps), fault_at, said=said)
        self.trials.append(trial)
        code = trial.wait(seconds)
        if code is None:
            code = trial.kill()
        assert code in (0, -signal.SIGKILL), said.read_text()[-2000:]
        newest = _newest(self.out)
        assert _step(newest) >= _step(before)  # no good checkpoint is lost
        if code == 0:  # it went on from there, and did not begin again
            assert len(steps.read_text().splitlines()) == STEPS - _step(before)
            return True
        self.kills += 1
        self.early += not newest
        self.inside += bool(_hidden(self.out) - hidden)
        return False


def _hidden(out):
    """Files that a write has not yet given their names."""
    return {path for path in out.rglob(".*") if path.name != ".lock"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("app", APPS)
def test_killed_at_random_moments(commands, whole_runs, tmp_path, capsys, app):
    """Four kills a run at most; every other run is on another file system than TMPDIR."""
    whole, whole_seconds = whole_runs(app)
    rng = np.random.default_rng(list(APPS).index(app))
    runs = []
    with tempfile.TemporaryDirectory(dir=_other_disk()) as elsewhere:
        while sum(run.kills for run in runs) < KILLS:
            folder = tmp_path if len(runs) % 2 else Path(elsewhere)
            run = Run(app, commands[app], folder / f"run{len(runs)}", tmp_path)
            runs.append(run)
            moments = rng.uniform(0.1, 0.8, KILLS_PER_RUN) * whole_seconds
            for seconds in [*moments, 240]:
                workers = f"--hardware.num_workers={rng.choice([0, 2])}"
                if run.go_on(workers, seconds=seconds):
                    break
            _require_same(run.out, whole)
    state, watched = STATE.get(app, (set(), "loss"))
    assert state <= set(read_checkpoint(newest_checkpoint(whole / "checkpoints"))["state_dict"])
    assert read_columns(whole / "metrics.csv")[watched][9] > 0  # every tenth step
    assert all(wait_until(trial.is_gone) for run in runs for trial in run.trials)
    kills, early, inside = np.sum([(run.kills, run.early, run.inside) for run in runs], axis=0)
    with capsys.disabled():
        print(
            f"\n{app}: {kills} kills, {early} before the first checkpoint, {inside} inside a "
            f"write; {len(runs)} runs, {len(runs)} as promised"
        )


# --- inside a write

CALLS = ("open", "fchmod", "fsync", "replace", "rename", "symlink", "unlink", "mkdir", "rmdir")


@contextmanager
def faults(number, fault):
    """Let a fault happen at a call that changes files, by its number; half of a write is done.

    Yields the counter of calls.
    """
    count = itertools.count(1)

    def counted(function):
        def call(*words, **options):
            if next(count) == number:
                fault()
            return function(*words, **options)

        return call

    class TornFile(BufferedWriter):
        def write(self, content):
            if next(count) == number:
                super().write(content[: len(content) // 2])
                self.flush()
                fault()
            return super().write(content)

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(os, "fdopen", lambda handle, mode: TornFile(FileIO(handle, mode)))
        yield count


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _content(step):
    return {"step": step, "weights": torch.full((1000,), float(step))}


def _save(folder, step):
    AtomicCheckpointIO().save_checkpoint(_content(step), folder / f"step-{step:08d}.ckpt")


def _die_at_every_call(folders):
    """The third save in each folder, in a process that kills itself at a call of that number."""
    for number, places in enumerate(folders, start=1):
        for folder in places:
            child = os.fork()
            if not child:
                with faults(number, _die):
                    _save(folder, 3)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _require_good(folder, *steps):
    """The newest checkpoint is of one of these steps and whole; `last.ckpt` can be read."""
    step = _step(newest_checkpoint(folder).name)
    assert step in steps
    _require_equal(read_checkpoint(newest_checkpoint(folder)), _content(step), "checkpoint")
    assert read_checkpoint(folder / "last.ckpt")["step"] in (2, 3)


def _count_calls(folder):
    """The calls of the third save, which also removes the first."""
    for step in (1, 2):
        _save(folder, step)
    with faults(0, None) as count:
        _save(folder, 3)
    return next(count) - 1


@pytest.mark.slow
def test_killed_at_every_call_of_a_save(tmp_path, capsys):
    num_calls = _count_calls(tmp_path / "count")
    assert num_calls >= FEWEST_CALLS
    with tempfile.TemporaryDirectory(dir=_other_disk()) as elsewhere:
        places = (tmp_path, Path(elsewhere))
        folders = [[place / str(n) for place in places] for n in range(1, num_calls + 1)]
        for folder, step in itertools.product(itertools.chain(*folders), (1, 2)):
            _save(folder, step)
        trial = Trial(_die_at_every_call, folders, said=tmp_path / "said.txt")
        assert trial.wait() == 0, (tmp_path / "said.txt").read_text()
        for folder in itertools.chain(*folders):
            _require_good(folder, 2, 3)
            _save(folder, 3)
            _require_good(folder, 3)
    with capsys.disabled():
        print(f"\n{2 * num_calls} kills inside a write, {2 * num_calls} as promised")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_error_at_every_call_of_a_save(tmp_path, code):
    def fail():
        raise OSError(code, os.strerror(code))

    for number in range(1, _count_calls(tmp_path / "count") + 1):
        folder = tmp_path / str(number)
        for step in (1, 2):
            _save(folder, step)
        with faults(number, fail), suppress(OSError):
            _save(folder, 3)
        _require_good(folder, 2, 3)
        _save(folder, 3)
        _require_good(folder, 3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_run_killed_at_every_call_of_a_save(commands, whole_runs, tmp_path, capsys):
    """Each time a run goes on, it dies one call further in its first save."""
    whole, _ = whole_runs("scalr")
    run = Run("scalr", commands["scalr"], tmp_path / "run", tmp_path)
    while not run.go_on(fault_at=run.kills + 1):
        assert run.kills < 40
    assert run.kills >= 8
    _require_same(run.out, whole)
    with capsys.disabled():
        print(f"\nscalr: {run.kills} kills inside a write; 1 run, 1 as promised")


# --- a full disk


@pytest.fixture
def small_disk(tmp_path):
    """A file system in memory and a function that sets its size in bytes."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        words = ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(folder)]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    done = mount("size=64k")
    if done.returncode:
        pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")
    yield folder, lambda size: mount("remount", f"size={size}").check_returncode()
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_full_disk(commands, whole_runs, small_disk, tmp_path):
    """Room for one checkpoint, not for two: the run ends, that one stays; with room it goes on."""
    whole, _ = whole_runs("scalr")
    disk, resize = small_disk
    resize(int(1.7 * newest_checkpoint(whole / "checkpoints").stat().st_size))
    words = [*commands["scalr"], f"--out={disk / 'run'}"]
    code, said = run_to_end("scalr", words, tmp_path)
    assert code > 0, said
    assert "Traceback" not in said
    assert re.search("no space|full", said.splitlines()[-1], re.IGNORECASE), said
    kept = newest_checkpoint(disk / "run" / "checkpoints")
    assert _step(kept.name) == SAVE_EVERY
    resize(2**26)
    code, said = run_to_end("scalr", words, tmp_path)
    assert code == 0, said
    _require_same(disk / "run", whole)
