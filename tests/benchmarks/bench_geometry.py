"""Speed of pc-geometry beside SciPy and NumPy: `python -m tests.benchmarks.bench_geometry`.

All candidates of a row take turns in one run, from NumPy in to NumPy out with tree builds included;
a row shows medians and how many times slower than ours the others are. Compare within a row only.
"""

import time
from collections.abc import Callable

import numpy as np
from pc_geometry import knn, voxel_subsample
from scipy.spatial import cKDTree

from tests.real_data import REAL_DATA

ROUNDS = 7


def main() -> None:
    name, scan = load_scan()
    rng = np.random.default_rng(0)
    thinned = scan[voxel_subsample(scan, 0.1, rng=rng)[0]]
    sample = thinned[np.argsort(np.linalg.norm(thinned - thinned[0], axis=1))[:20_000]]
    uniform = rng.random((1_000_000, 3), dtype=np.float32) * 8
    print(f"scan: {name}; median of {ROUNDS} rounds in ms (times ours)")
    for title, points in (("whole", scan), ("0.1 m voxels", thinned), ("training crop", sample)):
        compare(
            f"knn k=16 self-query, {title} [{len(points)}]",
            ours=lambda points=points: knn(points, points, 16),
            ours_2_threads=lambda points=points: knn(points, points, 16, num_threads=2),
            scipy=lambda points=points: cKDTree(points).query(points, 16),
            scipy_2_threads=lambda points=points: cKDTree(points).query(points, 16, workers=2),
        )
    compare(
        f"knn k=1, {len(scan)} queries in {len(thinned)} points",
        ours=lambda: knn(scan, thinned, 1),
        scipy=lambda: cKDTree(thinned).query(scan, 1),
    )
    for title, points, size in (("scan", scan, 0.1), ("uniform", uniform, 0.02)):
        compare(
            f"voxel_subsample with inverse, {title} {size} m [{len(points)}]",
            ours=lambda points=points, size=size: voxel_subsample(points, size),
            ours_random=lambda points=points, size=size: voxel_subsample(points, size, rng=rng),
            unique_key=lambda points=points, size=size: unique_of_key(points, size),
        )


def load_scan() -> tuple[str, np.ndarray]:
    """Read a real scan if there is one, else make a scene that a spinning LiDAR could see."""
    file = REAL_DATA / "semantickitti/dataset/sequences/08/velodyne/000000.bin"
    if file.is_file():
        points = np.fromfile(file, np.float32).reshape(-1, 4)[:, :3]
        return "SemanticKITTI 08/000000", np.ascontiguousarray(points)
    rng = np.random.default_rng(0)
    elevation, azimuth = np.meshgrid(
        np.radians(np.linspace(-24.8, 2.0, 64)), np.linspace(-np.pi, np.pi, 2000), indexing="ij"
    )
    to_ground = 1.73 / np.maximum(-np.sin(elevation), 1e-3)
    to_wall = (8 + 30 * (np.sin(9 * azimuth) > 0)) / np.maximum(np.abs(np.sin(azimuth)), 0.05)
    distance = np.minimum(np.minimum(to_ground, to_wall / np.cos(elevation)), 120)
    distance += rng.normal(scale=0.02, size=distance.shape)
    flat = distance * np.cos(elevation)
    axes = flat * np.cos(azimuth), flat * np.sin(azimuth), distance * np.sin(elevation)
    return "synthetic 64-beam street", np.stack(axes, axis=-1).reshape(-1, 3).astype(np.float32)


def unique_of_key(points: np.ndarray, voxel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """The usual NumPy way: sort one integer a point."""
    cells = np.floor((points - points.min(axis=0)) / voxel_size).astype(np.int64)
    _, size_y, size_z = cells.max(axis=0) + 1
    key = (cells[:, 0] * size_y + cells[:, 1]) * size_z + cells[:, 2]
    _, indices, inverse = np.unique(key, return_index=True, return_inverse=True)
    return indices, inverse


def compare(title: str, **candidates: Callable[[], object]) -> None:
    times = {name: [] for name in candidates}
    for run in candidates.values():
        run()  # compiles
    for _ in range(ROUNDS):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    medians = {name: 1e3 * float(np.median(values)) for name, values in times.items()}
    ours = medians["ours"]
    print(title)
    for name, median in medians.items():
        print(f"  {name:16} {median:8.2f} ms  {median / ours:5.2f}x")


if __name__ == "__main__":
    main()
