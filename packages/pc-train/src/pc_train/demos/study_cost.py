"""What a pre-training takes: it runs in a process of its own, and each step is written down."""

import csv
import dataclasses
import io
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from statistics import median
from types import FrameType

import torch
from pc_data.errors import MissingExtraError
from torch.optim.optimizer import register_optimizer_step_post_hook

from pc_train.runs import write_json

_GRACE = 10.0  # seconds in which a step ends and is saved
_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)

Work = Callable[[], Path]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a pre-training took.

    Attributes:
        seconds_per_step: Median time from the end of an optimiser's step to that of the next,
            waiting for data included.
        peak_bytes: On a GPU the most that torch's tensors held at once; else the highest resident
            memory of the process until its last step, without its loader processes.
        device: cpu or cuda.
        num_timed: Steps that the median is over.
        machines: Where its parts ran, see `machine_name`; several where it was moved.
    """

    seconds_per_step: float
    peak_bytes: int
    device: str
    num_timed: int
    machines: tuple[str, ...]


def measure_cost(work: Work, folder: Path) -> tuple[Path, Cost]:
    """Run a pre-training in a process of its own, on one device, and say what it took.

    The process starts as a fresh interpreter, so that no memory but its own counts. What is
    stopped goes on with the same call: the steps of all parts count.

    Args:
        work: Runs the pre-training or leaves a finished one alone, and returns its weights; a
            function of a module, or `functools.partial` of one.
        folder: Gets `steps.csv` and, when the work is done, `cost.json`.

    Returns:
        What `work` returned, and the cost.

    Raises:
        ChildProcessError: If the process is killed, or fails with anything but an error in the
            data or the settings, which is raised as it is.
        SystemExit: If it is asked to end.
        ValueError: If no step was timed, or `cost.json` holds something else.
    """
    finished = folder / "cost.json"
    if finished.is_file():
        cost = _read_cost(finished)
        return work(), cost
    folder.mkdir(parents=True, exist_ok=True)
    weights = _run_apart(work, folder / "steps.csv")
    cost = read_steps(folder / "steps.csv")
    write_json(finished, dataclasses.asdict(cost))
    return weights, cost


def read_steps(file: Path) -> Cost:
    """Sum up the steps that were written down; a line that a kill tore is left out.

    Raises:
        ValueError: If no step was timed; the first of each part of a run is not.
    """
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    whole = io.StringIO(text[: text.rfind("\n") + 1])
    # seconds, bytes, device, machine
    rows = [row for row in csv.reader(whole) if len(row) == 4]
    seconds = [float(row[0]) for row in rows if row[0]]
    if not seconds:
        raise ValueError(
            f"{file} holds the time of no step; remove {file.parent}, and the same command "
            "measures again"
        )
    return Cost(
        seconds_per_step=median(seconds),
        peak_bytes=max(int(row[1]) for row in rows),
        device=rows[-1][2],
        num_timed=len(seconds),
        machines=tuple(dict.fromkeys(row[3] for row in rows)),
    )


@contextmanager
def recorded_steps(file: Path) -> Iterator[None]:
    """Append a line for each step of any optimiser of torch while the block lasts.

    A line that a kill tore is removed first, or the next one would complete it.
    """
    ended: float | None = None

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        nonlocal ended
        now = time.perf_counter()
        seconds = "" if ended is None else f"{now - ended:.6f}"
        device = optimizer.param_groups[0]["params"][0].device
        writer.writerow([seconds, peak_memory(device), device.type, machine_name(device.type)])
        ended = now

    _cut_torn_line(file)
    with file.open("a", encoding="utf-8", buffering=1) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        hook = register_optimizer_step_post_hook(note)
        try:
            yield
        finally:
            hook.remove()


def peak_memory(device: torch.device) -> int:
    """The most memory that this process has used on a device, in bytes; see `Cost`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # The peak that getrusage gives is that of the parent at first.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM, the peak memory; measure on a Linux machine")


@cache
def machine_name(device: str) -> str:
    """Processor, its cores that this process may use, and the GPU where the device is cuda."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    machine = f"{names[0] if names else 'processor'}, {len(os.sched_getaffinity(0))} cores"
    return f"{machine}, {torch.cuda.get_device_name()}" if device == "cuda" else machine


def _read_cost(file: Path) -> Cost:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        return Cost(**fields | {"machines": tuple(fields["machines"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{file} holds no cost as it is measured now ({error!r}); remove {file.parent}, and "
            "the same command measures again"
        ) from error


def _cut_torn_line(file: Path) -> None:
    if file.is_file():
        with file.open("r+b") as stream:
            stream.truncate(stream.read().rfind(b"\n") + 1)


def _run_apart(work: Work, steps: Path) -> Path:
    spawn = multiprocessing.get_context("spawn")
    answers, answer = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_work, args=(work, steps, answer))
    with answers:
        process.start()
        answer.close()
        _wait(process)
        try:
            result = answers.recv()
        except EOFError:
            result = None
    if isinstance(result, Path):
        return result
    if isinstance(result, Exception):
        raise result
    code = process.exitcode or 0
    if code in _STOPPED:
        raise SystemExit(code)
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    raise ChildProcessError(
        f"the pre-training in {steps.parent} {how}; see above, and whether there is enough memory: "
        "the same command continues"
    )


def _work(work: Work, steps: Path, answer: Connection) -> None:
    """In the process: work, and answer with the weights or with the user's error."""
    try:
        with recorded_steps(steps):
            weights = work()
    except (ValueError, OSError, MissingExtraError) as error:
        answer.send(error)
        sys.exit(2)
    answer.send(weights)


def _wait(process: SpawnProcess) -> None:
    """Wait for the process; if this one is asked to end, that one ends first and saves its step."""
    try:
        with _sigterm_exits():
            process.join()
    except BaseException:
        # A terminal tells both, and a second signal would cut the saving short.
        process.join(_GRACE)
        process.terminate()
        process.join()
        raise


@contextmanager
def _sigterm_exits() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise SystemExit(128 + number)
