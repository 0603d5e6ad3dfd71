"""How good the contrastive units are on labelled SemanticKITTI scans, and how long they take.

`python -m tests.benchmarks.bench_units` prints, before and after clustering, the share of units
that hold several classes and the share of cars that are one unit; the same summed over all scans
for other contexts, radii and numbers; and the time of each stage for one scan. Processor time is
that of all threads together and does not depend on who else is computing; time on the clock does.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from pc_data.readers.semantic_kitti import SemanticKITTI
from pc_data.scan import Scan
from pc_geometry.cameras import project_points, visible_points
from pc_geometry.clusters import cluster_radius, filter_clusters
from pc_geometry.ground import segment_ground
from pc_geometry.range_clusters import cluster_range_image
from pc_geometry.sampling import farthest_point_sample
from pc_geometry.units import (
    FindContext,
    FindObjects,
    Units,
    center_cluster,
    cluster_objects,
    contrastive_units,
    main_cluster,
    merge_units,
    nearest_context,
    pillar_context,
    sample_units,
)

from tests.real_data import REAL_DATA

SENSOR_HEIGHT = 1.73
CAR = 0
"""Label of the class in the reader's order."""
TIMED = "08/000000"


class Score(NamedTuple):
    """Counts over units; those of several scans add up."""

    units: int
    mixed: int
    """Units whose labelled points are of several classes."""
    mostly_mixed: int
    """Units with a tenth of their weight or more outside their main class."""
    cars: int
    """Labelled cars that a unit was sampled on."""
    whole: int
    """Those on which all sampled units are one and none of another car's."""
    on_cars: int
    """Pairs of a car and a unit that was sampled on it."""

    def __str__(self) -> str:
        return (
            f"{self.units:5} units, of mixed class {share(self.mixed, self.units)} (by a tenth or "
            f"more {share(self.mostly_mixed, self.units)}), cars that are one unit "
            f"{share(self.whole, self.cars)} ({self.whole} of {self.cars}; "
            f"{self.on_cars / max(self.cars, 1):.1f} a car)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    scans = list(SemanticKITTI(REAL_DATA / "semantickitti", split="all"))
    for title, seen in (("the full turn", everywhere), ("what the camera sees", by_camera)):
        print(f"\n{args.units} units sampled in {title}")
        for scan in scans:
            if seen is everywhere or scan.cameras:
                print_scan(scan, seen(scan), args.units)
    print("\nother settings, full turn, all scans together")
    for title, settings in variants().items():
        settings = {"num_units": args.units, **settings}
        before, after = zip(*(compare(scan, **settings) for scan in scans), strict=True)
        print(f"  {title:28} before {total(before)}\n{'':31}after  {total(after)}")
    print_times(next(scan for scan in scans if scan.name == TIMED), args.units, args.rounds)


def variants() -> dict[str, dict]:
    rows: dict[str, dict] = {f"{n} units": {"num_units": n} for n in (256, 512, 1024, 2048)}
    rows |= {f"{k} nearest": {"context": partial(nearest_context, k=k)} for k in (8, 16, 32)}
    rows |= {
        f"pillar {size} m": {"context": partial(pillar_context, size=size)}
        for size in (0.32, 0.5, 1.0)
    }
    rows |= {
        f"radius {radius} m": {"objects": partial(cluster_objects, radius=radius)}
        for radius in (0.3, 0.4, 0.5, 0.6, 0.7, 1.0)
    }
    rows["clusters of any shape"] = {
        "objects": partial(cluster_objects, keep=lambda _, labels: labels)
    }
    rows["by the cluster of the centre"] = {"belongs": center_cluster}
    return rows


def everywhere(scan: Scan) -> np.ndarray:
    return np.ones(len(scan), bool)


def by_camera(scan: Scan) -> np.ndarray:
    seen = np.zeros(len(scan), bool)
    for camera in scan.cameras:
        pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
        seen |= visible_points(pixel, depth, camera.image_size)
    return seen


def print_scan(scan: Scan, visible: np.ndarray, num_units: int) -> None:
    ground = segment_ground(scan.xyz, sensor_height=SENSOR_HEIGHT)
    clusters = cluster_objects(scan.xyz, ground).max() + 1
    print(f"{scan.name}: {(visible & ~ground).sum()} points, {clusters} clusters")
    for title, result in zip(
        ("before", "after"), compare(scan, visible, num_units=num_units), strict=True
    ):
        print(f"  {title:6} {result}")


def compare(
    scan: Scan,
    visible: np.ndarray | None = None,
    *,
    num_units: int,
    context: FindContext = nearest_context,
    objects: FindObjects = cluster_objects,
    belongs: Callable[[Units, np.ndarray], np.ndarray] = main_cluster,
) -> tuple[Score, Score]:
    """The score of the units before and after clustering."""
    ground = segment_ground(scan.xyz, sensor_height=SENSOR_HEIGHT)
    candidate = ~ground & (everywhere(scan) if visible is None else visible)
    units = sample_units(scan.xyz, candidate, num_units, context=context)
    merged = merge_units(units, belongs(units, objects(scan.xyz, ground)))
    return score(units, units.center, scan), score(merged, units.center, scan)


def score(units: Units, sampled: np.ndarray, scan: Scan) -> Score:
    """Score units that were sampled at points and perhaps merged."""
    labelled = scan.labels[units.indices] >= 0
    weight = np.zeros((len(units), scan.labels.max() + 1))
    at = (units.unit[labelled], scan.labels[units.indices[labelled]])
    np.add.at(weight, at, units.weight[labelled])
    outside = 1 - weight.max(axis=1) / weight.sum(axis=1).clip(1e-9)

    car = np.where(scan.labels == CAR, scan.instance, 0)[sampled]
    pairs = np.unique(np.stack([car, units.unit_of_sample])[:, car > 0], axis=1)
    of_car = [set(pairs[1][pairs[0] == one]) for one in np.unique(pairs[0])]
    unit, num_cars = np.unique(pairs[1], return_counts=True)
    shared = set(unit[num_cars > 1])
    return Score(
        units=len(units),
        mixed=int(((weight > 0).sum(axis=1) > 1).sum()),
        mostly_mixed=int(((outside >= 0.1) & weight.any(axis=1)).sum()),
        cars=len(of_car),
        whole=sum(len(found) == 1 and not found & shared for found in of_car),
        on_cars=pairs.shape[1],
    )


def total(scores: Sequence[Score]) -> Score:
    return Score(*map(sum, zip(*scores, strict=True)))


def share(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.1%}"


def print_times(scan: Scan, num_units: int, rounds: int) -> None:
    xyz = scan.xyz
    ground = segment_ground(xyz, sensor_height=SENSOR_HEIGHT)
    above = xyz[~ground]
    joined = cluster_radius(above, 0.5, min_points=10)
    units, cluster = sample_units(xyz, ~ground, num_units), cluster_objects(xyz, ground)
    bird = np.ascontiguousarray(above[:, :2])
    pillars = sample_units(xyz, ~ground, num_units, context=pillar_context)

    def everything(num_threads: int) -> Units:
        by_camera(scan)  # what it costs, but units all around are the harder case
        return contrastive_units(
            xyz,
            everywhere(scan),
            ground=segment_ground(xyz, sensor_height=SENSOR_HEIGHT),
            num_units=num_units,
            context=partial(nearest_context, num_threads=num_threads),
        )

    stages: dict[str, Callable[[], object]] = {
        "ground": lambda: segment_ground(xyz, sensor_height=SENSOR_HEIGHT),
        "visible in one image": lambda: by_camera(scan),
        "farthest points": lambda: farthest_point_sample(bird, num_units),
        "context, 16 nearest": lambda: nearest_context(above, xyz[units.center]),
        "context, pillars": lambda: pillar_context(above, xyz[units.center]),
        "clusters by the grid": lambda: cluster_radius(above, 0.5, min_points=10),
        "clusters by range image": lambda: cluster_range_image(above, 0.5, min_points=10),
        "filter": lambda: filter_clusters(above, joined),
        "merge": lambda: merge_units(units, main_cluster(units, cluster)),
        "merge pillars": lambda: merge_units(pillars, main_cluster(pillars, cluster)),
        "everything, 1 thread": lambda: everything(1),
        "everything, 2 threads": lambda: everything(2),
    }
    print(f"\n{scan.name}: {len(xyz)} points, {len(above)} of them not ground; ms of {rounds} runs")
    print(f"  {'stage':24} {'processor, median':>18} {'clock, median':>14} {'clock, least':>13}")
    for title, run in stages.items():
        run()
        spent, clock = np.array([measure(run) for _ in range(rounds)]).T * 1e3
        print(f"  {title:24} {np.median(spent):18.2f} {np.median(clock):14.2f} {min(clock):13.2f}")


def measure(run: Callable[[], object]) -> tuple[float, float]:
    spent, clock = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - spent, time.perf_counter() - clock


if __name__ == "__main__":
    main()
