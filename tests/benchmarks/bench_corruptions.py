"""The eight corruptions on a real nuScenes keyframe and a real SemanticKITTI scan.

    uv run python -m tests.benchmarks.bench_corruptions

Milliseconds for one scan at the heavy level, medians of runs that take turns. Beams are
found from the points, also where the dataset tells them. Then how many of the points are lost, and
how many are of no surface, at each level.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
from pc_data.corruptions.levels import corrupt
from pc_data.corruptions.names import CORRUPTIONS, SEVERITIES, Corruption, Severity
from pc_data.corruptions.sensors import SENSORS
from pc_data.scan import Scan

from tests.real_data import REAL_DATA

ROUNDS = 15
CAR = 1


def main() -> None:
    """Print the tables."""
    scans = {"nuscenes": nuscenes_keyframe(), "semantickitti": kitti_scan()}
    calls = {
        (dataset, corruption): apply(scan, dataset, corruption, "heavy")
        for dataset, scan in scans.items()
        for corruption in CORRUPTIONS
    }
    times = run_in_turns(calls)
    print(f"{'ms':16}" + "".join(f"{name:>24}" for name in scans))
    print(f"{'points':16}" + "".join(f"{len(scan):>24,}" for scan in scans.values()))
    for corruption in CORRUPTIONS:
        cells = "".join(f"{times[dataset, corruption]:>24.1f}" for dataset in scans)
        print(f"{corruption:16}{cells}")
    print(f"\n{'lost, made up (%)':20}" + "".join(f"{name:>36}" for name in scans))
    for corruption in CORRUPTIONS:
        cells = "".join(describe(scan, dataset, corruption) for dataset, scan in scans.items())
        print(f"{corruption:20}{cells}")


def nuscenes_keyframe() -> Scan:
    """The keyframe, a tenth of it called a car."""
    file = next((REAL_DATA / "nuscenes/samples/LIDAR_TOP").glob("*.bin"))
    return scan_of(np.fromfile(file, "<f4").reshape(-1, 5))


def kitti_scan() -> Scan:
    """The scan, a tenth of it called a car."""
    file = REAL_DATA / "semantickitti/dataset/sequences/08/velodyne/000000.bin"
    return scan_of(np.fromfile(file, "<f4").reshape(-1, 4))


def scan_of(rows: np.ndarray) -> Scan:
    xyz, intensity = rows[:, :3].copy(), rows[:, 3].copy()
    labels = np.where(np.arange(len(rows)) % 10 == 0, CAR, 0)
    return Scan(name="real", xyz=xyz, intensity=intensity, labels=labels)


def apply(
    scan: Scan, dataset: str, corruption: Corruption, severity: Severity
) -> Callable[[], Scan]:
    def call() -> Scan:
        rng = np.random.default_rng(3)
        names, sensor = ("road", "car"), SENSORS[dataset]
        return corrupt(scan, rng, corruption, severity, sensor=sensor, class_names=names)

    return call


def run_in_turns(calls: dict) -> dict:
    """Median milliseconds of each; the first round compiles and does not count."""
    times = {key: [] for key in calls}
    for _ in range(ROUNDS + 1):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            times[key].append(1e3 * (time.perf_counter() - start))
    return {key: statistics.median(values[1:]) for key, values in times.items()}


def describe(scan: Scan, dataset: str, corruption: Corruption) -> str:
    cells = []
    for severity in SEVERITIES:
        out = apply(scan, dataset, corruption, severity)()
        lost, made_up = 1 - len(out) / len(scan), np.mean(out.labels < 0)
        cells.append(f"{100 * lost:.1f}, {100 * made_up:.1f}")
    return "".join(f"{cell:>12}" for cell in cells)


if __name__ == "__main__":
    main()
