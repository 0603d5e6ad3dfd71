"""A car with Waymo's sensors in the street: range images of five LiDARs, five cameras.

Source: Waymo Open Dataset (Sun et al., CVPR 2020, arXiv:1912.04838), section 3.1, and a calibration
    of the dataset, rounded: the roof's 64 beams lie 0.63 degrees apart at the bottom and 0.17 above
    the horizon, and cameras open when its turn, from behind over the left, passes them.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from pc_data.synthetic.categories import Category
from pc_data.synthetic.raycast import World
from pc_data.synthetic.rig import pose_matrix, small_rotation, yaw_rotation
from pc_data.synthetic.scene import Scene
from pc_data.synthetic.sensors import LidarModel, sweep, turn_rays

TURN = 0.1
"""Seconds that the roof's LiDAR takes for a turn, which begins at the frame's time."""
_SECTORS = 16  # parts of a turn from which the car is at one place
_EDGE = 1.0  # metres behind the first echo at which a beam's other part is a second one
_BODY = 0.2  # the car's body hides what the short-range LiDARs have behind and beside them
_FAR, _FAR_SHORT, _NOISE, _GAIN, _CEILING = 75.0, 20.0, 0.012, 0.55, 20.0

# category -> raw class of the 3D segmentation challenge
_RAW = {
    Category.CAR: 1,
    Category.TRUCK: 2,
    Category.BUS: 3,
    Category.TRAILER: 4,
    Category.CONSTRUCTION: 4,
    Category.MOTORCYCLIST: 5,
    Category.BICYCLIST: 6,
    Category.ADULT: 7,
    Category.CHILD: 7,
    Category.SIGN: 8,
    Category.POLE: 10,
    Category.CONE: 11,
    Category.BICYCLE: 12,
    Category.MOTORCYCLE: 13,
    Category.BUILDING: 14,
    Category.STRUCTURE: 14,
    Category.FENCE: 14,
    Category.VEGETATION: 15,
    Category.TRUNK: 16,
    Category.ROAD: 18,
    Category.PARKING: 18,
    Category.MARKING: 19,
    Category.OTHER_GROUND: 20,
    Category.TERRAIN: 21,
    Category.SIDEWALK: 22,
}
WAYMO_ID: Int32[np.ndarray, " categories"] = np.array(
    [_RAW.get(category, 0) for category in Category], dtype=np.int32
)
_VEHICLES = ("CAR", "TRUCK", "BUS", "TRAILER", "CONSTRUCTION", "MOTORCYCLE", "MOTORCYCLIST")
_KINDS = dict.fromkeys(_VEHICLES, 1) | {"ADULT": 2, "CHILD": 2, "SIGN": 3, "BICYCLIST": 4}
WAYMO_BOX: Int32[np.ndarray, " categories"] = np.array(
    [_KINDS.get(category.name, 0) for category in Category], dtype=np.int32
)


class LidarMount(NamedTuple):
    """Where a LiDAR sits.

    Attributes:
        yaw: Of its x, degrees to the left of the vehicle's.
        position: In the vehicle's frame, metres.
        inclination: Lowest and highest edge, degrees.
    """

    yaw: float
    position: tuple[float, float, float]
    inclination: tuple[float, float]


class CameraMount(NamedTuple):
    """Where a camera sits.

    Attributes:
        yaw: Viewing direction, degrees to the left of straight ahead.
        position: In the vehicle's frame, metres.
        delay: Seconds after the frame's time.
        share: Height of its images as a share of the front camera's; the top is cut off.
    """

    yaw: float
    position: tuple[float, float, float]
    delay: float
    share: float


LIDARS = {
    1: LidarMount(148.0, (1.43, 0.0, 2.18), (-17.86, 2.59)),
    2: LidarMount(0.0, (4.07, 0.0, 0.69), (-90.0, 30.0)),
    3: LidarMount(90.0, (3.25, 1.03, 0.98), (-90.0, 30.0)),
    4: LidarMount(-90.0, (3.25, -1.03, 0.98), (-90.0, 30.0)),
    5: LidarMount(180.0, (-1.15, 0.0, 0.47), (-90.0, 30.0)),
}
CAMERAS = {
    1: CameraMount(0.0, (1.54, -0.02, 2.11), 0.052, 1.0),
    2: CameraMount(45.0, (1.50, 0.10, 2.11), 0.042, 1.0),
    3: CameraMount(-45.0, (1.48, -0.12, 2.11), 0.062, 1.0),
    4: CameraMount(90.0, (1.43, 0.12, 2.11), 0.022, 886 / 1280),
    5: CameraMount(-90.0, (1.43, -0.13, 2.11), 0.072, 886 / 1280),
}
FOCAL = 2060.0 / 1920.0
"""Focal length in widths of an image."""


class RangeView(NamedTuple):
    """What a LiDAR saw in a frame; entry 0 of a pair is the first return, 1 the second.

    Attributes:
        images: Range in metres (-1 = nothing), intensity, elongation, no-label-zone flag.
        known: Instance and raw class.
        pose: Scene-from-vehicle of each sector of the turn, from its first column on.
        starts: First column of each sector.
        xyz: Points of the first and then of the second returns, in the vehicle's frame at the
            frame's time.
    """

    images: tuple[Float32[np.ndarray, "h w 4"], Float32[np.ndarray, "h w 4"]]
    known: tuple[Int32[np.ndarray, "h w 2"], Int32[np.ndarray, "h w 2"]]
    pose: Float64[np.ndarray, "s 4 4"]
    starts: tuple[int, ...]
    xyz: tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "m 3"]]


def beams(number: int, rows: int) -> Float64[np.ndarray, " rows"]:
    """Inclination of a LiDAR's beams, lowest first, radians."""
    low, high = np.radians(LIDARS[number].inclination)
    share = (np.arange(rows) + 0.5) / rows
    gaps = np.interp(share, [0.0, 0.65, 1.0], [0.63, 0.17, 0.17] if number == 1 else [1.0] * 3)
    return low + (high - low) * (np.cumsum(gaps) - 0.5 * gaps) / gaps.sum()


def extrinsics(seed: int, index: int) -> dict[str, Float64[np.ndarray, "5 4 4"]]:
    """Vehicle-from-sensor of a scene's LiDARs and cameras, x ahead, y left, z up."""
    found = {}
    for key, mounts in (("lidar", LIDARS), ("camera", CAMERAS)):
        rng = np.random.default_rng((seed, index, len(key)))
        found[key] = np.array(
            [
                pose_matrix(
                    yaw_rotation(np.radians(mount.yaw)) @ small_rotation(rng.normal(0, 0.006, 3)),
                    np.array(mount.position) + rng.normal(0, 0.01, 3),
                )
                for mount in mounts.values()
            ]
        )
    return found


def look_around(
    scene: Scene,
    number: int,
    *,
    mount: Float64[np.ndarray, "4 4"],
    shape: tuple[int, int],
    time: float,
    seed: tuple[int, ...],
) -> RangeView:
    """Fire all pixels of a LiDAR's range image; the roof's moves with the car meanwhile.

    Args:
        scene: The street; it stands still during the turn.
        number: Of the LiDAR.
        mount: Vehicle-from-LiDAR.
        shape: Rows and columns.
        time: Of the frame, seconds.
        seed: Of all noise.
    """
    rays, model = _pixels(number, mount, shape)
    hidden = rays[..., 0] < _BODY if number != 1 else np.zeros(shape, dtype=bool)
    columns = shape[1]
    sectors = min(_SECTORS, columns) if number == 1 else 1
    edges = [columns * k // sectors for k in range(sectors + 1)]
    spans = list(pairwise(edges))
    turn = TURN if number == 1 else 0.0
    middles = [(start + end) / (2 * columns) for start, end in spans]
    poses = [scene.ego_pose(time + turn * middle) for middle in middles]
    echoes = np.empty((*shape, 4), dtype=np.float32)
    known = np.empty((*shape, 2), dtype=np.int32)
    rng = np.random.default_rng(seed)
    world = scene.world(time)
    for pose, (start, end) in zip(poses, spans, strict=True):
        echoes[:, start:end], known[:, start:end] = _fire(
            scene,
            world,
            model,
            pose @ mount,
            rays[:, start:end],
            hidden[:, start:end],
            int(rng.integers(1 << 30)),
        )
    behind, truth_behind = _second(echoes, known)
    at = np.searchsorted(edges, np.arange(columns), side="right") - 1
    here = scene.ego_pose(time)
    xyz = (
        _points(echoes, rays, mount, poses, at, here),
        _points(behind, rays, mount, poses, at, here),
    )
    starts = tuple(edges[:-1])
    return RangeView((echoes, behind), (known, truth_behind), np.array(poses), starts, xyz)


def _pixels(
    number: int, mount: Float64[np.ndarray, "4 4"], shape: tuple[int, int]
) -> tuple[Float64[np.ndarray, "h w 3"], LidarModel]:
    """Unit direction of every pixel in the LiDAR's frame, and how it measures."""
    rows, columns = shape
    elevation = beams(number, rows)[::-1, None]
    yaw = np.arctan2(mount[1, 0], mount[0, 0])
    azimuth = np.pi * (1 - 2 * (np.arange(columns) + 0.5) / columns) - yaw
    flat = np.cos(elevation)
    rays = np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation) + 0 * azimuth], axis=2
    )
    far = _FAR if number == 1 else _FAR_SHORT
    degrees = np.degrees(elevation[::-1, 0])
    return rays, LidarModel(degrees, columns, far, _NOISE, _GAIN, 1.0, _CEILING)


def _fire(
    scene: Scene,
    world: World,
    model: LidarModel,
    sensor: Float64[np.ndarray, "4 4"],
    rays: Float64[np.ndarray, "h w 3"],
    hidden: Bool[np.ndarray, "h w"],
    seed: int,
) -> tuple[Float32[np.ndarray, "h w 4"], Int32[np.ndarray, "h w 2"]]:
    """First returns from one place, and the instance and raw class that each met."""
    shape = rays.shape[:2]
    turn = sweep(
        world,
        scene.look,
        scene.paving,
        model=model,
        position=sensor[:3, 3],
        rays=turn_rays(rays.reshape(-1, 3), sensor[:3, :3]),
        seed=seed,
    )
    met = (turn.distance > 0).reshape(shape) & ~hidden
    echoes = np.full((*shape, 4), -1.0, dtype=np.float32)  # no return
    echoes[met, 0] = turn.distance.reshape(shape)[met]
    echoes[met, 1] = turn.intensity.reshape(shape)[met]
    echoes[met, 2] = 0.0
    known = np.stack([turn.instance, WAYMO_ID[turn.category]], axis=1).reshape(*shape, 2)
    return echoes, known * met[..., None]


def _second(
    echoes: Float32[np.ndarray, "h w 4"], known: Int32[np.ndarray, "h w 2"]
) -> tuple[Float32[np.ndarray, "h w 4"], Int32[np.ndarray, "h w 2"]]:
    """Second returns: at an edge, the rest of a beam goes on to what its right neighbour meets."""
    behind, labels = np.roll(echoes, -1, axis=1), np.roll(known, -1, axis=1)
    edge = (echoes[..., 0] > 0) & (behind[..., 0] > echoes[..., 0] + _EDGE)
    weak = behind * np.array([1.0, 0.5, 1.0, 1.0], dtype=np.float32)
    empty = np.full_like(echoes, -1.0)
    return np.where(edge[..., None], weak, empty), np.where(edge[..., None], labels, 0)


def _points(
    image: Float32[np.ndarray, "h w 4"],
    rays: Float64[np.ndarray, "h w 3"],
    mount: Float64[np.ndarray, "4 4"],
    poses: list[Float64[np.ndarray, "4 4"]],
    sector: np.ndarray,
    frame: Float64[np.ndarray, "4 4"],
) -> Float64[np.ndarray, "n 3"]:
    """Points of a range image in the vehicle's frame at the frame's time."""
    row, column = np.nonzero(image[..., 0] > 0)
    local = rays[row, column] * image[row, column, :1].astype(np.float64)
    moves = np.array([np.linalg.inv(frame) @ pose @ mount for pose in poses])[sector[column]]
    return np.einsum("nij,nj->ni", moves[:, :3, :3], local) + moves[:, :3, 3]
