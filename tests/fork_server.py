"""Processes of the tests that import nothing: forked from a server that has imported it before.

The server is multiprocessing's own. It never computes: the threads of OpenMP and numba do not
survive a fork.
"""

import importlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from multiprocessing import context, forkserver
from pathlib import Path
from types import SimpleNamespace

_LIGHT = ("torch", "torch._dynamo")  # what DistributedDataParallel needs
_APPS = (
    *("lightning.pytorch", "pc_backbones.sparse_unet", "timm", "torch.utils.tensorboard"),
    *("pc_data.synthetic", "pc_train.demos.study", "csc.prepare"),
    *(f"{app}.pretrain" for app in ("crossmodal", "csc", "msc", "scalr", "sspl")),
)


class _Process(context.ForkServerProcess):
    def run(self):
        """What it begins itself, as a loader does, is forked from it as in any other process."""
        multiprocessing.set_start_method("fork", force=True)
        super().run()


class _Context(context.ForkServerContext):
    Process = _Process


# One server for all processes to come.
CONTEXT = _Context()
CONTEXT.set_forkserver_preload([*_LIGHT])


def start_with_apps():
    """Start the server now, for tests that run apps: while it imports, the first tests run."""
    CONTEXT.set_forkserver_preload([*_LIGHT, *_APPS])
    forkserver.ensure_running()


class Trial:
    """A function in a process of its own, which can be killed.

    Args:
        function: Of a module; what it returns is the exit code.
        arguments: Its own.
        said: Gets what the process prints, both streams.
    """

    def __init__(self, function, *arguments, said):
        self._process = CONTEXT.Process(target=_run, args=(function, arguments, str(said)))
        self._process.start()

    def wait(self, seconds=240.0):
        """Wait for the end; the exit code, minus the number of a signal, None if it goes on."""
        self._process.join(seconds)
        return self._process.exitcode

    def kill(self):
        """SIGKILL to this process alone: those that it began must find out by themselves."""
        self._process.kill()
        return self.wait()

    def is_gone(self):
        """Whether neither it nor a process that it began is alive."""
        return str(self._process.pid) not in map(_session, Path("/proc").glob("[0-9]*/stat"))


def run_app(app, words):
    """The command line of an app, for a `Trial`."""
    return importlib.import_module(f"{app}.cli").main(words)


def run_to_end(app, words, folder):
    """Run the command line of an app in a process of its own; its exit code and what it said."""
    said = Path(folder) / "said.txt"
    said.unlink(missing_ok=True)
    trial = Trial(run_app, app, words, said=said)
    code = trial.wait()
    if code is None:
        trial.kill()
    return code, said.read_text()


def run_two(app, words, folder):
    """The same in two processes that share the work, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = [Path(folder) / f"said{rank}.txt" for rank in range(2)]
    ranks = [Trial(_run_rank, app, words, rank, port, said=file) for rank, file in enumerate(files)]
    codes = [trial.wait() for trial in ranks]
    for trial, code in zip(ranks, codes, strict=True):
        if code is None:
            trial.kill()
    return codes, [file.read_text() for file in files]


def fork_rows(monkeypatch):
    """Let the rows of a study be forked: what a fresh interpreter imports takes ten seconds."""
    forking = SimpleNamespace(get_context=lambda _: CONTEXT)
    monkeypatch.setattr("pc_train.demos.study_cost.multiprocessing", forking)


def wait_until(condition, seconds=60.0):
    """Wait until a condition is true; whether it is within so many seconds."""
    until = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < until:
        time.sleep(0.005)
    return met


def _session(stat):
    """To which a process belongs; empty for one that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        state, _, _, session, *_ = stat.read_text().rpartition(")")[2].split()
        return session if state != "Z" else ""
    return ""


def _run_rank(app, words, rank, port):
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "GROUP_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    return run_app(app, words)


def _run(function, arguments, said):
    import torch

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
    stream = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(stream, sys.stdout.fileno())
    os.dup2(stream, sys.stderr.fileno())
    torch.set_num_threads(1)
    sys.exit(function(*arguments))
