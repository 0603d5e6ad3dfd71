"""What ends a run from outside: one sentence that says what to do, a code, and a run to go on."""

import os
import signal
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from pc_data.batch import PointBatch
from pc_data.errors import DataError, DivergedError, ResourceError
from pc_train.callbacks import read_curve
from pc_train.checkpoints import newest_checkpoint
from pc_train.faults import Faults, count_points
from pc_train.hardware import HardwareConfig
from pc_train.interruption import Interruption
from pc_train.runs import write_json

from tests.pc_train.faulty import Clouds, run_apart, start_apart, state, train

MESSAGES = {
    "RuntimeError: DataLoader worker (pid 12) is killed by signal: Bus error. It": "Bus error",
    "RuntimeError: DataLoader worker (pid(s) 12, 13) exited unexpectedly": "process died: it",
    "RuntimeError: unable to write to file </torch_1_2>: No space left on device": "/dev/shm",
    "RuntimeError: unable to allocate shared memory(shm) for file </torch_9>": "num_workers",
    "RuntimeError: received 0 items of ancdata": "ulimit -n",
    "OSError: [Errno 24] Too many open files": "ulimit -n",
    "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried": "is out of memory",
    "MemoryError: Unable to allocate 9 GiB": "is out of memory",
}
KILLS = (signal.SIGKILL, pytest.param(signal.SIGBUS, marks=pytest.mark.slow))
STOPS = (
    signal.SIGUSR1,
    pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, marks=pytest.mark.slow),
)


def run_out_of_memory(method, feat, *, step, kept):
    """Raise at one step what a GPU would, with a large tensor in the frame."""
    if method.global_step + 1 == step:
        large = torch.zeros(1000)
        kept.append(large.untyped_storage()._weak_ref())
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has")
    return feat


def test_gpu_memory(tmp_path):
    kept = []
    befall = partial(run_out_of_memory, step=5, kept=kept)
    with pytest.raises(ResourceError) as e:
        train(tmp_path, befall=befall)
    said = str(e.value)
    assert "the GPU is out of memory at step 5, on 2 scans of 100 points in all (scan" in said
    assert "where 2.50 GiB more were asked for; share the batch over more of them" in said
    assert "lower batch_size, fewer points a scan (max_points, a larger voxel_size)" in said
    assert e.value.__context__ is None
    assert torch.UntypedStorage._expired(kept[0])
    assert "befall(self, batch.feat)" in e.value.__notes__[0]  # for --debug
    whole = train(tmp_path / "whole")
    assert state(train(tmp_path)) == state(whole)


def kill_worker(index, *, number, flag):
    """In a loader process, once."""
    if torch.utils.data.get_worker_info() is not None and index == 2 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), number)
        time.sleep(60)


@pytest.mark.parametrize("number", KILLS)
def test_a_loader_process_dies(tmp_path, number):
    out, flag = tmp_path / "run", tmp_path / "killed"
    clouds = Clouds(on_read=partial(kill_worker, number=number, flag=flag))
    code, said = run_apart(train, out, scans=clouds, num_workers=1)
    assert code == 6, said
    assert f"a loader process died (killed by signal: {signal.strsignal(number)}): it ran" in said
    assert "out of memory, or of /dev/shm (" in said
    assert "lower hardware.num_workers (now 1; 0 loads without such processes" in said
    assert said.count("\n") < 6
    assert "Traceback" not in said.replace("ERROR: Unexpected bus error", "")
    whole = train(tmp_path / "whole")
    assert state(train(out, scans=clouds)) == state(whole)


@pytest.mark.parametrize("text", MESSAGES)
def test_known_messages(tmp_path, text):
    kind, _, said = text.partition(": ")
    error = {"RuntimeError": RuntimeError, "OSError": OSError, "MemoryError": MemoryError}[kind]

    def fail():
        raise error(said)

    faults = Faults(tmp_path, HardwareConfig(num_workers=3), Interruption(tmp_path))
    with pytest.raises(ResourceError, match=MESSAGES[text]) as e:
        faults.run(fail, SimpleNamespace(global_rank=0, world_size=1))
    assert "the same command continues" in str(e.value)


def test_other_errors_stay_as_they_are(tmp_path):
    faults = Faults(tmp_path, HardwareConfig(), Interruption(tmp_path))
    for error in (DataError("a"), RuntimeError("a bug"), KeyError("b")):

        def fail(error=error):
            raise error

        with pytest.raises(type(error)) as e:
            faults.run(fail, SimpleNamespace(global_rank=0, world_size=1))
        assert e.value is error


def test_a_stopped_run_whose_loaders_were_told_too(tmp_path, capsys):
    interruption = Interruption(tmp_path)
    interruption.number = signal.SIGTERM

    def fail():
        raise RuntimeError("DataLoader worker (pid 3) is killed by signal: Terminated. ")

    with pytest.raises(SystemExit) as e:
        Faults(tmp_path, HardwareConfig(), interruption).run(
            fail, SimpleNamespace(global_rank=0, world_size=1)
        )
    assert e.value.code == 143
    assert "interrupted in mid-step; the same command continues from the" in capsys.readouterr().err


def read_slowly(index):
    time.sleep(0.05)


@pytest.mark.parametrize("number", STOPS)
def test_signals_to_the_whole_group(tmp_path, number):
    """A terminal and a scheduler tell the loader processes as well."""
    out, said = tmp_path / "run", tmp_path / "said"
    process = start_apart(str(said), lead_group, out)
    until = time.monotonic() + 100
    while len(read_curve(out / "metrics.csv")) < 3 and process.is_alive():
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, number)
    process.join(60)
    step = len(read_curve(out / "metrics.csv"))
    assert process.exitcode == 128 + number, said.read_text()
    assert f"interrupted at step {step} of 500; the same command continues\n" in said.read_text()
    assert "Traceback" not in said.read_text()
    newest = newest_checkpoint(out / "checkpoints")
    assert newest.name.startswith(f"step-{step:08d}.")


def lead_group(out):
    """Train as the leader of a group of processes."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    train(out, scans=Clouds(on_read=read_slowly), num_workers=2, num_steps=500, save_every=1000)


def test_points_of_a_batch():
    points = PointBatch(
        names=("a",),
        xyz=torch.zeros(7, 3),
        feat=torch.zeros(7, 1),
        batch=torch.zeros(7, dtype=torch.int64),
    )
    from msc.samples import ViewPair

    masked = torch.zeros(7, dtype=torch.bool)
    pair = ViewPair(
        query=points,
        key=points,
        pairs=torch.zeros(1, 2, dtype=torch.int64),
        query_masked=masked,
        key_masked=masked,
        mixed=torch.zeros(1, dtype=torch.bool),
    )
    assert (count_points(points), count_points(pair), count_points(None)) == (7, 14, 0)


def test_what_another_process_said(tmp_path):
    trainer = SimpleNamespace(global_rank=0, world_size=2)

    def fail():
        raise RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]")

    def run():
        Faults(tmp_path, HardwareConfig(), Interruption(tmp_path)).run(fail, trainer)

    with pytest.raises(ResourceError, match="another process of this run ended without a word"):
        run()
    write_json(tmp_path / ".failed-1.json", {"code": 5, "text": "the loss of step 3 is nan"})
    with pytest.raises(DivergedError, match="process 1 of this run ended: the loss of step 3 is"):
        run()
