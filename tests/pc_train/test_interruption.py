"""Signals to a real process: it saves, says so, and the same command ends as if never stopped."""

import os
import signal
import subprocess
import sys
import time

import pytest
from pc_train.callbacks import read_curve
from pc_train.checkpoints import newest_checkpoint
from pc_train.cli import main
from pc_train.interruption import Interruption, exit_codes

SIGNALS = (pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM)
LONG = ("--max_steps=40", "--save_every=1000")


def _start(words):
    return subprocess.Popen(
        [sys.executable, "-m", "pc_train", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE")},
    )


def _wait_for(out, step, process):
    until = time.monotonic() + 120
    while len(read_curve(out / "metrics.csv")) < step and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tmp_path_factory.mktemp("whole") / "run"


@pytest.mark.parametrize("number", SIGNALS)
def test_saves_and_continues_bit_by_bit(probe_words, whole, tmp_path, number):
    before = signal.getsignal(number)  # a job in the background of a shell ignores SIGINT
    main(probe_words(whole, *LONG))
    out = tmp_path / "run"
    with _start(probe_words(out, *LONG)) as process:
        _wait_for(out, 4, process)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    steps = len(read_curve(out / "metrics.csv"))
    assert process.returncode == 128 + number, said
    assert f"interrupted at step {steps} of 40; the same command continues\n" in said
    assert "Traceback" not in said
    assert newest_checkpoint(out / "checkpoints").name.startswith(f"step-{steps:08d}.")
    assert 4 <= steps < 40
    assert not (out / "scores.json").exists()
    assert main(probe_words(out, *LONG)) == 0
    assert signal.getsignal(number) == before
    for file in ("metrics.csv", "head.safetensors", "scores.json"):
        assert (out / file).read_bytes() == (whole / file).read_bytes(), file


def test_second_signal_ends_at_once():
    stop = Interruption(None)
    stop._note(signal.SIGINT, None)
    with pytest.raises(SystemExit) as caught:
        stop._note(signal.SIGTERM, None)
    assert caught.value.code == 143


def test_signal_before_training():
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    with pytest.raises(SystemExit) as caught, exit_codes():
        raise SIGTERMException
    assert caught.value.code == 143

    def interrupt():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)  # as Lightning does

    with pytest.raises(KeyboardInterrupt), exit_codes():
        interrupt()
    with pytest.raises(SystemExit) as caught, exit_codes():
        sys.exit(7)
    assert caught.value.code == 7
