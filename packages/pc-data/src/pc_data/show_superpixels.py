"""A picture of the superpixels of a scan's images, and of the points that fall on them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Integer
from pc_geometry import project_points
from pc_geometry.cameras import visible_points

from pc_data.colors import IGNORED, class_colors, number_colors
from pc_data.scan import Camera, Scan
from pc_data.show_parts import GROUND, INK, add_legend, frame_above, scatter_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_NONE = (0.42, 0.45, 0.52)  # points of no superpixel on an image, which would swallow IGNORED
_WIDTH = 640  # pixels of an image as it is drawn; borders are one of them wide
_MOST_NAMES = 16


@dataclass(frozen=True)
class _View:
    """An image with its superpixels, and the points that it sees."""

    camera: Camera
    superpixels: np.ndarray  # [h w], numbered through the images if they have no classes
    point: np.ndarray  # [m] index, far ones first
    pixel: np.ndarray  # [m 2]
    superpoint: np.ndarray  # [m] superpixel of each point, -1 = none


def show_superpixels(
    scan: Scan,
    superpixels: Sequence[Integer[np.ndarray, "h w"]],
    class_names: Sequence[str] = (),
    *,
    min_depth: float = 1.0,
    max_cameras: int = 2,
) -> "Figure":
    """Draw the superpixels of a scan's images, and the superpoints that they make.

    Of the images that see the most points: the image, its superpixels over it, and the points
    that fall on them. Beside them all points from above, in the colours of the superpixels of all
    images; a point that several images see takes that of the first. Points of no superpixel are
    grey.

    Args:
        scan: What the superpixels are of.
        superpixels: Superpixel of each pixel of each camera's image, negative for none.
        class_names: What a number means in every image: it then has one colour, and a legend
            names the most frequent. Without names a number means nothing outside its image.
        min_depth: Points no further than this from a camera's plane are not on its image.
        max_cameras: How many images are drawn at most.

    Returns:
        A figure; `figure.savefig(file)` writes it.

    Raises:
        DataError: If an image does not decode.
        ValueError: If there are not as many superpixels as cameras, they are of other sizes than
            the images, or a number has no name.

    Source: CSC (Chen et al., CVPR 2024), figures 1 and 2; SLidR (Sautier et al., CVPR 2022).
    """
    from matplotlib.figure import Figure

    _check(scan, superpixels, class_names, max_cameras)
    views = _see(scan, superpixels, numbered=not class_names, min_depth=min_depth)
    colors = _color_table(views, class_names)
    of_point = np.full(len(scan), -1)
    for view in reversed(views):  # the first image has the last word
        some = view.superpoint >= 0
        of_point[view.point[some]] = view.superpoint[some]
    most = sorted(range(len(views)), key=lambda k: -len(views[k].point))[:max_cameras]
    drawn = [views[k] for k in sorted(most)]
    legend = 1.5 if class_names else 0.0
    width, height, stacked = _image_part(drawn)
    side = float(np.clip(height, 4.6, 6.5))
    figure = Figure(
        figsize=(width + side + 0.5 + legend, max(height, side) + 0.4),
        dpi=115,
        facecolor=GROUND,
        layout="constrained",
    )
    figure.suptitle(
        f"{scan.name}   ·   {len(scan):,} points, {np.mean(of_point >= 0) if len(scan) else 0:.0%} "
        "of them on a superpixel",
        color=INK,
        fontsize=10,
    )
    if not drawn:
        _draw_above(figure.subplots(), scan, of_point, views, colors, class_names)
        return figure
    grid = figure.add_gridspec(1, 2, width_ratios=(width, side + 0.5 + legend))
    images, above = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    _draw_images(images, drawn, colors, stacked=stacked, named=bool(class_names))
    _draw_above(above.subplots(), scan, of_point, views, colors, class_names)
    for part in (images, above):
        part.set_facecolor(GROUND)
    return figure


def _see(
    scan: Scan, superpixels: Sequence[np.ndarray], *, numbered: bool, min_depth: float
) -> list[_View]:
    views, offset = [], 0
    for camera, own in zip(scan.cameras, superpixels, strict=True):
        pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
        seen = visible_points(pixel, depth, camera.image_size, min_depth=min_depth)
        point = np.flatnonzero(seen)
        point = point[np.argsort(-depth[point], kind="stable")]
        numbers = np.where(own < 0, -1, own.astype(np.int64) + offset)
        u, v = pixel[point].astype(np.int64).T
        views.append(_View(camera, numbers, point, pixel[point], numbers[v, u]))
        if numbered:
            offset = max(offset, int(numbers.max(initial=-1)) + 1)
    return views


def _color_table(views: Sequence[_View], class_names: Sequence[str]) -> np.ndarray:
    """RGB of each superpixel; the last row, index -1, is that of none."""
    if any(not re.fullmatch(r"\D*\d+", name) for name in class_names):
        colors = class_colors(class_names)
    elif class_names:  # numbered, such as clusters: far apart, where those of names may meet
        colors = number_colors(np.arange(len(class_names)), saturation=0.75)
    else:
        count = max((int(view.superpixels.max(initial=-1)) for view in views), default=-1) + 1
        colors = number_colors(np.arange(count), saturation=0.75).reshape(-1, 3)
    return np.vstack([colors, IGNORED])


def _image_part(drawn: Sequence[_View]) -> tuple[float, float, bool]:
    """Inches of width and height that the images take, and whether those of one are stacked."""
    if not drawn:
        return 0.0, 0.0, False
    ratio = max(height / width for width, height in (view.camera.image_size for view in drawn))
    if len(drawn) == 1:
        width = min(6.5, 2.1 / ratio)
        return width, 3 * (width * ratio + 0.25), True
    return 3 * 4.0, len(drawn) * (4.0 * ratio + 0.25), False


def _draw_images(
    part: "SubFigure", drawn: Sequence[_View], colors: np.ndarray, *, stacked: bool, named: bool
) -> None:
    shape = (3, 1) if stacked else (len(drawn), 3)
    grid = part.subplots(*shape, squeeze=False).reshape(-1, 3)
    kind = "classes" if named else "superpixels"
    for row, view in zip(grid, drawn, strict=True):
        image, numbers = _shrink(view)
        width, height = view.camera.image_size
        extent = (0, width, height, 0)
        row[0].imshow(image, extent=extent)
        row[1].imshow(_overlay(image, numbers, colors), extent=extent)
        row[2].imshow(image // 2, extent=extent)
        table = np.vstack([colors[:-1], _NONE])
        row[2].scatter(*view.pixel.T, s=1.6, c=table[view.superpoint], linewidths=0)
        found = np.unique(numbers[numbers >= 0]).size
        superpoints = np.unique(view.superpoint[view.superpoint >= 0]).size
        titles = (
            view.camera.name,
            f"{found} {kind}",
            f"{len(view.point):,} points, {superpoints} superpoints",
        )
        for axes, title in zip(row, titles, strict=True):
            axes.set_title(title, color=INK, fontsize=8, pad=3)
            axes.set(xlim=(0, width), ylim=(height, 0))
            axes.axis("off")


def _shrink(view: _View) -> tuple[np.ndarray, np.ndarray]:
    """The image and its superpixels at the size at which they are drawn."""
    from PIL import Image

    width, height = view.camera.image_size
    factor = min(1.0, _WIDTH / width)
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    image = Image.fromarray(view.camera.load_image(at_least=size))
    u, v = (
        (2 * np.arange(new) + 1) * old // (2 * new)  # the middle of each
        for new, old in zip(size, (width, height), strict=True)
    )
    return np.asarray(image.resize(size, Image.Resampling.BOX)), view.superpixels[v[:, None], u]


def _overlay(image: np.ndarray, numbers: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """The image in grey under the colours of its superpixels, with bright borders."""
    grey = image.mean(axis=2, keepdims=True) / 255
    tinted = np.where(numbers[..., None] >= 0, (0.35 + 0.65 * grey) * colors[numbers], 0.6 * grey)
    border = np.zeros(numbers.shape, bool)
    border[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
    border[1:] |= numbers[1:] != numbers[:-1]
    return np.where(border[..., None], 1.0, tinted)


def _draw_above(
    axes: "Axes",
    scan: Scan,
    of_point: np.ndarray,
    views: Sequence[_View],
    colors: np.ndarray,
    class_names: Sequence[str],
) -> None:
    order = np.lexsort((scan.xyz[:, 2], of_point >= 0))  # those of superpixels on top
    size = np.where(of_point[order] >= 0, 1.6, 0.5)
    scatter_above(axes, scan.xyz[order], color=colors[of_point[order]], size=size)
    frame_above(axes, *_window(scan.xyz, of_point >= 0))
    count = sum(np.unique(view.superpoint[view.superpoint >= 0]).size for view in views)
    images = f"{len(views)} images" if len(views) != 1 else "1 image"
    title = f"{count} superpoints of {images}, from above"
    axes.set_title(title, color=INK, fontsize=9)
    if class_names:
        _legend(axes, of_point, colors, class_names)


def _window(xyz: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle and half the side of the square that holds nearly all superpoints, at most 40 m.

    The sensor is in it if it is among the points.
    """
    if not shown.any():
        return np.zeros(2), 40.0
    low, high = np.percentile(xyz[shown, :2], (3, 97), axis=0)
    if ((xyz[:, :2].min(axis=0) < 0) & (xyz[:, :2].max(axis=0) > 0)).all():
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    return (low + high) / 2, float(np.clip(0.6 * (high - low).max(), 2, 40))


def _legend(
    axes: "Axes", of_point: np.ndarray, colors: np.ndarray, class_names: Sequence[str]
) -> None:
    """The classes with the most points, and their share of the points that have one."""
    counts = np.bincount(of_point[of_point >= 0], minlength=len(class_names))
    order = np.argsort(-counts, kind="stable")[: (counts > 0).sum()]
    named = order[:_MOST_NAMES]
    labels = [f"{class_names[k]}  {counts[k] / counts.sum():.1%}" for k in named]
    entries = [*zip(labels, colors[named], strict=True)]
    if len(order) > _MOST_NAMES:
        entries.append((f"and {len(order) - _MOST_NAMES} more", None))
    add_legend(axes, [*entries, ("no superpixel", colors[-1])])


def _check(
    scan: Scan,
    superpixels: Sequence[np.ndarray],
    class_names: Sequence[str],
    max_cameras: int,
) -> None:
    if len(superpixels) != len(scan.cameras):
        raise ValueError(
            f"superpixels must be those of each of the scan's {len(scan.cameras)} cameras, in "
            f"their order, got {len(superpixels)}"
        )
    if max_cameras < 1:
        raise ValueError(f"max_cameras must be 1 or more, got {max_cameras}")
    for camera, own in zip(scan.cameras, superpixels, strict=True):
        width, height = camera.image_size
        if own.shape != (height, width):
            raise ValueError(
                f"superpixels of {camera.name} must be [{height}, {width}] (the image's size), "
                f"got {list(own.shape)}"
            )
        if class_names and own.max(initial=-1) >= len(class_names):
            raise ValueError(
                f"superpixels of {camera.name} must be below {len(class_names)} (the class "
                f"names), got {own.max()}; give the names of the network that made them"
            )
