"""Solids: boxes, cones and ellipsoids, porous or not, against one ray.

A kernel reads scalars from one table, because a row taken as a view would cost an atomic
reference count, which is slower than the geometry.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32
from pc_geometry.compiling import kernel

from pc_data.synthetic.noise import hash3

BOX, CYLINDER, ELLIPSOID = 0, 1, 2
LEAF = 0.16  # metres, edge of the cubes that a canopy is made of
# Columns of the solids' table.
# The centre comes first (0..2), then the axes row by row (3..11).
_HALF, _TAPER, _SOLIDITY, _KIND, _REACH, _SALT = 12, 15, 17, 18, 19, 20


class Primitives(NamedTuple):
    """Solids, one row each, in the scene's frame; unit shapes under an affine map.

    A box is |x|, |y| <= w(z), |z| <= 1 in its own unit frame; a cylinder is round instead; both
    shrink from 1 at the bottom to `taper` at the top. An ellipsoid is the unit ball.

    Attributes:
        kind: BOX, CYLINDER or ELLIPSOID.
        center: Metres.
        axes: Rotation, scene-from-own.
        half: Half sizes along the own axes, metres.
        taper: Width at the top over width at the bottom, in x and y (a cylinder reads x).
        solidity: 1 is solid; 0..1 the share of filled `LEAF` cubes; -1 vertical bars, -2 a ring,
            -3 a lattice.
        salt: Seed of its leaves and its texture.
    """

    kind: Int32[np.ndarray, " n"]
    center: Float32[np.ndarray, "n 3"]
    axes: Float32[np.ndarray, "n 3 3"]
    half: Float32[np.ndarray, "n 3"]
    taper: Float32[np.ndarray, "n 2"]
    solidity: Float32[np.ndarray, " n"]
    salt: Int32[np.ndarray, " n"]


def solids_table(primitives: Primitives) -> Float32[np.ndarray, "n 21"]:
    """One row a primitive, for the kernels."""
    columns = (
        primitives.center,
        primitives.axes.reshape(-1, 9),
        primitives.half,
        primitives.taper,
        primitives.solidity[:, None],
        primitives.kind[:, None],
        np.square(primitives.half).sum(1, keepdims=True),
        primitives.salt[:, None],
    )
    return np.concatenate(columns, axis=1, dtype=np.float32)


@kernel
def _cut(value: float, slope: float, near: float, far: float) -> tuple[float, float]:
    """Clip the interval [near, far] to value + t * slope <= 0."""
    if slope > 1e-12:
        far = min(far, -value / slope)
    elif slope < -1e-12:
        near = max(near, -value / slope)
    elif value > 0.0:
        far = -1e30
    return near, far


@kernel
def _round(
    o: tuple[float, float, float], d: tuple[float, float, float], taper: float, ball: bool
) -> tuple[float, float]:
    """Interval of a ray inside the unit ball or the tapered unit cylinder."""
    near, far = -1e30, 1e30
    rate = 0.5 * (taper - 1.0)
    base = 0.5 * (taper + 1.0)
    if ball:
        a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
        b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
        c = o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1.0
    else:
        near, far = _cut(o[2] - 1.0, d[2], near, far)
        near, far = _cut(-o[2] - 1.0, -d[2], near, far)
        if near > far:
            return near, far
        w = base + rate * o[2]
        v = rate * d[2]
        a = d[0] * d[0] + d[1] * d[1] - v * v
        b = o[0] * d[0] + o[1] * d[1] - w * v
        c = o[0] * o[0] + o[1] * o[1] - w * w
    root = b * b - a * c
    if abs(a) < 1e-12:
        return _cut(c, 2.0 * b, near, far)
    if root < 0.0:
        return (near, far) if a < 0.0 else (1e30, -1e30)
    root = math.sqrt(root)
    first = (-b - root) / a
    second = (-b + root) / a
    if a > 0.0:
        return max(near, first), min(far, second)
    # Steeper than the cone: inside before the smaller root or after the larger one.
    if near <= min(far, second):
        return near, min(far, second)
    return max(near, first), far


@kernel
def _interval(
    o: tuple[float, float, float],
    d: tuple[float, float, float],
    kind: int,
    taper_x: float,
    taper_y: float,
) -> tuple[float, float]:
    """Interval of a ray inside a unit shape."""
    if kind != BOX:
        return _round(o, d, taper_x, kind == ELLIPSOID)
    rate_x = 0.5 * (1.0 - taper_x)
    rate_y = 0.5 * (1.0 - taper_y)
    w_x = rate_x * (o[2] + 1.0) - 1.0
    w_y = rate_y * (o[2] + 1.0) - 1.0
    near, far = _cut(o[2] - 1.0, d[2], -1e30, 1e30)
    near, far = _cut(-o[2] - 1.0, -d[2], near, far)
    near, far = _cut(w_x + o[0], d[0] + rate_x * d[2], near, far)
    near, far = _cut(w_x - o[0], -d[0] + rate_x * d[2], near, far)
    near, far = _cut(w_y + o[1], d[1] + rate_y * d[2], near, far)
    return _cut(w_y - o[1], -d[1] + rate_y * d[2], near, far)


@kernel
def _filled(x: float, y: float, z: float, solids: np.ndarray, i: int) -> bool:
    """Whether porous primitive i has matter at an own-frame point (metres)."""
    solidity = solids[i, _SOLIDITY]
    if solidity > 0.0:
        salt = int(solids[i, _SALT])
        j, k, m = math.floor(x / LEAF), math.floor(y / LEAF), math.floor(z / LEAF)
        return (hash3(j, k, m + 1009 * salt) & 0xFFFF) < solidity * 65536.0
    if solidity == -1.0:
        return x % 0.16 < 0.05 or abs(abs(z) - solids[i, _HALF + 2] * 0.85) < 0.05
    if solidity == -2.0:
        radius = math.sqrt(x * x + y * y) / solids[i, _HALF]
        return radius > 0.84 or radius < 0.14
    return x % 0.5 < 0.07 or z % 0.25 < 0.12


@kernel
def _porous(
    o: tuple[float, float, float],
    d: tuple[float, float, float],
    near: float,
    far: float,
    solids: np.ndarray,
    i: int,
) -> float:
    """First filled spot of porous primitive i between near and far, or a huge number."""
    leafy = solids[i, _SOLIDITY] > 0.0
    step = 0.6 * LEAF if leafy else max(far - near, 1e-3)
    a, b, c = solids[i, _HALF], solids[i, _HALF + 1], solids[i, _HALF + 2]
    t = near + (0.3 * step if leafy else 1e-3)
    while t < far:
        if _filled((o[0] + t * d[0]) * a, (o[1] + t * d[1]) * b, (o[2] + t * d[2]) * c, solids, i):
            return t
        t += step
    return 1e30


@kernel
def enter(
    solids: np.ndarray,
    i: int,
    origin: tuple[float, float, float],
    ray: tuple[float, float, float],
    best: float,
) -> float:
    """Distance at which the ray enters primitive i before `best`, or a huge number."""
    x = origin[0] - solids[i, 0]
    y = origin[1] - solids[i, 1]
    z = origin[2] - solids[i, 2]
    along = -(x * ray[0] + y * ray[1] + z * ray[2])
    away = x * x + y * y + z * z
    reach = solids[i, _REACH]
    if away - along * along > reach or (along < 0.0 and away > reach):
        return 1e30
    a, b, c = 1.0 / solids[i, _HALF], 1.0 / solids[i, _HALF + 1], 1.0 / solids[i, _HALF + 2]
    m00, m01, m02 = solids[i, 3], solids[i, 4], solids[i, 5]
    m10, m11, m12 = solids[i, 6], solids[i, 7], solids[i, 8]
    m20, m21, m22 = solids[i, 9], solids[i, 10], solids[i, 11]
    o = (
        (m00 * x + m10 * y + m20 * z) * a,
        (m01 * x + m11 * y + m21 * z) * b,
        (m02 * x + m12 * y + m22 * z) * c,
    )
    d = (
        (m00 * ray[0] + m10 * ray[1] + m20 * ray[2]) * a,
        (m01 * ray[0] + m11 * ray[1] + m21 * ray[2]) * b,
        (m02 * ray[0] + m12 * ray[1] + m22 * ray[2]) * c,
    )
    kind = int(solids[i, _KIND])
    near, far = _interval(o, d, kind, solids[i, _TAPER], solids[i, _TAPER + 1])
    if near > far or far < 0.0 or near >= best:
        return 1e30
    if solids[i, _SOLIDITY] < 1.0:
        return _porous(o, d, max(near, 0.0), min(far, best), solids, i)
    return near if near > 0.0 else 1e30


@kernel
def own_frame(
    solids: np.ndarray, i: int, x: float, y: float, z: float
) -> tuple[float, float, float]:
    """A scene point in primitive i's own frame, metres."""
    x -= solids[i, 0]
    y -= solids[i, 1]
    z -= solids[i, 2]
    return (
        solids[i, 3] * x + solids[i, 6] * y + solids[i, 9] * z,
        solids[i, 4] * x + solids[i, 7] * y + solids[i, 10] * z,
        solids[i, 5] * x + solids[i, 8] * y + solids[i, 11] * z,
    )


@kernel
def half_size(solids: np.ndarray, i: int) -> tuple[float, float, float]:
    """Half sizes of primitive i along its own axes, metres."""
    return float(solids[i, 12]), float(solids[i, 13]), float(solids[i, 14])


@kernel
def salt_of(solids: np.ndarray, i: int) -> int:
    """Seed of primitive i's texture."""
    return int(solids[i, 20])


@kernel
def _own_normal(
    solids: np.ndarray, i: int, q: tuple[float, float, float]
) -> tuple[float, float, float, int]:
    """Outward normal of a solid shape in its own frame, any length, and the face's axis."""
    half = half_size(solids, i)
    u, v, w = q[0] / half[0], q[1] / half[1], q[2] / half[2]
    kind = int(solids[i, _KIND])
    if kind == ELLIPSOID:
        return u / half[0], v / half[1], w / half[2], 0
    rate_x = 0.5 * (1.0 - solids[i, _TAPER])
    rate_y = 0.5 * (1.0 - solids[i, _TAPER + 1])
    width_x = max(1.0 - rate_x * (w + 1.0), 1e-3)
    width_y = max(1.0 - rate_y * (w + 1.0), 1e-3)
    if kind == CYLINDER:
        side_x = math.sqrt(u * u + v * v) / width_x
        side_y = 0.0
    else:
        side_x, side_y = abs(u) / width_x, abs(v) / width_y
    if abs(w) >= side_x and abs(w) >= side_y:
        return 0.0, 0.0, math.copysign(1.0, w), 2
    if kind == CYLINDER:
        return u / half[0], v / half[1], rate_x * width_x / half[2], 0
    if side_x >= side_y:
        return math.copysign(1.0 / half[0], u), 0.0, rate_x / half[2], 0
    return 0.0, math.copysign(1.0 / half[1], v), rate_y / half[2], 1


@kernel
def normal_at(
    solids: np.ndarray, i: int, q: tuple[float, float, float]
) -> tuple[float, float, float, int]:
    """Outward unit normal (scene frame) at own-frame point q, and the face's axis 0, 1 or 2.

    Leaves of a porous primitive point anywhere, on average outwards.
    """
    a, b, c, face = _own_normal(solids, i, q)
    if 0.0 < solids[i, _SOLIDITY] < 1.0:
        j, k, m = int(25.0 * q[0]), int(25.0 * q[1]), int(25.0 * q[2])
        norm = math.sqrt(a * a + b * b + c * c) + 1e-9
        bits = hash3(j, k, m + int(solids[i, _SALT]))
        a = a / norm + 1.6 * ((bits & 255) / 256.0 - 0.5)
        b = b / norm + 1.6 * (((bits >> 8) & 255) / 256.0 - 0.5)
        c = c / norm + 1.6 * (((bits >> 16) & 255) / 256.0 - 0.5)
    x = solids[i, 3] * a + solids[i, 4] * b + solids[i, 5] * c
    y = solids[i, 6] * a + solids[i, 7] * b + solids[i, 8] * c
    z = solids[i, 9] * a + solids[i, 10] * b + solids[i, 11] * c
    norm = math.sqrt(x * x + y * y + z * z) + 1e-9
    return x / norm, y / norm, z / norm, face
