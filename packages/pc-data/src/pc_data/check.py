"""What a dataset's folder holds, and what of it is missing or damaged."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from pc_data.datasets import Labelled, Reader, reader_class
from pc_data.errors import DataError
from pc_data.layouts import READERS, dataset_name
from pc_data.readers.nuscenes import MAX_SWEEPS, NuScenes, list_versions, split_scenes
from pc_data.readers.nuscenes_boxes import BOX_TABLES
from pc_data.readers.nuscenes_check import check_objects, check_sweeps
from pc_data.readers.nuscenes_rows import iter_rows
from pc_data.readers.nuscenes_tables import TABLES
from pc_data.readers.semantic_kitti import SPLITS, SemanticKITTI, sequences_folder
from pc_data.scan import Camera

Progress = Callable[[int, int], None]

_SHOWN = 20
_NOT_READ = {"attribute", "log", "map", "visibility"}


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What one set of scans holds.

    Attributes:
        name: The nuScenes version, or `sequences`.
        num_scenes: Scenes or sequences with a scan.
        num_scans: Keyframes or scans.
        num_points: Points of all undamaged scans.
        num_labelled: Scans with undamaged labels.
        num_images: Images that decode.
        visible_share: Share of the points of scans with images that some camera sees, or None
            without images.
        class_share: Share of the labelled points by class name, and `ignored`.
        split_sizes: Scans of each official split.
    """

    name: str
    num_scenes: int
    num_scans: int
    num_points: int
    num_labelled: int
    num_images: int
    visible_share: float | None
    class_share: dict[str, float]
    split_sizes: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a check.

    Attributes:
        root: The folder.
        layout: The dataset recognised.
        inventories: What is there.
        notes: What is absent without being wrong, e.g. labels of a test split.
        defects: What is missing or damaged; each names its file.
    """

    root: str
    layout: str
    inventories: tuple[Inventory, ...]
    notes: tuple[str, ...]
    defects: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is missing or damaged."""
        return not self.defects

    def text(self) -> str:
        """The report for a person to read; at most 20 defects, the JSON form has all."""
        lines = [f"{self.root}: {self.layout}"]
        for inventory in self.inventories:
            lines += _describe(inventory)
        lines += [f"  note      {note}" for note in self.notes]
        if self.ok:
            lines.append("ok: nothing is missing or damaged")
        else:
            count = len(self.defects)
            lines.append(f"{count} {'defect' if count == 1 else 'defects'}:")
            lines += [f"  {defect}" for defect in self.defects[:_SHOWN]]
            if count > _SHOWN:
                lines.append(f"  ... and {count - _SHOWN} more; --json lists all")
        return "\n".join(lines)


def check_dataset(root: str | Path, *, progress: Progress | None = None) -> Report:
    """Read everything that a dataset's folder promises and collect what is wrong.

    Every table is parsed, every scan and label file is read, every image is decoded. A defect
    never ends the check.

    Args:
        root: Folder in one of the layouts of `pc_data.layouts.READERS`, recognised by itself.
        progress: Is told (done, total) after each scan.

    Returns:
        The report.

    Raises:
        FileNotFoundError: If there is no such folder.
        DataError: If the folder has no such layout.
    """
    root = Path(root)
    name = dataset_name(root)
    findings = _Findings()
    check = _CHECKS.get(name, partial(_check_splits, name))
    inventories = tuple(check(root, findings, progress))
    return Report(
        root=str(root),
        layout=next(layout for layout, reader in READERS.items() if reader == name),
        inventories=inventories,
        notes=tuple(dict.fromkeys(findings.notes)),
        defects=tuple(dict.fromkeys(findings.defects)),
    )


@dataclass
class _Findings:
    notes: list[str] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Scan:
    """What reading one scan showed; `classes` counts -1, 0, 1, ..."""

    num_points: int
    num_visible: int
    num_cameras: int
    num_images: int
    classes: np.ndarray | None
    defects: list[str]


def _check_nuscenes(
    root: Path, findings: _Findings, progress: Progress | None
) -> Iterator[Inventory]:
    for version in list_versions(root):
        whole = _check_tables(root / version, findings)
        try:
            dataset = NuScenes(
                root,
                version=version,
                split="all",
                boxes=whole.issuperset(BOX_TABLES),
                sweeps=MAX_SWEEPS,
                on_defect=findings.defects.append,
            )
        except DataError as error:
            findings.defects.append(str(error))
            continue
        _note_labels(dataset, findings)
        check_objects(dataset, notes=findings.notes, defects=findings.defects)
        check_sweeps(dataset, notes=findings.notes, defects=findings.defects)
        kind = version.removeprefix("v1.0-")
        splits = {"mini": ("mini_train", "mini_val"), "test": ("test",)}.get(kind, ("train", "val"))
        scenes = {split: split_scenes(split, version=version) or () for split in splits}
        yield _take_stock(dataset, version, scenes, findings, progress)


def _check_tables(folder: Path, findings: _Findings) -> set[str]:
    """Decode every table; names of those that are there and undamaged."""
    whole = set()
    for name in (*TABLES, "lidarseg", "panoptic"):
        table = folder / f"{name}.json"
        if name in ("lidarseg", "panoptic") and not table.is_file():
            continue
        if name in _NOT_READ and not table.is_file():
            findings.notes.append(f"{table} is absent; it is not needed here")
            continue
        if name in BOX_TABLES and not table.is_file():
            findings.notes.append(f"{table} is absent; only boxes need it")
            continue
        try:
            for _ in iter_rows(table, ("token",)):
                pass
        except DataError as error:
            findings.defects.append(str(error))
        else:
            whole.add(name)
    return whole


def _note_labels(dataset: NuScenes, findings: _Findings) -> None:
    folder = dataset.root / dataset.version
    unlabelled = sum(dataset.label_file(index) is None for index in range(len(dataset)))
    if not (folder / "lidarseg.json").is_file():
        listed = any(dataset.panoptic_file(index) is not None for index in range(len(dataset)))
        found = "panoptic labels alone" if listed else "no labels"
        findings.notes.append(f"{folder}: {found} (lidarseg.json is absent)")
    elif unlabelled:
        findings.notes.append(
            f"{folder / 'lidarseg.json'}: no row for {unlabelled} of {len(dataset)} keyframes"
        )


def _check_semantic_kitti(
    root: Path, findings: _Findings, progress: Progress | None
) -> Iterator[Inventory]:
    try:
        dataset = SemanticKITTI(root, split="all", on_defect=findings.defects.append)
    except DataError as error:
        findings.defects.append(str(error))
        return
    folder = sequences_folder(root)
    for file in ("labels", "calib.txt", "poses.txt", "times.txt"):
        bare = [name for name in dataset.scene_names if not (folder / name / file).exists()]
        if bare:
            findings.notes.append(f"no {file} in {folder}/{{{','.join(bare)}}}")
    splits = {split: names for split, names in SPLITS.items() if split != "all"}
    yield _take_stock(dataset, "sequences", splits, findings, progress)


def _check_splits(
    name: str, root: Path, findings: _Findings, progress: Progress | None
) -> Iterator[Inventory]:
    """Check a dataset of which nothing but the reader's contract is known."""
    reader = reader_class(name)
    try:
        dataset = reader(root, split="all", on_defect=findings.defects.append)
    except DataError as error:
        findings.defects.append(str(error))
        return
    if all(dataset.load_labels(index) is None for index in range(min(len(dataset), 1))):
        findings.notes.append("no labels")
    splits = {split: _scenes_of(reader, root, split) for split in dataset.splits if split != "all"}
    yield _take_stock(dataset, "scans", splits, findings, progress)


def _scenes_of(reader: Callable[..., Reader], root: Path, split: str) -> tuple[str, ...]:
    try:
        return reader(root, split=split, on_defect=lambda _: None).scene_names
    except DataError:  # none of this split is here
        return ()


_CHECKS = {"nuscenes": _check_nuscenes, "semantickitti": _check_semantic_kitti}


def _take_stock(
    dataset: Reader,
    name: str,
    splits: dict[str, tuple[str, ...]],
    findings: _Findings,
    progress: Progress | None,
) -> Inventory:
    """Read every scan, several at a time: files and decoders do not hold the interpreter."""
    total = len(dataset)
    scans: list[_Scan] = []
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        for scan in pool.map(lambda index: _examine(dataset, index), range(total)):
            scans.append(scan)
            findings.defects.extend(scan.defects)
            if progress is not None:
                progress(len(scans), total)
    _note_cameras(dataset, scans, findings)
    _note_extra(dataset, findings)
    _note_views(dataset, scans, findings)
    num_points = sum(scan.num_points for scan in scans)
    in_reach = sum(scan.num_points for scan in scans if scan.num_cameras)
    visible = sum(scan.num_visible for scan in scans) / max(in_reach, 1)
    labelled = [scan.classes for scan in scans if scan.classes is not None]
    counts = np.sum(labelled, axis=0) if labelled else np.zeros(1, dtype=np.int64)
    names = ("ignored", *dataset.class_names)
    scenes = Counter(dataset.scene_of(index) for index in range(total))
    return Inventory(
        name=name,
        num_scenes=len(scenes),
        num_scans=total,
        num_points=num_points,
        num_labelled=len(labelled),
        num_images=sum(scan.num_images for scan in scans),
        visible_share=visible if any(scan.num_cameras for scan in scans) else None,
        class_share={
            names[k]: float(counts[k] / counts.sum())
            for k in np.argsort(-counts, kind="stable")
            if counts[k]
        },
        split_sizes={split: sum(scenes[s] for s in members) for split, members in splits.items()},
    )


def _note_cameras(dataset: Reader, scans: list[_Scan], findings: _Findings) -> None:
    most = max(scan.num_cameras for scan in scans)
    short = [index for index, scan in enumerate(scans) if scan.num_cameras < most]
    if short:
        findings.notes.append(
            f"{len(short)} of {len(scans)} scans lack an image that others have, the first is "
            f"{dataset.scan_file(short[0])}"
        )
    elif not most:
        findings.notes.append("no images")


def _note_extra(dataset: Reader, findings: _Findings) -> None:
    """Files that lie among those of scans, labels and images but belong to none of them.

    Only folders with several files of a kind tell what a file in them is for.
    """
    used: dict[tuple[Path, str], set[str]] = {}
    for index in range(len(dataset)):
        files = [dataset.scan_file(index)]
        if isinstance(dataset, Labelled):
            files += filter(None, [dataset.label_file(index)])
        with suppress(DataError):  # noted already
            files += [camera.image_file for camera in dataset.cameras(index)]
        for file in files:
            used.setdefault((file.parent, file.suffix), set()).add(file.name)
    for (folder, suffix), names in used.items():
        if len(names) < 2 or not folder.is_dir():
            continue
        extra = sorted({file.name for file in folder.glob(f"*{suffix}")} - names)
        if extra:
            findings.notes.append(
                f"{folder}: {len(extra)} of its {suffix} files belong to no scan, the first is "
                f"{extra[0]}"
            )


def _note_views(dataset: Reader, scans: list[_Scan], findings: _Findings) -> None:
    """Calibration that sends every point past every image is a defect, not a matter of taste."""
    for index, scan in enumerate(scans):
        if scan.num_points and scan.num_cameras and not scan.num_visible:
            findings.defects.append(
                f"{dataset.scan_file(index)}: none of its {scan.num_points} points is seen by any "
                f"of its {scan.num_cameras} cameras; check the calibration"
            )


def _examine(dataset: Reader, index: int) -> _Scan:
    """Read one scan's points, labels and images, each by itself."""
    defects: list[str] = []
    xyz = np.zeros((0, 3), dtype=np.float32)
    classes, cameras = None, ()
    try:
        xyz = np.ascontiguousarray(dataset.load_points(index)[:, :3])
    except DataError as error:
        defects.append(str(error))
    try:
        labels = dataset.load_labels(index)
        if labels is not None:
            classes = np.bincount(labels + 1, minlength=1 + dataset.num_classes)
    except DataError as error:
        defects.append(str(error))
    try:
        dataset.load_boxes(index)
    except DataError as error:
        defects.append(str(error))
    try:
        cameras = dataset.cameras(index)
    except DataError as error:
        defects.append(str(error))
    num_images = 0
    visible = np.zeros(len(xyz), dtype=bool)
    for camera in cameras:
        try:
            camera.load_image()
            num_images += 1
        except DataError as error:
            defects.append(str(error))
        visible |= _visible(camera, xyz, min_depth=dataset.min_depth, min_x=dataset.min_x)
    return _Scan(len(xyz), int(visible.sum()), len(cameras), num_images, classes, defects)


def _visible(camera: Camera, xyz: np.ndarray, *, min_depth: float, min_x: float) -> np.ndarray:
    from pc_geometry import project_points
    from pc_geometry.cameras import visible_points

    pixel, depth = project_points(xyz, camera.from_scan, camera.intrinsics)
    seen = visible_points(pixel, depth, camera.image_size, min_depth=min_depth)
    return seen & (xyz[:, 0] > min_x)


def _describe(inventory: Inventory) -> list[str]:
    scans, scenes = inventory.num_scans, inventory.num_scenes
    splits = ", ".join(f"{split} {size:,}" for split, size in inventory.split_sizes.items())
    splits = f" ({splits})" if splits else ""
    lines = [
        f"  {inventory.name}",
        f"  scans     {scans:,} in {scenes:,} {'scene' if scenes == 1 else 'scenes'}{splits}",
        f"  points    {inventory.num_points:,}, {inventory.num_points // max(scans, 1):,} a scan",
        f"  images    {inventory.num_images:,}, {inventory.num_images / max(scans, 1):.3g} a scan",
    ]
    if inventory.visible_share is not None:
        lines.append(
            f"  visible   {inventory.visible_share:.1%} of the points of scans with images"
        )
    lines.append(f"  labelled  {inventory.num_labelled:,} of {scans:,} scans")
    if inventory.class_share:
        shares = [
            f"{name} {share:.1%}" if share >= 0.0005 else f"{name} <0.1%"
            for name, share in inventory.class_share.items()
        ]
        lines.append(f"  classes   {', '.join(shares)}")
    return lines
