"""A hand-held RGB-D camera that is carried through a room."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8, UInt16

from pc_data.synthetic.raycast import MISS, World, cast_rays
from pc_data.synthetic.room_looks import RoomLight, noise_at, radiance
from pc_data.synthetic.room_parts import Finish
from pc_data.synthetic.room_solids import RoomSolids, describe_surface
from pc_data.synthetic.sensors import turn_rays

NEAR, FAR = 0.4, 4.5  # metres that the depth sensor measures


class RoomFrame(NamedTuple):
    """One RGB-D image.

    Attributes:
        color: RGB.
        depth: Millimetres along the viewing direction, 0 = not measured; pixel for pixel.
        instance: Number of the object that each pixel shows, 0 = none.
        pose: Room-from-camera; the camera looks along +z, x right, y down.
        intrinsics: In pixels; pixel (0, 0) covers [0, 1) in u and v.
    """

    color: UInt8[np.ndarray, "h w 3"]
    depth: UInt16[np.ndarray, "h w"]
    instance: Int64[np.ndarray, "h w"]
    pose: Float64[np.ndarray, "4 4"]
    intrinsics: Float64[np.ndarray, "3 3"]


def camera_matrix(image_size: tuple[int, int]) -> Float64[np.ndarray, "3 3"]:
    """Intrinsics of a sensor that sees 58 degrees across."""
    width, height = image_size
    focal = 0.9 * width
    return np.array([[focal, 0.0, 0.5 * width], [0.0, focal, 0.5 * height], [0.0, 0.0, 1.0]])


def walk_path(
    rng: np.random.Generator,
    size: tuple[float, float, float],
    world: World,
    *,
    num_views: int,
) -> Float64[np.ndarray, "v 4 4"]:
    """Poses on a round through the room, looking at walls, furniture and floor in turn."""
    around = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(num_views) / num_views
    poses = []
    for angle in around:
        for attempt in range(20):
            reach = rng.uniform(0.15, 0.75) * 0.9**attempt
            x, y = 0.5 * reach * size[0] * np.cos(angle), 0.5 * reach * size[1] * np.sin(angle)
            eye = np.array([x, y, rng.uniform(1.25, 1.75)])
            if _is_open(world, eye):
                break
        outward = angle + rng.normal(0, 0.5) + (np.pi if rng.uniform() < 0.7 else 0.0)
        look = np.array([0.5 * size[0] * np.cos(outward), 0.5 * size[1] * np.sin(outward), 0.0])
        look[2] = rng.uniform(-0.2, 1.5)
        poses.append(_look_at(eye, look, roll=rng.normal(0, 0.05)))
    return np.array(poses)


def _is_open(world: World, eye: Float64[np.ndarray, " 3"]) -> bool:
    """Whether there is room for a head: nothing within 30 cm in six directions."""
    rays = np.concatenate([np.eye(3), -np.eye(3)])
    met, hits = cast_rays(world, eye, rays, far=20.0)
    return bool((met > 0.3).all() and (hits != MISS).all())


def _look_at(
    eye: Float64[np.ndarray, " 3"], target: Float64[np.ndarray, " 3"], *, roll: float
) -> Float64[np.ndarray, "4 4"]:
    ahead = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(ahead, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    down = np.cross(ahead, right)
    c, s = np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([c * right + s * down, c * down - s * right, ahead], axis=1)
    pose[:3, 3] = eye
    return pose


def _pixel_rays(
    pose: Float64[np.ndarray, "4 4"], image_size: tuple[int, int]
) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, " n"]]:
    """Unit directions of all pixels in the room's frame, and their depth at one metre."""
    width, height = image_size
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    ahead = np.stack([u, v, np.ones_like(u)], axis=2).reshape(-1, 3)
    ahead = turn_rays(ahead, np.linalg.inv(camera_matrix(image_size)))
    length = np.sqrt(np.einsum("ni,ni->n", ahead, ahead))
    return turn_rays(ahead / length[:, None], pose[:3, :3]), 1 / length


def seen_from(
    world: World,
    poses: Float64[np.ndarray, "v 4 4"],
    xyz: Float64[np.ndarray, "n 3"],
    normals: Float64[np.ndarray, "n 3"],
    *,
    image_size: tuple[int, int] = (80, 60),
) -> Int64[np.ndarray, " n"]:
    """In how many views the depth sensor measures each point of a surface."""
    counts = np.zeros(len(xyz), dtype=np.int64)
    width, height = image_size
    focal = camera_matrix(image_size)[0, 0]
    for pose in poses:
        rays, share = _pixel_rays(pose, image_size)
        met, _ = cast_rays(world, pose[:3, 3], rays, far=20.0)
        depth = (met * share).reshape(height, width)
        own = turn_rays(xyz - pose[:3, 3], pose[:3, :3].T)
        z = own[:, 2]
        inside = np.flatnonzero((z > NEAR) & (z < FAR))
        u = np.floor(own[inside, 0] / z[inside] * focal + 0.5 * width).astype(np.int64)
        v = np.floor(own[inside, 1] / z[inside] * focal + 0.5 * height).astype(np.int64)
        shown = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        inside, u, v = inside[shown], u[shown], v[shown]
        away = xyz[inside] - pose[:3, 3]
        facing = -np.einsum("ni,ni->n", away, normals[inside])
        facing /= np.sqrt(np.einsum("ni,ni->n", away, away))
        near = z[inside] < depth[v, u] + 0.04 + 0.02 * z[inside]
        counts[inside[near & (facing > 0.12)]] += 1
    return counts


def richest_views(
    solids: RoomSolids, world: World, poses: Float64[np.ndarray, "v 4 4"], count: int
) -> list[int]:
    """In each of `count` equal parts of a walk, the view that shows most objects."""
    objects = []
    for pose in poses:
        rays, _ = _pixel_rays(pose, (32, 24))
        _, hits = cast_rays(world, pose[:3, 3], rays, far=FAR)
        shown = np.bincount(solids.instance[hits[hits != MISS]])
        objects.append(np.count_nonzero(shown >= 5))
    starts = np.arange(count + 1) * len(poses) // max(count, 1)
    return [int(first + np.argmax(objects[first:last])) for first, last in pairwise(starts)]


def take_frame(
    solids: RoomSolids,
    world: World,
    light: RoomLight,
    pose: Float64[np.ndarray, "4 4"],
    *,
    image_size: tuple[int, int],
    rng: np.random.Generator,
) -> RoomFrame:
    """Take one colour and depth image, with exposure, white balance, vignette and noise."""
    width, height = image_size
    rays, share = _pixel_rays(pose, image_size)
    met, hits = cast_rays(world, pose[:3, 3], rays, far=20.0)
    hits = hits.astype(np.int64)
    there = hits != MISS
    color = np.zeros((len(rays), 3))
    xyz = pose[:3, 3] + met[:, None] * rays
    own, normals = describe_surface(world, hits[there], xyz[there])
    color[there] = radiance(solids, world, light, hits[there], xyz[there], own, normals)
    color *= rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3)
    color *= (0.75 + 0.25 * share**2)[:, None]
    facing = np.zeros(len(rays))
    facing[there] = -np.einsum("ni,ni->n", rays[there], normals)
    finish = np.where(there, solids.finish[hits], 0)
    return RoomFrame(
        color=to_display(color + rng.normal(0, 0.012, color.shape)).reshape(height, width, 3),
        depth=_measure(met * share, facing, finish, rng).reshape(height, width),
        instance=np.where(there, solids.instance[hits], 0).reshape(height, width),
        pose=pose,
        intrinsics=camera_matrix(image_size),
    )


def to_display(color: Float64[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
    """Display values to bytes, bright ones with a soft shoulder."""
    soft = np.where(color > 0.8, 0.8 + 0.2 * np.tanh((color - 0.8) / 0.2), color)
    return (255 * np.clip(soft, 0, 1)).astype(np.uint8)


def _measure(
    depth: Float64[np.ndarray, " n"],
    facing: Float64[np.ndarray, " n"],
    finish: Int64[np.ndarray, " n"],
    rng: np.random.Generator,
) -> UInt16[np.ndarray, " n"]:
    """Depth as a structured-light sensor gives it: noise, range, no glass, no grazing view."""
    noisy = depth + rng.normal(0, 1, len(depth)) * 0.0015 * depth**2
    lost = (facing < 0.1) | (finish == Finish.GLASS) | (rng.uniform(size=len(depth)) < 0.01)
    measured = (noisy > NEAR) & (noisy < FAR) & ~lost
    return np.where(measured, np.round(1000 * noisy), 0).astype(np.uint16)


def patchy(
    xyz: Float32[np.ndarray, "n 3"] | Float64[np.ndarray, "n 3"], *, scale: float, salt: int
) -> Float64[np.ndarray, " n"]:
    """Smooth noise over a surface, about -1 to 1, with one lattice point per `scale` metres."""
    salts = np.full(len(xyz), salt, dtype=np.int64)
    x, y, z = xyz.astype(np.float64).T
    return 2 * noise_at((x + 0.61 * z) / scale, (y - 0.73 * z) / scale, salts) - 1
