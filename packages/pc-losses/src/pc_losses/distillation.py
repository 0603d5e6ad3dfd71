"""Distances between the features of points and those of their pixels."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pc_losses.reduction import mean_over_processes


def normalized_l2(
    student: Float[Tensor, "n c"], teacher: Float[Tensor, "n c"], *, eps: float = 1e-12
) -> Float[Tensor, ""]:
    """Average the distance between L2-normalised features over all point-pixel pairs.

    The distance is not squared: it equals sqrt(2 - 2 cos) and lies in 0..2. Where the two
    coincide the gradient is zero. The mean is over the pairs of all processes (see
    `mean_over_processes`); none give a zero that can be back-propagated.

    Args:
        student: Head output at the points.
        teacher: Image features at their pixels, usually without gradient.
        eps: Lower bound of the norms that are divided by.

    Raises:
        ValueError: If the shapes differ.

    Source: ScaLR (Puy et al., CVPR 2024, arXiv:2310.17504), Eq. 1. Differs from the released code,
        which computes it in half precision under autocast: here it is float32 throughout (float64
        if given), for the difference of two nearly equal unit vectors loses its digits otherwise.
        There each process takes the mean of its own pairs.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher must both be [n, c], got {list(student.shape)} and "
            f"{list(teacher.shape)}; match the head's width to the teacher"
        )
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        difference = functional.normalize(student.to(dtype), dim=1, eps=eps) - functional.normalize(
            teacher.to(dtype), dim=1, eps=eps
        )
        return mean_over_processes(torch.linalg.vector_norm(difference, dim=1))
