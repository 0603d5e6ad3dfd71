"""Speed of pc-geometry beside the packages people install today.

    uv run --group peers python -m tests.benchmarks.bench_geometry

Two rounds of the same table, one with a single processor and one with two. All candidates of a row
take turns in one process, from NumPy in to NumPy out, conversions and tree builds included; a row
shows medians, and how many times ours the others take. Compare within a row only: machines drift.
A peer that is not installed is left out.
"""

import argparse
import importlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.real_data import REAL_DATA

Run = Callable[[], object]
GROUND_LABELS = (40, 44, 48, 49, 60, 72)  # road, parking, sidewalk, other, lane marking, terrain
THREADS = int(os.environ.get("OMP_NUM_THREADS", "0"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="rows whose title contains this")
    args = parser.parse_args()
    if THREADS:
        return print_table(args.rounds, args.only)
    for threads in ("1", "2"):
        # OpenMP peers read this once, at import: hence a process for each number.
        environment = os.environ | {"OMP_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-m", __spec__.name, *sys.argv[1:]], env=environment)
    return None


def print_table(rounds: int, only: str) -> None:
    if hasattr(os, "sched_setaffinity"):  # some peers take every processor they see
        os.sched_setaffinity(0, set(list(os.sched_getaffinity(0))[:THREADS]))
    name, scan, above_ground = load_scan()
    print(f"\n{THREADS} thread(s); {name}; median of {rounds} rounds in ms (times ours)")
    for title, ours, peers in rows(scan, above_ground):
        if only in title:
            compare(title, {"ours": ours, **peers}, rounds)


def rows(scan: np.ndarray, above: np.ndarray) -> Iterator[tuple[str, Run, dict[str, Run]]]:
    yield from sampling_rows(scan, above)
    yield from neighbor_rows(scan, above)
    yield from voxel_rows(scan)
    yield from ground_rows(scan)
    yield from range_rows(scan)


def sampling_rows(scan: np.ndarray, above: np.ndarray) -> Iterator[tuple[str, Run, dict[str, Run]]]:
    from pc_geometry import farthest_point_sample

    bev = np.ascontiguousarray(above[:, :2])
    tasks = [("3D", scan, 1024), ("3D", scan, 4096), ("BEV", bev, 1024), ("BEV", bev, 4096)]
    for kind, points, count in tasks:
        peers: dict[str, Run] = {}
        if fpsample := optional("fpsample"):
            for h in (5, 7, 9):
                peers[f"fpsample kdline h={h}"] = lambda points=points, count=count, h=h: (
                    fpsample.bucket_fps_kdline_sampling(points, count, h, start_idx=0)
                )
            peers["fpsample kdtree"] = lambda points=points, count=count: (
                fpsample.bucket_fps_kdtree_sampling(points, count, start_idx=0)
            )
        title = f"farthest points {kind} {len(points)} -> {count}"
        yield title, lambda p=points, c=count: farthest_point_sample(p, c), peers


def neighbor_rows(scan: np.ndarray, above: np.ndarray) -> Iterator[tuple[str, Run, dict[str, Run]]]:
    from pc_geometry import cluster_radius, knn, radius_neighbors
    from scipy.spatial import cKDTree
    from sklearn.cluster import DBSCAN

    peers: dict[str, Run] = {"scipy": lambda: cKDTree(scan).query(scan, 16, workers=THREADS)}
    if pykdtree := optional("pykdtree.kdtree"):
        peers["pykdtree"] = lambda: pykdtree.KDTree(scan).query(scan, 16)
    if pgeof := optional("pgeof"):
        peers["pgeof"] = lambda: pgeof.knn_search(scan, scan, 16)
    title = f"knn k=16 self-query [{len(scan)}]"
    yield title, lambda: knn(scan, scan, 16, num_threads=THREADS), peers

    peers = {
        "scipy (counts only)": lambda: cKDTree(scan).query_ball_point(
            scan, 0.2, workers=THREADS, return_length=True
        )
    }
    if open3d := optional("open3d"):
        peers["open3d"] = lambda: open3d_radius(open3d, scan, 0.2)
    title = f"radius neighbours 0.2 m, all pairs as CSR [{len(scan)}]"
    yield title, lambda: radius_neighbors(scan, scan, 0.2, num_threads=THREADS), peers

    jobs = None if THREADS == 1 else THREADS
    peers = {"scikit-learn": lambda: DBSCAN(eps=0.5, min_samples=1, n_jobs=jobs).fit_predict(above)}
    if dbscan := optional("dbscan"):
        peers["dbscan"] = lambda: dbscan.DBSCAN(above.astype(np.float64), 0.5, 1)
    if open3d:
        peers["open3d"] = lambda: open3d_cloud(open3d, above).cluster_dbscan(0.5, 1)
    title = f"radius clusters 0.5 m, above ground [{len(above)}]"
    yield title, lambda: cluster_radius(above, 0.5), peers


def voxel_rows(scan: np.ndarray) -> Iterator[tuple[str, Run, dict[str, Run]]]:
    from pc_geometry import voxel_subsample

    uniform = np.random.default_rng(0).random((1_000_000, 3), dtype=np.float32) * 8
    for points, size in ((scan, 0.1), (uniform, 0.02)):
        peers: dict[str, Run] = {
            "np.unique of a key": lambda p=points, s=size: np.unique(
                ravelled(p, s), return_index=True, return_inverse=True
            ),
        }
        if torch := optional("torch"):
            torch.set_num_threads(THREADS)
            peers["torch.unique of a key"] = lambda p=points, s=size: unique_torch(p, s)
        if open3d := optional("open3d"):
            peers["open3d (no inverse)"] = lambda p=points, s=size, open3d=open3d: open3d_cloud(
                open3d, p
            ).voxel_down_sample(s)
        title = f"voxel subsample {size} m with inverse [{len(points)}]"
        yield title, lambda p=points, s=size: voxel_subsample(p, s), peers


def ground_rows(scan: np.ndarray) -> Iterator[tuple[str, Run, dict[str, Run]]]:
    from pc_geometry import segment_ground, segment_ground_zones

    peers: dict[str, Run] = {"ours, line fit": lambda: segment_ground(scan, sensor_height=1.73)}
    if patchwork := optional("pypatchworkpp"):
        parameters = patchwork.Parameters()
        parameters.verbose = False
        cloud = np.pad(scan, ((0, 0), (0, 1)))
        estimator = patchwork.patchworkpp(parameters)
        peers["pypatchworkpp"] = lambda: (
            estimator.estimateGround(cloud),
            estimator.getGroundIndices(),
        )
    yield f"ground [{len(scan)}]", lambda: segment_ground_zones(scan, sensor_height=1.73), peers


def range_rows(scan: np.ndarray) -> Iterator[tuple[str, Run, dict[str, Run]]]:
    from pc_geometry import range_image

    peers: dict[str, Run] = {"np.minimum.at": lambda: range_image_numpy(scan, 64, 2048)}
    yield f"range image 64 x 2048 [{len(scan)}]", lambda: range_image(scan, 64, 2048), peers


def ravelled(points: np.ndarray, voxel_size: float) -> np.ndarray:
    """One integer a voxel, the usual way."""
    cells = np.floor((points - points.min(axis=0)) / voxel_size).astype(np.int64)
    _, size_y, size_z = cells.max(axis=0) + 1
    return (cells[:, 0] * size_y + cells[:, 1]) * size_z + cells[:, 2]


def unique_torch(points: np.ndarray, voxel_size: float) -> tuple[np.ndarray, np.ndarray]:
    import torch

    xyz = torch.from_numpy(points)
    cells = torch.floor((xyz - xyz.amin(dim=0)) / voxel_size).long()
    _, size_y, size_z = (cells.amax(dim=0) + 1).tolist()
    key = (cells[:, 0] * size_y + cells[:, 1]) * size_z + cells[:, 2]
    unique, inverse = torch.unique(key, return_inverse=True)
    return unique.numpy(), inverse.numpy()


def range_image_numpy(points: np.ndarray, beams: int, columns: int) -> np.ndarray:
    """The image alone, in float32."""
    x, y, z = points.T
    flat = np.sqrt(x * x + y * y)
    lower, upper = math.radians(-25.0), math.radians(3.0)
    column = (math.pi - np.arctan2(y, x)) * (columns / (2 * math.pi))
    row = (upper - np.arctan2(z, flat)) * (beams / (upper - lower))
    inside = (row >= 0) & (row < beams)
    at = row.astype(np.int64) * columns + np.minimum(column.astype(np.int64), columns - 1)
    image = np.full(beams * columns, np.inf, np.float32)
    np.minimum.at(image, at[inside], np.sqrt(flat * flat + z * z)[inside])
    return image.reshape(beams, columns)


def open3d_cloud(open3d: Any, points: np.ndarray) -> Any:
    cloud = open3d.geometry.PointCloud()
    cloud.points = open3d.utility.Vector3dVector(points.astype(np.float64))
    return cloud


def open3d_radius(open3d: Any, points: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    tensor = open3d.core.Tensor.from_numpy(points)
    search = open3d.core.nns.NearestNeighborSearch(tensor)
    search.fixed_radius_index(radius)
    index, _, splits = search.fixed_radius_search(tensor, radius, sort=False)
    return index.numpy(), splits.numpy()


def load_scan() -> tuple[str, np.ndarray, np.ndarray]:
    """A scan and its points above the ground: a real one, or what a spinning LiDAR could see."""
    folder = REAL_DATA / "semantickitti/dataset/sequences/08"
    if folder.is_dir():
        points = np.fromfile(folder / "velodyne/000000.bin", np.float32).reshape(-1, 4)[:, :3]
        labels = np.fromfile(folder / "labels/000000.label", np.uint32) & 0xFFFF
        scan, above = points, points[~np.isin(labels, GROUND_LABELS)]
        return "SemanticKITTI 08/000000", np.ascontiguousarray(scan), np.ascontiguousarray(above)
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
    scan = np.stack(axes, axis=-1).reshape(-1, 3).astype(np.float32)
    return "synthetic 64-beam street", scan, scan[scan[:, 2] > -1.6]


def optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def compare(title: str, candidates: dict[str, Run], rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()  # compiles
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    medians = {name: 1e3 * float(np.median(values)) for name, values in times.items()}
    print(title, flush=True)
    for name, median in medians.items():
        print(f"  {name:24} {median:8.2f} ms  {median / medians['ours']:6.2f}x", flush=True)


if __name__ == "__main__":
    main()
