"""A run's folder: one configuration, resumed by the same command, never overwritten by another."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml
from pc_data.files.yaml_files import PlainLoader
from pc_geometry.atomic import atomic_file

from pc_train.notices import is_first_process

CONFIG = "config.yaml"
_INPUTS = "inputs.yaml"
_LOCK = ".lock"
# Where and how fast a run goes may change between its parts, and what a fault does that it has
# not met; what it computes may not.
_FREE_KEYS = frozenset(
    {
        *("out", "save_every", "accelerator", "devices", "num_nodes"),
        *("num_workers", "num_threads", "jobs"),
        *("on_error", "max_bad_samples", "on_nonfinite"),
    }
)
# One place has several spellings.
_PATH_KEYS = frozenset(
    {
        *("root", "backbone", "run", "start_from", "scenes", "points_file", "corrupted"),
        *("checkpoint", "teacher_weights", "superpixels", "more_superpixels", "source"),
    }
)
_SHOWN = 5


def open_run(out: Path, config_yaml: str, *, inputs: Mapping[str, Path] | None = None) -> None:
    """Make a run's folder, or find it made by the same configuration.

    A run may go on with other devices; another kind of device rounds otherwise, so only a run that
    stays on one kind ends with the bits of a run that was never interrupted.

    Args:
        out: The folder.
        config_yaml: The resolved configuration.
        inputs: Files that the run starts from, by what they are; their content is part of the run.

    Raises:
        ValueError: If the folder belongs to another run or to something else: names the
            differences and the choices.
    """
    if not is_first_process():
        return
    config_file = out / CONFIG
    if config_file.is_file():
        different = _differences(
            read_settings(config_file), yaml.load(config_yaml, Loader=PlainLoader)
        )
        if different:
            more = [f"{len(different) - _SHOWN} more"] if len(different) > _SHOWN else []
            raise ValueError(
                f"{out} belongs to a run with other settings "
                f"({', '.join(different[:_SHOWN] + more)}); pass another --out, or the settings "
                "of that run to resume it, or remove the folder"
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is no run of this command; pass another --out")
    else:
        write_text(config_file, config_yaml)
    _check_inputs(out, inputs or {})


@contextmanager
def withdrawn_on_error(out: Path) -> Iterator[None]:
    """Open a run in the block; if it was new and fails there without a result, nothing is left.

    For runs whose first error often asks for another setting.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        yield
        return
    try:
        yield
    except Exception:
        own = {out / name for name in (CONFIG, _INPUTS, _LOCK)}
        paths = sorted(out.rglob("*"), reverse=True)  # a folder after what is in it
        if all(path in own or path.is_dir() for path in paths):
            for path in paths:
                path.rmdir() if path.is_dir() else path.unlink()
            if out.is_dir():
                out.rmdir()
        raise


@contextmanager
def lock_run(out: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder while the block lasts.

    The lock is the kernel's: it dies with the process, and loader processes do not inherit it.

    Raises:
        ValueError: If another process has it.
    """
    if not is_first_process():
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    with (out / _LOCK).open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise ValueError(
                f"another process is at work in {out}; wait for it, or pass another --out"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield


def write_text(path: Path, text: str) -> None:
    """Write a text file that is whole or not there."""
    with atomic_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: object) -> None:
    """Write JSON that is whole or not there."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def _check_inputs(out: Path, inputs: Mapping[str, Path]) -> None:
    """Record the digests of files when a run begins, and compare them when it goes on."""
    digests = {}
    for name, path in inputs.items():
        with path.open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    record = out / _INPUTS
    if digests and not record.is_file():
        write_text(record, yaml.safe_dump(digests))
    known = read_settings(record) if digests else {}
    for name, digest in digests.items():
        if known.get(name) != digest:
            raise ValueError(
                f"{inputs[name]} has changed since the run in {out} began from it; pass another "
                f"--out, or bring the {name} back, or remove the folder"
            )


def read_settings(file: Path) -> dict:
    """Read a run's settings.

    Raises:
        ValueError: If the file does not hold settings.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        content = error
    if not isinstance(content, dict):
        raise ValueError(
            f"{file} is damaged: it does not hold a run's settings; bring it back, or remove the "
            "folder to begin anew"
        )
    return content


def _differences(old: dict, new: dict) -> list[str]:
    before, after = flatten(old), flatten(new)
    keys = sorted({*before, *after})
    return [
        f"{key} {before.get(key)!r} -> {after.get(key)!r}"
        for key in keys
        if _meaning(key, before.get(key)) != _meaning(key, after.get(key))
        and _last(key) not in _FREE_KEYS
    ]


def _meaning(key: str, value: object) -> object:
    """What of a value counts: of a path the place."""
    is_path = _last(key) in _PATH_KEYS and isinstance(value, str)
    return os.path.realpath(str(value)) if is_path else value


def _last(key: str) -> str:
    """The setting's own name, without its place in a list."""
    return next(part for part in reversed(key.split(".")) if not part.isdigit())


def flatten(values: dict | list, prefix: str = "") -> dict[str, object]:
    """Settings by their full names: `data.root`, `more_data.0.root`."""
    flat: dict[str, object] = {}
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, (dict, list)):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
