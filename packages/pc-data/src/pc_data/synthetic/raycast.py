"""Rays against boxes, cones, ellipsoids and the ground, through a uniform grid over x and y.

Kernels release the interpreter lock and use no inner threads: callers run them from as many
Python threads as they like, in worker processes too, and the results are the same.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32
from pc_geometry.compiling import kernel

from pc_data.synthetic.ground import HALF_EXTENT, RESOLUTION
from pc_data.synthetic.solids import Primitives, enter, solids_table

CELL = 2.0  # metres
NUM_CELLS = int(2 * HALF_EXTENT / CELL)
GROUND, MISS = -1, -2


class World(NamedTuple):
    """All that a ray can meet, indexed.

    Attributes:
        heights: Ground raster, see `pc_data.synthetic.ground`.
        road: Packed road, see `Road.params`.
        cells: Highest ground and highest point of anything in each cell, metres.
        start: Cell to its first entry in `entries`.
        entries: Primitive numbers, cell by cell.
        solids: The primitives, one row each.
    """

    heights: Float32[np.ndarray, "rows columns"]
    road: Float64[np.ndarray, " p"]
    cells: Float32[np.ndarray, "cells 2"]
    start: Int32[np.ndarray, " cells1"]
    entries: Int32[np.ndarray, " e"]
    solids: Float32[np.ndarray, "n 21"]


@kernel
def _cell_heights(heights: np.ndarray, high: np.ndarray) -> None:
    for row in range(NUM_CELLS):
        for column in range(NUM_CELLS):
            a = int(row * CELL / RESOLUTION)
            b = int(column * CELL / RESOLUTION)
            top = heights[a, b]
            for j in range(a, min(a + int(CELL / RESOLUTION) + 3, heights.shape[0])):
                for i in range(b, min(b + int(CELL / RESOLUTION) + 3, heights.shape[1])):
                    top = max(top, heights[j, i])
            high[row * NUM_CELLS + column] = top


@kernel
def _cell_range(center: float, reach: float) -> tuple[int, int]:
    first = math.floor((center - reach + HALF_EXTENT) / CELL)
    last = math.floor((center + reach + HALF_EXTENT) / CELL)
    return max(first, 0), min(last, NUM_CELLS - 1)


@kernel
def _fill_cells(
    center: np.ndarray, reach: np.ndarray, top: np.ndarray, start: np.ndarray, entries: np.ndarray
) -> None:
    """Count primitives per cell into `start` or, if `entries` has room, write them."""
    count = np.zeros(NUM_CELLS * NUM_CELLS, dtype=np.int32)
    for i in range(len(center)):
        x_first, x_last = _cell_range(center[i, 0], reach[i, 0])
        y_first, y_last = _cell_range(center[i, 1], reach[i, 1])
        for row in range(y_first, y_last + 1):
            for column in range(x_first, x_last + 1):
                cell = row * NUM_CELLS + column
                if len(entries):
                    entries[start[cell] + count[cell]] = i
                else:
                    start[cell + 1] += 1
                    top[cell] = max(top[cell], center[i, 2] + reach[i, 2])
                count[cell] += 1


def build_world(
    heights: Float32[np.ndarray, "rows columns"],
    road: Float64[np.ndarray, " p"],
    primitives: Primitives,
) -> World:
    """Index the ground and the primitives for `trace`."""
    count = NUM_CELLS * NUM_CELLS
    high = np.empty(count, dtype=np.float32)
    _cell_heights(heights, high)
    reach = np.einsum("nij,nj->ni", np.abs(primitives.axes), primitives.half) + np.float32(0.01)
    top = high.copy()
    start = np.zeros(count + 1, dtype=np.int32)
    _fill_cells(primitives.center, reach, top, start, np.empty(0, dtype=np.int32))
    start = np.cumsum(start, dtype=np.int32)
    entries = np.empty(start[-1], dtype=np.int32)
    if len(entries):
        _fill_cells(primitives.center, reach, top, start, entries)
    cells = np.stack([high, top], axis=1)
    return World(heights, road, cells, start, entries, solids_table(primitives))


@kernel
def height_at(heights: np.ndarray, x: float, y: float) -> float:
    """Bilinear height of the ground raster, metres."""
    u = (x + HALF_EXTENT) / RESOLUTION
    v = (y + HALF_EXTENT) / RESOLUTION
    i = min(max(int(u), 0), heights.shape[1] - 2)
    j = min(max(int(v), 0), heights.shape[0] - 2)
    u -= i
    v -= j
    low = heights[j, i] * (1.0 - u) + heights[j, i + 1] * u
    high = heights[j + 1, i] * (1.0 - u) + heights[j + 1, i + 1] * u
    return low * (1.0 - v) + high * v


@kernel
def _ground_hit(
    heights: np.ndarray,
    origin: tuple[float, float, float],
    ray: tuple[float, float, float],
    near: float,
    far: float,
) -> float:
    """Where the ray goes under the ground between near and far, or a huge number."""
    length = (far - near) * math.sqrt(ray[0] * ray[0] + ray[1] * ray[1])
    steps = int(length / 0.3) + 1
    before = near
    for k in range(1, steps + 1):
        after = near + (far - near) * k / steps
        ground = height_at(heights, origin[0] + after * ray[0], origin[1] + after * ray[1])
        if origin[2] + after * ray[2] < ground:
            for _ in range(5):
                t = 0.5 * (before + after)
                ground = height_at(heights, origin[0] + t * ray[0], origin[1] + t * ray[1])
                if origin[2] + t * ray[2] < ground:
                    after = t
                else:
                    before = t
            return after
        before = after
    return 1e30


@kernel
def trace(
    world: World,
    origin: tuple[float, float, float],
    ray: tuple[float, float, float],
    far: float,
    with_ground: bool,
) -> tuple[float, int]:
    """Follow a ray (unit direction, origin inside the world) to the first surface.

    Returns:
        Distance in metres and the primitive's number, `GROUND` or `MISS`.
    """
    u = (origin[0] + HALF_EXTENT) / CELL
    v = (origin[1] + HALF_EXTENT) / CELL
    column = math.floor(u)
    row = math.floor(v)
    right = 1 if ray[0] > 0 else -1
    up = 1 if ray[1] > 0 else -1
    pace_x = CELL / max(abs(ray[0]), 1e-12)
    pace_y = CELL / max(abs(ray[1]), 1e-12)
    next_x = ((column + 1 - u) if right > 0 else (u - column)) * pace_x
    next_y = ((row + 1 - v) if up > 0 else (v - row)) * pace_y
    best = far
    found = MISS
    near = 0.0
    while 0 <= row < NUM_CELLS and 0 <= column < NUM_CELLS and near < best:
        leave = min(next_x, next_y, best)
        lowest = origin[2] + min(near * ray[2], leave * ray[2])
        cell = row * NUM_CELLS + column
        if lowest < world.cells[cell, 1]:
            for entry in range(world.start[cell], world.start[cell + 1]):
                i = world.entries[entry]
                t = enter(world.solids, i, origin, ray, best)
                if t < best:
                    best = t
                    found = i
            if with_ground and lowest < world.cells[cell, 0]:
                t = _ground_hit(world.heights, origin, ray, near, min(leave, best))
                if t < best:
                    best = t
                    found = GROUND
        near = leave
        if next_x < next_y:
            next_x += pace_x
            column += right
        else:
            next_y += pace_y
            row += up
    return best, found


@kernel
def _cast(
    world: World, origins: np.ndarray, rays: np.ndarray, far: float, t: np.ndarray, hit: np.ndarray
) -> None:
    for k in range(len(rays)):
        o = (float(origins[k, 0]), float(origins[k, 1]), float(origins[k, 2]))
        d = (float(rays[k, 0]), float(rays[k, 1]), float(rays[k, 2]))
        t[k], hit[k] = trace(world, o, d, far, True)


def cast_rays(
    world: World, origins: np.ndarray, rays: np.ndarray, *, far: float = 120.0
) -> tuple[np.ndarray, np.ndarray]:
    """Follow rays (unit directions, scene frame) to their first surfaces.

    Returns:
        Distances in metres (`far` where nothing was met) and primitive numbers, or `GROUND` or
        `MISS`.
    """
    rays = np.ascontiguousarray(rays, dtype=np.float64)
    origins = np.ascontiguousarray(np.broadcast_to(origins, rays.shape), dtype=np.float64)
    t = np.empty(len(rays))
    hit = np.empty(len(rays), dtype=np.int32)
    _cast(world, origins, rays, far, t, hit)
    return t, hit
