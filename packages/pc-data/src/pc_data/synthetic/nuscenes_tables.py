"""The relational tables of nuScenes v1.0, row by row as keyframes arrive."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from pc_data.synthetic.categories import NUSCENES_INDEX, NUSCENES_NAMES, Category
from pc_data.synthetic.ground import HALF_EXTENT, ground_at
from pc_data.synthetic.recording import (
    Keyframe,
    Recording,
    digest,
    lidarseg_file,
    panoptic_file,
    sample_data_token,
    sample_file,
    sweep_file,
)
from pc_data.synthetic.rig import CAMERAS, pose_matrix, quaternion

Row = dict[str, Any]

_CHANNELS = ("LIDAR_TOP", *(camera.channel for camera in CAMERAS))
_ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "pedestrian.moving",
)
_LEVELS = (
    ("v0-40", "0 and 40"),
    ("v40-60", "40 and 60"),
    ("v60-80", "60 and 80"),
    ("v80-100", "80 and 100"),
)
_MASK_STEP = 1.0  # metres per pixel of a map


def _attribute(category: int, speed: float) -> str | None:
    if category in (Category.ADULT, Category.CHILD):
        return "pedestrian.moving" if speed else "pedestrian.standing"
    if category in (Category.BICYCLE, Category.MOTORCYCLE):
        return "cycle.without_rider"
    if category in (Category.BICYCLIST, Category.MOTORCYCLIST):
        return "cycle.with_rider"
    if category in (Category.CONE, Category.BARRIER, Category.PUSHABLE):
        return None
    return "vehicle.moving" if speed else "vehicle.parked"


def _link(rows: list[Row]) -> None:
    """Fill `prev` and `next` along a chain."""
    for before, after in itertools.pairwise(rows):
        before["next"], after["prev"] = after["token"], before["token"]


class Tables:
    """All rows so far; keyframes of a scene come in order, one scene after the other."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._rows: dict[str, list[Row]] = {
            name: []
            for name in (
                "calibrated_sensor",
                "ego_pose",
                "instance",
                "lidarseg",
                "log",
                "panoptic",
                "sample",
                "sample_annotation",
                "sample_data",
                "scene",
            )
        }
        self._samples: list[Row] = []
        self._places: dict[str, tuple[Recording, list[str]]] = {}
        self._data: dict[str, list[Row]] = {channel: [] for channel in _CHANNELS}
        self._boxes: dict[int, list[Row]] = {}
        self._owners: dict[int, int] = {}

    def add(self, recording: Recording, keyframe: Keyframe, *, last: bool) -> None:
        """Add a keyframe; `last` closes its scene."""
        stamp = keyframe.stamps["LIDAR_TOP"]
        sample = {
            "token": digest(f"{recording.token}/sample/{stamp}"),
            "timestamp": stamp,
            "prev": "",
            "next": "",
            "scene_token": recording.token,
        }
        self._samples.append(sample)
        for sweep, pose in keyframe.sweeps:
            self._add_data(recording, "LIDAR_TOP", sweep, pose, sample["token"], is_key=False)
        for channel in _CHANNELS:
            pose = keyframe.poses[channel]
            self._add_data(recording, channel, keyframe.stamps[channel], pose, sample["token"])
        self._add_labels(sample_data_token(recording, "LIDAR_TOP", stamp))
        self._add_boxes(recording, keyframe, sample["token"])
        if last:
            self._close(recording)

    def _add_data(
        self,
        recording: Recording,
        channel: str,
        stamp: int,
        pose: Float64[np.ndarray, "4 4"],
        sample: str,
        *,
        is_key: bool = True,
    ) -> None:
        token = sample_data_token(recording, channel, stamp)
        lidar = channel == "LIDAR_TOP"
        width, height = (0, 0) if lidar else recording.image_size
        file = sample_file(recording, channel, stamp) if is_key else sweep_file(recording, stamp)
        self._rows["ego_pose"].append(
            {
                "token": token,
                "timestamp": stamp,
                "rotation": quaternion(pose[:3, :3]),
                "translation": pose[:3, 3].tolist(),
            }
        )
        self._data[channel].append(
            {
                "token": token,
                "sample_token": sample,
                "ego_pose_token": token,
                "calibrated_sensor_token": digest(f"{recording.token}/{channel}"),
                "timestamp": stamp,
                "fileformat": "pcd" if lidar else "jpg",
                "is_key_frame": is_key,
                "height": height,
                "width": width,
                "filename": file,
                "prev": "",
                "next": "",
            }
        )

    def _add_labels(self, token: str) -> None:
        for name, file in (("lidarseg", lidarseg_file), ("panoptic", panoptic_file)):
            self._rows[name].append(
                {"token": token, "sample_data_token": token, "filename": file(self._version, token)}
            )

    def _add_boxes(self, recording: Recording, keyframe: Keyframe, sample: str) -> None:
        boxes = keyframe.boxes
        for k, number in enumerate(boxes.instance.tolist()):
            pose = recording.world @ pose_matrix(boxes.axes[k], boxes.center[k])
            length, width, height = boxes.size[k].tolist()
            attribute = _attribute(int(boxes.category[k]), float(boxes.speed[k]))
            self._owners[number] = int(NUSCENES_INDEX[boxes.category[k]])
            self._boxes.setdefault(number, []).append(
                {
                    "token": digest(f"{sample}/{number}"),
                    "sample_token": sample,
                    "instance_token": digest(f"{recording.token}/instance/{number}"),
                    "visibility_token": str(keyframe.visibility[k]),
                    "attribute_tokens": [digest(attribute)] if attribute else [],
                    "translation": pose[:3, 3].tolist(),
                    "size": [width, length, height],
                    "rotation": quaternion(pose[:3, :3]),
                    "prev": "",
                    "next": "",
                    "num_lidar_pts": keyframe.num_points[k],
                    "num_radar_pts": 0,
                }
            )

    def _close(self, recording: Recording) -> None:
        rows = self._rows
        log = digest(recording.log)
        for chain in (self._samples, *self._data.values(), *self._boxes.values()):
            _link(chain)
        for number, chain in sorted(self._boxes.items()):
            rows["instance"].append(
                {
                    "token": chain[0]["instance_token"],
                    "category_token": digest(NUSCENES_NAMES[self._owners[number]]),
                    "nbr_annotations": len(chain),
                    "first_annotation_token": chain[0]["token"],
                    "last_annotation_token": chain[-1]["token"],
                }
            )
            rows["sample_annotation"] += chain
        for channel in _CHANNELS:
            mount = recording.mounts[channel]
            intrinsics = recording.intrinsics.get(channel)
            rows["calibrated_sensor"].append(
                {
                    "token": digest(f"{recording.token}/{channel}"),
                    "sensor_token": digest(channel),
                    "translation": mount[:3, 3].tolist(),
                    "rotation": quaternion(mount[:3, :3]),
                    "camera_intrinsic": [] if intrinsics is None else intrinsics.tolist(),
                }
            )
            rows["sample_data"] += self._data[channel]
        rows["sample"] += self._samples
        rows["scene"].append(
            {
                "token": recording.token,
                "log_token": log,
                "nbr_samples": len(self._samples),
                "first_sample_token": self._samples[0]["token"],
                "last_sample_token": self._samples[-1]["token"],
                "name": recording.name,
                "description": "Synthetic street",
            }
        )
        rows["log"].append(
            {
                "token": log,
                "logfile": recording.log,
                "vehicle": recording.log.split("-", 1)[0],
                "date_captured": recording.log[5:15],
                "location": recording.place,
            }
        )
        self._places.setdefault(recording.place, (recording, []))[1].append(log)
        self._samples = []
        self._data = {channel: [] for channel in _CHANNELS}
        self._boxes, self._owners = {}, {}

    def finish(self, root: Path) -> dict[str, list[Row]]:
        """Write the map masks and return every table by name."""
        names = enumerate(NUSCENES_NAMES)
        maps = []
        for place, (recording, logs) in self._places.items():
            token = digest(f"map/{place}")
            _write_mask(root / f"maps/{token}.png", recording)
            maps.append(
                {
                    "category": "semantic_prior",
                    "token": token,
                    "filename": f"maps/{token}.png",
                    "log_tokens": logs,
                }
            )
        return {
            **self._rows,
            "attribute": [
                {"token": digest(name), "name": name, "description": ""} for name in _ATTRIBUTES
            ],
            "category": [
                {"token": digest(name), "name": name, "description": "", "index": index}
                for index, name in names
            ],
            "map": maps,
            "sensor": [
                {
                    "token": digest(channel),
                    "channel": channel,
                    "modality": "lidar" if channel == "LIDAR_TOP" else "camera",
                }
                for channel in _CHANNELS
            ],
            "visibility": [
                {
                    "token": str(k),
                    "level": level,
                    "description": f"visibility of whole object is between {shares}%",
                }
                for k, (level, shares) in enumerate(_LEVELS, start=1)
            ],
        }


def _write_mask(path: Path, recording: Recording) -> None:
    """A picture of the driveable ground around the first scene of a place."""
    from PIL import Image

    road = recording.scene.road.params()
    steps = np.arange(-HALF_EXTENT, HALF_EXTENT, _MASK_STEP)
    driveable = (Category.ROAD, Category.PARKING)
    mask = [[255 * (ground_at(x, y, road)[0] in driveable) for x in steps] for y in steps[::-1]]
    Image.fromarray(np.array(mask, dtype=np.uint8)).save(path)
