"""Contrast of points and pixels: superpixel by superpixel, pair by pair, or with tolerance."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pc_losses.contrast import info_nce, unit_rows
from pc_losses.reduction import mean_over_processes
from pc_losses.volumes import check_temperature


def superpixel_info_nce(
    point: Float[Tensor, "s c"], pixel: Float[Tensor, "s c"], *, temperature: float = 0.07
) -> Float[Tensor, ""]:
    """Pick each superpoint's own superpixel among the superpixels of all images.

    With k_i and q_i the features of superpoint and superpixel i, the loss is the mean over the
    superpixels of all processes (see `mean_over_processes`) of

        -log( exp(k_i . q_i / temperature) / sum_j exp(k_i . q_j / temperature) ),

    one direction, where j goes over all superpixels of this process's batch and of no other. None
    give a zero that can be back-propagated.

    Features are taken as they are. In the paper they are means of unit rows (`pool_groups` of
    `unit_rows`), over all pixels of a superpixel and over its pairs of a point and a pixel; such a
    mean is the shorter the more its rows differ, and so counts less. Leave out superpixels without
    a point.

    Memory: an [s, s] matrix, held about twice in the backward pass; 58 MB for 3800 superpixels.

    Args:
        point: Mean point feature of each superpixel.
        pixel: Mean pixel feature of the same superpixels; gradients flow there as well.
        temperature: What the products are divided by, above 0.

    Raises:
        ValueError: If the shapes differ or the temperature is not above 0.

    Source: SLidR (Sautier et al., CVPR 2022, arXiv:2203.16258), whose released code does the same
        on one process; CSC (Chen et al., CVPR 2024), Eq. 5. On several processes both codes
        average the processes' means, where here each superpixel weighs the same.
    """
    _check_sides(point, pixel)
    check_temperature(temperature)
    with torch.autocast(point.device.type, enabled=False):
        point, pixel = _single_pair(point, pixel)
        return mean_over_processes(_own_among_all((point / temperature) @ pixel.T))


def ppkt_info_nce(
    point: Float[Tensor, "p c"],
    pixel: Float[Tensor, "p c"],
    *,
    generator: torch.Generator,
    num_pairs: int = 4096,
    temperature: float = 0.07,
) -> Float[Tensor, ""]:
    """Pick each point's own pixel among the pixels of random pairs.

    This is `info_nce` of points and pixels on pairs drawn without replacement, each process its
    own; negatives are those of the process. The mean is over the drawn pairs of all processes.
    None give a zero that can be back-propagated.

    Args:
        point: Feature of the point of each pair, of any length; L2-normalised here.
        pixel: Feature of its pixel; gradients flow there as well.
        generator: Source of the draw.
        num_pairs: How many pairs to draw; all where there are fewer.
        temperature: What the cosines are divided by, above 0.

    Raises:
        ValueError: If the shapes differ, the temperature is not above 0 or fewer than one pair is
            asked for.

    Source: PPKT (Liu et al., 2021, arXiv:2104.04687), with the settings of SLidR's released code
        (Sautier et al., CVPR 2022, arXiv:2203.16258). That one fails where there are fewer pairs.
    """
    _check_sides(point, pixel)
    if num_pairs < 1:
        raise ValueError(f"num_pairs must be at least 1, got {num_pairs}; the default will do")
    drawn = torch.randperm(len(point), generator=generator, device=generator.device)[:num_pairs]
    drawn = drawn.to(point.device)
    return info_nce(point[drawn], pixel[drawn], temperature=temperature)


def dissimilarity(similarity: Float[Tensor, "s s"]) -> Float[Tensor, "s s"]:
    """Weigh negatives by 1 - similarity: the more alike, the less a superpixel repels."""
    return 1 - similarity


def ignore_most_similar(
    similarity: Float[Tensor, "s s"], *, share: float = 0.01
) -> Float[Tensor, "s s"]:
    """Weigh negatives by 0 or 1: for each superpixel the most similar ones do not repel.

    These are ceil(share * (s - 1)) of each row, the superpixel itself being the first of them;
    where the last of them ties with others, such as those that have nothing in common, all that
    tie repel. So up to 1 / share superpixels all others repel.

    Raises:
        ValueError: If `share` is not in [0, 1].

    Source: settings of the released code of ST-SLidR (Mahmoud et al., CVPR 2023,
        arXiv:2301.05709), which finds the same ones by a quantile of 1 - similarity.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}; the default will do")
    num = math.ceil(share * (len(similarity) - 1))
    if num < 1:
        return torch.ones_like(similarity)
    similarity = similarity.clone().fill_diagonal_(math.inf)
    limit = similarity.topk(num + 1, dim=1).values[:, -1:]  # the first that repels
    return (similarity <= limit).to(similarity.dtype)


def rarity(similarity: Float[Tensor, "s s"], *, threshold: float = 0.5) -> Float[Tensor, " s"]:
    """Weigh superpixels by how few others are alike: 1 for the rarest, 0 for the commonest.

    With v_i the sum of the similarities of superpixel i that are at least `threshold`, the weight
    is 1 - (v_i - min v) / (max v - min v); 1 for all if all v are the same but for rounding.

    Source: class-agnostic balancing of ST-SLidR (Mahmoud et al., CVPR 2023, arXiv:2301.05709) as
        in its released code, which divides 0 by 0 where all v are the same.
    """
    votes = torch.where(similarity >= threshold, similarity, 0).sum(dim=1)
    if not len(votes):
        return votes
    extra = votes - votes.amin()
    most = extra.amax()
    return torch.where(most > 1e-5 * len(votes), 1 - extra / most.clamp(min=1e-30), 1)


def tolerant_info_nce(
    point: Float[Tensor, "s c"],
    pixel: Float[Tensor, "s c"],
    guide: Float[Tensor, "s d"],
    *,
    temperature: float = 0.07,
    weigh_negatives: Callable[[Tensor], Tensor] = dissimilarity,
    weigh_superpixels: Callable[[Tensor], Tensor] = rarity,
) -> Float[Tensor, ""]:
    """Contrast superpixels, those that look alike less: the semantically tolerant loss.

    With g_i what the frozen image network says of superpixel i, and k_i and q_i as in
    `superpixel_info_nce`,

        a_ij = max(0, cos(g_i, g_j)),
        w_ij = 1 - a_ij for j != i, and w_ii = 1               (`weigh_negatives`),
        L_i = -log( exp(k_i . q_i / temperature) / sum_j exp(w_ij k_i . q_j / temperature) ),
        b_i = 1 - (v_i - min v) / (max v - min v),
              v_i = sum of the a_ij that are at least 0.5      (`weigh_superpixels`),
        loss = sum_i b_i L_i / sum_i b_i.

    A negative of weight 0 adds a constant to the sum and gets no gradient. Sums, minimum and
    maximum are over the superpixels of this process's batch; the result is the mean of the
    processes' losses, each weighing as many superpixels as it has (see `mean_over_processes`).
    Superpixels whose guide is zero are left out, as negatives too. None give a zero that can be
    back-propagated. Neither weight carries a gradient.

    Memory: two [s, s] matrices more than `superpixel_info_nce`.

    Args:
        point: Mean point feature of each superpixel, taken as it is.
        pixel: Mean pixel feature of the same superpixels, taken as it is.
        guide: Their mean features of the frozen image network, before the trained projection, of
            any length.
        temperature: What the products are divided by, above 0.
        weigh_negatives: Gives w from a [s, s]; its diagonal does not count. `ignore_most_similar`
            is that of the released settings.
        weigh_superpixels: Gives b from a [s, s]. `lambda a: a.new_ones(len(a))` balances nothing.

    Raises:
        ValueError: If shapes differ or the temperature is not above 0.

    Source: ST-SLidR (Mahmoud et al., CVPR 2023, arXiv:2301.05709), as its released code computes
        it. The best results there use `ignore_most_similar` and `rarity`. Differs by the cut of a
        at 0 in the balance, which that code makes in the other weight only.
    """
    _check_sides(point, pixel)
    check_temperature(temperature)
    if guide.ndim != 2 or len(guide) != len(point):
        raise ValueError(
            f"guide must be [s, d] with a row for each of the {len(point)} superpixels, got "
            f"{list(guide.shape)}"
        )
    with torch.autocast(point.device.type, enabled=False):
        point, pixel = _single_pair(point, pixel)
        known, weight, balance = _find_weights(guide, weigh_negatives, weigh_superpixels)
        point, pixel = point[known], pixel[known]
        scores = ((point / temperature) @ pixel.T) * weight.to(point.dtype)
        terms = _own_among_all(scores)
        return mean_over_processes(terms * balance.to(terms.dtype))


@torch.no_grad()
def _find_weights(
    guide: Tensor,
    weigh_negatives: Callable[[Tensor], Tensor],
    weigh_superpixels: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Which superpixels count, weights of the products, and of the superpixels, of mean 1."""
    unit = unit_rows(guide)
    known = unit.any(dim=1)
    unit = unit[known]
    similarity = (unit @ unit.T).clamp(min=0, max=1)
    weight = weigh_negatives(similarity).clone().fill_diagonal_(1)
    balance = weigh_superpixels(similarity)
    return known, weight, balance * (len(balance) / balance.sum().clamp(min=1e-30))


def _own_among_all(scores: Float[Tensor, "s s"]) -> Float[Tensor, " s"]:
    own = torch.arange(len(scores), device=scores.device)
    return functional.cross_entropy(scores, own, reduction="none")


def _single_pair(point: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(torch.promote_types(point.dtype, pixel.dtype), torch.float32)
    return point.to(dtype), pixel.to(dtype)


def _check_sides(point: Tensor, pixel: Tensor) -> None:
    if point.ndim != 2 or point.shape != pixel.shape:
        raise ValueError(
            f"point and pixel must both be [s, c], got {list(point.shape)} and "
            f"{list(pixel.shape)}; give the two features of each superpixel or pair in the same row"
        )
