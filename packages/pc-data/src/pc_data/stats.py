"""What a dataset is made of: points of scans, classes, distances and heights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from pc_data.colors import IGNORED, class_colors
from pc_data.datasets import Reader

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DISTANCES = np.linspace(0, 120, 61)
"""Edges of the histogram of distances from the sensor, metres in the plane."""
HEIGHTS = np.linspace(-6, 14, 81)
"""Edges of the histogram of heights in the scan's frame, metres."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counts over the scans of one split.

    Attributes:
        title: Dataset and split.
        class_names: The classes.
        num_points: Points of each scan.
        class_counts: Labelled points: ignored ones, then those of each class.
        num_labelled: Scans with labels.
        distances: Points by distance, between the edges of `DISTANCES`; farther ones are last.
        heights: Points by height, between the edges of `HEIGHTS`; others are at the ends.
    """

    title: str
    class_names: tuple[str, ...]
    num_points: Int64[np.ndarray, " n"]
    class_counts: Int64[np.ndarray, " k1"]
    num_labelled: int
    distances: Int64[np.ndarray, " d"]
    heights: Int64[np.ndarray, " h"]

    def text(self) -> str:
        """The counts for a person to read."""
        n = self.num_points
        lines = [
            f"{self.title}: {len(n):,} scans, {n.sum():,} points",
            f"  points a scan  {n.min():,} to {n.max():,}, median {int(np.median(n)):,}",
            f"  labelled       {self.num_labelled:,} of {len(n):,} scans",
        ]
        total = max(int(self.class_counts.sum()), 1)
        names = ("ignored", *self.class_names)
        width = max(map(len, names))
        for k in np.argsort(-self.class_counts, kind="stable") if self.num_labelled else ():
            count = int(self.class_counts[k])
            lines.append(f"  {names[k]:{width}}  {count:>15,}  {count / total:7.2%}")
        return "\n".join(lines)


def take_stats(dataset: Reader, *, progress: Callable[[int, int], None] | None = None) -> Stats:
    """Read every scan and count.

    Raises:
        DataError: If a scan or its labels are damaged.
    """
    num_points = np.zeros(len(dataset), np.int64)
    class_counts = np.zeros(1 + dataset.num_classes, np.int64)
    distances = np.zeros(len(DISTANCES) - 1, np.int64)
    heights = np.zeros(len(HEIGHTS) - 1, np.int64)
    num_labelled = 0
    for index in range(len(dataset)):
        xyz = dataset.load_points(index)[:, :3]
        labels = dataset.load_labels(index)
        num_points[index] = len(xyz)
        distances += _histogram(np.hypot(xyz[:, 0], xyz[:, 1]), DISTANCES)
        heights += _histogram(xyz[:, 2], HEIGHTS)
        if labels is not None:
            num_labelled += 1
            class_counts += np.bincount(labels + 1, minlength=len(class_counts))
        if progress is not None:
            progress(index + 1, len(dataset))
    return Stats(
        title=f"{dataset.root}, split {dataset.split}",
        class_names=dataset.class_names,
        num_points=num_points,
        class_counts=class_counts,
        num_labelled=num_labelled,
        distances=distances,
        heights=heights,
    )


def draw_stats(stats: Stats) -> "Figure":
    """Draw the counts: classes on the left, points a scan, distances and heights on the right."""
    from matplotlib.figure import Figure

    with_classes = bool(stats.num_labelled)
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    grid = figure.add_gridspec(3, 2, width_ratios=(1.3, 1) if with_classes else (0.001, 1))
    if with_classes:
        _draw_classes(figure.add_subplot(grid[:, 0]), stats)
    axes = figure.add_subplot(grid[0, 1])
    axes.hist(
        stats.num_points,
        bins=np.linspace(0, stats.num_points.max() + 1, 41).tolist(),
        color="#3f7fbf",
    )
    axes.set(xlabel="points of a scan", ylabel="scans")
    axes = figure.add_subplot(grid[1, 1])
    axes.stairs(stats.distances, DISTANCES, fill=True, color="#3f7fbf")
    axes.set(xlabel="distance from the sensor (m); the last bar holds all beyond", ylabel="points")
    axes = figure.add_subplot(grid[2, 1])
    axes.stairs(stats.heights, HEIGHTS, fill=True, color="#3f7fbf")
    axes.set(xlabel="height in the scan's frame (m)", ylabel="points")
    for axes in figure.axes[-3:]:
        axes.ticklabel_format(useOffset=False, style="plain")
        axes.yaxis.set_major_formatter("{x:,.0f}")
    figure.suptitle(stats.title, fontsize=10)
    return figure


def _draw_classes(axes: "Axes", stats: Stats) -> None:
    names = (*stats.class_names, "ignored")
    counts = np.roll(stats.class_counts, -1)
    colors = [*map(tuple, class_colors(stats.class_names)), IGNORED]
    order = np.argsort(counts, kind="stable")
    axes.barh(
        [names[k] for k in order], counts[order], color=[colors[k] for k in order], edgecolor="0.4"
    )
    axes.set_xscale("symlog", linthresh=1)
    share = counts / max(counts.sum(), 1)
    for row, k in enumerate(order):
        axes.text(max(counts[k], 1), row, f" {share[k]:.2%}", va="center", fontsize=8)
    axes.margins(x=0.12)
    axes.set(xlabel="labelled points", title=f"{stats.num_labelled:,} labelled scans")


def _histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts between the edges; what lies outside goes to the ends."""
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
