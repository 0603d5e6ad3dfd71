"""What a first user waits for: `python -m tests.benchmarks.bench_first_call`.

Imports pc-geometry and calls everything once, in a new process each: with an empty compile cache,
then twice with the cache that this left. Kernels are compiled for each type of array, so everything
is called again with read-only arrays and with float64.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np


def main() -> None:
    if "--measure" in sys.argv:
        return measure()
    with tempfile.TemporaryDirectory() as cache:
        for title in ("empty cache", "filled cache", "filled cache"):
            command = [sys.executable, "-m", __spec__.name, "--measure"]
            environment = os.environ | {"NUMBA_CACHE_DIR": cache}
            environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else numba's own sources count
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            print(f"{title}: {done.stdout.strip()}{done.stderr}", flush=True)
    return None


def measure() -> None:
    start = time.perf_counter()
    import pc_geometry  # noqa: F401

    imported = time.perf_counter()
    print(f"import {imported - start:.2f} s")
    for dtype in (np.float32, np.float64):
        for writable in (True, False):
            spent = {name: seconds(call) for name, call in calls(dtype, writable=writable)}
            total = sum(spent.values())
            most = sorted(spent, key=spent.__getitem__, reverse=True)[:6]
            parts = ", ".join(f"{name} {spent[name]:.2f}" for name in most)
            kind = f"{dtype.__name__}{'' if writable else ' read-only'}"
            print(f"  {kind:17} first calls {total:5.1f} s (most: {parts})")


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def calls(
    dtype: type[np.floating], *, writable: bool
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every public function that compiles something."""
    import pc_geometry as g
    from pc_geometry import boxes, pillars, voxels

    rng = np.random.default_rng(0)
    xyz = (rng.normal(size=(500, 3)) * [20, 20, 1]).astype(dtype)
    labels = np.zeros(500, np.int64)
    cuboids = np.tile([0.0, 0, 0, 4, 2, 1.5, 0.3], (3, 1))
    xyz.flags.writeable = labels.flags.writeable = cuboids.flags.writeable = writable
    yield "farthest_point_sample", lambda: g.farthest_point_sample(xyz, 50)
    yield "knn", lambda: g.knn(xyz, xyz, 5)
    yield "radius_neighbors", lambda: g.radius_neighbors(xyz, xyz, 1.0)
    yield "cluster_radius", lambda: g.cluster_radius(xyz, 1.0)
    yield "filter_clusters", lambda: g.filter_clusters(xyz, labels)
    yield "segment_ground", lambda: g.segment_ground(xyz, sensor_height=1.7)
    yield "segment_ground_zones", lambda: g.segment_ground_zones(xyz, sensor_height=1.7)
    yield "voxel_subsample", lambda: g.voxel_subsample(xyz, 0.5)
    yield "voxel_subsample rng", lambda: g.voxel_subsample(xyz, 0.5, rng=rng)
    yield "voxel_coordinates", lambda: g.voxel_coordinates(xyz, 0.5)
    yield (
        "find_voxels",
        lambda: voxels.find_voxels(g.voxel_coordinates(xyz, 0.5), np.zeros((1, 3), int)),
    )
    yield "match_radius", lambda: g.match_radius(xyz, xyz, 1.0, max_neighbors=2, rng=rng)
    yield "occupied_volumes", lambda: g.occupied_volumes(xyz, 2.0)
    yield "estimate_normals", lambda: g.estimate_normals(xyz, 8)
    yield "range_image", lambda: g.range_image(xyz, 32, 512)
    yield "pillarize", lambda: pillars.pillarize(xyz, 0.5, bounds=(-50, -50, -5, 50, 50, 5))
    yield "points_in_pillars", lambda: pillars.points_in_pillars(xyz, xyz[:5, :2], 2.0)
    yield "points_in_boxes", lambda: boxes.points_in_boxes(xyz, cuboids)
    yield "iou_3d", lambda: boxes.iou_3d(cuboids, cuboids)
    yield "nms", lambda: boxes.nms(cuboids, np.arange(3.0), 0.5)


if __name__ == "__main__":
    main()
