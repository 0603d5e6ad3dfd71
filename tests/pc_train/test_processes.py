"""Two processes that train together: what befalls one, ends both with its words."""

import os
import signal
import socket
import time
from functools import partial

import pytest
from pc_data.errors import exit_code
from pc_train.checkpoints import newest_checkpoint
from pc_train.finite import read_nonfinite

from tests.pc_train.faulty import Clouds, start_apart, train
from tests.pc_train.test_finite import break_steps

ENDS = ("nan loss", "damaged scan", "killed", "a bug")


def launched(rank, meeting, out, function, **options):
    """Call a function as torchrun would start it."""
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "LOCAL_WORLD_SIZE": "2",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(meeting),
    }
    function(out, **options)


def train_twice(tmp_path, function=train, **options):
    """Train in two processes; their exit codes, what they wrote, and the seconds between ends."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        meeting = probe.getsockname()[1]
    files = [tmp_path / f"said-{rank}" for rank in (0, 1)]
    processes = [
        start_apart(
            str(file), launched, rank, meeting, tmp_path / "run", function, devices=0, **options
        )
        for rank, file in enumerate(files)
    ]
    first = None
    until = time.monotonic() + 200
    while any(process.is_alive() for process in processes):
        assert time.monotonic() < until, [file.read_text() for file in files]
        if first is None and not all(process.is_alive() for process in processes):
            first = time.monotonic()
        time.sleep(0.05)
    wait = time.monotonic() - (first or time.monotonic())
    return [process.exitcode for process in processes], [file.read_text() for file in files], wait


def befall_one(method, feat, *, kind):
    """Let something happen to the second process in step 5."""
    if method.global_rank != 1 or method.global_step + 1 != 5:
        return feat
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "a bug":
        raise KeyError("a bug")
    return break_steps(method, feat, kind="nan input", steps={5})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENDS)
def test_one_ends_both(tmp_path, kind):
    options = {"befall": partial(befall_one, kind=kind), "save_every": 2}
    if kind == "damaged scan":
        options = {"scans": Clouds(damaged={4})}
    codes, said, wait = train_twice(tmp_path, **options)
    assert wait < 60
    if kind == "nan loss":
        assert codes == [5, 5], said
        assert all("error: the loss of step 5 is nan on scans " in text for text in said)
    elif kind == "damaged scan":
        assert codes == [3, 3], said
        assert all("/data/4.bin: was cut off" in text for text in said)
        assert sum("of this run ended: /data/4.bin" in text for text in said) == 1
    elif kind == "killed":
        assert codes == [6, -signal.SIGKILL], said
        assert "another process of this run ended without a word" in said[0]
    else:
        assert codes == [1, 1], said
        assert "KeyError: 'a bug'" in said[1]
        assert "process 1 of this run ended: 'a bug'" in said[0]
    if kind != "damaged scan":
        assert newest_checkpoint(tmp_path / "run/checkpoints").name.startswith("step-00000004.")


@pytest.mark.slow
def test_a_step_is_skipped_in_both(tmp_path):
    codes, said, _ = train_twice(
        tmp_path, befall=partial(befall_one, kind="nan loss"), on_nonfinite="skip"
    )
    assert codes == [0, 0], said
    (row,) = read_nonfinite(tmp_path / "run/nonfinite.jsonl")
    assert (row["step"], row["loss"], len(row["scans"]), len(row["step_seeds"])) == (5, "nan", 2, 2)
    assert said[0].count("the step is left out") == 1
    assert "left out" not in said[1]


def test_codes_of_the_errors_that_processes_tell():
    from pc_train.faults import _ERRORS

    assert {exit_code(kind("")) for kind in _ERRORS.values()} == set(_ERRORS)
