"""All solids of a room as arrays, for rays and for distances."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64
from pc_geometry.compiling import kernel

from pc_data.synthetic.ground import RASTER_SIZE
from pc_data.synthetic.raycast import World, build_world
from pc_data.synthetic.room_parts import Item, Piece, axes_of
from pc_data.synthetic.solids import (
    BOX,
    CYLINDER,
    Primitives,
    normal_at,
    own_frame,
)

_DEPTH = -50.0  # metres, of a ground that no ray may meet


class RoomObject(NamedTuple):
    """One thing of a room.

    Attributes:
        name: Raw category, as ScanNet's annotators wrote it.
        cuboid: The box around all of it, in its own heading: x, y, z, length, width, height, yaw;
            see `pc_geometry.boxes`.
    """

    name: str
    cuboid: Float64[np.ndarray, " 7"]


class RoomSolids(NamedTuple):
    """The solids of a room, one row each.

    Attributes:
        primitives: Their shapes.
        instance: Number of the object that each is of, from 1.
        color: Display values, 0..1.
        accent: Second colour.
        finish: Number of `Finish`.
    """

    primitives: Primitives
    instance: Int64[np.ndarray, " p"]
    color: Float64[np.ndarray, "p 3"]
    accent: Float64[np.ndarray, "p 3"]
    finish: Int64[np.ndarray, " p"]

    def world(self) -> World:
        """For `pc_data.synthetic.raycast`."""
        heights = np.full((RASTER_SIZE, RASTER_SIZE), _DEPTH, dtype=np.float32)
        return build_world(heights, np.zeros(8), self.primitives)


def flatten(items: list[Item]) -> list[Item]:
    """Items and their extras, each for itself."""
    flat: list[Item] = []
    for item in items:
        flat += [item._replace(extras=()), *flatten(list(item.extras))]
    return flat


def build_solids(
    items: list[Item], rng: np.random.Generator
) -> tuple[RoomSolids, tuple[RoomObject, ...]]:
    """Stack the pieces of a room's things, and box each thing."""
    flat = flatten(items)
    pieces = [piece for item in flat for piece in item.pieces]
    primitives = Primitives(
        np.array([piece.kind for piece in pieces], dtype=np.int32),
        np.array([piece.center for piece in pieces], dtype=np.float32),
        np.array([axes_of(piece) for piece in pieces], dtype=np.float32),
        np.array([piece.half for piece in pieces], dtype=np.float32),
        np.ones((len(pieces), 2), dtype=np.float32),
        np.ones(len(pieces), dtype=np.float32),
        rng.integers(1, 1 << 20, len(pieces)).astype(np.int32),
    )
    solids = RoomSolids(
        primitives,
        np.repeat(np.arange(1, len(flat) + 1), [len(item.pieces) for item in flat]),
        np.array([piece.look.color for piece in pieces]),
        np.array([piece.look.accent for piece in pieces]),
        np.array([piece.look.finish for piece in pieces], dtype=np.int64),
    )
    return solids, tuple(RoomObject(item.name, _cuboid(item.pieces)) for item in flat)


def _cuboid(pieces: tuple[Piece, ...]) -> Float64[np.ndarray, " 7"]:
    """Box in the heading of the first piece, with a yaw in [-pi, pi)."""
    yaw = (pieces[0].yaw + np.pi) % (2 * np.pi) - np.pi
    back = Item("", pieces).moved(0.0, 0.0, yaw=-yaw)
    low, high = back.extent()
    c, s = np.cos(yaw), np.sin(yaw)
    x, y, z = 0.5 * (low + high)
    return np.array([c * x - s * y, s * x + c * y, z, *(high - low), yaw])


@kernel
def _describe(
    table: np.ndarray, hits: np.ndarray, xyz: np.ndarray, own: np.ndarray, normals: np.ndarray
) -> None:
    for k in range(len(hits)):
        q = own_frame(table, hits[k], float(xyz[k, 0]), float(xyz[k, 1]), float(xyz[k, 2]))
        a, b, c, _ = normal_at(table, hits[k], q)
        own[k, 0], own[k, 1], own[k, 2] = q
        normals[k, 0], normals[k, 1], normals[k, 2] = a, b, c


def describe_surface(
    world: World, hits: np.ndarray, xyz: Float64[np.ndarray, "n 3"]
) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 3"]]:
    """Points in their solids' own frames (metres), and unit normals in the room's."""
    own, normals = np.empty((len(xyz), 3)), np.empty((len(xyz), 3))
    _describe(world.solids, np.ascontiguousarray(hits, dtype=np.int64), xyz, own, normals)
    return own, normals


def distance_to(
    primitives: Primitives, row: int, xyz: Float32[np.ndarray, "n 3"]
) -> Float32[np.ndarray, " n"]:
    """Signed distance of points to a solid, negative inside; round ones near the surface only."""
    half = primitives.half[row]
    # einsum, so that no BLAS decides about the last bits.
    away = (xyz - primitives.center[row]).astype(np.float32)
    own = np.abs(np.einsum("nj,ji->ni", away, primitives.axes[row]))
    if primitives.kind[row] == BOX:
        beyond = own - half
        return np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(1), 0)
    if primitives.kind[row] == CYLINDER:
        radial = (np.hypot(own[:, 0] / half[0], own[:, 1] / half[1]) - 1) * min(half[0], half[1])
        axial = own[:, 2] - half[2]
        outside = np.hypot(np.maximum(radial, 0), np.maximum(axial, 0))
        return outside + np.minimum(np.maximum(radial, axial), 0)
    unit = np.linalg.norm(own / half, axis=1)
    slope = np.linalg.norm(own / half**2, axis=1)
    return unit * (unit - 1) / np.maximum(slope, 1e-6)
