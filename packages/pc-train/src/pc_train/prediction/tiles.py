"""How a network is shown a cloud: whole, as in evaluation, or tile by tile."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from pc_data.augment import inside_box
from pc_data.batch import PointBatch
from pc_data.files.doubts import doubt_unit
from pc_data.loading import sample_rng
from pc_data.scan import Scan
from pc_geometry import estimate_normals
from pc_geometry.tiles import Tile, cut_tiles

from pc_train.reports.oblique import is_room
from pc_train.samples import evaluation_sample, first_of_voxels

_SENSOR_FEATURES = frozenset({"x", "y", "z", "radius"})
_SENSOR_HEIGHT = 1.8  # metres above the ground; nuScenes has 1.84, KITTI 1.73
_NORMAL_NEIGHBORS = 16
_OVERLAP_VOXELS = 64


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a network is shown at once.

    Attributes:
        max_points: Points after thinning.
        tile_size: Metres, of a tile's core; infinite for none.
        overlap: Metres.
    """

    max_points: int
    tile_size: float
    overlap: float


class Shown:
    """A cloud as a network is shown it: an iterable of (points, sample), and what to say of it.

    A cloud that keeps the limits, and of which at least half lies in the network's field of view,
    is shown whole, as in evaluation. Another is cut into tiles. A network that measures from a
    sensor (it has a field of view, or coordinates among its features) has it in the middle of each
    tile, 1.8 m above the lowest hundredth of its points; for others positions stay as they are.

    Where the network wants normals and there are none, they are estimated from the points that it
    sees: toward the middle of a room, upward elsewhere.

    Args:
        scan: The cloud.
        arguments: Of `evaluation_sample`.
        limits: Of what is shown at once.

    Raises:
        ValueError: If the limits and the field of view leave no room for a tile.
    """

    def __init__(self, scan: Scan, arguments: dict[str, Any], limits: Limits) -> None:
        self.scan, self.arguments, self.limits = scan, arguments, limits
        self.seen = _first(scan, arguments)
        self.notes: list[str] = []
        if doubt := doubt_unit(scan.xyz, scan.xyz[self.seen], arguments["voxel_size"]):
            self.notes.append(f"{doubt} (--units)")
        box, features = arguments["box"], frozenset(arguments["features"])
        self._from_sensor = box is not None or bool(features & _SENSOR_FEATURES)
        self.tiles: list[Tile] = [] if self._fits() else self._cut()
        self._viewpoint: Float64[np.ndarray, " 3"] | None = None
        self._wants_normals = scan.normal is None and any(f.startswith("normal_") for f in features)
        if self._wants_normals:
            self._note_normals()
        if scan.intensity is None and "intensity" in features:
            self.notes.append("there is no intensity: all points count as of mean intensity")

    def __iter__(self) -> Iterator[tuple[Int64[np.ndarray, " m"], PointBatch]]:
        """Yield the points to be answered, and a sample of which `nearest` has one row for each."""
        if not self.tiles:
            yield np.arange(len(self.scan)), self._sample(self.scan)
        for tile in self.tiles:
            part = self.scan.select(tile.points)
            if self._from_sensor:
                part = _around_sensor(part, tile.core)
            sample = self._sample(part)
            core = torch.from_numpy(tile.core)
            yield (
                tile.points[tile.core],
                dataclasses.replace(sample, nearest=sample.need("nearest")[core]),
            )

    def _fits(self) -> bool:
        box, limits = self.arguments["box"], self.limits
        size = np.ptp(self.scan.xyz[:, :2], axis=0).max()
        if len(self.seen) > limits.max_points or size > limits.tile_size:
            return False
        return box is None or bool(inside_box(self.scan, box).mean() >= 0.5)

    def _cut(self) -> list[Tile]:
        box, limits = self.arguments["box"], self.limits
        max_size = limits.tile_size
        if box is not None:
            widest = min(high - low for low, high in list(zip(*box, strict=True))[:2])
            room = widest - 2 * limits.overlap
            if not room > 0 or (np.isfinite(max_size) and max_size > room):
                raise ValueError(
                    f"the network sees {widest:g} m, which leaves {max(room, 0):g} m for the core "
                    f"of a tile between overlaps of {limits.overlap:g} m; pass a smaller --overlap"
                    + (f" or --tile_size, got {max_size:g}" if np.isfinite(max_size) else "")
                )
            max_size = min(max_size, room)
        counted = np.zeros(len(self.scan), bool)
        counted[self.seen] = True
        tiles = cut_tiles(
            self.scan.xyz[:, :2],
            overlap=limits.overlap,
            max_points=limits.max_points,
            max_size=max_size,
            counted=counted,
        )
        moved = ", each seen as from a sensor in its middle" if self._from_sensor else ""
        self.notes.append(
            f"cut into {len(tiles)} tiles that overlap by {limits.overlap:g} m{moved}"
        )
        return tiles

    def _sample(self, part: Scan) -> PointBatch:
        if self._wants_normals:
            part = _with_normals(part, _first(part, self.arguments), self._viewpoint)
        return evaluation_sample(part, sample_rng(0, 0, 0), **self.arguments)

    def _note_normals(self) -> None:
        side = "upward"
        if is_room(self.scan.xyz[self.seen]):
            low, high = self.scan.xyz.min(axis=0), self.scan.xyz.max(axis=0)
            self._viewpoint, side = (low + high) / 2.0, "toward the middle of the room"
        self.notes.append(
            f"there are no normals: they are estimated from {_NORMAL_NEIGHBORS} neighbours, {side}"
        )


def default_overlap(voxel_size: float) -> float:
    """Metres of context around a tile: 64 voxels."""
    return _OVERLAP_VOXELS * voxel_size


def _first(scan: Scan, arguments: dict[str, Any]) -> Int64[np.ndarray, " m"]:
    return first_of_voxels(scan, arguments["voxel_size"], from_origin=arguments["from_origin"])


def _around_sensor(part: Scan, core: np.ndarray) -> Scan:
    """Move a tile until the sensor would be in the middle of its core, above its ground."""
    xyz = part.xyz.astype(np.float64)
    place = (xyz[core].min(axis=0) + xyz[core].max(axis=0)) / 2
    place[2] = np.percentile(xyz[:, 2], 1) + _SENSOR_HEIGHT
    return dataclasses.replace(part, xyz=(xyz - place).astype(np.float32))


def _with_normals(part: Scan, seen: np.ndarray, viewpoint: np.ndarray | None) -> Scan:
    """Add normals at the points that a network sees; the others are never looked at."""
    normal = np.zeros((len(part), 3), np.float32)
    normal[seen] = estimate_normals(part.xyz[seen], _NORMAL_NEIGHBORS, viewpoint=viewpoint)
    return dataclasses.replace(part, normal=normal)
