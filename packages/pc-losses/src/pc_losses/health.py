"""Signs that features collapse while a contrastive loss still looks fine."""

import torch
from jaxtyping import Float
from torch import Tensor

from pc_losses.contrast import unit_rows


@torch.no_grad()
def feature_spread(feat: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Measure how far features point in different directions; watch it while training.

    The standard deviation of each dimension of the L2-normalised features, averaged over the
    dimensions: 0 if all features are the same (collapse), about 1 / sqrt(c) if they point in all
    directions alike, and never more. Of this process's points; no gradient. NaN for fewer than two
    points, which have no spread.

    Source: SimSiam (Chen and He, CVPR 2021, arXiv:2011.10566), the study of collapse.
    """
    feat = unit_rows(feat)
    if len(feat) < 2:
        return feat.new_full((), torch.nan)
    return feat.std(dim=0, correction=0).mean()


@torch.no_grad()
def negative_similarity(
    query: Float[Tensor, "p c"], key: Float[Tensor, "p c"]
) -> Float[Tensor, ""]:
    """Average the cosine between queries and the keys of other pairs; watch it while training.

    1 if all features are the same (collapse), near 0 for directions spread evenly. Costs no
    [p, p] matrix. Of this process's pairs; no gradient. NaN for fewer than two pairs, which hold
    no negatives.

    Raises:
        ValueError: If the shapes differ.

    Source: MSC (Wu et al., CVPR 2023, arXiv:2303.14191) logs it in the released code.
    """
    if query.ndim != 2 or query.shape != key.shape:
        raise ValueError(
            f"query and key must both be [p, c], got {list(query.shape)} and {list(key.shape)}; "
            "give the two features of each pair in the same row"
        )
    num = len(query)
    query, key = unit_rows(query), unit_rows(key)
    if num < 2:
        return query.new_full((), torch.nan)
    total = (query.sum(dim=0) * key.sum(dim=0)).sum()  # of all p * p cosines
    return (total - (query * key).sum()) / (num * (num - 1))


@torch.no_grad()
def effective_rank(feat: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Count the directions that features really use; watch it while training.

    The exponential of the entropy of the singular values of the features as they are: 1 if all
    are multiples of one (collapse), at most min(n, c). Of this process's points; no gradient. NaN
    without points, or if all are zero.

    Source: RankMe (Garrido et al., ICML 2023, arXiv:2210.02885), equation 1. They add 1e-7 to each
        share; here a share of zero has no part in the entropy.
    """
    if not feat.numel():
        return feat.new_full((), torch.nan)
    with torch.autocast(feat.device.type, enabled=False):
        feat = feat.double()
        small = feat.T @ feat if feat.shape[0] > feat.shape[1] else feat @ feat.T
        # Squares of the singular values; those that rounding makes negative are none.
        value = torch.linalg.eigvalsh(small).clamp(min=0).sqrt()
        share = value / value.sum()
        return torch.special.entr(share).sum().exp()
