"""ScaLR's samples, stage by stage: scans per second of one core, ours beside the released way.

    uv run python -m tests.benchmarks.bench_pipeline

The other side does the same stages as the authors' loader: the whole image decoded, voxels by
np.unique over shuffled rows, neighbours by SciPy's tree. Both read the real nuScenes keyframe and
the SemanticKITTI scans with an image, take turns, and use one thread; figures are medians.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from pc_data import NuScenes, SemanticKITTI, augment
from pc_data.batch import nearest_neighbors
from pc_data.features import point_features
from pc_data.images import resize_image, resize_pixels
from PIL import Image
from scipy.spatial import cKDTree
from torch.nn import functional

from tests.real_data import REAL_DATA

STAGES = ("read", "subsample", "project", "decode", "augment", "neighbours")
BOX = ((-64.0, -64.0, -8.0), (64.0, 64.0, 8.0))
HEIGHT, WIDTH = 224, 448


class Clock:
    """Seconds of each stage."""

    def __init__(self):
        self.spent, self.last = {}, time.perf_counter()

    def lap(self, stage):
        now = time.perf_counter()
        self.spent[stage] = now - self.last
        self.last = time.perf_counter()


def ours(dataset, index, rng):
    clock = Clock()
    scan = dataset[index]
    clock.lap("read")
    scan = augment.thin(scan, rng)
    clock.lap("subsample")
    scan = augment.see_one_camera(scan, rng, min_depth=dataset.min_depth, min_x=dataset.min_x)
    scan = augment.crop_nearest(scan, rng)
    (camera,) = scan.cameras
    pixel = augment.pixels_of(scan, camera)
    clock.lap("project")
    image = resize_image(camera.load_image(at_least=(WIDTH, HEIGHT)), (HEIGHT, WIDTH))
    pixel = resize_pixels(pixel, camera.image_size, (HEIGHT, WIDTH))
    clock.lap("decode")
    for move in (augment.rotate_z, augment.flip, augment.scale):
        scan = move(scan, rng)
    inside = augment.inside_box(scan, BOX)
    scan = scan.select(inside)
    feat = point_features(scan, intensity_mean=0.0, intensity_std=1.0)
    clock.lap("augment")
    nearest_neighbors(scan.xyz, 16)
    clock.lap("neighbours")
    return clock.spent, (len(scan), image.shape, pixel[inside].shape, feat.shape)


def theirs(dataset, index, rng):
    clock = Clock()
    points = dataset.load_points(index)[:, :4]
    labels = dataset.load_labels(index)
    cameras = dataset.cameras(index)
    clock.lap("read")
    order = rng.permutation(len(points))
    shuffled = points[order]
    cell = ((shuffled[:, :3] - shuffled[:, :3].min(0)) / 0.1).astype(np.int64)
    _, kept = np.unique(cell, axis=0, return_index=True)
    points = shuffled[kept]
    labels = labels if labels is None else labels[order][kept]
    clock.lap("subsample")
    for camera in (cameras[k] for k in rng.permutation(len(cameras))):
        at = np.column_stack([points[:, :3], np.ones(len(points))]) @ camera.from_scan.T
        pixel = at[:, :3] @ camera.intrinsics.T
        pixel = pixel[:, :2] / pixel[:, 2:]
        width, height = camera.image_size
        seen = (at[:, 2] > dataset.min_depth) & (points[:, 0] > dataset.min_x)
        seen &= (pixel > 0).all(1) & (pixel[:, 0] < width - 1) & (pixel[:, 1] < height - 1)
        if seen.any():
            break
    points, pixel = points[seen], pixel[seen]
    distance = ((points[:, :3] - points[rng.integers(len(points)), :3]) ** 2).sum(1)
    near = np.argsort(distance)[:20_000]
    points, pixel = points[near], pixel[near]
    clock.lap("project")
    with Image.open(camera.image_file) as file:
        decoded = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)[None] / 255
    image = functional.interpolate(decoded, size=(HEIGHT, WIDTH), mode="bilinear")[0]
    pixel = np.floor(np.floor(pixel) * [WIDTH / width, HEIGHT / height])
    clock.lap("decode")
    angle = rng.uniform(-np.pi, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points[:, :2] = points[:, :2] @ turn
    points[:, rng.integers(2)] *= -1
    points[:, :3] *= rng.uniform(0.9, 1.1)
    inside = (np.abs(points[:, :3]) < [64, 64, 8]).all(1)
    points = points[inside]
    reach = np.linalg.norm(points[:, :2], axis=1, keepdims=True)
    feat = np.concatenate([points[:, 3:], points[:, :3], reach], axis=1)
    clock.lap("augment")
    cKDTree(points[:, :3]).query(points[:, :3], k=17)
    clock.lap("neighbours")
    return clock.spent, (len(points), image.shape, pixel[inside].shape, feat.shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    nuscenes = NuScenes(REAL_DATA / "nuscenes", version="v1.0-mini", split="all")
    kitti = SemanticKITTI(REAL_DATA / "semantickitti", split="all")
    photographed = [index for index in range(len(kitti)) if kitti.cameras(index)]
    for title, dataset, indices in (
        ("nuScenes keyframe, six cameras of which one is read", nuscenes, [0]),
        (f"SemanticKITTI, {len(photographed)} scans with an image", kitti, photographed),
    ):
        spent = {side: {stage: [] for stage in STAGES} for side in (ours, theirs)}
        size = {}
        for turn in range(rounds + 1):
            for index in indices:
                for side in (ours, theirs):
                    laps, size[side] = side(dataset, index, np.random.default_rng(turn))
                    for stage in STAGES if turn else ():  # the first turn compiles
                        spent[side][stage].append(laps[stage])
        show(title, spent, size)


def show(title, spent, size) -> None:
    print(f"{title} (a sample: {size[ours][0]:,} points, theirs {size[theirs][0]:,})")
    totals = {}
    for side in (ours, theirs):
        totals[side] = [sum(laps) for laps in zip(*spent[side].values(), strict=True)]
    rows = {stage: {side: spent[side][stage] for side in spent} for stage in STAGES}
    for stage, sides in (rows | {"all": totals}).items():
        mine, other = (1e3 * statistics.median(sides[side]) for side in (ours, theirs))
        print(f"  {stage:11} {mine:7.1f} ms   theirs {other:7.1f} ms   {other / mine:5.1f}x")
    rates = [1 / statistics.median(totals[side]) for side in (ours, theirs)]
    print(f"  scans per second and core: {rates[0]:.1f}, theirs {rates[1]:.1f}\n")


if __name__ == "__main__":
    main()
