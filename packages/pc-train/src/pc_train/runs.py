"""A run's folder: one configuration, resumed by the same command, never overwritten by another."""

import json
from pathlib import Path

import yaml
from pc_backbones.atomic import atomic_file

CONFIG = "config.yaml"
# Where and how fast a run goes may change between its parts; what it computes may not.
_FREE_KEYS = frozenset({"out", "num_workers", "save_every"})


def open_run(out: Path, config_yaml: str) -> None:
    """Make a run's folder, or find it made by the same configuration.

    Args:
        out: The folder.
        config_yaml: The resolved configuration.

    Raises:
        ValueError: If the folder belongs to another run or to something else: names the
            differences and the choices.
    """
    config_file = out / CONFIG
    if config_file.is_file():
        different = _differences(config_file.read_text(encoding="utf-8"), config_yaml)
        if different:
            raise ValueError(
                f"{out} belongs to a run with other settings ({', '.join(different)}); pass "
                "another --out, or the settings of that run to resume it, or remove the folder"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is no run of this command; pass another --out")
    write_text(config_file, config_yaml)


def write_text(path: Path, text: str) -> None:
    """Write a text file that is whole or not there."""
    with atomic_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: object) -> None:
    """Write JSON that is whole or not there."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def _differences(old: str, new: str) -> list[str]:
    before, after = (_flatten(yaml.safe_load(text) or {}) for text in (old, new))
    keys = sorted({*before, *after})
    return [
        f"{key} {before.get(key)!r} -> {after.get(key)!r}"
        for key in keys
        if before.get(key) != after.get(key) and key.rpartition(".")[2] not in _FREE_KEYS
    ]


def _flatten(values: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
