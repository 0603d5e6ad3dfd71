"""A scene with the rig that records it, and what one keyframe leaves for the tables."""

from dataclasses import dataclass
from hashlib import md5

import numpy as np
from jaxtyping import Float64

from pc_data.synthetic.scene import Boxes, Scene


def digest(text: str) -> str:
    """A token: 32 hexadecimal digits that depend on nothing but the text."""
    return md5(text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A scene with the rig that records it.

    Attributes:
        scene: The street.
        name: Official scene name.
        token: Token of the scene.
        place: Location of the log.
        log: Name of the log file.
        start: Time stamp of time 0, microseconds.
        world: Global-from-scene.
        mounts: Ego-from-sensor by channel.
        intrinsics: By camera channel.
        image_size: (width, height).
    """

    scene: Scene
    name: str
    token: str
    place: str
    log: str
    start: int
    world: Float64[np.ndarray, "4 4"]
    mounts: dict[str, Float64[np.ndarray, "4 4"]]
    intrinsics: dict[str, Float64[np.ndarray, "3 3"]]
    image_size: tuple[int, int]

    def time(self, stamp: int) -> float:
        """Scene time of a time stamp, seconds."""
        return (stamp - self.start) * 1e-6


@dataclass(frozen=True, kw_only=True)
class Keyframe:
    """What the tables say of one sample.

    Attributes:
        stamps: Time stamp of each channel, microseconds.
        poses: Global-from-ego at each of them.
        boxes: Objects, in the scene's frame.
        num_points: LiDAR points in each box.
        visibility: Token 1..4 of each box.
        sweeps: Time stamp and global-from-ego of the LiDAR scans since the last keyframe.
    """

    stamps: dict[str, int]
    poses: dict[str, Float64[np.ndarray, "4 4"]]
    boxes: Boxes
    num_points: list[int]
    visibility: list[int]
    sweeps: list[tuple[int, Float64[np.ndarray, "4 4"]]]


def sample_file(recording: Recording, channel: str, stamp: int) -> str:
    """Relative path of a sample."""
    suffix = "pcd.bin" if channel == "LIDAR_TOP" else "jpg"
    return f"samples/{channel}/{recording.log}__{channel}__{stamp}.{suffix}"


def sweep_file(recording: Recording, stamp: int) -> str:
    """Relative path of a LiDAR scan between keyframes."""
    return sample_file(recording, "LIDAR_TOP", stamp).replace("samples", "sweeps", 1)


def panoptic_file(version: str, token: str) -> str:
    """Relative path of the panoptic labels of a LiDAR sample."""
    return f"panoptic/{version}/{token}_panoptic.npz"


def lidarseg_file(version: str, token: str) -> str:
    """Relative path of the labels of a LiDAR sample."""
    return f"lidarseg/{version}/{token}_lidarseg.bin"


def sample_data_token(recording: Recording, channel: str, stamp: int) -> str:
    """Token of a sample."""
    return digest(f"{recording.token}/{channel}/{stamp}")
