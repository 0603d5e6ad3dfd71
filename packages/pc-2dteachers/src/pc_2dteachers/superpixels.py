"""Superpixels that need no network: regions of one image that are alike in colour."""

from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8


def slic_superpixels(
    image: UInt8[np.ndarray, "h w 3"],
    *,
    num_segments: int = 150,
    compactness: float = 6.0,
    sigma: float = 3.0,
) -> Int32[np.ndarray, "h w"]:
    """Divide an image into about `num_segments` connected regions by colour and place.

    A number means nothing outside its image. SLidR takes 30 segments for VoxelNet.

    Args:
        image: RGB.
        num_segments: About how many; a few more or less come out.
        compactness: Weight of the place against the colour (CIELAB): higher is squarer.
        sigma: Of the Gaussian that smooths the image first, in pixels.

    Returns:
        Segment of each pixel, 0 and up without a gap.

    Raises:
        ImportError: If scikit-image is not installed; the message says how.
        ValueError: If a setting is out of range or the image is not RGB in bytes.

    Source: SLIC (Achanta et al., PAMI 2012) with the settings of SLidR (Sautier et al., CVPR 2022,
        arXiv:2203.16258), by scikit-image.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"image must be RGB bytes [h, w, 3] and not empty, got {image.dtype} "
            f"{list(image.shape)}"
        )
    if num_segments < 1 or not compactness > 0 or not sigma >= 0:
        raise ValueError(
            "num_segments must be 1 or more, compactness above 0 and sigma 0 or more, got "
            f"{num_segments}, {compactness} and {sigma}"
        )
    segments = _segmentation().slic(
        image, n_segments=num_segments, compactness=compactness, sigma=sigma, start_label=0
    )
    return segments.astype(np.int32)


def _segmentation() -> Any:  # noqa: ANN401
    try:
        from skimage import segmentation
    except ImportError as error:
        raise ImportError(
            "SLIC superpixels need scikit-image: pip install 'pc-2dteachers[superpixels]'"
        ) from error
    return segmentation
