"""What the tests of studies run in processes of their own; quick to import there."""

import os
import signal
import time
from pathlib import Path

import torch


def take_steps(count: int, seconds: float = 0.0) -> None:
    """Take steps with an optimiser."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for _ in range(count):
        weight.grad = torch.ones(1)
        time.sleep(seconds)
        optimizer.step()


def wrong_setting() -> Path:
    """Fail as wrong settings do."""
    raise ValueError("lr must be positive, got -1")


def killed() -> Path:
    """End as a process that has taken too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return Path()


def leave_on_request(started: Path, saved: Path) -> Path:
    """Step until asked to end, then save: as a run of `fit` does."""
    asked = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    started.touch()
    until = time.monotonic() + 60
    while not asked and time.monotonic() < until:
        take_steps(1, 0.01)
    saved.touch()
    raise SystemExit(128 + asked[0])
