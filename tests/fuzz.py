"""Read hostile files in processes of their own, under limits, and see all that happens.

A child reads one file after the other. It may open nothing outside of the dataset's folder and
the interpreter's own files (Python's `open`; the native readers get paths from it), start no
process and no connection, and take no more memory than ten times the file and 64 MB. If it dies or
hangs, the file that it was at is to blame, and another child goes on with the next one.
"""

import json
import os
import resource
import shutil
import signal
import sys
import sysconfig
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.fork_server import Trial
from tests.mutations import mutate

SPARE = 64 << 20
"""Bytes that reading may take beside ten times the size of the file."""
_ADDRESSES = 1 << 30  # bytes of address space beside what a child has when it begins
_NONE = resource.RLIM_INFINITY
_CPU, _WALL = 8, 60  # seconds for one file
_LONGEST = 1000  # characters of a message
_PROJECT = Path(__file__).resolve().parents[1]
_ACTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect",
         "os.remove", "os.rename", "os.symlink", "os.mkdir", "shutil.rmtree", "ctypes.dlopen",
         "webbrowser.open", "socket.getaddrinfo")  # fmt: skip


class Reader(NamedTuple):
    """What is fuzzed.

    Attributes:
        make: Writes valid files into an empty folder.
        files: Those of them that are damaged.
        read: Reads them, given the folder and the file that is damaged.
        error: The one class of error.
    """

    make: Callable[[Path], object]
    files: Callable[[Path], list[Path]]
    read: Callable[[Path, Path], object]
    error: type[Exception]


class Outcome(NamedTuple):
    """What came of one file: `value`, `error` or `other`."""

    kind: str
    what: str
    text: str


# --- in the parent


def run_all(work, arguments, *, count, folder):
    """Let children do all items of work; the outcome of each.

    Args:
        work: Function of a module: (*arguments, start, report), in the child.
        arguments: Its first ones.
        count: Items.
        folder: For reports.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report, said = folder / "report.jsonl", folder / "said.txt"
    outcomes = {}
    while len(outcomes) < count:
        trial = Trial(work, *arguments, len(outcomes), str(report), said=said)
        code = trial.wait(880)
        if code is None:
            trial.kill()
        lines = [json.loads(line) for line in report.read_text().splitlines()]
        outcomes = {line[0]: Outcome(*line[1:]) for line in lines if len(line) > 1}
        if len(outcomes) == count:
            break
        begun = [line[0] for line in lines if len(line) == 1]
        if not begun or begun[-1] in outcomes:
            raise RuntimeError(f"the child ended with {code}: {said.read_text()[-3000:]}")
        name = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        outcomes[begun[-1]] = died = Outcome("other", "died", f"{name} {said.read_text()[-500:]}")
        with report.open("a") as stream:
            stream.write(json.dumps([begun[-1], *died]) + "\n")
    return [outcomes[index] for index in range(count)]


def line_of(name, outcomes):
    """What is printed."""
    kinds = Counter(outcome.kind for outcome in outcomes)
    return (
        f"{name}: {len(outcomes)} tried, {kinds['value']} values, {kinds['error']} clean errors, "
        f"{kinds['other']} others"
    )


# --- in the child


def damage_files(readers, names, folder, count, start, report):
    """Damage the files of some readers, so many times each; the function of a child."""
    readers = _import(readers)

    def attempts():
        for place in range(start // count, len(names)):
            first = max(start - place * count, 0)
            yield from _damages(readers, names[place], Path(folder), place * count, first, count)

    return _watch(attempts(), Path(folder), report)


def _damages(readers, name, folder, offset, first, count):
    root, reader = folder / f"reader{offset}", readers[name]
    shutil.rmtree(root, ignore_errors=True)  # a child before may have died over a damaged file
    root.mkdir(parents=True)
    reader.make(root)
    files = reader.files(root)
    contents = {file: file.read_bytes() for file in files}
    for file in files:  # what is imported, compiled and kept is so before
        reader.read(root, file)
    for index in range(first, count):
        file = files[index % len(files)]
        rng = np.random.default_rng([zlib.crc32(name.encode()), index])
        how, damaged = mutate(contents[file], rng)
        file.write_bytes(damaged)
        try:
            yield (
                *(offset + index, f"{file.name}: {how}", file),
                *(partial(reader.read, root, file), reader.error),
            )
        finally:
            file.write_bytes(contents[file])


def do_cases(cases, root, start, report):
    """Try cases that are written by hand; the function of a child."""
    root, cases = Path(root), _import(cases)
    shutil.rmtree(root / "warm", ignore_errors=True)
    (root / "warm").mkdir(parents=True)
    with suppress(cases[0].error):  # torch imports much when it reads its first file
        cases[0].prepare(root / "warm", root / "canary")[1]()

    def attempts():
        for index, case in enumerate(cases):
            if index >= start:
                folder = root / f"{index}"
                folder.mkdir(parents=True)
                path, read = case.prepare(folder, root / "canary")
                yield index, case.name, path, read, case.error
                shutil.rmtree(folder)

    return _watch(attempts(), root, report)


def _import(place):
    module, _, name = place.partition(":")
    return getattr(__import__(module, fromlist=[name]), name)


def _watch(attempts, root, report):
    """Do attempts one by one, and write of each that it begins and what came of it."""
    watch = _Watch(root)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGXCPU, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    with open(report, "a", buffering=1) as stream:  # noqa: PTH123
        for index, what, path, read, error in attempts:
            stream.write(f"[{index}]\n")
            _limit(int(time.process_time()) + 1 + _CPU, _address_space() + _ADDRESSES, _WALL)
            kind, text = watch.attempt(read, path, error)
            _limit(_NONE, _NONE, 0)
            stream.write(json.dumps([index, kind, what[:300], text[:2000]]) + "\n")
    return 0


def _limit(cpu, addresses, wall):
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, _NONE))
    resource.setrlimit(resource.RLIMIT_AS, (addresses, _NONE))
    signal.alarm(wall)


class _Watch:
    """Sees what reading does that it must not do."""

    def __init__(self, root):
        prefixes = {root, _PROJECT, sys.prefix, sys.base_prefix, *sys.path}
        prefixes |= {*sysconfig.get_paths().values(), "/proc/self", "/dev/null", "/dev/urandom"}
        prefixes |= {"/usr/share/zoneinfo", "/usr/lib", "/etc/localtime"}
        paths = {os.path.realpath(path) for path in prefixes if path}
        self._inside = tuple(sorted(path.rstrip("/") for path in paths if path != "/"))
        self._root, self._acts, self._armed = root, [], False
        sys.addaudithook(self._see)

    def _see(self, event, arguments):
        if not self._armed or (event != "open" and event not in _ACTS):
            return
        if event in ("open", "os.mkdir", "os.remove", "os.rename"):  # numba keeps what it compiled
            if not isinstance(arguments[0], (str, bytes)):
                return
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if any(path == place or path.startswith(f"{place}/") for place in self._inside):
                return
        self._acts.append(f"{event} {arguments!r:.200}")

    def attempt(self, read, path, error):
        """Kind and text of an outcome."""
        size = path.stat().st_size if path.is_file() else 0
        before = _reset_peak()
        self._acts = []
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            self._armed = True
            try:
                read()
                kind, text = "value", ""
            except BaseException as raised:  # noqa: BLE001 - to be reported
                fault = _fault(raised, self._root, error)
                kind, text = ("other", fault) if fault else ("error", f"{raised}")
            finally:
                self._armed = False
        taken = _peak() - before
        if taken > 10 * size + SPARE:
            return "other", f"took {taken >> 20} MB for a file of {size} bytes; {kind} {text}"
        if self._acts:
            return "other", f"did {self._acts[:3]}; {kind} {text}"
        for each in said:  # a sentence about the file is for the user, all else is not
            if each.category is not UserWarning or f"{path.parent}" not in f"{each.message}":
                where = f"{Path(each.filename).name}:{each.lineno}"
                return "other", f"warned {each.category.__name__}: {each.message} at {where}"
        return kind, text


def _fault(raised, root, error):
    """What is wrong with an exception; empty if it is as promised."""
    text = f"{raised}"
    if type(raised) is not error:
        return f"{type(raised).__name__}: {text[:300]} at {_where(raised)}"
    if f"{root}/" not in text:  # of the file, or of the one that it names
        return f"no path: {text}"
    if "\n" in text or len(text) > _LONGEST:
        return f"{text.count(chr(10)) + 1} lines, {len(text)} characters: {text[:300]}"
    cause = raised
    while cause := cause.__cause__ or cause.__context__:
        absurd = type(cause).__name__ == "ArrowMemoryError"  # a claim that is refused at once
        if isinstance(cause, (MemoryError, KeyboardInterrupt, SystemExit)) and not absurd:
            return f"{type(cause).__name__} became {text[:300]} at {_where(cause)}"
    return ""


def _where(raised):
    frames, trace = [], raised.__traceback__
    while trace:
        code = trace.tb_frame.f_code
        frames.append(f"{Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " < ".join(frames[::-1][:5])


def _reset_peak():
    """Forget the highest memory so far; bytes that are in use now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak():
    return _status("VmHWM")


def _address_space():
    return _status("VmSize")


def _status(field):
    with open("/proc/self/status") as stream:  # noqa: PTH123
        line = next(line for line in stream if line.startswith(field))
    return int(line.split()[1]) << 10
