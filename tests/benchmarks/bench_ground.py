"""Ground segmentation beside Patchwork++ and a height threshold, on labelled SemanticKITTI scans.

`python -m tests.benchmarks.bench_ground` prints precision, recall, F1 and IoU over the points that
have a label, and the median and minimum time of runs that take turns; then what is left of F1 where
the height of the sensor is wrong.
"""

import time
from collections.abc import Callable

import numpy as np
from pc_geometry.ground import segment_ground
from pc_geometry.ground_zones import segment_ground_zones

from tests.real_data import REAL_DATA

SCANS = ("00/000000", "00/000001", "01/000000", "08/000000")
SENSOR_HEIGHT = 1.73
GROUND = (40, 44, 48, 49, 60, 72)
"""Raw labels: road, parking, sidewalk, other ground, lane marking, terrain."""
UNLABELED = (0, 1)
ROUNDS = 15
HEIGHT_ERRORS = (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3)
OPEN_PARAMETERS = {
    "sensor_height": 1.8,
    "min_range": 0.5,
    "max_range": 50.0,
    "num_segments": 360,
    "num_bins": 120,
    "max_distance": 0.05,
    "max_slope": 0.3,
    "max_fit_error": 0.05,
    "long_threshold": 1.0,
    "max_long_height": 0.1,
    "max_start_height": 0.2,
    "line_search_angle": 0.1,
}
"""What the usual open implementation of the line fit takes for KITTI."""


def main() -> None:
    for name in SCANS:
        scan, ground, labelled = load_scan(name)
        print(f"{name}: {len(scan)} points, {ground.sum()} of them ground, {ROUNDS} rounds")
        masks, times = run_in_turns(candidates(scan))
        for title, mask in masks.items():
            scores = score(mask[labelled], ground[labelled])
            text = "  ".join(f"{key} {value:.4f}" for key, value in scores.items())
            median, least = 1e3 * np.median(times[title]), 1e3 * min(times[title])
            print(f"  {title:16} {text}  median {median:6.2f} ms  min {least:6.2f} ms")
        xyz = np.ascontiguousarray(scan[:, :3])
        for title, find in (("lines", segment_ground), ("zones", segment_ground_zones)):
            masks = [find(xyz, sensor_height=SENSOR_HEIGHT + error) for error in HEIGHT_ERRORS]
            scores = [score(mask[labelled], ground[labelled])["F1"] for mask in masks]
            pairs = zip(HEIGHT_ERRORS, scores, strict=True)
            text = "  ".join(f"{error:+.1f} m {f1:.3f}" for error, f1 in pairs)
            print(f"  {title}, F1 with the height off by  {text}")


def load_scan(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read positions with intensity, which points are ground and which are labelled."""
    sequence, frame = name.split("/")
    folder = REAL_DATA / "semantickitti/dataset/sequences" / sequence
    scan = np.fromfile(folder / f"velodyne/{frame}.bin", np.float32).reshape(-1, 4)
    label = np.fromfile(folder / f"labels/{frame}.label", np.uint32) & 0xFFFF
    return scan, np.isin(label, GROUND), ~np.isin(label, UNLABELED)


def score(mask: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    both, marked, true = (mask & truth).sum(), mask.sum(), truth.sum()
    return {
        "precision": both / marked,
        "recall": both / true,
        "F1": 2 * both / (marked + true),
        "IoU": both / (marked + true - both),
    }


def candidates(scan: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    xyz = np.ascontiguousarray(scan[:, :3])
    runs = {
        "lines": lambda: segment_ground(xyz, sensor_height=SENSOR_HEIGHT),
        "lines as open": lambda: segment_ground(xyz, **OPEN_PARAMETERS),
        "zones": lambda: segment_ground_zones(xyz, sensor_height=SENSOR_HEIGHT),
        "z threshold": lambda: xyz[:, 2] < 0.3 - SENSOR_HEIGHT,
    }
    try:
        import pypatchworkpp
    except ImportError:
        print("without Patchwork++; it comes with `uv sync --group peers`")
        return runs
    peer = pypatchworkpp.patchworkpp(pypatchworkpp.Parameters())

    def patchwork() -> np.ndarray:
        peer.estimateGround(scan)
        mask = np.zeros(len(scan), bool)
        mask[peer.getGroundIndices()] = True
        return mask

    return {**runs, "Patchwork++": patchwork}


def run_in_turns(
    runs: dict[str, Callable[[], np.ndarray]],
) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """Return the masks of the first runs, which compile and have no memory, and later times."""
    masks = {title: run() for title, run in runs.items()}
    times = {title: [] for title in runs}
    for _ in range(ROUNDS):
        for title, run in runs.items():
            start = time.perf_counter()
            run()
            times[title].append(time.perf_counter() - start)
    return masks, times


if __name__ == "__main__":
    main()
