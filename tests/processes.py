"""Run a function in several processes that talk through gloo, as a distributed training would."""

import pickle
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path

from tests.fork_server import CONTEXT


def run_in_processes(function, *arguments, num_processes=2, timeout_s=120):
    """Call `function(rank, *arguments)` in each process and return the results in order of rank.

    `function` must be importable (at the top of a test module). It finds torch.distributed ready.
    What it raises is raised here; so is a collective that waits longer than `timeout_s`, as a
    deadlock does.
    """
    data = pickle.dumps((function, arguments))
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(num_processes, mp_context=CONTEXT) as pool,
    ):
        meeting = Path(folder) / "meeting"
        runs = [
            pool.submit(_run, data, rank, num_processes, f"file://{meeting}", timeout_s)
            for rank in range(num_processes)
        ]
        errors = [error for run in runs if (error := run.exception())]
        if errors:  # the first one, not what the others made of it
            raise min(errors, key=lambda error: getattr(error, "failed_at", float("inf")))
        return [pickle.loads(run.result()) for run in runs]  # noqa: S301 - our own bytes


def _run(data, rank, num_processes, meeting, timeout_s):
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=meeting,
        rank=rank,
        world_size=num_processes,
        timeout=timedelta(seconds=timeout_s),
    )
    try:
        function, arguments = pickle.loads(data)  # noqa: S301
        return pickle.dumps(function(rank, *arguments))  # bytes: no memory shared with the dead
    except Exception as error:
        error.failed_at = time.monotonic()
        raise
    finally:
        torch.distributed.destroy_process_group()
