"""How evenly features spread over the sphere."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pc_losses.contrast import unit_rows

_ROWS = 1024  # of the matrix of similarities that are held at once


@torch.no_grad()
def uniformity_score(feat: Float[Tensor, "n c"], *, sharpness: float = 2.0) -> Float[Tensor, ""]:
    """Measure how much room features leave between each other; the lower, the more.

    The logarithm of the mean, over all pairs, of exp(-sharpness * squared distance) of the
    L2-normalised features: 0 if all are the same (collapse), about -2 * sharpness for directions
    spread evenly in many dimensions. Of this process's points; no gradient. NaN for fewer than two
    points. Memory grows with the number of points, not with that of pairs.

    Args:
        feat: Features of the points, of any length.
        sharpness: How fast the weight of a pair falls; the paper's t.

    Raises:
        ValueError: If `sharpness` is not above 0.

    Source: Wang and Isola (ICML 2020, arXiv:2005.10242), equation 2.
    """
    if not sharpness > 0:
        raise ValueError(f"sharpness must be above 0, got {sharpness}; the paper's is 2")
    num = len(feat)
    if num < 2:
        return feat.new_full((), torch.nan)
    unit = unit_rows(feat)

    def weights(cosine: Tensor) -> Tensor:
        return torch.exp(-sharpness * (2 - 2 * cosine)).sum(dtype=torch.float64)

    total = sum(weights(rows @ unit.T) for rows in unit.split(_ROWS))
    mean = (total - weights((unit * unit).sum(dim=1))) / (num * (num - 1))  # none with itself
    return mean.clamp(min=math.exp(-4 * sharpness)).log().to(unit.dtype)  # opposite directions
