"""Means over groups of rows: superpixels of a feature map, superpoints of a cloud."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional


def pool_groups(
    features: Float[Tensor, "r c"],
    group: Int64[Tensor, " m"],
    num_groups: int,
    *,
    rows: Int64[Tensor, " m"] | None = None,
    weight: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, "g c"]:
    """Average the rows of each group: sum(weight * row) / sum(weight).

    Groups without rows, or whose weights are all 0, get a row of zeros. Halves are summed in
    float32, and float32 comes back. Gradients flow to the features and the weights. Nothing is
    summed by atomic additions: on a CPU the same input gives the same bits, however many threads
    there are.

    Memory: with `rows` the features are never copied row by row, where `features[rows]` would be.

    Args:
        features: What is averaged, such as the pixels of all images, end to end.
        group: Group of each row, below `num_groups`; negative = of none. In any order.
        num_groups: How many rows the result has.
        rows: Which row of `features` each entry of `group` speaks of, such as the point of each
            pair of a point and a pixel; a row may occur often or never. Default: each row once.
        weight: Of each entry of `group`, not negative. Default: all the same.

    Raises:
        ValueError: If the lengths do not fit, a group is not below `num_groups`, `rows` names a
            row that does not exist, or a weight is negative.
    """
    num_none = _check_groups(features, group, num_groups, rows, weight)
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        order = group.argsort(stable=True)[num_none:]
        shifted = (group + 1).clamp(min=0)  # 0 = of none
        counts = torch.bincount(shifted, minlength=num_groups + 1)[1:]
        starts = counts.cumsum(0) - counts
        scale = None if weight is None else weight[order].to(features.dtype)
        totals = functional.embedding_bag(
            order if rows is None else rows[order],
            features,
            starts,
            mode="sum",
            per_sample_weights=scale,
        )
        if scale is not None:
            own = torch.arange(len(order), device=order.device)
            counts = functional.embedding_bag(own, scale[:, None], starts, mode="sum")[:, 0]
        share = torch.where(counts > 0, counts, 1).to(features.dtype)
        return totals / share[:, None]


def _check_groups(
    features: Tensor, group: Tensor, num_groups: int, rows: Tensor | None, weight: Tensor | None
) -> int:
    """Check what came, and count the entries of no group; the host waits for a device once."""
    num = len(features) if rows is None else len(rows)
    if features.ndim != 2 or group.shape != (num,):
        raise ValueError(
            f"features must be [r, c] and group [{num}], a group a row, got "
            f"{list(features.shape)} and {list(group.shape)}"
        )
    if weight is not None and weight.shape != (num,):
        raise ValueError(f"weight must be [{num}], a weight a row, got {list(weight.shape)}")
    if not num:
        return 0
    some = torch.zeros(1, device=group.device)
    limits = [
        (group < 0).sum(),
        group.max(),
        *(some if rows is None else rows).aminmax(),
        (some if weight is None else weight.detach()).min(),
    ]
    num_none, most, first, last, least = torch.stack([x.double() for x in limits]).tolist()
    if most >= num_groups:
        raise ValueError(
            f"groups must be below num_groups, {num_groups}, got {int(most)}; number the "
            "groups of all images of a batch through, and give how many there are"
        )
    if rows is not None and (first < 0 or last >= len(features)):
        raise ValueError(
            f"rows must be in [0, {len(features)}), the rows of features, got {int(first)} "
            f"to {int(last)}; number the points through the packed batch"
        )
    if least < 0:
        raise ValueError(f"weights must not be negative, got {least}")
    return int(num_none)
