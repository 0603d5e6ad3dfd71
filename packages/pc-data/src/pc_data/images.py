"""From decoded images to what 2D networks take."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional


def resize_image(
    image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int], *, antialias: bool = False
) -> Float[Tensor, "3 h2 w2"]:
    """Resize bilinearly and scale to 0..1.

    Args:
        image: RGB.
        size: (height, width) in pixels.
        antialias: Low-pass first. ScaLR's environment did not, hence the default.
    """
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    resized = functional.interpolate(
        pixels.float() / 255, size=size, mode="bilinear", align_corners=False, antialias=antialias
    )
    return resized[0].clamp_(0, 1)


def resize_pixels(
    pixel: Float[np.ndarray, "n 2"], from_size: tuple[int, int], to_size: tuple[int, int]
) -> Float[np.ndarray, "n 2"]:
    """Move pixel positions to the resized image: floored, scaled and floored, as ScaLR does.

    Args:
        pixel: (u, v), not negative but for rounding.
        from_size: (width, height) of the image that they refer to.
        to_size: (height, width) of the resized one.
    """
    factor = np.array([to_size[1] / from_size[0], to_size[0] / from_size[1]])
    return np.floor(np.floor(pixel).clip(0) * factor).astype(np.float32)
