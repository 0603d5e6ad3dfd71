"""What the pictures of scans have in common: a dark ground, a frame seen from above, a legend."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROUND = "#10141b"
INK = "#d7dce5"

Color = tuple[float, float, float]


def scatter_above(
    axes: "Axes",
    xyz: np.ndarray,
    *,
    color: Sequence[Color] | np.ndarray,
    size: float | np.ndarray,
) -> None:
    """Draw points from above: RGB of each or of all, sizes as matplotlib has them."""
    axes.scatter(xyz[:, 0], xyz[:, 1], s=size, c=color, linewidths=0, rasterized=True)


def frame_above(axes: "Axes", middle: Sequence[float] | np.ndarray, reach: float) -> None:
    """Frame a view from above: a square of twice `reach` metres, a cross where the sensor is."""
    axes.set_facecolor(GROUND)
    axes.plot(0, 0, marker="+", markersize=9, color="white", markeredgewidth=1.2)
    x, y = middle
    axes.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach), aspect="equal")
    axes.set_xlabel("x (m)", color=INK, fontsize=7)
    axes.set_ylabel("y (m)", color=INK, fontsize=7)
    axes.tick_params(colors=INK, labelsize=7)
    for spine in axes.spines.values():
        spine.set_color("#3a4150")


def add_legend(axes: "Axes", entries: Iterable[tuple[str, np.ndarray | None]]) -> None:
    """Name colours to the right of the axes; a line without a colour has no dot."""
    from matplotlib.colors import to_rgb
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            marker="" if color is None else "o",
            linestyle="",
            markersize=5,
            color=None if color is None else to_rgb(tuple(color)),
            label=label,
        )
        for label, color in entries
    ]
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        fontsize=7,
        labelcolor=INK,
        frameon=False,
        handletextpad=0.2,
        labelspacing=0.6,
    )
