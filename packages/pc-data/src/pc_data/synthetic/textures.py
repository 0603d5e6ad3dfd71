"""Procedural surface colours; kernels that read a solid's own-frame coordinates in metres."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32
from pc_geometry.compiling import kernel

from pc_data.synthetic.ground import lane_marking
from pc_data.synthetic.noise import uniform3, value_noise

# Numbers of pc_data.synthetic.parts.Material; PLAIN, SKIN and METAL need no pattern.
_FACADE, _FOLIAGE, _BARK, _CAR_BODY, _CAR_CABIN, _WHEEL = 1, 2, 3, 4, 5, 6
_STRIPES, _DIAGONAL, _METAL, _SIGN, _BUS_BODY, _CARGO = 7, 8, 9, 10, 11, 12
_TRUCK_CAB, _WALL, _ROOF, _CLOTH, _SIGNAL, _GLASS = 13, 14, 15, 16, 18, 19
_ROAD, _PARKING, _SIDEWALK, _TERRAIN = 1, 2, 3, 5

Rgbg = tuple[float, float, float, float]  # linear red, green, blue, and gloss 0..1
_PANE = (0.025, 0.035, 0.04, 0.75)


# Columns of a look table, see `look_table`.
_MATERIAL, _COLOR, _ACCENT, _PATTERN, _REFLECT, _CATEGORY, _INSTANCE = 0, 1, 4, 7, 11, 12, 13


def look_table(
    *,
    material: Int32[np.ndarray, " n"],
    color: Float32[np.ndarray, "n 3"],
    accent: Float32[np.ndarray, "n 3"],
    pattern: Float32[np.ndarray, "n 4"],
    reflectivity: Float32[np.ndarray, " n"],
    category: Int32[np.ndarray, " n"],
    instance: Int32[np.ndarray, " n"],
) -> Float32[np.ndarray, "n 14"]:
    """Appearance of each primitive as one table, so that kernels read scalars from one array."""
    columns = (
        material[:, None],
        color,
        accent,
        pattern,
        reflectivity[:, None],
        category[:, None],
        instance[:, None],
    )
    return np.concatenate(columns, axis=1, dtype=np.float32)


@kernel
def lidar_look(look: np.ndarray, i: int) -> tuple[int, int, int, float]:
    """Material, category, instance and reflectivity of primitive i."""
    return int(look[i, 0]), int(look[i, 12]), int(look[i, 13]), float(look[i, 11])


class Paving(NamedTuple):
    """Appearance of the ground.

    Attributes:
        color: Linear colour by ground category (rows 0..5).
        reflectivity: Of the LiDAR's wavelength by ground category.
        tile: Edge of the paving slabs in metres.
        salt: Seed.
    """

    color: Float64[np.ndarray, "6 3"]
    reflectivity: Float64[np.ndarray, " 6"]
    tile: float
    salt: int


@kernel
def _tint(look: np.ndarray, i: int, first: int, k: float, gloss: float) -> Rgbg:
    return look[i, first] * k, look[i, first + 1] * k, look[i, first + 2] * k, gloss


@kernel
def _blocks(
    u: float, v: float, wide: float, tall: float, joint: float, salt: int, t: float
) -> float:
    """Brightness of masonry: tinted blocks in shifted courses with dark joints."""
    course = math.floor(v / tall)
    u += 0.5 * wide * (course % 2)
    column = math.floor(u / wide)
    shade = 0.8 + 0.4 * uniform3(int(column), int(course), salt)
    if t * 0.002 < joint and (u - column * wide < joint or v - course * tall < joint):
        return 0.55 * shade
    fade = min(1.0, 1.5 * wide / (0.004 * t + 1e-6))
    return 1.0 + (shade - 1.0) * fade


@kernel
def _facade(
    look: np.ndarray, i: int, u: float, v: float, half: tuple[float, float], salt: int, t: float
) -> Rgbg:
    """Windows in a wall; u along it from its middle, v up from its foot."""
    storey, spacing = look[i, _PATTERN], look[i, _PATTERN + 1]
    share, style = look[i, _PATTERN + 2], look[i, _PATTERN + 3]
    floor = math.floor(v / storey)
    column = math.floor(u / spacing)
    a = abs(u / spacing - column - 0.5)
    b = v / storey - floor
    low, high = (0.28, 0.8) if style != 3.0 else (0.18, 0.84)
    if floor == 0.0:
        low, share = 0.12, min(1.4 * share, 0.86)
    inside = abs(u) < half[0] - 0.4 and v < half[1] - 0.5
    if inside and share > 0.0 and a < 0.5 * share and low < b < high:
        edge = min(0.5 * share - a, 0.6 * (b - low), 0.6 * (high - b)) * spacing
        if edge < 0.07 or (a * spacing < 0.03 and t < 40.0):
            return _tint(look, i, _ACCENT, 1.0, 0.0)
        blind = uniform3(int(column), int(floor), salt)
        if blind > 0.72 and b > 0.55:
            return 0.45, 0.43, 0.38, 0.2
        k = 0.6 + 1.2 * uniform3(int(column), int(floor), salt + 3)
        return 0.03 * k, 0.04 * k, 0.05 * k, 0.7
    if style == 0.0:
        k = _blocks(u, v, 0.26, 0.09, 0.014, salt, t)
    elif style == 1.0:
        k = 0.85 + 0.3 * value_noise(0.5 * u, 0.25 * v, salt)
    elif style == 2.0:
        k = _blocks(u, v, spacing, storey, 0.05, salt, t)
    else:
        k = _blocks(u, v, 0.8, 0.38, 0.025, salt, t)
    stain = 0.85 + 0.3 * value_noise(0.23 * u, 0.13 * v, salt + 5)
    return _tint(look, i, _COLOR, k * stain, 0.0)


@kernel
def _car(
    look: np.ndarray,
    i: int,
    q: tuple[float, float, float],
    half: tuple[float, float, float],
    face: int,
) -> Rgbg:
    """Lower body: lamps, plates, arches, door gaps."""
    x, y, z = q
    if face == 0:
        if abs(y) > 0.58 * half[1] and 0.05 * half[2] < z < 0.6 * half[2]:
            return (0.8, 0.8, 0.72, 0.5) if x > 0 else (0.55, 0.01, 0.01, 0.4)
        if abs(y) < 0.26 and abs(z + 0.25 * half[2]) < 0.07:
            return 0.75, 0.75, 0.7, 0.0
        if x > 0 and abs(y) < 0.5 * half[1] and z > -0.1 * half[2]:
            return 0.02, 0.02, 0.022, 0.2
    elif face == 1:
        dx, dz = abs(x) - look[i, _PATTERN + 1], z + half[2]
        if dx * dx + dz * dz < 1.32 * look[i, _PATTERN] * look[i, _PATTERN]:
            return 0.01, 0.01, 0.01, 0.0
        if z < -0.78 * half[2]:
            return 0.03, 0.03, 0.03, 0.0
        if abs(x - 0.1) < 0.012 or abs(abs(x - 0.1) - 0.95) < 0.012:
            return _tint(look, i, _COLOR, 0.3, 0.2)
        if abs(abs(x - 0.1) - 0.14) < 0.09 and abs(z - 0.55 * half[2]) < 0.02:
            return 0.25, 0.25, 0.25, 0.3
    return _tint(look, i, _COLOR, 1.0, 0.45)


@kernel
def is_glass(
    look: np.ndarray,
    i: int,
    q: tuple[float, float, float],
    half: tuple[float, float, float],
    face: int,
) -> bool:
    """Whether that spot of a primitive is a window pane of a vehicle or a shelter."""
    material = int(look[i, _MATERIAL])
    u, v, w = q[0] / half[0], q[1] / half[1], q[2] / half[2]
    if material == _GLASS:
        return True
    if face == 2:
        return False
    if material == _CAR_CABIN:
        if abs(w) > 0.78:
            return False
        if look[i, _PATTERN] > 0.5:
            return u > 0.55 and (abs(v) < 0.88 if face == 0 else u < 0.9)
        return abs(v) < 0.84 if face == 0 else (abs(u - 0.05) > 0.06 and abs(u) < 0.78)
    if material == _BUS_BODY:
        if face == 0:
            return abs(v) < 0.9 and (-0.15 if u > 0 else 0.2) < w < 0.66
        door = abs(u - 0.8) < 0.09 or abs(u + 0.05) < 0.1
        low = -0.75 if door and q[1] < 0 else -0.05
        return low < w < 0.6 and abs(u) < 0.96 and (q[0] + 50.0) % 1.5 > 0.13
    if material == _TRUCK_CAB:
        if face == 0:
            return u > 0 and abs(v) < 0.88 and 0.05 < w < 0.72
        return 0.05 < w < 0.68 and -0.1 < u < 0.8
    return False


@kernel
def _bus(
    look: np.ndarray,
    i: int,
    q: tuple[float, float, float],
    half: tuple[float, float, float],
    face: int,
) -> Rgbg:
    """Body of a bus or a lorry's cab around the panes."""
    w = q[2] / half[2]
    if face == 0:
        if abs(q[1]) > 0.6 * half[1] and -0.72 < w < -0.5:
            return (0.8, 0.8, 0.7, 0.5) if q[0] > 0 else (0.5, 0.01, 0.01, 0.4)
        if q[0] > 0 and int(look[i, _MATERIAL]) == _BUS_BODY and 0.7 < w < 0.92 and abs(q[1]) < 0.8:
            lit = uniform3(int(q[1] * 18.0 + 100), int(q[2] * 18.0 + 100), i) > 0.5
            return (0.9, 0.45, 0.02, 0.0) if lit else (0.02, 0.02, 0.02, 0.0)
        if (
            int(look[i, _MATERIAL]) == _TRUCK_CAB
            and -0.45 < w < -0.05
            and abs(q[1]) < 0.7 * half[1]
        ):
            return 0.03, 0.03, 0.03, 0.1
    elif -0.4 < w < -0.18 and int(look[i, _MATERIAL]) == _BUS_BODY:
        return _tint(look, i, _ACCENT, 1.0, 0.3)
    if w < -0.85:
        return 0.03, 0.03, 0.03, 0.0
    return _tint(look, i, _COLOR, 1.0, 0.35)


@kernel
def _cargo(
    look: np.ndarray,
    i: int,
    q: tuple[float, float, float],
    half: tuple[float, float, float],
    face: int,
    salt: int,
) -> Rgbg:
    """Corrugated or plain box with a panel of the second colour; doors at the back."""
    u = q[0] if face == 1 else q[1]
    if face == 0 and q[0] < 0:
        if abs(q[1]) < 0.02 or abs(abs(q[1]) - 0.3 * half[1]) < 0.02:
            return 0.05, 0.05, 0.05, 0.0
        if q[2] < -0.86 * half[2] and abs(q[1]) > 0.7 * half[1]:
            return 0.5, 0.01, 0.01, 0.2
    if face == 1 and salt % 3 == 0 and abs(q[0]) < 0.6 * half[0] and abs(q[2]) < 0.35 * half[2]:
        glyph = uniform3(int(q[0] * 3.0 + 90), int(q[2] * 2.5 + 90), salt) > 0.45
        if glyph:
            return _tint(look, i, _ACCENT, 1.0, 0.1)
    ribs = 0.88 + 0.12 * math.sin(28.0 * u) if salt % 2 == 0 else 0.97
    return _tint(look, i, _COLOR, ribs, 0.12)


@kernel
def _sign(
    look: np.ndarray, i: int, q: tuple[float, float, float], half: tuple[float, float, float]
) -> Rgbg:
    """Rim and symbols of a traffic sign; discs lie in their own x and y, plates in y and z."""
    if look[i, _PATTERN] < 1.5:
        u, v = q[0] / half[0], q[1] / half[1]
        rim = math.sqrt(u * u + v * v)
        if look[i, _PATTERN] < 0.5 and abs(u) < 0.17 and abs(v) < 0.7:
            return _tint(look, i, _ACCENT, 1.0, 0.0)
    else:
        u, v = q[1] / half[1], q[2] / half[2]
        rim = max(abs(u), abs(v))
        if rim < 0.75 and uniform3(int(u * 6 + 20), int(v * 3 + 20), i) > 0.55:
            return _tint(look, i, _ACCENT, 1.0, 0.0)
    if 0.8 < rim < 0.93:
        return _tint(look, i, _ACCENT, 1.0, 0.0)
    return _tint(look, i, _COLOR, 1.0, 0.0)


@kernel
def _signal(look: np.ndarray, i: int, q: tuple[float, float, float]) -> Rgbg:
    """Three lamps, one lit, on the side that looks along own -x."""
    if q[0] < 0:
        for lamp in range(3):
            z = q[2] - 0.3 * (1 - lamp)
            if q[1] * q[1] + z * z < 0.0145:
                k = 2.5 if int(look[i, _PATTERN]) == lamp else 0.1
                return (0.9 if lamp < 2 else 0.05) * k, (0.03, 0.5, 0.8)[lamp] * k, 0.05 * k, 0.0
    return 0.02, 0.02, 0.02, 0.1


@kernel
def _natural(look: np.ndarray, i: int, q: tuple[float, float, float], salt: int, t: float) -> Rgbg:
    """Leaves and bark."""
    if int(look[i, _MATERIAL]) == _BARK:
        turn = math.atan2(q[1], q[0])
        return _tint(look, i, _COLOR, 0.5 + value_noise(6.0 * turn, 2.5 * q[2], salt), 0.0)
    scale = 25.0 if t < 9.0 else (14.0 if t < 18.0 else 7.0)
    k = uniform3(int(q[0] * scale + 900), int(q[1] * scale + 900), int(q[2] * scale + 900) + salt)
    mix = k * k
    light = 0.55 + 0.9 * uniform3(
        int(q[0] * 2.5 + 90), int(q[1] * 2.5 + 90), int(q[2] * 2.5) + salt
    )
    rest = 1.0 - mix
    return (
        light * (look[i, 1] * mix + look[i, 4] * rest),
        light * (look[i, 2] * mix + look[i, 5] * rest),
        light * (look[i, 3] * mix + look[i, 6] * rest),
        0.0,
    )


@kernel
def _striped(
    look: np.ndarray,
    i: int,
    q: tuple[float, float, float],
    half: tuple[float, float, float],
    face: int,
) -> Rgbg:
    """Cones, awnings and warning boards."""
    if int(look[i, _MATERIAL]) == _STRIPES:
        wide = half[1] > 4.0 * half[2]  # an awning
        band = (q[0] + 9.0) / 0.3 if wide else 2.5 * (q[2] / half[2] + 1.0)
    elif look[i, _PATTERN] > 0.5:
        return _tint(look, i, _COLOR, 0.6 if abs(abs(q[0]) - 0.35) < 0.02 else 1.0, 0.1)
    else:
        band = ((q[0] if face != 0 else q[1]) + q[2] + 50.0) / 0.3
    return _tint(look, i, _ACCENT if int(band) % 2 else _COLOR, 1.0, 0.0)


@kernel
def _wheel(
    look: np.ndarray, i: int, q: tuple[float, float, float], half: tuple[float, float, float]
) -> Rgbg:
    radius = math.sqrt(q[0] * q[0] + q[1] * q[1]) / half[0]
    if radius > 0.62:
        return _tint(look, i, _COLOR, 1.0, 0.0)
    gap = math.sin(5.0 * math.atan2(q[1], q[0])) > 0.2 and radius > 0.18
    return _tint(look, i, _ACCENT, 0.3 if gap else 1.0, 0.2)


@kernel
def surface_color(  # noqa: C901 (one row per material)
    look: np.ndarray,
    i: int,
    q: tuple[float, float, float],
    half: tuple[float, float, float],
    face: int,
    salt: int,
    t: float,
) -> Rgbg:
    """Linear colour and gloss of primitive i at own-frame point q, seen from t metres."""
    material = int(look[i, _MATERIAL])
    if is_glass(look, i, q, half, face):
        return _PANE
    if material in (_FOLIAGE, _BARK):
        return _natural(look, i, q, salt, t)
    if material == _FACADE:
        if face == 2:
            return _tint(look, i, _ACCENT, 0.5, 0.0)
        u, wide = (q[1], half[1]) if face == 0 else (q[0], half[0])
        return _facade(look, i, u, q[2] + half[2], (wide, 2.0 * half[2]), salt, t)
    if material == _CAR_BODY:
        return _car(look, i, q, half, face)
    if material == _CAR_CABIN:
        return _tint(look, i, _COLOR, 1.0, 0.45)
    if material == _WHEEL:
        return _wheel(look, i, q, half)
    if material in (_STRIPES, _DIAGONAL):
        return _striped(look, i, q, half, face)
    if material == _SIGN:
        return _sign(look, i, q, half)
    if material in (_BUS_BODY, _TRUCK_CAB):
        return _bus(look, i, q, half, face)
    if material == _CARGO:
        return _cargo(look, i, q, half, face, salt)
    if material == _SIGNAL:
        return _signal(look, i, q)
    if material == _WALL:
        u = q[1] if face == 0 else q[0]
        v = q[1] if face == 2 else q[2]
        return _tint(look, i, _COLOR, _blocks(u + 50.0, v + 50.0, 0.5, 0.25, 0.02, salt, t), 0.0)
    if material == _ROOF:
        return _tint(look, i, _COLOR, _blocks(q[0], q[2] + q[1], 0.3, 0.3, 0.04, salt, t), 0.0)
    if material == _CLOTH:
        k = 0.75 + 0.5 * value_noise(9.0 * (q[0] + q[1]), 6.0 * q[2], salt)
        return _tint(look, i, _COLOR, k, 0.0)
    return _tint(look, i, _COLOR, 1.0, 0.25 if material == _METAL else 0.05)


@kernel
def ground_color(
    paving: Paving,
    road: np.ndarray,
    spot: tuple[int, float, float, float, float],
    t: float,
) -> Rgbg:
    """Linear colour of the ground at spot = (category, x, y, s, d), seen from t metres."""
    category, x, y, s, d = spot
    red, green, blue = (
        paving.color[category, 0],
        paving.color[category, 1],
        paving.color[category, 2],
    )
    salt = paving.salt
    fine = uniform3(math.floor(x * 22.0), math.floor(y * 22.0), salt) - 0.5
    fine *= min(1.0, 12.0 / (t + 1.0))
    if category in (_ROAD, _PARKING):
        if category == _ROAD and lane_marking(s, d, road):
            worn = 0.55 + 0.25 * value_noise(2.0 * x, 2.0 * y, salt) + 0.15 * fine
            return worn, worn, worn * 0.95, 0.0
        k = 0.8 + 0.4 * value_noise(0.35 * x, 0.35 * y, salt) + 0.35 * fine
        k -= 0.18 * abs(math.sin(1.8 * d)) * value_noise(0.1 * s, 0.5 * d, salt + 1)
        patch = value_noise(0.12 * s, 0.3 * d, salt + 2)
        if patch > 0.78:
            k *= 0.72
        if abs(patch - 0.5) < 0.006 and t < 25.0:
            k *= 0.6
        if category == _PARKING and (s + 1000.0) % 5.6 < 0.12:
            return 0.6, 0.6, 0.58, 0.0
        return red * k, green * k, blue * k, 0.04
    if category == _TERRAIN:
        k = 0.55 + 0.5 * value_noise(0.6 * x, 0.6 * y, salt) + 0.4 * value_noise(5 * x, 5 * y, salt)
        dry = 0.8 * value_noise(0.17 * x, 0.17 * y, salt + 4)
        k += 0.9 * fine
        return red * k * (1 + 0.9 * dry), green * k * (1 + 0.25 * dry), blue * k, 0.0
    k = _blocks(s + 500.0, d + 500.0, paving.tile, paving.tile, 0.02, salt, t)
    k *= 0.85 + 0.3 * value_noise(0.5 * x, 0.5 * y, salt + 1) + 0.15 * fine
    return red * k, green * k, blue * k, 0.0
