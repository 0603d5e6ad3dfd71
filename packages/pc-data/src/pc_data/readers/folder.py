"""Any folder of point clouds as a dataset: .ply, .pcd, .las, .laz, .npy, .npz and .bin files.

Every such file in the folder or in a folder of it is one scan; its folder is its scene. A file
`coord.npy` is one scan with the other .npy files of its folder (color, normal, segment and so on).
Hidden files and folders are passed over. Nothing has to be written down for .ply, .pcd, .las and
.laz files; a file `dataset.yaml` (or .json) at the root says what they do not say. All keys are
optional:

```yaml
scans: "**/*.ply"              # files that are scans, if not all; a pattern or a list of them
columns: [x, y, z, i, _]       # of .bin (float32 rows) and of .npy without names; _ is skipped
unit: mm                       # m (the default), cm, mm, km, ft, in, or a number of metres
up: y                          # axis that points up, z by default; becomes z
color_max: 255                 # full brightness, if the type of the colours does not say it
classes:                       # training classes in order, with the raw ids that belong to them;
  road: [40, 60]               #   a plain list [road, car] means the raw ids 0, 1
  car: 10
ignore: [0, 1]                 # raw ids that are not trained on; -1 always is one
labels: {column: my_class}     # if not found by its usual name (files.clouds), or a file each:
# labels: {files: "labels/{stem}.label", dtype: uint32, class_bits: 16}
instances: {column: my_object}
intensity: {column: amplitude, mean: 0.3, std: 0.2}
sensor_height: 1.73            # of the scans' origin above the ground, metres
splits:                        # patterns, files, or .txt files that list them line by line
  train: ["site_a/**", site_b/3.ply]
  val: "site_c/**"
```

In a pattern `*` stands for any text within a name and `**` for any folders. In `files`, a path
from the root, `{stem}` is the scan's name without its suffix and `{folder}` its folder, so
`{folder}/../labels/{stem}.npy` is a file in the folder `labels` beside that of the scan.
"""

import dataclasses
import difflib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from pc_data.errors import DataError
from pc_data.files.cloud_files import read_columns
from pc_data.files.clouds import FIELDS, find_column, to_scan, warn_of_unit
from pc_data.files.npy import read_npy
from pc_data.files.points import raise_defect, read_labels
from pc_data.layouts import known_split
from pc_data.readers.folder_files import files_of_split, require_columns, scan_files
from pc_data.readers.folder_schema import SPLITS, Source, read_schema
from pc_data.scan import Boxes, Camera, Scan

_OWN_FILE = "\0"
"""Column that stands for what a file beside the scan holds; no file can name a column so."""


class Folder:
    """The scans of one split as a map-style sequence.

    Points are in metres with z up, else in the file's own frame; see `clouds.to_scan` for
    units, colours and far coordinates. Scans have labels only if the schema names the classes; a
    scan of train or val must then be labelled, others may be.

    Attributes:
        root: The folder.
        split: The split read.
        splits: Those that the schema names, and `all`.
        schema: What the schema says.
        class_names: Its classes, index = label; empty without.
        box_class_names: None; there are no boxes.
        num_classes: Number of classes.
        intensity_mean: As the schema says, or 0.
        intensity_std: As the schema says, or 1.
        sensor_height: As the schema says, or None.
        min_depth: Unused, there are no cameras.
        min_x: Unused, there are no cameras.
        scene_names: The folders with scans, from the root.
    """

    box_class_names: tuple[str, ...] = ()
    min_depth = 0.0
    min_x = -float("inf")

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "all",
        labels: bool = True,
        on_defect: Callable[[str], None] = raise_defect,
    ) -> None:
        """List the files and read the schema; no scan is opened.

        Args:
            root: The folder.
            split: train, val or test if the schema names them, or all.
            labels: Whether scans carry their labels; pre-training needs none.
            on_defect: Is told of each file that is in two splits. The default raises; if it
                returns, the file is left out.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it holds no scan of the split, or the schema is wrong.
            ValueError: If there is no such split.
        """
        self.root = Path(root)
        self.split = split
        _require_folder(self.root)
        self.schema = schema = read_schema(self.root)
        self.splits = (*(name for name in SPLITS if name in schema.splits), "all")
        _require_split(split, self)
        self.class_names = tuple(schema.classes)
        self.num_classes = len(self.class_names)
        self.intensity_mean = schema.intensity_mean
        self.intensity_std = schema.intensity_std
        self.sensor_height = schema.sensor_height
        self._has_labels = labels and bool(schema.classes)
        self._class_table = schema.class_table()
        files = scan_files(self.root, schema)
        if split != "all":
            files = files_of_split(split, files, schema, on_defect)
        if not files:
            raise DataError(f"{self.root}: no scan is left in split {split!r}; correct its splits")
        require_columns(self.root, files, schema)
        self._files = np.array([os.fsencode(file) for file in files])  # no object for each
        scenes = [os.path.dirname(file) or self.root.resolve().name for file in files]  # noqa: PTH120
        names, self._scene = np.unique(scenes, return_inverse=True)
        self.scene_names = tuple(names.tolist())
        self._unit_is_checked = False

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Scan:
        """Read one scan.

        Raises:
            IndexError: If there is no such scan.
            DataError: If the scan or its labels are missing or damaged.
            ImportError: If it is a .las or .laz file and laspy is not installed.
        """
        return self._read(index, labels=self._has_labels)

    def scene_of(self, index: int) -> str:
        """Folder that a scan lies in, from the root."""
        return self.scene_names[self._scene[index]]

    def scan_file(self, index: int) -> Path:
        """Where a scan's points are."""
        return self.root / self._name(index)

    def label_file(self, index: int) -> Path | None:
        """Where a scan's labels are if they have a file of their own, else None."""
        labels = self.schema.labels
        return self.root / labels.file_of(self._name(index)) if labels.files else None

    def load_points(self, index: int) -> Float32[np.ndarray, "n c"]:
        """Read x, y, z in metres, and the intensity if there is one.

        Raises:
            DataError: If the file is missing or damaged.
        """
        scan = self._read(index, labels=False)
        if scan.intensity is None:
            return scan.xyz
        return np.column_stack([scan.xyz, scan.intensity])

    def load_labels(self, index: int) -> Int64[np.ndarray, " n"] | None:
        """Read the classes of a scan's points, -1 = ignored, or None without labels.

        Raises:
            DataError: If they are missing in train or val, damaged, or not as many as points.
        """
        return self._read(index, labels=True).labels if self._has_labels else None

    def load_boxes(self, index: int) -> Boxes | None:  # noqa: ARG002
        """None: there are no boxes."""
        return None

    def cameras(self, index: int) -> tuple[Camera, ...]:  # noqa: ARG002
        """None: there are no cameras."""
        return ()

    def _name(self, index: int) -> str:
        return os.fsdecode(self._files[index])

    def _read(self, index: int, *, labels: bool) -> Scan:
        """Read a scan; labels are training classes."""
        name = self._name(index)
        file, schema = self.root / name, self.schema
        columns = read_columns(file, columns=schema.columns)
        names = schema.names | {"label": "", "instance": ""}
        if labels:
            columns, ids = self._with_ids(name, columns)
            names |= ids
        scan = to_scan(
            columns,
            file,
            names=names,
            metres=schema.metres,
            up=schema.up,
            color_max=schema.color_max,
        )
        if not self._unit_is_checked:
            self._unit_is_checked = True
            warn_of_unit(scan.xyz, file)
        classes = instance = None
        if scan.labels is not None:
            raw, instance = scan.labels, scan.instance
            if schema.labels.class_bits:
                upper = raw >> schema.labels.class_bits
                raw = raw & ((1 << schema.labels.class_bits) - 1)
                instance = upper if instance is None else instance
            classes = self._classes(raw, self.label_file(index) or file)
        return dataclasses.replace(scan, name=name, labels=classes, instance=instance)

    def _with_ids(
        self, name: str, columns: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Columns together with the ids in files beside the scan, and the names to read them by."""
        num_points = len(next(iter(columns.values())))
        names: dict[str, str] = {}
        for field, source in (("label", self.schema.labels), ("instance", self.schema.instances)):
            beside = self.root / source.file_of(name)
            if source.files and beside.is_file():
                names[field] = _OWN_FILE + field
                columns = columns | {names[field]: _read_ids(beside, source, num_points)}
            elif source.files:
                names[field] = ""
            elif source.column:
                names[field] = source.column if source.column in columns else ""
            elif field == "instance" and self.schema.labels.class_bits:
                names[field] = ""  # they are in the upper bits of the labels
            else:
                names[field] = find_column(columns, field)
            wanted = field == "label" or source != Source()
            if wanted and not names[field] and self.split in ("train", "val"):
                raise self._unlabelled(name, field, source, columns)
        return columns, names

    def _unlabelled(
        self, name: str, field: str, source: Source, columns: dict[str, np.ndarray]
    ) -> DataError:
        if source.files:
            place = f"at {self.root / source.file_of(name)}"
        else:
            wanted = source.column or " or ".join(FIELDS[field])
            place = f"in a column {wanted}, it has: {', '.join(columns)}"
        return DataError(
            f"{self.root / name}: no {field}s {place}; add them, correct {field}s in "
            f"{self.schema.file}, or take the scan out of splits.{self.split}"
        )

    def _classes(self, raw: Int64[np.ndarray, " n"], file: Path) -> Int64[np.ndarray, " n"]:
        known, class_of = self._class_table
        place = np.minimum(np.searchsorted(known, raw), len(known) - 1)
        unknown = known[place] != raw
        if unknown.any():
            first = int(np.argmax(unknown))
            raise DataError(
                f"{file}: {np.count_nonzero(unknown)} labels are neither in classes nor in ignore "
                f"of {self.schema.file.name}, the first at index {first} is {raw[first]}; add the "
                "id to one of them"
            )
        return class_of[place]


def _require_folder(root: Path) -> None:
    if root.is_dir():
        return
    siblings = [path.name for path in root.parent.iterdir()] if root.parent.is_dir() else []
    near = difflib.get_close_matches(root.name, siblings, n=1)
    hint = f"; did you mean {root.parent / near[0]}?" if near else ""
    kind = "is a file, not a folder" if root.exists() else "does not exist"
    raise FileNotFoundError(f"root of the point clouds: {root} {kind}{hint}")


def _require_split(split: str, folder: Folder) -> None:
    if split in SPLITS and split not in folder.splits:
        stated = ", ".join(folder.schema.splits) or "none"
        raise ValueError(
            f"split {split!r} is not stated for {folder.root} ({stated} is); write splits: "
            f"{{{split}: [\"folder/**\"]}} into {folder.schema.file} or pass split='all'"
        )
    known_split(split, folder.splits)


def _read_ids(file: Path, source: Source, num_points: int) -> np.ndarray:
    if source.dtype:
        # Of two numbers in one the upper must not take the sign.
        name = source.dtype.removeprefix("u")
        dtype = np.dtype(f"u{name}" if source.class_bits else source.dtype).newbyteorder("<")
        return read_labels(file, dtype=dtype.str, num_points=num_points)
    ids = read_npy(file)
    if ids.size != num_points or ids.ndim > 2 or ids.dtype.kind not in "biuf":
        raise DataError(
            f"{file}: {list(ids.shape)} of {ids.dtype} for {num_points} points; write one id for "
            "each point"
        )
    return ids.ravel()
