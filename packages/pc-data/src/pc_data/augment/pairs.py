"""Pairs of a point and a pixel that shows it, and the augmentations that must carry them along.

A pair names its point and its pixel by number, so whatever moves the points afterwards leaves it
true; only what drops points or crops images has to know of it.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64
from pc_geometry import project_points
from pc_geometry.arrays import require_count
from pc_geometry.cameras import visible_points

from pc_data.augment.draws import Range, require_fraction
from pc_data.augment.image_crops import ImageCrop, crop_pixels, draw_crop, whole_image
from pc_data.augment.sampling import outside_cuboid
from pc_data.scan import Scan

_DRAWS = 100
"""How often a crop is drawn; then the whole image is taken."""


@dataclass(frozen=True, kw_only=True)
class PixelPairs:
    """Points and the pixels that show them; a point may be seen by several cameras.

    Attributes:
        point: Index into the scan's points.
        image_index: Which camera of the scan.
        pixel: (u, v) in that camera's image.
    """

    point: Int64[np.ndarray, " m"]
    image_index: Int64[np.ndarray, " m"]
    pixel: Float32[np.ndarray, "m 2"]

    def __len__(self) -> int:
        return len(self.point)

    def select(self, keep: Int64[np.ndarray, " k"] | Bool[np.ndarray, " m"]) -> "PixelPairs":
        """Keep some pairs, given by index or by mask."""
        return PixelPairs(
            point=self.point[keep], image_index=self.image_index[keep], pixel=self.pixel[keep]
        )

    def follow(self, kept: Int64[np.ndarray, " k"] | Bool[np.ndarray, " n"]) -> "PixelPairs":
        """Keep the pairs of the points that `scan.select(kept)` keeps, renumbered as it does.

        Args:
            kept: A mask over the scan's points, or their indices, each at most once.
        """
        kept = np.flatnonzero(kept) if kept.dtype == bool else kept
        most = max(int(array.max(initial=-1)) for array in (kept, self.point))
        number = np.full(most + 1, -1)
        number[kept] = np.arange(len(kept))
        point = number[self.point]
        return dataclasses.replace(self, point=point).select(point >= 0)


def pair_pixels(scan: Scan, *, min_depth: float = 1.0) -> PixelPairs:
    """Pair each point with its pixel in each camera that sees it.

    Call it before anything moves the points: rounding could push a pixel over the image's edge.

    Args:
        scan: With cameras.
        min_depth: Metres in front of a camera from which on a point counts as seen.

    Source: SLidR (Sautier et al., CVPR 2022) and CSC (Chen et al., CVPR 2024): all cameras.
    """
    point, image_index, pixel = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty((0, 2))]
    for index, camera in enumerate(scan.cameras):
        uv, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
        seen = np.flatnonzero(visible_points(uv, depth, camera.image_size, min_depth=min_depth))
        point.append(seen)
        image_index.append(np.full(len(seen), index))
        pixel.append(uv[seen])
    return PixelPairs(
        point=np.concatenate(point),
        image_index=np.concatenate(image_index),
        pixel=np.concatenate(pixel).astype(np.float32),
    )


def drop_cuboid_paired(
    scan: Scan,
    pairs: PixelPairs,
    rng: np.random.Generator,
    *,
    side: Range = (0.0, 0.2),
    min_pairs: int = 1024,
) -> tuple[Scan, PixelPairs]:
    """Drop the points in a random cuboid, unless an image would keep too few pairs.

    Args:
        scan: With cameras.
        pairs: Of the scan.
        rng: Draws the cuboid, once.
        side: Range of its sides, as a share of the scan's extent along their axes.
        min_pairs: Nothing is dropped if an image of the scan would be left with fewer.

    Raises:
        ValueError: If a parameter is out of range.

    Source: SLidR (Sautier et al., CVPR 2022), DropCuboids; CSC (Chen et al., CVPR 2024) the same.
    """
    require_count("min_pairs", min_pairs, least=0)
    if not len(scan):
        return scan, pairs
    kept = outside_cuboid(scan, rng, side=side)
    remaining = pairs.follow(kept)
    count = np.bincount(remaining.image_index, minlength=len(scan.cameras))
    if count.min(initial=min_pairs) < min_pairs:
        return scan, pairs
    return scan.select(kept), remaining


def crop_paired(
    pairs: PixelPairs,
    image_sizes: Sequence[tuple[int, int]],
    rng: np.random.Generator,
    *,
    size: tuple[int, int] = (224, 416),
    area: Range = (0.3, 1.0),
    ratio: Range = (14 / 9, 17 / 9),
    mirror_probability: float = 0.5,
    min_pairs: int = 1024,
    min_share: float = 0.75,
) -> tuple[PixelPairs, tuple[ImageCrop, ...]]:
    """Crop, resize and mirror each image at random, and move its pixels; pairs outside go.

    Args:
        pairs: Of a scan.
        image_sizes: (width, height) of its images, in pixels.
        rng: Draws the crops.
        size: (height, width) of the resized crops.
        area: As for `draw_crop`.
        ratio: As for `draw_crop`.
        mirror_probability: As for `draw_crop`.
        min_pairs: A crop is drawn anew until it keeps more pairs than this, ...
        min_share: ... or more than this share of the image's. After 100 draws the whole image is
            taken, where the released code goes on for ever.

    Returns:
        The pairs that are left, image by image, with whole-numbered pixels of the crops, and the
        crops, for `crop_image` and `crop_map`.

    Raises:
        ValueError: If a parameter is out of range.

    Source: SLidR (Sautier et al., CVPR 2022), ResizedCrop and FlipHorizontal; CSC (Chen et al.,
        CVPR 2024) the same.
    """
    require_count("min_pairs", min_pairs, least=0)
    require_fraction("min_share", min_share)
    crops, parts = [], [pairs.select(np.empty(0, np.int64))]
    for index, image_size in enumerate(image_sizes):
        part = pairs.select(pairs.image_index == index)
        for draw in range(_DRAWS + 1):
            crop = draw_crop(
                image_size, rng, area=area, ratio=ratio, mirror_probability=mirror_probability
            )
            if draw == _DRAWS:
                crop = dataclasses.replace(whole_image(image_size), mirrored=crop.mirrored)
            pixel, inside = crop_pixels(part.pixel, crop, size)
            if not len(part) or inside.sum() > min_pairs or inside.mean() > min_share:
                break
        crops.append(crop)
        parts.append(dataclasses.replace(part, pixel=pixel).select(inside))
    return _join(parts), tuple(crops)


def resize_paired(
    pairs: PixelPairs, image_sizes: Sequence[tuple[int, int]], *, size: tuple[int, int] = (224, 416)
) -> PixelPairs:
    """Move all pairs to the resized whole images; none is lost.

    Source: SLidR (Sautier et al., CVPR 2022) in validation; the pass that builds CSC's prototypes
        (Chen et al., CVPR 2024).
    """
    parts = [pairs.select(np.empty(0, np.int64))]
    for index, image_size in enumerate(image_sizes):
        part = pairs.select(pairs.image_index == index)
        pixel, _ = crop_pixels(part.pixel, whole_image(image_size), size)
        largest = np.array([size[1] - 1, size[0] - 1], np.float32)
        parts.append(dataclasses.replace(part, pixel=pixel.clip(0, largest)))
    return _join(parts)


def _join(parts: list[PixelPairs]) -> PixelPairs:
    return PixelPairs(
        point=np.concatenate([part.point for part in parts]),
        image_index=np.concatenate([part.image_index for part in parts]),
        pixel=np.concatenate([part.pixel for part in parts]),
    )
