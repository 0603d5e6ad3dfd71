"""`dataset.yaml`: what a folder of clouds does not say by itself; see `pc_data.readers.folder`."""

import difflib
import json
import math
import posixpath
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from jaxtyping import Int64

from pc_data.errors import DataError
from pc_data.files.cloud_files import SKIPPED
from pc_data.files.clouds import FIELDS
from pc_data.files.yaml_files import PlainLoader

NAMES = ("dataset.yaml", "dataset.yml", "dataset.json")
SPLITS = ("train", "val", "test")
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "km": 1000.0, "ft": 0.3048, "in": 0.0254}
_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the ids of points are: in a column of the scan's file, or in a file of their own.

    Attributes:
        column: The column; empty for the usual names.
        files: Pattern of the files, empty without; `{stem}` is the scan's name without its suffix
            and `{folder}` the scan's folder, from the root.
        dtype: NumPy's name of the stored type; empty for .npy files.
        class_bits: Lower bits that hold the class, the upper ones being the instance; 0 = all.
    """

    column: str = ""
    files: str = ""
    dtype: str = ""
    class_bits: int = 0

    def file_of(self, scan: str) -> str:
        """The file that belongs to a scan, both relative to the root with `/`."""
        folder, name = posixpath.split(scan)
        stem = name.rpartition(".")[0]
        path = self.files.replace("{folder}", folder or ".").replace("{stem}", stem)
        return posixpath.normpath(path)


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The content of a schema, checked; the defaults are those of a folder without one.

    Attributes:
        file: Where it was read, for messages.
        scans: Patterns of the files that are scans; empty for all.
        columns: Names of the columns of files without names.
        metres: Metres in one unit of the files.
        up: Axis that points up in the files.
        color_max: Value of full brightness, or None.
        classes: Class name -> raw ids, in the order of the training classes.
        ignore: Raw ids that are not trained on; -1 is one of them unless it is a class.
        labels: Where the raw ids are.
        instances: Where the instance ids are.
        intensity_column: Column of the intensity; empty for the usual names.
        intensity_mean: Of the training scans.
        intensity_std: Of the training scans.
        sensor_height: Height of the scans' origin above the ground in metres, or None.
        splits: Split -> patterns of its files.
    """

    file: Path
    scans: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    metres: float = 1.0
    up: Literal["y", "z"] = "z"
    color_max: float | None = None
    classes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ignore: tuple[int, ...] = ()
    labels: Source = Source()
    instances: Source = Source()
    intensity_column: str = ""
    intensity_mean: float = 0.0
    intensity_std: float = 1.0
    sensor_height: float | None = None
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def names(self) -> dict[str, str]:
        """The columns that are named for a field."""
        pairs = {
            "intensity": self.intensity_column,
            "label": self.labels.column,
            "instance": self.instances.column,
        }
        return {key: column for key, column in pairs.items() if column}

    def class_table(self) -> tuple[Int64[np.ndarray, " raw"], Int64[np.ndarray, " raw"]]:
        """The raw ids that there are, ascending, and the training class of each, -1 = ignored."""
        class_of = dict.fromkeys((-1, *self.ignore), -1)
        for label, raw in enumerate(self.classes.values()):
            class_of |= dict.fromkeys(raw, label)
        known = sorted(class_of)
        return np.array(known), np.array([class_of[raw] for raw in known])


def read_schema(root: Path) -> Schema:
    """Read the schema at the root of a folder; without one, the defaults.

    Raises:
        DataError: If there are two, or it is no such file, or a key or value is not one of those
            documented in `pc_data.readers.folder`.
    """
    files = [root / name for name in NAMES if (root / name).is_file()]
    if not files:
        return Schema(file=root / NAMES[0])
    if len(files) > 1:
        raise DataError(f"{root} has both {files[0].name} and {files[1].name}; remove one")
    file = files[0]
    content = _parse(file)
    try:
        _require_keys(content, _READ, "key")
        values: dict[str, Any] = {}
        for key, value in content.items():
            values |= _READ[key](value)
        schema = Schema(file=file, **values)
        _require_consistent(schema)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{file}: {error}") from None
    return schema


def _parse(file: Path) -> dict[str, Any]:
    try:
        text = file.read_bytes().decode("utf-8")
        if file.suffix == ".json":
            content = json.loads(text, object_pairs_hook=_unique)
        else:
            content = yaml.load(text, Loader=_Loader)  # makes plain values only
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        fault = " ".join(str(error).split())
        raise DataError(f"{file}: cannot be read: {fault}; correct it") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: must be keys and values, e.g. 'unit: mm', got {_shown(content)}; correct it"
        )
    return content


def _unique(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """A dictionary of pairs; a key that comes twice would silently lose its first value."""
    found = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} comes twice")
        found[key] = value
    return found


class _Loader(PlainLoader):
    """Refuses a key that comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if all(isinstance(key, (str, int, float, bool)) for key in keys):
            _unique([(key, None) for key in keys])
        return super().construct_mapping(node, deep=deep)


# --- one function a key: value -> fields of Schema


def _read_scans(value: object) -> dict[str, Any]:
    return {"scans": _texts("scans", value)}


def _read_columns(value: object) -> dict[str, Any]:
    columns = _texts("columns", value)
    twice = [name for name in columns if name != SKIPPED and columns.count(name) > 1]
    if twice:
        raise ValueError(f"columns has {twice[0]!r} twice; use {SKIPPED} for one to skip")
    return {"columns": columns}


def _read_unit(value: object) -> dict[str, Any]:
    if isinstance(value, str):
        _require_known(value, UNITS, "unit")
        return {"metres": UNITS[value]}
    return {"metres": _number("unit (metres in one unit)", value, positive=True)}


def _read_up(value: object) -> dict[str, Any]:
    if value not in ("y", "z", "Y", "Z"):
        raise ValueError(f"up must be y or z, got {_shown(value)}")
    return {"up": str(value).lower()}


def _read_color_max(value: object) -> dict[str, Any]:
    return {"color_max": _number("color_max", value, positive=True)}


def _read_classes(value: object) -> dict[str, Any]:
    if isinstance(value, list):  # the raw ids are the places in the list
        names = [_text("a name in the list classes", name) for name in value]
        value = _unique([(name, number) for number, name in enumerate(names)])
    if not isinstance(value, dict) or not value:
        raise ValueError(
            "classes must be a list of names, or names with their raw ids such as road: [1, 2], "
            f"got {_shown(value)}"
        )
    classes = {}
    for name, raw in value.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"classes has a name {_shown(name)} that is no text; put it in quotes")
        classes[name] = _ids(f"classes.{name}", raw)
    return {"classes": classes}


def _read_ignore(value: object) -> dict[str, Any]:
    return {"ignore": _ids("ignore", value)}


def _read_labels(value: object) -> dict[str, Any]:
    return {"labels": _source("labels", value, ("column", "files", "dtype", "class_bits"))}


def _read_instances(value: object) -> dict[str, Any]:
    return {"instances": _source("instances", value, ("column", "files", "dtype"))}


def _read_intensity(value: object) -> dict[str, Any]:
    keys = ("column", "mean", "std")
    content = _section("intensity", value, keys)
    found: dict[str, Any] = {}
    if "column" in content:
        found["intensity_column"] = _text("intensity.column", content["column"])
    if "mean" in content:
        found["intensity_mean"] = _number("intensity.mean", content["mean"])
    if "std" in content:
        found["intensity_std"] = _number("intensity.std", content["std"], positive=True)
    return found


def _read_sensor_height(value: object) -> dict[str, Any]:
    return {"sensor_height": _number("sensor_height", value)}


def _read_splits(value: object) -> dict[str, Any]:
    content = _section("splits", value, SPLITS)
    return {"splits": {name: _texts(f"splits.{name}", each) for name, each in content.items()}}


_READ: dict[str, Callable[[Any], dict[str, Any]]] = {
    "scans": _read_scans,
    "columns": _read_columns,
    "unit": _read_unit,
    "up": _read_up,
    "color_max": _read_color_max,
    "classes": _read_classes,
    "ignore": _read_ignore,
    "labels": _read_labels,
    "instances": _read_instances,
    "intensity": _read_intensity,
    "sensor_height": _read_sensor_height,
    "splits": _read_splits,
}


def _require_consistent(schema: Schema) -> None:
    """What a key alone does not show: ids that two classes claim, columns that nothing reads."""
    owner: dict[int, str] = dict.fromkeys(schema.ignore, "ignore")
    for name, raw in schema.classes.items():
        for number in raw:
            if number in owner:
                raise ValueError(f"raw id {number} belongs to both {owner[number]} and {name}")
            owner[number] = name
    if not schema.classes and (schema.labels != Source() or schema.ignore):
        raise ValueError("labels and ignore need classes; write classes: [names], in order")
    known = {alias for aliases in FIELDS.values() for alias in aliases} | {SKIPPED}
    known |= set(schema.names.values())
    for name in schema.columns:
        if name.lower() not in known and name not in known:
            hint = _nearest(name, known)
            raise ValueError(
                f"columns has {name!r}, which nothing is read from{hint}; write {SKIPPED} to skip "
                "a column"
            )


# --- values


def _section(key: str, value: object, keys: Collection[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{key} must have keys ({', '.join(keys)}), got {_shown(value)}")
    _require_keys(value, keys, f"key of {key}")
    return value


def _source(key: str, value: object, keys: Collection[str]) -> Source:
    content = _section(key, value, keys)
    if ("column" in content) == ("files" in content):
        raise ValueError(f"{key} must have either column or files")
    if "column" in content:
        if len(content) > 1:
            raise ValueError(f"{key}.column goes without other keys, got {', '.join(content)}")
        return Source(column=_text(f"{key}.column", content["column"]))
    files = _text(f"{key}.files", content["files"])
    if "{stem}" not in files:
        raise ValueError(f"{key}.files must have {{stem}}, e.g. labels/{{stem}}.label")
    rest = files.replace("{stem}", "").replace("{folder}", "")
    if "{" in rest or "}" in rest or files.startswith("/") or "\\" in files:
        raise ValueError(
            f"{key}.files must be a path from the root with / between folders, in which {{stem}} "
            f"and {{folder}} are replaced, got {_shown(files)}"
        )
    dtype = content.get("dtype", "")
    if files.endswith(".npy"):
        if dtype:
            raise ValueError(f"{key}.dtype is for raw files; .npy files say it themselves")
    else:
        _require_known(dtype, _DTYPES, f"{key}.dtype")
    bits = content.get("class_bits", 0)
    if isinstance(bits, bool) or not isinstance(bits, int) or not 0 <= bits < 64:
        raise ValueError(f"{key}.class_bits must be a number of bits, e.g. 16, got {_shown(bits)}")
    return Source(files=files, dtype=dtype, class_bits=bits)


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} must be a text, got {_shown(value)}")
    return value


def _texts(key: str, value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values:
        raise ValueError(f"{key} must be a list of texts, got {_shown(value)}")
    return tuple(_text(key, each) for each in values)


def _ids(key: str, value: object) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    for each in values:
        if isinstance(each, bool) or not isinstance(each, int) or abs(each) >= 2**63:
            raise ValueError(f"{key} must be raw ids (whole numbers), got {_shown(each)}")
    return tuple(dict.fromkeys(values))


def _number(key: str, value: object, *, positive: bool = False) -> float:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not fits or not math.isfinite(value) or (positive and value <= 0):
        limit = "a positive number" if positive else "a number"
        raise ValueError(f"{key} must be {limit}, got {_shown(value)}")
    return float(value)


def _require_keys(content: Mapping[Any, Any], keys: Collection[str], what: str) -> None:
    for key in content:
        _require_known(key, keys, what)


def _require_known(value: object, known: Collection[str], what: str) -> None:
    if not isinstance(value, str) or value not in known:
        hint = _nearest(value, known) if isinstance(value, str) else ""
        raise ValueError(f"{what} must be one of {', '.join(known)}, got {_shown(value)}{hint}")


def _nearest(value: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(value, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
