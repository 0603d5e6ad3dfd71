"""The LiDAR scans between the nuScenes keyframes, found along the links of `sample_data.json`."""

import dataclasses
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from pc_data.scan import Scan


@dataclass(frozen=True, kw_only=True)
class Sweeps:
    """The LiDAR scans that come before some keyframes; other keyframes may be among them.

    Attributes:
        chain: Rows of the scans before each keyframe, the latest first, -1 = no more.
        files: File names relative to the root, bytes [m].
        timestamp: Microseconds.
        calibration: Row of `Keyframes.mounting`.
        ego: Position (3) and quaternion (w, x, y, z) of the vehicle in the world.
    """

    chain: Int32[np.ndarray, "n s"]
    files: np.ndarray
    timestamp: Int64[np.ndarray, " m"]
    calibration: Int32[np.ndarray, " m"]
    ego: Float64[np.ndarray, "m 7"]


@dataclass(frozen=True)
class SweepRows:
    """Collects the LiDAR rows of `sample_data.json`, keyframes included, as they are read."""

    tokens: dict[str, int] = field(default_factory=dict)
    prev: list[str] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)
    timestamp: array = field(default_factory=lambda: array("q"))
    calibration: array = field(default_factory=lambda: array("i"))
    scene: array = field(default_factory=lambda: array("i"))

    def add(self, row: dict[str, Any], *, calibration: int, scene: int) -> int:
        """Keep a row and return its number."""
        self.tokens[row["token"]] = number = len(self.prev)
        self.prev.append(row["prev"])
        self.files.append(row["filename"].encode())
        self.timestamp.append(row["timestamp"])
        self.calibration.append(calibration)
        self.scene.append(scene)
        return number

    def follow(
        self,
        keyframes: Int64[np.ndarray, " n"],
        ego: Float64[np.ndarray, "r 7"],
        posed: Bool[np.ndarray, " r"],
        *,
        length: int,
        table: Path,
        on_defect: Callable[[str], None],
    ) -> Sweeps:
        """Follow the links back from each keyframe and keep the rows that they lead to.

        Args:
            keyframes: Number of each keyframe's own row.
            ego: Pose of the vehicle for every row.
            posed: Whether it has one.
            length: Links to follow.
            table: Where the rows come from, for messages.
            on_defect: Is told of each link that leads nowhere, to another scene or not back in
                time, as a cycle must somewhere; when it returns, the chain ends there.
        """
        before = self._links(table, on_defect)
        before[(before >= 0) & ~posed[before]] = -1
        chain = np.empty((len(keyframes), length), dtype=np.int32)
        rows = keyframes
        for step in range(length):
            rows = np.where(rows >= 0, before[rows], -1)
            chain[:, step] = rows
        kept = np.unique(chain[chain >= 0])
        return Sweeps(
            chain=np.where(chain >= 0, np.searchsorted(kept, chain), -1).astype(np.int32),
            files=np.array([self.files[row] for row in kept], dtype="S"),
            timestamp=np.array(self.timestamp, dtype=np.int64)[kept],
            calibration=np.array(self.calibration, dtype=np.int32)[kept],
            ego=ego[kept],
        )

    def _links(self, table: Path, on_defect: Callable[[str], None]) -> Int64[np.ndarray, " r"]:
        """Number of the row before each row, -1 = none."""
        before = np.full(len(self.prev), -1)
        for token, row in self.tokens.items():
            if not self.prev[row]:
                continue
            other = self.tokens.get(self.prev[row], -1)
            if other < 0 or self.scene[other] != self.scene[row]:
                defect = "is no usable LIDAR_TOP row of its scene"
            elif self.timestamp[other] >= self.timestamp[row]:
                defect = "is not earlier than it"
            else:
                before[row] = other
                continue
            on_defect(
                f"{table}: row {token} names {self.prev[row]} as the sweep before it, which "
                f"{defect}; fetch the table again"
            )
        return before


def far_from_car(xyz: Float32[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    """Tell which points lie 1 m or more from the sensor in x or in y: the others hit the car.

    Source: the rule with which the nuScenes devkit joins sweeps.
    """
    return (np.abs(xyz[:, 0]) >= 1) | (np.abs(xyz[:, 1]) >= 1)


def join_older(scan: Scan, older: Float32[np.ndarray, "m 5"]) -> Scan:
    """Append older points without labels to a scan.

    Args:
        scan: The latest points.
        older: x, y, z in the scan's frame, intensity, and seconds before the scan's timestamp.
    """
    ignored = np.full(len(older), -1)
    return dataclasses.replace(
        scan,
        xyz=np.concatenate([scan.xyz, older[:, :3]]),
        intensity=_extended(scan.intensity, older[:, 3]),
        time=np.append(np.zeros(len(scan), np.float32), older[:, 4]),
        labels=_extended(scan.labels, ignored),
        instance=_extended(scan.instance, np.zeros_like(ignored)),
    )


def _extended(values: np.ndarray | None, more: np.ndarray) -> np.ndarray | None:
    return None if values is None else np.append(values, more)
