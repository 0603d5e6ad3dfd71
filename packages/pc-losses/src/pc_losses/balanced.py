"""Contrast of two modalities, with negatives that look unlike: similarity-balanced InfoNCE."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from pc_losses.contrast import unit_rows
from pc_losses.reduction import mean_over_processes


def balanced_info_nce(
    query: Float[Tensor, "p c"],
    key: Float[Tensor, "p c"],
    batch: Int64[Tensor, " p"] | None = None,
    *,
    rank: int,
    temperature: float = 0.1,
    guide: Float[Tensor, "p d"] | None = None,
) -> Float[Tensor, ""]:
    """Match units across two modalities, contrasting each with the units least like it.

    For unit i of a scan of B units, let s_ij be the cosine of the guides of i and j. Its negatives
    are the units j != i of the same scan with s_ij strictly below the `rank`-th smallest of them;
    i itself counts as the largest, whatever its duplicates. So

    - for `rank` < B these are the rank - 1 least similar units. Where others tie with the
      rank-th, all of the tied are left out;
    - for `rank` >= B they are all other units, duplicates of i too: the loss then equals the mean
      of `info_nce(query, key)` and `info_nce(key, query)` over that scan;
    - there may be none (guides that are all alike, or a single unit): the unit's loss is then 0.

    The loss is the mean, over the units of all scans and processes (see `mean_over_processes`) and
    over both directions, of the cross entropy of the own partner against the partners of the
    negatives, over cosine / temperature. No units give a zero that can be back-propagated. The
    choice of negatives carries no gradient.

    Memory: a matrix of similarities a scan, never one across scans, of which the backward pass
    keeps 9 bytes for each two units: 38 MB for 2048 units, 300 MB for 8 such scans. While a scan is
    computed it takes about 5 such matrices of numbers.

    Args:
        query: Projected features of the units in one modality (points), of any length; they are
            L2-normalised here.
        key: Those in the other modality (image), from which gradients flow as well.
        batch: Scan of each unit, sorted; None if all are of one scan.
        rank: The paper's L, at least 2. The paper does not tell its value.
        temperature: What the cosines are divided by, above 0. The paper does not tell it either;
            0.1 is that of ProposalContrast, the nearest published relative.
        guide: Features whose cosines say which units are alike. The default is `key`, the projected
            image features; pass those of the frozen image network for a choice that training does
            not move. The paper's notation allows both readings.

    Raises:
        ValueError: If shapes differ, `batch` is not sorted, `rank` is below 2 or the temperature is
            not above 0.

    Source: cross-modal self-supervised learning with effective contrastive units (Cai et al.,
        2024), Sec. II-B and II-C. For one scan this is the paper's formula, whose strict bound
        leaves L - 1 negatives where its prose keeps L; several scans are averaged unit by unit, so
        that a scan weighs as many units as it has.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; papers use 0.07 to 0.4")
    guide = key if guide is None else guide
    sizes = scan_sizes(query, key, batch, guide)
    check_rank(rank)
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.promote_types(query.dtype, key.dtype)
        query, key = unit_rows(query.to(dtype)), unit_rows(key.to(dtype))
        terms = [
            _both_directions(own_query, own_key, find_negatives(own_guide, rank=rank), temperature)
            for own_query, own_key, own_guide in zip(
                query.split(sizes), key.split(sizes), guide.split(sizes), strict=True
            )
        ]
        none = (query * key).sum(dim=1)[:0]  # keeps the graph where there is no unit
        return mean_over_processes(torch.cat([none, *terms]))


@torch.no_grad()
def find_negatives(guide: Float[Tensor, "p d"], *, rank: int) -> Bool[Tensor, "p p"]:
    """Tell for each unit of one scan (row) which others (column) are its negatives.

    See `balanced_info_nce` for the rule.
    """
    if not len(guide):
        return torch.zeros(0, 0, dtype=torch.bool, device=guide.device)
    with torch.autocast(guide.device.type, enabled=False):
        unit = unit_rows(guide)
        similarity = (unit @ unit.T).fill_diagonal_(torch.inf)
    limit = similarity.kthvalue(min(rank, len(guide)), dim=1, keepdim=True).values
    return similarity < limit


def scan_sizes(
    query: Tensor,
    key: Tensor,
    batch: Tensor | None,
    guide: Tensor | None = None,
    *,
    name: str = "batch",
) -> list[int]:
    """Count the units of each scan, in order; errors call the scan of each unit `name`.

    Raises:
        ValueError: If the features are not of the same units, or the units not in order of scan.
    """
    if query.ndim != 2 or query.shape != key.shape:
        raise ValueError(
            f"query and key must both be [p, c], got {list(query.shape)} and {list(key.shape)}; "
            "give the two features of each pair in the same row"
        )
    if guide is not None and (guide.ndim != 2 or len(guide) != len(query)):
        raise ValueError(
            f"guide must be [p, d] with a row for each of the {len(query)} units, got "
            f"{list(guide.shape)}"
        )
    if batch is None:
        return [len(query)]
    if batch.shape != query.shape[:1]:
        raise ValueError(f"{name} must be [{len(query)}], a scan a unit, got {list(batch.shape)}")
    if (batch[1:] < batch[:-1]).any():
        raise ValueError(
            f"{name} must be sorted, the units of a scan in one run; sort by scan first"
        )
    return batch.unique_consecutive(return_counts=True)[1].tolist()


def check_rank(rank: int) -> None:
    """Raise ValueError if no unit could have a negative."""
    if rank < 2:
        raise ValueError(
            f"rank must be at least 2, got {rank}; the negatives lie strictly below the rank-th "
            "smallest similarity, so rank 1 leaves none"
        )


def _both_directions(
    query: Tensor, key: Tensor, negatives: Tensor, temperature: float
) -> Float[Tensor, " p"]:
    similarity = (query / temperature) @ key.T
    own = torch.arange(len(query), device=query.device)
    left_out = ~negatives
    left_out[own, own] = False
    forth, back = (
        functional.cross_entropy(scores.masked_fill(left_out, -torch.inf), own, reduction="none")
        for scores in (similarity, similarity.T)
    )
    return (forth + back) / 2
