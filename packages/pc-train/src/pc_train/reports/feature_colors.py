"""Features as colours."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64


class ColorScale(NamedTuple):
    """From features to colours: the three directions in which the features of a cloud differ most.

    Attributes:
        middle: Mean of the features.
        directions: One a channel, as columns; zero for a channel that stays grey.
        low: Value along each that gets brightness 0.
        high: Value along each that gets brightness 1.
    """

    middle: Float64[np.ndarray, " c"]
    directions: Float64[np.ndarray, "c 3"]
    low: Float64[np.ndarray, " 3"]
    high: Float64[np.ndarray, " 3"]

    def paint(self, feat: Float[np.ndarray, "n c"]) -> Float32[np.ndarray, "n 3"]:
        """Colour features, RGB in 0..1."""
        value = (np.asarray(feat, np.float64) - self.middle) @ self.directions
        color = np.clip((value - self.low) / (self.high - self.low), 0, 1)
        return color.astype(np.float32)


def color_scale(feat: Float[np.ndarray, "n c"]) -> ColorScale:
    """Find the colours of features, of all or of enough of them.

    The direction of a component is the one in which its largest entry is positive, so the same
    features have the same colours. Values beyond 2% and 98% are cut off. A component that is
    missing or constant is grey.

    Source: pictures of features as in DINOv2 (Oquab et al., TMLR 2024, arXiv:2304.07193), figure 1.
    """
    width = feat.shape[1]
    middle = feat.astype(np.float64).mean(axis=0) if len(feat) else np.zeros(width)
    chosen, low, high = np.zeros((width, 3)), np.full(3, -0.5), np.full(3, 0.5)
    if len(feat) < 2:
        return ColorScale(middle, chosen, low, high)
    centred = feat.astype(np.float64) - middle
    variance, directions = np.linalg.eigh(centred.T @ centred / len(feat))
    for channel, k in enumerate(np.argsort(-variance, kind="stable")[:3]):
        if variance[k] <= 1e-10 * max(variance.max(), 1e-30):
            continue
        direction = directions[:, k]
        direction = direction * np.sign(direction[np.abs(direction).argmax()])
        ends = np.percentile(centred @ direction, (2, 98))
        if ends[1] > ends[0]:
            chosen[:, channel] = direction
            low[channel], high[channel] = ends
    return ColorScale(middle, chosen, low, high)
