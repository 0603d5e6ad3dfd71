"""Synthetic rooms as an RGB-D scanner reconstructs them: a mesh with holes, labels and frames."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8

from pc_data.readers.scannet_files import vertex_normals
from pc_data.synthetic.room_looks import RoomLight, radiance
from pc_data.synthetic.room_parts import Finish
from pc_data.synthetic.room_plan import furnish_room
from pc_data.synthetic.room_solids import (
    RoomObject,
    RoomSolids,
    build_solids,
    describe_surface,
    distance_to,
)
from pc_data.synthetic.room_style import TRAIN, VAL
from pc_data.synthetic.room_views import (
    RoomFrame,
    patchy,
    richest_views,
    seen_from,
    take_frame,
    to_display,
    walk_path,
)
from pc_data.synthetic.surface_nets import surface_net

_NUM_VIEWS = 44  # of the walk that the mesh is fused from
_MARGIN = 0.22  # metres of grid outside the room, for doors and windows in the walls


@dataclass(frozen=True, kw_only=True)
class Room:
    """A scanned room; all in the room's frame: metres, z up from the floor, walls along x and y.

    Attributes:
        kind: E.g. `kitchen`.
        size: Width (x), depth (y) and height; the origin lies in the middle of the floor.
        xyz: Vertices.
        faces: Triangles, counter-clockwise from outside.
        color: Of the vertices, RGB.
        instance: Number of the object that a vertex is of, from 1.
        objects: Number k is `objects[k - 1]`; not all of them have vertices.
        frames: RGB-D images from along the walk.
    """

    kind: str
    size: tuple[float, float, float]
    xyz: Float32[np.ndarray, "n 3"]
    faces: Int32[np.ndarray, "f 3"]
    color: UInt8[np.ndarray, "n 3"]
    instance: Int64[np.ndarray, " n"]
    objects: tuple[RoomObject, ...]
    frames: tuple[RoomFrame, ...]


def make_room(
    seed: int | tuple[int, ...],
    is_val: bool,
    *,
    kind: str | None = None,
    voxel_size: float = 0.03,
    num_frames: int = 4,
    image_size: tuple[int, int] = (320, 240),
) -> Room:
    """Furnish a room, carry a camera through it, and fuse what it sees.

    The mesh follows the signed distance to the furniture on a grid, so edges are rounded and thin
    things break as they do in a reconstruction; what no view shows is missing. Colours hold light,
    shadow and the seams between exposures.

    Args:
        seed: Of everything.
        is_val: Whether to draw from the validation style: colours, finishes and shapes that
            training rooms do not have.
        kind: A key of `room_plan.KINDS`; drawn if None.
        voxel_size: Distance between vertices, metres.
        num_frames: Images to take.
        image_size: Their (width, height).
    """
    rng = np.random.default_rng((*np.atleast_1d(seed).tolist(), int(is_val), 31))
    kind, size, items = furnish_room(rng, VAL if is_val else TRAIN, kind=kind)
    solids, objects = build_solids(items, rng)
    world = solids.world()
    light = _draw_light(rng, size, objects)
    poses = walk_path(rng, size, world, num_views=max(_NUM_VIEWS, num_frames))
    xyz, faces, hits = _mesh(solids, size, voxel_size, rng.uniform(-0.5, 0.5, 3))
    # A vertex lies a little off its solid, so that its normal is the mesh's.
    normals = vertex_normals(xyz, faces).astype(np.float64)
    own, _ = describe_surface(world, hits, xyz)
    color = radiance(solids, world, light, hits, xyz, own, normals)
    xyz += _rough(xyz, voxel_size, rng)[:, None] * normals
    kept = seen_from(world, poses, xyz, normals) > 0
    kept &= (solids.finish[hits] != Finish.GLASS) | (patchy(xyz, scale=0.25, salt=77) > 0.35)
    kept, faces = _cut(kept, faces)
    xyz, color, hits = xyz[kept], color[kept], hits[kept]
    frames = [
        take_frame(solids, world, light, poses[k], image_size=image_size, rng=rng)
        for k in richest_views(solids, world, poses, num_frames)
    ]
    return Room(
        kind=kind,
        size=size,
        xyz=xyz.astype(np.float32),
        faces=faces,
        color=_weather(color, xyz, rng),
        instance=solids.instance[hits],
        objects=objects,
        frames=tuple(frames),
    )


def _draw_light(
    rng: np.random.Generator, size: tuple[float, float, float], objects: tuple[RoomObject, ...]
) -> RoomLight:
    """A lamp under the ceiling and the windows."""
    lamp = [rng.uniform(-0.15, 0.15) * size[0], rng.uniform(-0.15, 0.15) * size[1], size[2] - 0.3]
    positions, strengths = [lamp], [rng.uniform(0.8, 1.2) * np.array([1.0, 0.96, 0.9])]
    for window in (item for item in objects if item.name == "window"):
        x, y, z = window.cuboid[:3]
        positions.append([0.9 * x, 0.9 * y, z + 0.2])
        strengths.append(rng.uniform(0.3, 0.9) * np.array([0.92, 0.97, 1.0]))
    ambient = rng.uniform(0.42, 0.6) * np.array([1.0, 0.98, 0.96])
    return RoomLight(np.array(positions), np.array(strengths), ambient)


def _mesh(
    solids: RoomSolids,
    size: tuple[float, float, float],
    voxel_size: float,
    offset: Float64[np.ndarray, " 3"],
) -> tuple[Float64[np.ndarray, "n 3"], Int64[np.ndarray, "f 3"], Int64[np.ndarray, " n"]]:
    """Mesh the union of the solids; the last is the solid that each vertex is of."""
    low = np.array([-0.5 * size[0], -0.5 * size[1], 0.0]) - _MARGIN + offset * voxel_size
    shape = np.ceil((np.array(size) + 2 * _MARGIN) / voxel_size).astype(int) + 1
    distance, nearest = _distances(solids, low, shape, voxel_size)
    cells, place, faces = surface_net(distance)
    xyz = low + cells * voxel_size
    return xyz, faces, _nearest_solids(solids, xyz, place, nearest)


def _nearest_solids(
    solids: RoomSolids,
    xyz: Float64[np.ndarray, "n 3"],
    place: Int64[np.ndarray, "n 3"],
    nearest: np.ndarray,
) -> Int64[np.ndarray, " n"]:
    """The solid that each vertex is of, among those nearest to the corners of its cell."""
    corners = place[:, None] + np.stack(np.unravel_index(np.arange(8), (2, 2, 2)), axis=1)
    candidates = nearest[tuple(np.moveaxis(corners, 2, 0))]
    hits = np.zeros(len(xyz), dtype=np.int64)
    least = np.full(len(xyz), np.inf)
    for row in np.unique(candidates):
        own = np.flatnonzero((candidates == row).any(1))
        distance = distance_to(solids.primitives, int(row), xyz[own].astype(np.float32))
        closer = distance < least[own]
        hits[own[closer]] = row
        least[own[closer]] = distance[closer]
    return hits


def _distances(
    solids: RoomSolids,
    low: Float64[np.ndarray, " 3"],
    shape: Int64[np.ndarray, " 3"],
    voxel_size: float,
) -> tuple[Float32[np.ndarray, "a b c"], np.ndarray]:
    """Signed distance to the nearest solid at each grid point, and its row."""
    band = 2.5 * voxel_size
    distance = np.full(shape, band, dtype=np.float32)
    nearest = np.zeros(shape, dtype=np.int16)
    primitives = solids.primitives
    reach = np.einsum("nij,nj->ni", np.abs(primitives.axes), primitives.half) + band
    for row in range(len(primitives.kind)):
        first = np.floor((primitives.center[row] - reach[row] - low) / voxel_size).astype(int)
        last = np.ceil((primitives.center[row] + reach[row] - low) / voxel_size).astype(int) + 1
        first, last = np.clip(first, 0, shape), np.clip(last, 0, shape)
        if (last <= first).any():
            continue
        axes = [low[k] + voxel_size * np.arange(first[k], last[k]) for k in range(3)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=3).reshape(-1, 3)
        own = distance_to(primitives, row, grid.astype(np.float32)).reshape(last - first)
        window = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        closer = own < distance[window]
        distance[window][closer] = own[closer]
        nearest[window][closer] = row
    return distance, nearest


def _rough(
    xyz: Float64[np.ndarray, "n 3"], voxel_size: float, rng: np.random.Generator
) -> Float64[np.ndarray, " n"]:
    """How far vertices lie off their surface, metres: waves and grain of the reconstruction."""
    waves = 0.006 * patchy(xyz, scale=0.35, salt=11) + 0.004 * patchy(xyz, scale=0.12, salt=12)
    return waves + rng.normal(0, 0.04 * voxel_size, len(xyz))


def _cut(
    kept: np.ndarray, faces: Int64[np.ndarray, "f 3"]
) -> tuple[Int64[np.ndarray, " m"], Int32[np.ndarray, "g 3"]]:
    """Faces all of whose vertices are kept, and the vertices that these need."""
    faces = faces[kept[faces].all(1)]
    used = np.unique(faces)
    number = np.zeros(len(kept), dtype=np.int32)
    number[used] = np.arange(len(used))
    return used, number[faces]


def _weather(
    color: Float64[np.ndarray, "n 3"], xyz: Float64[np.ndarray, "n 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "n 3"]:
    """Colours as fused from several exposures: seams, a tint here and there, grain."""
    seams = 0.09 * patchy(xyz, scale=0.9, salt=21) + 0.05 * patchy(xyz, scale=0.3, salt=22)
    tint = 0.03 * np.stack([patchy(xyz, scale=1.3, salt=31 + k) for k in range(3)], axis=1)
    grain = rng.normal(0, 0.02, color.shape)
    return to_display(color * (1 + seams)[:, None] + tint + grain)
