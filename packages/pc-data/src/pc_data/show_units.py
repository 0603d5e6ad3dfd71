"""A picture of the contrastive units of a scan, before and after clustering."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int64
from pc_geometry import project_points
from pc_geometry.cameras import visible_points
from pc_geometry.units import Units

from pc_data.colors import IGNORED, number_colors
from pc_data.scan import Camera, Scan
from pc_data.show_parts import GROUND, INK, frame_above, scatter_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROAD = (0.16, 0.18, 0.22)


def show_units(
    scan: Scan,
    *,
    ground: Bool[np.ndarray, " n"],
    cluster: Int64[np.ndarray, " n"],
    before: Units,
    after: Units,
    camera: str | None = None,
    reach: float = 30.0,
) -> "Figure":
    """Draw units from above and on an image, and the clusters that merge them.

    From above: the sampled units, each with its points in a colour of its own; the clusters; and
    the units after merging, those of clusters in their colours, others pale. Rings are the centres
    of units. Below, the same units on an image.

    Args:
        scan: What the units are of.
        ground: Points on the ground, drawn dark.
        cluster: Cluster of each point, negative for none.
        before: The sampled units.
        after: The same, merged.
        camera: The camera whose image is drawn; by default the one that sees the most centres of
            units of clusters. Without cameras there is no image.
        reach: How far the view from above goes at most around the middle of the units of clusters,
            metres.

    Returns:
        A figure; `figure.savefig(file)` writes it.

    Raises:
        DataError: If the scan has no camera of that name, or its image does not decode.
        ValueError: If `after` is not merged from `before`.

    Source: cross-modal contrastive units (Cai et al., 2024), figures 3 and 4.
    """
    from matplotlib.figure import Figure

    if len(before) != len(after.unit_of_sample):
        raise ValueError(
            f"after must be merged from before, which has {len(before)} units, but was from "
            f"{len(after.unit_of_sample)}; give the units of one scan"
        )
    chosen = _choose_camera(scan, before, after) if camera is None else scan.camera(camera)
    height = 5.5 if chosen is None else 5.5 + 7.4 * chosen.image_size[1] / chosen.image_size[0]
    figure = Figure(figsize=(15, height), dpi=130, facecolor=GROUND, layout="constrained")
    figure.suptitle(
        f"{scan.name}   ·   {len(scan):,} points, {np.sum(~ground):,} of them not ground",
        color=INK,
        fontsize=10,
    )
    grid = figure.add_gridspec(2, 6, height_ratios=(5.5, max(height - 5.5, 1e-3)))
    above = [figure.add_subplot(grid[0, 2 * k : 2 * k + 2]) for k in range(3)]
    sampled, pale = number_colors(np.arange(len(before))), _unit_colors(after)
    _draw_units(above[0], scan, ground, before, sampled)
    above[0].set_title(f"{len(before)} units, sampled from above", color=INK, fontsize=9)
    _draw_clusters(above[1], scan, ground, cluster)
    _draw_units(above[2], scan, ground, after, pale)
    merged = int((after.num_merged > 1).sum())
    above[2].set_title(f"{len(after)} units, {merged} of them merged", color=INK, fontsize=9)
    middle, reach = _window(_clustered(scan, before, after), reach)
    for axes in above:
        frame_above(axes, middle, reach)
    if chosen is not None:
        for k, (units, colors) in enumerate(((before, sampled), (after, pale))):
            axes = figure.add_subplot(grid[1, 3 * k : 3 * k + 3])
            _draw_image(axes, scan, chosen, units, colors)
            state = ("sampled", "merged")[k]
            axes.set_title(f"{chosen.name}, units as {state}", color=INK, fontsize=8, pad=3)
    return figure


def _choose_camera(scan: Scan, before: Units, after: Units) -> Camera | None:
    """The camera that sees most of what was merged or is in clusters, the first among equals."""
    centers = _clustered(scan, before, after)
    counts = [int(_see(centers, camera)[1].sum()) for camera in scan.cameras]
    return scan.cameras[int(np.argmax(counts))] if counts else None


def _clustered(scan: Scan, before: Units, after: Units) -> np.ndarray:
    """Where the units of clusters were sampled."""
    return scan.xyz[before.center[after.cluster[after.unit_of_sample] >= 0]]


def _see(xyz: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, and which points are in the image."""
    pixel, depth = project_points(xyz, camera.from_scan, camera.intrinsics)
    return pixel, visible_points(pixel, depth, camera.image_size)


def _unit_colors(units: Units) -> np.ndarray:
    """RGB of each unit: that of its cluster, pale where it has none."""
    bright = number_colors(np.maximum(units.cluster, 0))
    pale = 0.3 + 0.25 * number_colors(np.arange(len(units)), saturation=0.5)
    return np.where((units.cluster >= 0)[:, None], bright, pale)


def _window(xyz: np.ndarray, most: float) -> tuple[np.ndarray, float]:
    """Middle and half the side of the square that holds nearly all points."""
    if not len(xyz):
        return np.zeros(2), most
    low, high = np.percentile(xyz[:, :2], (2, 98), axis=0)
    return (low + high) / 2, float(np.clip(0.6 * (high - low).max(), 2, most))


def _draw_points(axes: "Axes", scan: Scan, ground: np.ndarray) -> None:
    """All points as a backdrop."""
    for mask, color in ((ground, _ROAD), (~ground, IGNORED)):
        scatter_above(axes, scan.xyz[mask], color=[color], size=0.4)


def _draw_units(
    axes: "Axes", scan: Scan, ground: np.ndarray, units: Units, colors: np.ndarray
) -> None:
    _draw_points(axes, scan, ground)
    scatter_above(axes, scan.xyz[units.indices], color=colors[units.unit], size=3.0)
    ringed = units.cluster >= 0 if (units.cluster >= 0).any() else np.ones(len(units), bool)
    x, y = scan.xyz[units.center[ringed], :2].T
    axes.scatter(x, y, s=7, c=colors[ringed], edgecolors="white", linewidths=0.6)


def _draw_clusters(axes: "Axes", scan: Scan, ground: np.ndarray, cluster: np.ndarray) -> None:
    _draw_points(axes, scan, ground)
    member = np.flatnonzero(cluster >= 0)
    scatter_above(axes, scan.xyz[member], color=number_colors(cluster[member]), size=3.0)
    count = len(np.unique(cluster[member]))
    axes.set_title(f"{count} clusters that look like objects", color=INK, fontsize=9)


def _draw_image(axes: "Axes", scan: Scan, camera: Camera, units: Units, colors: np.ndarray) -> None:
    axes.imshow(camera.load_image(), alpha=0.8)
    bright = units.cluster >= 0
    for some, size in ((~bright, 2.5), (bright, 5.0)):
        entry = some[units.unit]
        pixel, seen = _see(scan.xyz[units.indices[entry]], camera)
        axes.scatter(*pixel[seen].T, s=size, c=colors[units.unit[entry]][seen], linewidths=0)
        pixel, seen = _see(scan.xyz[units.center[some]], camera)
        ring = {"edgecolors": "white", "linewidths": 0.9 if size > 4 else 0.35}
        axes.scatter(*pixel[seen].T, s=5 * size, c=colors[some][seen], **ring)
    width, height = camera.image_size
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
