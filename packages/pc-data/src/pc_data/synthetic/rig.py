"""Where the sensors sit: the nuScenes rig, poses and quaternions."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64


class CameraMount(NamedTuple):
    """One camera of the rig.

    Attributes:
        channel: Its nuScenes name.
        yaw: Viewing direction, degrees to the left of straight ahead.
        position: In the ego frame, metres.
        focal: In pixels of a 1600 pixels wide image.
        delay: Of its exposure against the LiDAR's time stamp, microseconds.
    """

    channel: str
    yaw: float
    position: tuple[float, float, float]
    focal: float
    delay: int


CAMERAS: tuple[CameraMount, ...] = (
    CameraMount("CAM_FRONT", 0.0, (1.70, 0.0, 1.51), 1266.0, -35500),
    CameraMount("CAM_FRONT_RIGHT", -55.0, (1.55, -0.49, 1.50), 1261.0, -27600),
    CameraMount("CAM_BACK_RIGHT", -110.0, (1.01, -0.48, 1.56), 1259.0, -20100),
    CameraMount("CAM_BACK", 180.0, (0.03, 0.0, 1.58), 809.0, -10400),
    CameraMount("CAM_BACK_LEFT", 110.0, (1.04, 0.48, 1.59), 1257.0, -600),
    CameraMount("CAM_FRONT_LEFT", 55.0, (1.52, 0.49, 1.51), 1272.0, -43100),
)
LIDAR_POSITION = (0.94, 0.0, 1.84)


def yaw_rotation(angle: float) -> Float64[np.ndarray, "3 3"]:
    """Rotation about z by `angle` radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def small_rotation(angles: Float64[np.ndarray, " 3"]) -> Float64[np.ndarray, "3 3"]:
    """Rotation by a small rotation vector, radians (Rodrigues)."""
    angle = float(np.linalg.norm(angles))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = angles / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def pose_matrix(
    axes: Float64[np.ndarray, "3 3"], position: Float64[np.ndarray, " 3"]
) -> Float64[np.ndarray, "4 4"]:
    """Rotation and translation as one matrix."""
    pose = np.eye(4)
    pose[:3, :3] = axes
    pose[:3, 3] = position
    return pose


def camera_axes(yaw: float) -> Float64[np.ndarray, "3 3"]:
    """Ego-from-camera rotation of a level camera (x right, y down, z ahead), yaw in radians."""
    ahead = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    return np.stack([right, np.array([0.0, 0.0, -1.0]), ahead], axis=1)


def quaternion(axes: Float64[np.ndarray, "3 3"]) -> list[float]:
    """A rotation as (w, x, y, z) with w >= 0."""
    # The eigenvector of this symmetric matrix that belongs to 1 is the quaternion (Bar-Itzhack).
    m = axes
    k = np.array(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [0.0, m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[0, 2] + m[2, 0]],
            [0.0, 0.0, m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2]],
            [0.0, 0.0, 0.0, m[2, 2] - m[0, 0] - m[1, 1]],
        ]
    )
    _, vectors = np.linalg.eigh((k + np.triu(k, 1).T) / 3.0)
    q = vectors[:, -1]
    return [float(value) for value in (q if q[0] >= 0 else -q)]


def own_car(rays: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
    """Distance at which rays of the roof LiDAR (ego axes) meet the recording car, or infinity."""
    best = np.full(len(rays), np.inf)
    for height, low, high, half in ((1.42, 0.1, 1.5, 0.5), (0.95, 2.1, 3.5, 0.75)):
        down = np.minimum(rays[:, 2], -1e-9)
        t = (height - LIDAR_POSITION[2]) / down
        x = LIDAR_POSITION[0] + t * rays[:, 0]
        y = t * rays[:, 1]
        met = (x > low) & (x < high) & (np.abs(y) < half)
        best = np.where(met, np.minimum(best, t), best)
    return best
