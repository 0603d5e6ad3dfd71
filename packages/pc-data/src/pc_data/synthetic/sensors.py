"""A spinning LiDAR and a pinhole camera inside the world."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8
from pc_geometry.compiling import kernel

from pc_data.synthetic.ground import ground_at, lane_marking
from pc_data.synthetic.noise import hash3, normal3, uniform3, value_noise
from pc_data.synthetic.raycast import GROUND, MISS, World, cast_rays, height_at, trace
from pc_data.synthetic.solids import half_size, normal_at, own_frame, salt_of
from pc_data.synthetic.textures import Paving, ground_color, is_glass, lidar_look, surface_color

_SIGHT = 140.0  # metres that a camera sees
_SIGN, _FOLIAGE = 10, 2  # numbers of pc_data.synthetic.parts.Material
_ROAD, _MARKING = 1, 28  # numbers of pc_data.synthetic.categories.Category


def turn_rays(
    rays: Float64[np.ndarray, "n 3"], matrix: Float64[np.ndarray, "3 3"]
) -> Float64[np.ndarray, "n 3"]:
    """Apply a matrix to each ray, to the same bits whatever BLAS and its threads would do."""
    return np.einsum("nj,ij->ni", rays, matrix)


class Light(NamedTuple):
    """Sun, sky and air; colours linear.

    Attributes:
        sun: Unit direction towards the sun.
        sun_color: Of its light.
        ambient: Light from everywhere.
        low: Sky at the horizon.
        high: Sky at the zenith.
        haze: Extinction per metre.
        cloud: Cloud cover, 0..1.
        salt: Seed.
    """

    sun: tuple[float, float, float]
    sun_color: tuple[float, float, float]
    ambient: tuple[float, float, float]
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    haze: float
    cloud: float
    salt: int


class LidarModel(NamedTuple):
    """A spinning LiDAR.

    Attributes:
        elevation: Of each ring, degrees, lowest first.
        num_azimuths: Firings in one turn.
        far: Longest range, metres.
        noise: Standard deviation of the range, metres.
        gain: Intensity of a white wall met head-on.
        gamma: Exponent from returned power to intensity.
        ceiling: Largest intensity.
    """

    elevation: Float64[np.ndarray, " rings"]
    num_azimuths: int
    far: float
    noise: float
    gain: float
    gamma: float
    ceiling: float


HDL_32E = LidarModel(-30.67 + 4.0 / 3.0 * np.arange(32), 1084, 95.0, 0.018, 118.0, 1.0, 255.0)
HDL_64E = LidarModel(
    np.concatenate([-24.33 + 0.5 * np.arange(32), -8.33 + np.arange(32) / 3.0]),
    2083,
    80.0,
    0.015,
    0.72,
    0.5,
    0.99,
)


class Sweep(NamedTuple):
    """One turn of the LiDAR, every firing in [azimuth, ring] order; range 0 = no return."""

    rays: Float64[np.ndarray, "n 3"]
    distance: Float32[np.ndarray, " n"]
    intensity: Float32[np.ndarray, " n"]
    category: Int32[np.ndarray, " n"]
    instance: Int32[np.ndarray, " n"]


@kernel
def _dot(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@kernel
def _ground_normal(world: World, x: float, y: float) -> tuple[float, float, float]:
    step = 0.12
    a = height_at(world.heights, x - step, y) - height_at(world.heights, x + step, y)
    b = height_at(world.heights, x, y - step) - height_at(world.heights, x, y + step)
    norm = math.sqrt(a * a + b * b + 4 * step * step)
    return a / norm, b / norm, 2 * step / norm


@kernel
def _lidar_return(
    world: World,
    look: np.ndarray,
    paving: Paving,
    hit: int,
    p: tuple[float, float, float],
    ray: tuple[float, float, float],
) -> tuple[int, int, float, float]:
    """Category, instance, reflectivity and cosine of incidence of a hit."""
    if hit == GROUND:
        category, s, d, _ = ground_at(p[0], p[1], world.road)
        reflect = paving.reflectivity[category]
        if category == _ROAD and lane_marking(s, d, world.road):
            return _MARKING, 0, 2.2 * reflect, abs(_dot(_ground_normal(world, p[0], p[1]), ray))
        reflect *= 0.6 + 0.8 * value_noise(0.7 * p[0], 0.7 * p[1], paving.salt)
        return category, 0, reflect, abs(_dot(_ground_normal(world, p[0], p[1]), ray))
    q = own_frame(world.solids, hit, p[0], p[1], p[2])
    a, b, c, face = normal_at(world.solids, hit, q)
    cosine = abs(a * ray[0] + b * ray[1] + c * ray[2])
    material, category, instance, reflect = lidar_look(look, hit)
    if is_glass(look, hit, q, half_size(world.solids, hit), face):
        reflect *= 0.12
    elif material == _SIGN:
        reflect *= 3.0
    return category, instance, reflect, cosine


@kernel
def _echoes(
    world: World,
    look: np.ndarray,
    paving: Paving,
    origin: tuple[float, float, float],
    rays: np.ndarray,
    ranges: np.ndarray,
    hits: np.ndarray,
    model: tuple[float, float, float, float, int],
    measured: np.ndarray,
    known: np.ndarray,
) -> None:
    noise, gain, gamma, ceiling, seed = model
    for k in range(len(rays)):
        ray = (rays[k, 0], rays[k, 1], rays[k, 2])
        t, hit = ranges[k], hits[k]
        measured[k, 0] = 0.0
        if hit == MISS:
            continue
        p = (origin[0] + t * ray[0], origin[1] + t * ray[1], origin[2] + t * ray[2])
        category, instance, reflect, cosine = _lidar_return(world, look, paving, hit, p, ray)
        # Weak echoes get lost: dark, grazing or far surfaces, and one in a hundred anyway.
        echo = reflect * (0.08 + cosine) * min(1.0, 400.0 / (t * t))
        if uniform3(k, seed, 1) < 0.01 + math.exp(-90.0 * echo):
            continue
        speckle = math.exp(0.45 * normal3(k, seed, 2))
        near = t / (t + 1.5)
        measured[k, 0] = t + noise * (1.0 + 0.01 * t) * normal3(k, seed, 3)
        power = reflect * cosine**0.6 * speckle * near
        measured[k, 1] = min(ceiling, gain * power**gamma)
        known[k, 0] = category
        known[k, 1] = instance


def sweep(
    world: World,
    look: np.ndarray,
    paving: Paving,
    *,
    model: LidarModel,
    position: Float64[np.ndarray, " 3"],
    rays: Float64[np.ndarray, "n 3"],
    seed: int,
) -> Sweep:
    """Fire every ray (unit directions in the scene's frame) from `position`."""
    measured = np.zeros((len(rays), 2), dtype=np.float32)
    known = np.zeros((len(rays), 2), dtype=np.int32)
    origin = (float(position[0]), float(position[1]), float(position[2]))
    physics = (model.noise, model.gain, model.gamma, model.ceiling, seed)
    rays = np.ascontiguousarray(rays)
    ranges, hits = cast_rays(world, position, rays, far=model.far)
    _echoes(world, look, paving, origin, rays, ranges, hits, physics, measured, known)
    return Sweep(rays, measured[:, 0], measured[:, 1], known[:, 0], known[:, 1])


@kernel
def _sky(light: Light, ray: tuple[float, float, float], detail: bool) -> tuple[float, float, float]:
    up = max(ray[2], 0.0)
    k = math.sqrt(up)
    r = light.low[0] * (1 - k) + light.high[0] * k
    g = light.low[1] * (1 - k) + light.high[1] * k
    b = light.low[2] * (1 - k) + light.high[2] * k
    if detail and up > 0.02:
        x, y = ray[0] / (up + 0.08), ray[1] / (up + 0.08)
        puff = 0.6 * value_noise(x, y, light.salt) + 0.3 * value_noise(2.3 * x, 2.3 * y, light.salt)
        puff += 0.1 * value_noise(6.0 * x, 6.0 * y, light.salt)
        puff = min(max(4.0 * (puff - 1.0 + light.cloud), 0.0), 0.9) * min(1.0, 6.0 * up)
        r, g, b = r + puff * (0.95 - r), g + puff * (0.95 - g), b + puff * (0.97 - b)
    glow = max(_dot(light.sun, ray), 0.0) ** 64
    return (
        r + glow * light.sun_color[0],
        g + glow * light.sun_color[1],
        b + glow * light.sun_color[2],
    )


@kernel
def _shade(
    world: World,
    look: np.ndarray,
    paving: Paving,
    light: Light,
    hit: int,
    p: tuple[float, float, float],
    ray: tuple[float, float, float],
    t: float,
) -> tuple[float, float, float, int]:
    """Radiance and category of a hit."""
    leafy = False
    if hit == GROUND:
        category, s, d, _ = ground_at(p[0], p[1], world.road)
        normal = _ground_normal(world, p[0], p[1])
        r, g, b, gloss = ground_color(paving, world.road, (category, p[0], p[1], s, d), t)
    else:
        q = own_frame(world.solids, hit, p[0], p[1], p[2])
        x, y, z, face = normal_at(world.solids, hit, q)
        normal = (x, y, z)
        salt = salt_of(world.solids, hit)
        half = half_size(world.solids, hit)
        r, g, b, gloss = surface_color(look, hit, q, half, face, salt, t)
        material, category, _, _ = lidar_look(look, hit)
        leafy = material == _FOLIAGE
    sun = _dot(normal, light.sun)
    if leafy:
        sun = 0.35 + 0.65 * sun
    if sun > 0.0:
        lift = 0.35 if leafy else 0.03
        start = (p[0] + lift * normal[0], p[1] + lift * normal[1], p[2] + lift * normal[2])
        if 0.05 * sun * light.sun_color[0] > 0.004:
            sun *= 1.0 if trace(world, start, light.sun, 40.0, False)[1] == MISS else 0.0
    open_sky = 0.55 + 0.45 * normal[2]
    sun = max(sun, 0.0)
    r *= sun * light.sun_color[0] + open_sky * light.ambient[0]
    g *= sun * light.sun_color[1] + open_sky * light.ambient[1]
    b *= sun * light.sun_color[2] + open_sky * light.ambient[2]
    if gloss > 0.0:
        cosine = _dot(normal, ray)
        bounce = (
            ray[0] - 2 * cosine * normal[0],
            ray[1] - 2 * cosine * normal[1],
            ray[2] - 2 * cosine * normal[2],
        )
        sky = _sky(light, bounce, False)
        k = gloss * (0.12 + 0.88 * (1.0 - abs(cosine)) ** 4) * (0.4 if bounce[2] < 0 else 1.0)
        r, g, b = r + k * sky[0], g + k * sky[1], b + k * sky[2]
    return r, g, b, category


@kernel
def _tone(value: float, noise: float) -> int:
    """Linear radiance to a display byte: soft shoulder, gamma, sensor noise."""
    value = value * (1.0 + 0.15 * value) / (1.0 + value * 0.45)
    return int(min(max(255.0 * max(value, 0.0) ** 0.4545 + noise, 0.0), 255.0))


@kernel
def _expose(
    world: World,
    look: np.ndarray,
    paving: Paving,
    light: Light,
    origin: tuple[float, float, float],
    rays: np.ndarray,
    ranges: np.ndarray,
    hits: np.ndarray,
    rgb: np.ndarray,
    classes: np.ndarray,
) -> None:
    seed = hash3(int(1000 * origin[0]), int(1000 * origin[1]), light.salt)
    for k in range(len(rays)):
        ray = (rays[k, 0], rays[k, 1], rays[k, 2])
        t, hit = ranges[k], hits[k]
        classes[k] = 0
        if hit == MISS:
            color = _sky(light, ray, ray[2] > 0)
        else:
            p = (origin[0] + t * ray[0], origin[1] + t * ray[1], origin[2] + t * ray[2])
            x, y, z, category = _shade(world, look, paving, light, hit, p, ray, t)
            classes[k] = category
            clear = math.exp(-light.haze * t)
            color = (
                clear * x + (1 - clear) * light.low[0],
                clear * y + (1 - clear) * light.low[1],
                clear * z + (1 - clear) * light.low[2],
            )
        noise = 5.0 * (uniform3(k, 0, seed) - 0.5)
        for c in range(3):
            rgb[k, c] = _tone(color[c], noise)


def render(
    world: World,
    look: np.ndarray,
    paving: Paving,
    light: Light,
    *,
    pose: Float64[np.ndarray, "4 4"],
    intrinsics: Float64[np.ndarray, "3 3"],
    image_size: tuple[int, int],
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Take a picture.

    Args:
        world: What can be met.
        look: How the solids look.
        paving: How the ground looks.
        light: Sun, sky and haze.
        pose: Scene-from-camera; the camera looks along +z, x right, y down.
        intrinsics: In pixels; pixel (0, 0) covers [0, 1) in u and v.
        image_size: (width, height).

    Returns:
        The picture, and the category that each pixel shows (0 = sky).
    """
    width, height = image_size
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    ahead = np.stack([u, v, np.ones_like(u)], axis=2).reshape(-1, 3)
    rays = turn_rays(ahead, pose[:3, :3] @ np.linalg.inv(intrinsics))
    rays /= np.sqrt(np.einsum("ni,ni->n", rays, rays))[:, None]
    ranges, hits = cast_rays(world, pose[:3, 3], rays, far=_SIGHT)
    rgb = np.empty((len(rays), 3), dtype=np.uint8)
    classes = np.empty(len(rays), dtype=np.uint8)
    origin = (float(pose[0, 3]), float(pose[1, 3]), float(pose[2, 3]))
    _expose(world, look, paving, light, origin, rays, ranges, hits, rgb, classes)
    return rgb.reshape(height, width, 3), classes.reshape(height, width)
