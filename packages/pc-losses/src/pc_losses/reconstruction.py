"""Reconstruction of what masked points looked like: their colour and their normal."""

import torch
from jaxtyping import Float
from torch import Tensor

from pc_losses.contrast import unit_rows
from pc_losses.reduction import mean_over_processes


def color_reconstruction(
    predicted: Float[Tensor, "n c"], target: Float[Tensor, "n c"]
) -> Float[Tensor, ""]:
    """Average the squared error of the colours of masked points, summed over the channels.

    Give the masked points of both views in one tensor: the mean is over all of them, and over all
    processes (see `mean_over_processes`). No points give a zero that can be back-propagated.

    Args:
        predicted: Output of a linear head at the masked points.
        target: Their colours, in the units of the network's input, -1 to 1 in MSC; or what else
            the points show, as the one number of a LiDAR's intensity.

    Raises:
        ValueError: If the shapes are not both [n, c].

    Source: MSC (Wu et al., CVPR 2023, arXiv:2303.14191), Eq. 4: three times the mean squared error
        over all numbers. The paper aims at the original colours, the released code at those of the
        augmented view; the caller chooses.
    """
    _check_shapes(predicted, target)
    dtype = torch.promote_types(torch.promote_types(predicted.dtype, target.dtype), torch.float32)
    return mean_over_processes((predicted.to(dtype) - target.to(dtype)).square().sum(dim=1))


def normal_reconstruction(
    predicted: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"]
) -> Float[Tensor, ""]:
    """Average 1 - cos between predicted and true normals of masked points.

    Neither needs to be of unit length; a vector of length zero counts 1 and gives no gradient. The
    mean is over all processes (see `mean_over_processes`). No points give a zero that can be
    back-propagated.

    Args:
        predicted: Output of a linear head at the masked points.
        target: Their normals, turned as the view's points are; opposite normals are different.

    Raises:
        ValueError: If the shapes are not both [n, 3].

    Source: MSC (Wu et al., CVPR 2023, arXiv:2303.14191), Eq. 5. There, and in the released code,
        +cos is minimised, so their head learns the negated normal; 1 - cos, minimised here, learns
        the normal itself. The head being linear, the network below it gets the same task; negate
        the head's weights to move between the two.
    """
    _check_shapes(predicted, target, channels=3)
    dtype = torch.promote_types(predicted.dtype, target.dtype)
    cosine = (unit_rows(predicted.to(dtype)) * unit_rows(target.to(dtype))).sum(dim=1)
    return mean_over_processes(1 - cosine)


def _check_shapes(predicted: Tensor, target: Tensor, *, channels: int | None = None) -> None:
    fits = predicted.ndim == 2 and predicted.shape == target.shape
    if not fits or channels not in (None, predicted.shape[1]):
        raise ValueError(
            f"predicted and target must both be [n, {channels or 'c'}], got "
            f"{list(predicted.shape)} and {list(target.shape)}; select the same masked points from "
            "both"
        )
