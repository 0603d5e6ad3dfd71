"""A picture of a scan: from above, and drawn on its images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pc_data.colors import IGNORED, class_colors
from pc_data.scan import Camera, Scan
from pc_data.show_parts import GROUND, INK, add_legend, frame_above, scatter_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure, SubFigure

_ORDER = (  # as a driver looks around: ahead in the upper row, behind in the lower
    "CAM_FRONT_LEFT",
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_LEFT",
    "CAM_BACK",
    "CAM_BACK_RIGHT",
)
_STREET, _ROOM = (2, 5, 10, 20, 40, 60), (0.5, 1, 2, 4, 8)  # metres, ticks of depth


def show_scan(
    scan: Scan,
    class_names: Sequence[str] | None = None,
    *,
    min_depth: float = 1.0,
    min_x: float = -np.inf,
) -> "Figure":
    """Draw a scan from above and on each of its images.

    From above, points are coloured by class if the scan is labelled, else by their own colour, by
    intensity, or by height; higher points cover lower ones. On the images they are coloured by
    depth.

    Args:
        scan: What to draw.
        class_names: Names of its labels, for the legend.
        min_depth: Points no further than this from a camera's plane are not drawn on its image.
        min_x: Points at or below this x are not drawn on the images.

    Returns:
        A figure; `figure.savefig(file)` writes it.

    Raises:
        DataError: If an image does not decode.
    """
    from matplotlib.figure import Figure

    cameras = sorted(scan.cameras, key=_place)
    wide = len(cameras) == 1 and cameras[0].image_size[0] > 2 * cameras[0].image_size[1]
    size = (15.0, 5.0) if len(cameras) > 1 else (11.0, 10.2) if wide else (11.0, 5.4)
    figure = Figure(figsize=size, dpi=130, facecolor=GROUND, layout="constrained")
    figure.suptitle(_title(scan), color=INK, fontsize=10)
    if not cameras:
        _draw_above(figure.subplots(), scan, class_names)
        return figure
    if wide:
        grid = figure.add_gridspec(2, 1, height_ratios=(1, 2.1))
        images, above = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    else:
        legend = 0.3 if scan.labels is not None else 0.0
        grid = figure.add_gridspec(
            1, 2, width_ratios=(1 + legend, 2.1 if len(cameras) > 1 else 1.3)
        )
        above, images = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    _draw_above(above.subplots(), scan, class_names)
    _draw_images(images, scan, cameras, min_depth=min_depth, min_x=min_x)
    for part in (images, above):
        part.set_facecolor(GROUND)
    return figure


def _draw_images(
    part: "SubFigure",
    scan: Scan,
    cameras: Sequence[Camera],
    *,
    min_depth: float,
    min_x: float,
) -> None:
    columns = min(3, len(cameras))
    grid = part.subplots(-(-len(cameras) // columns), columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    ticks = _ROOM if np.ptp(scan.xyz, axis=0).max(initial=0) < 20 else _STREET
    drawn = [
        _draw_image(axes, scan, camera, ticks, min_depth=min_depth, min_x=min_x)
        for axes, camera in zip(grid, cameras, strict=False)
    ]
    bar = part.colorbar(
        drawn[0], ax=grid, orientation="horizontal", fraction=0.04, pad=0.02, aspect=60
    )
    bar.set_ticks(ticks, labels=[f"{tick} m" for tick in ticks])
    bar.minorticks_off()
    bar.ax.tick_params(colors=INK, labelsize=7)
    bar.ax.spines["outline"].set_visible(False)


def _place(camera: Camera) -> int:
    return _ORDER.index(camera.name) if camera.name in _ORDER else len(_ORDER)


def _title(scan: Scan) -> str:
    parts = [scan.name, f"{len(scan):,} points"]
    if scan.labels is not None and len(scan):
        parts.append(f"{np.mean(scan.labels >= 0):.0%} labelled")
    return "   ·   ".join(parts)


def _draw_above(axes: "Axes", scan: Scan, class_names: Sequence[str] | None) -> None:
    order = np.argsort(scan.xyz[:, 2], kind="stable")
    xyz = scan.xyz[order]
    middle, reach = _window(xyz)
    size = float(np.clip(3e4 / max(len(xyz), 1), 0.25, 6))
    if scan.labels is not None:
        names = class_names or [f"class {k}" for k in range(int(scan.labels.max(initial=-1)) + 1)]
        table = np.vstack((np.asarray(IGNORED, np.float32)[None], class_colors(names)))
        scatter_above(axes, xyz, size=size, color=table[scan.labels[order] + 1])
        _legend(axes, scan.labels, names, table)
    elif scan.color is not None:
        scatter_above(axes, xyz, size=size, color=scan.color[order])
    else:
        values = xyz[:, 2] if scan.intensity is None else scan.intensity[order]
        scatter_above(axes, xyz, size=size, color=_brighter("viridis")(_ranks(values)))
        kind = "height" if scan.intensity is None else "intensity"
        axes.set_title(f"from above, coloured by {kind}", color=INK, fontsize=8)
    frame_above(axes, middle, reach)


def _window(xyz: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle and half the side of the square that holds nearly all points, at most 60 m.

    The sensor is in the middle, unless it is not among the points.
    """
    middle = np.zeros(2)
    if not len(xyz):
        return middle, 1.0
    low, high = np.percentile(xyz[:, :2], (1, 99), axis=0)
    if not ((low < 0) & (high > 0)).all():
        middle = (low + high) / 2
    reach = 1.05 * np.percentile(np.abs(xyz[:, :2] - middle), 98.5)
    return middle, float(np.clip(reach, 1, 60))


def _brighter(name: str) -> "Colormap":
    """A perceptually uniform map without its darkest quarter, which a dark ground swallows."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps[name](np.linspace(0.25, 1, 256)))


def _ranks(values: np.ndarray) -> np.ndarray:
    """The share of values below each one, so that a few bright returns do not dim the rest."""
    order = np.sort(values)
    return np.searchsorted(order, values) / max(len(values) - 1, 1)


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 else "<0.1%"


def _legend(axes: "Axes", labels: np.ndarray, names: Sequence[str], table: np.ndarray) -> None:
    counts = np.bincount(labels + 1, minlength=len(table))
    order = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
    shares = [_percent(counts[k] / len(labels)) for k in order]
    titles = ["ignored" if k == 0 else names[k - 1] for k in order]
    entries = zip(titles, shares, order, strict=True)
    add_legend(axes, [(f"{title}  {share}", table[k]) for title, share, k in entries])


def _draw_image(
    axes: "Axes",
    scan: Scan,
    camera: Camera,
    ticks: Sequence[float],
    *,
    min_depth: float,
    min_x: float,
) -> "PathCollection":
    from matplotlib.colors import LogNorm
    from pc_geometry import project_points
    from pc_geometry.cameras import visible_points

    axes.imshow(camera.load_image())
    pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
    seen = visible_points(pixel, depth, camera.image_size, min_depth=min_depth)
    seen &= scan.xyz[:, 0] > min_x
    order = np.flatnonzero(seen)[np.argsort(-depth[seen], kind="stable")]  # near ones on top
    dots = axes.scatter(
        *pixel[order].T,
        c=depth[order],
        s=float(np.clip(1e4 / max(len(order), 1), 1.0, 2.5)),
        cmap=_brighter("plasma").reversed(),
        norm=LogNorm(ticks[0], ticks[-1], clip=True),
        linewidths=0,
    )
    width, height = camera.image_size
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_title(f"{camera.name}   {len(order):,} points", color=INK, fontsize=7, pad=2)
    return dots
