"""Colour of a room's surfaces: finish, light, shadow."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from pc_geometry.compiling import kernel

from pc_data.synthetic.noise import uniform3, value_noise
from pc_data.synthetic.raycast import MISS, World, cast_rays
from pc_data.synthetic.room_parts import Finish
from pc_data.synthetic.room_solids import RoomSolids

Colors = Float64[np.ndarray, "n 3"]


class RoomLight(NamedTuple):
    """Lamps of a room.

    Attributes:
        position: Of each lamp, metres.
        strength: Of each lamp at one metre, with its colour.
        ambient: Light from everywhere.
    """

    position: Float64[np.ndarray, "l 3"]
    strength: Float64[np.ndarray, "l 3"]
    ambient: Float64[np.ndarray, " 3"]


@kernel
def _noise(u: np.ndarray, v: np.ndarray, salt: np.ndarray, out: np.ndarray) -> None:
    for k in range(len(u)):
        out[k] = value_noise(float(u[k]), float(v[k]), int(salt[k]))


@kernel
def _hash(i: np.ndarray, j: np.ndarray, k: np.ndarray, out: np.ndarray) -> None:
    for n in range(len(i)):
        out[n] = uniform3(int(i[n]), int(j[n]), int(k[n]))


def noise_at(u: np.ndarray, v: np.ndarray, salt: np.ndarray) -> Float64[np.ndarray, " n"]:
    """Smooth noise in 0..1 with one lattice point per unit."""
    out = np.empty(len(u))
    _noise(np.ascontiguousarray(u), np.ascontiguousarray(v), np.ascontiguousarray(salt), out)
    return out


def _cell_hash(i: np.ndarray, j: np.ndarray, salt: np.ndarray) -> Float64[np.ndarray, " n"]:
    out = np.empty(len(i))
    _hash(i.astype(np.int64), j.astype(np.int64), np.ascontiguousarray(salt, dtype=np.int64), out)
    return out


def albedo(
    solids: RoomSolids,
    hits: Int64[np.ndarray, " n"],
    own: Float64[np.ndarray, "n 3"],
    own_normal: Float64[np.ndarray, "n 3"],
) -> Colors:
    """Colour of points of solids without light, display values 0..1."""
    color, accent = solids.color[hits], solids.accent[hits]
    salt = solids.primitives.salt[hits].astype(np.int64)
    # Two axes along the face: the two that its normal points along least.
    axis = np.argmax(np.abs(own_normal), axis=1)
    rows = np.arange(len(own))
    u = own[rows, np.where(axis == 0, 1, 0)]
    v = own[rows, np.where(axis == 2, 1, 2)]
    finish = solids.finish[hits]
    for number, paint in _PAINTS.items():
        chosen = np.flatnonzero(finish == number)
        if len(chosen):
            color[chosen] = paint(u[chosen], v[chosen], color[chosen], accent[chosen], salt[chosen])
    blotch = noise_at(1.7 * u, 1.7 * v, salt + 5)
    return np.clip(color * (0.9 + 0.2 * blotch)[:, None], 0, 1)


def _mix(share: np.ndarray, color: Colors, accent: Colors) -> Colors:
    return color + share[:, None] * (accent - color)


def _wood(u: np.ndarray, v: np.ndarray, color: Colors, accent: Colors, salt: np.ndarray) -> Colors:
    grain = 0.6 * noise_at(1.5 * u, 26 * v, salt) + 0.4 * noise_at(4 * u, 70 * v, salt + 1)
    return _mix(0.75 * grain, color, accent)


def _planks(
    u: np.ndarray, v: np.ndarray, color: Colors, accent: Colors, salt: np.ndarray
) -> Colors:
    row = np.floor(v / 0.14)
    column = np.floor((u + 0.6 * _cell_hash(row, row, salt)) / 1.1)
    shade = 0.8 + 0.4 * _cell_hash(row, column, salt + 3)
    joint = np.minimum(v / 0.14 % 1, 1 - v / 0.14 % 1) < 0.03
    planks = _wood(u, v, color, accent, salt) * shade[:, None]
    return np.where(joint[:, None], 0.55 * planks, planks)


def _fabric(
    u: np.ndarray, v: np.ndarray, color: Colors, accent: Colors, salt: np.ndarray
) -> Colors:
    weave = 0.65 * noise_at(140 * u, 140 * v, salt) + 0.35 * noise_at(3 * u, 3 * v, salt + 1)
    return _mix(0.15 * (weave > 0.6), color, accent) * (0.85 + 0.3 * weave)[:, None]


def _stripes(
    u: np.ndarray, v: np.ndarray, color: Colors, accent: Colors, salt: np.ndarray
) -> Colors:
    period = 0.06 + 0.2 * _cell_hash(salt, salt, salt)
    along = np.where(salt % 2 == 0, u, v)
    return _mix((along / period % 1 < 0.45) * 0.85, _fabric(u, v, color, color, salt), accent)


def _checks(
    u: np.ndarray, v: np.ndarray, color: Colors, accent: Colors, salt: np.ndarray
) -> Colors:
    period = 0.1 + 0.3 * _cell_hash(salt, salt, salt)
    share = 0.4 * (u / period % 1 < 0.5) + 0.4 * (v / period % 1 < 0.5)
    return _mix(share, _fabric(u, v, color, color, salt), accent)


def _tiles(u: np.ndarray, v: np.ndarray, color: Colors, accent: Colors, salt: np.ndarray) -> Colors:
    period = 0.2 + 0.25 * _cell_hash(salt, salt, salt)
    i, j = np.floor(u / period), np.floor(v / period)
    joint = (u / period % 1 < 0.05) | (v / period % 1 < 0.05)
    shade = 0.92 + 0.16 * _cell_hash(i, j, salt)
    return np.where(joint[:, None], accent, color * shade[:, None])


def _carpet(
    u: np.ndarray, v: np.ndarray, color: Colors, accent: Colors, salt: np.ndarray
) -> Colors:
    pile = 0.6 * noise_at(45 * u, 45 * v, salt) + 0.4 * noise_at(1.1 * u, 1.1 * v, salt + 1)
    return _mix(0.8 * pile, color, accent)


def _picture(
    u: np.ndarray, v: np.ndarray, color: Colors, accent: Colors, salt: np.ndarray
) -> Colors:
    i, j = np.floor(u / 0.13), np.floor(v / 0.11)
    spots = [_cell_hash(i, j, salt + k) for k in range(3)]
    blots = noise_at(6 * u, 6 * v, salt)
    wild = 0.2 + 0.7 * np.stack(spots, axis=1)
    return _mix(0.5 + 0 * u, _mix((blots > 0.5) * 0.9, color, accent), wild)


def _books(u: np.ndarray, v: np.ndarray, color: Colors, accent: Colors, salt: np.ndarray) -> Colors:
    i = np.floor(u / 0.035)
    backs = 0.1 + 0.75 * np.stack([_cell_hash(i, i, salt + k) for k in range(3)], axis=1)
    label = (v / 0.2 % 1 > 0.6) & (v / 0.2 % 1 < 0.75)
    gap = u / 0.035 % 1 < 0.1
    backs = np.where(label[:, None], 0.5 * backs + 0.5 * color, backs)
    return np.where(gap[:, None], 0.3 * accent, backs)


def _glass(u: np.ndarray, v: np.ndarray, color: Colors, accent: Colors, salt: np.ndarray) -> Colors:
    bright = 0.75 + 0.35 * noise_at(1.5 * u, 1.5 * v, salt) + 0.1 * v
    return _mix(0.1 + 0 * u, color * bright[:, None], accent)


_PAINTS = {
    Finish.WOOD: _wood,
    Finish.PLANKS: _planks,
    Finish.FABRIC: _fabric,
    Finish.STRIPES: _stripes,
    Finish.CHECKS: _checks,
    Finish.TILES: _tiles,
    Finish.CARPET: _carpet,
    Finish.PICTURE: _picture,
    Finish.BOOKS: _books,
    Finish.GLASS: _glass,
}


def shine(
    world: World,
    light: RoomLight,
    xyz: Float64[np.ndarray, "n 3"],
    normals: Float64[np.ndarray, "n 3"],
) -> Colors:
    """Light that falls on points of surfaces: lamps with shadows, corners darker."""
    total = np.tile(light.ambient, (len(xyz), 1))
    start = xyz + 0.02 * normals
    for position, strength in zip(light.position, light.strength, strict=True):
        way = position - start
        far = np.sqrt(np.einsum("ni,ni->n", way, way))
        rays = way / far[:, None]
        facing = np.maximum(np.einsum("ni,ni->n", rays, normals), 0)
        free = np.ones(len(xyz))
        lit = np.flatnonzero(facing > 0)
        met, hits = cast_rays(world, start[lit], rays[lit], far=40.0)
        free[lit] = (hits == MISS) | (met > far[lit] - 0.05)
        power = facing * (0.25 + 0.75 * free) / (0.6 + 0.25 * far**2)
        total += power[:, None] * strength
    return total


def radiance(
    solids: RoomSolids,
    world: World,
    light: RoomLight,
    hits: Int64[np.ndarray, " n"],
    xyz: Float64[np.ndarray, "n 3"],
    own: Float64[np.ndarray, "n 3"],
    normals: Float64[np.ndarray, "n 3"],
) -> Colors:
    """Colour of points of solids as a camera sees it; bright ones exceed 1.

    Args:
        solids: Of the room.
        world: The same for rays.
        light: Lamps.
        hits: The solid that each point is of.
        xyz: Points in the room's frame.
        own: The same in their solids' frames.
        normals: Of the surface, in the room's frame.
    """
    own_normal = np.einsum("ni,nij->nj", normals, solids.primitives.axes[hits])
    color = albedo(solids, hits, own, own_normal)
    glows = solids.finish[hits] == Finish.GLASS
    return color * np.where(glows[:, None], 1.0, shine(world, light, xyz, normals))
