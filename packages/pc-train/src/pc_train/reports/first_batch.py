"""The first batch as a picture, so that data that came out wrong shows before a run has begun."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from pc_data.show_parts import GROUND, INK
from pc_geometry.atomic import atomic_file

from pc_train.reports.oblique import REACH, is_room, oblique_view, view_middle

FIRST_BATCH = "first_batch.png"
_COLUMNS = 3


@dataclass(frozen=True)
class CloudPanel:
    """A cloud as the network gets it.

    Attributes:
        title: Above it.
        xyz: Points in metres, z up.
        color: RGB of each, in 0..1.
    """

    title: str
    xyz: Float[np.ndarray, "n 3"]
    color: Float[np.ndarray, "n 3"]


@dataclass(frozen=True)
class ImagePanel:
    """An image as the network gets it, and the pixels that belong to points.

    Attributes:
        title: Above it.
        image: RGB in 0..1.
        pixel: (u, v) of points.
        color: RGB of each, in 0..1: that of the same point in the clouds.
    """

    title: str
    image: Float[np.ndarray, "3 h w"]
    pixel: Float[np.ndarray, "p 2"]
    color: Float[np.ndarray, "p 3"]


def draw_batch(
    title: str, clouds: Sequence[CloudPanel], images: Sequence[ImagePanel] = ()
) -> Figure:
    """Draw what the networks get: images with the points that are paired with them, and clouds.

    What belongs together has one colour. A street is seen from above, a room obliquely.

    Args:
        title: Of the whole.
        clouds: At least one.
        images: Above the clouds, three in a row.
    """
    rows = [list(images[at : at + _COLUMNS]) for at in range(0, len(images), _COLUMNS)]
    columns = min(max(len(clouds), *map(len, rows), 1), _COLUMNS) if rows else len(clouds)
    width = 4.6 * max(columns, 2) / columns
    ratio = max((panel.image.shape[1] / panel.image.shape[2] for panel in images), default=0)
    heights = [*(len(rows) * [width * ratio + 0.3]), 4.6]
    figure = Figure(
        figsize=(width * columns, sum(heights) + 0.4), facecolor=GROUND, layout="constrained"
    )
    figure.suptitle(title, color=INK, fontsize=10)
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, row in zip(parts, rows, strict=False):
        part.set_facecolor(GROUND)
        for axes, panel in zip(part.subplots(1, columns, squeeze=False)[0], row, strict=False):
            _draw_image(axes, panel)
        for axes in part.axes[len(row) :]:
            axes.axis("off")
    parts[-1].set_facecolor(GROUND)
    panels = parts[-1].subplots(1, len(clouds), squeeze=False)[0]
    for axes, cloud in zip(panels, clouds, strict=True):
        _draw_cloud(axes, cloud)
    return figure


def write_picture(file: Path, figure: Figure) -> None:
    """Write a PNG that is whole or not there."""
    with atomic_file(file) as target:
        figure.savefig(target, format="png", dpi=110)


def place_colors(
    pixel: Float[np.ndarray, "p 2"], image_size: tuple[int, int]
) -> Float[np.ndarray, "p 3"]:
    """Colour pixels by where they are: the hue tells the column, the brightness the row.

    Args:
        pixel: (u, v).
        image_size: (height, width).

    Returns:
        RGB in 0..1.
    """
    height, width = image_size
    u, v = np.clip(pixel / (width, height), 0, 1).T
    return hsv_to_rgb(np.stack([0.85 * u, np.full_like(u, 0.8), 1 - 0.65 * v], axis=1))


def _draw_image(axes: Axes, panel: ImagePanel) -> None:
    height, width = panel.image.shape[1:]
    axes.imshow(np.clip(panel.image.transpose(1, 2, 0), 0, 1), extent=(0, width, height, 0))
    size = float(np.clip(2e4 / max(len(panel.pixel), 1), 1.5, 8))
    axes.scatter(*panel.pixel.T, s=size, c=panel.color, linewidths=0)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    axes.set_title(panel.title, color=INK, fontsize=8, pad=3)


def _draw_cloud(axes: Axes, panel: CloudPanel) -> None:
    axes.set_facecolor(GROUND)
    axes.set_title(panel.title, color=INK, fontsize=9)
    axes.axis("off")
    if not len(panel.xyz):
        return
    if is_room(panel.xyz):
        axes.imshow(oblique_view(panel.xyz).paint(panel.color))
        return
    x, y = view_middle(panel.xyz)
    reach = min(REACH, 1.05 * float(np.percentile(np.abs(panel.xyz[:, :2] - (x, y)), 99)))
    size = float(np.clip(3e4 / len(panel.xyz), 0.5, 6))
    order = np.argsort(panel.xyz[:, 2], kind="stable")
    axes.scatter(*panel.xyz[order, :2].T, s=size, c=panel.color[order], linewidths=0)
    axes.plot(0, 0, marker="+", markersize=9, color="white", markeredgewidth=1.2)
    axes.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach), aspect="equal")
