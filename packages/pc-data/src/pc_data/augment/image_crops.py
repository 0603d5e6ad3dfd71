"""Random crops and mirrors of images, and where their pixels go."""

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from pc_data.augment.draws import Range, happens, require_range

_DRAWS = 10


@dataclass(frozen=True, kw_only=True)
class ImageCrop:
    """A rectangle of an image that becomes an image of its own.

    Attributes:
        left: First column.
        top: First row.
        width: Columns.
        height: Rows.
        mirrored: Whether left and right change places.
    """

    left: int
    top: int
    width: int
    height: int
    mirrored: bool = False


def whole_image(image_size: tuple[int, int]) -> ImageCrop:
    """Return the crop that takes all of an image of (width, height)."""
    return ImageCrop(left=0, top=0, width=image_size[0], height=image_size[1])


def draw_crop(
    image_size: tuple[int, int],
    rng: np.random.Generator,
    *,
    area: Range = (0.3, 1.0),
    ratio: Range = (14 / 9, 17 / 9),
    mirror_probability: float = 0.5,
) -> ImageCrop:
    """Draw a rectangle of an image, and whether it is mirrored.

    Args:
        image_size: (width, height) in pixels.
        rng: Draws.
        area: Range of its area, as a share of the image's.
        ratio: Range of width / height, drawn evenly in its logarithm. If no rectangle fits in 10
            draws, the largest in the middle is taken.
        mirror_probability: Of mirroring.

    Raises:
        ValueError: If a range is not positive and in order, or the probability not in [0, 1].

    Source: SLidR (Sautier et al., CVPR 2022) and CSC (Chen et al., CVPR 2024), by torchvision's
        RandomResizedCrop.
    """
    require_range("area", area, least=1e-6, most=1.0)
    require_range("ratio", ratio, least=1e-6)
    columns, rows = image_size
    mirrored = happens(rng, mirror_probability)
    for _ in range(_DRAWS):
        pixels = columns * rows * rng.uniform(*area)
        shape = exp(rng.uniform(log(ratio[0]), log(ratio[1])))
        width, height = round(sqrt(pixels * shape)), round(sqrt(pixels / shape))
        if 0 < width <= columns and 0 < height <= rows:
            left = int(rng.integers(columns - width + 1))
            top = int(rng.integers(rows - height + 1))
            break
    else:
        shape = min(max(columns / rows, ratio[0]), ratio[1])
        width, height = min(columns, round(rows * shape)), min(rows, round(columns / shape))
        left, top = (columns - width) // 2, (rows - height) // 2
    return ImageCrop(left=left, top=top, width=width, height=height, mirrored=mirrored)


def crop_image(image: UInt8[np.ndarray, "h w 3"], crop: ImageCrop) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Cut a crop out of an image, mirrored if it says so.

    `pc_data.images.resize_image` then brings it to its size.
    """
    cut = _cut(image, crop)
    return cut[:, ::-1] if crop.mirrored else cut


def crop_map(map_: np.ndarray, crop: ImageCrop, size: tuple[int, int]) -> np.ndarray:
    """Cut a crop out of a map [h w] of integers and resize it without mixing, e.g. superpixels.

    Args:
        map_: One number for each pixel.
        crop: Of the image that it belongs to.
        size: (height, width) of the result; each pixel takes the one below its upper left corner,
            as torch's and torchvision's "nearest" do.
    """
    rows = np.arange(size[0]) * crop.height // size[0]
    columns = np.arange(size[1]) * crop.width // size[1]
    if crop.mirrored:
        columns = columns[::-1]
    return _cut(map_, crop)[rows[:, None], columns]


def crop_pixels(
    pixel: Float[np.ndarray, "n 2"], crop: ImageCrop, size: tuple[int, int]
) -> tuple[Float32[np.ndarray, "n 2"], Bool[np.ndarray, " n"]]:
    """Move pixel positions to a resized crop: rounded, moved and rounded, as SLidR does.

    Args:
        pixel: (u, v) in the original image.
        crop: Of that image.
        size: (height, width) in pixels of the resized crop.

    Returns:
        (u, v) in the crop, whole numbers, and which of them are inside.
    """
    scale = np.array([size[1] / crop.width, size[0] / crop.height])
    moved = np.round((np.round(pixel.astype(np.float64)) - (crop.left, crop.top)) * scale)
    inside = np.all((moved >= 0) & (moved < (size[1], size[0])), axis=1)
    if crop.mirrored:
        moved[:, 0] = size[1] - 1 - moved[:, 0]
    return moved.astype(np.float32), inside


def _cut(image: np.ndarray, crop: ImageCrop) -> np.ndarray:
    return image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
