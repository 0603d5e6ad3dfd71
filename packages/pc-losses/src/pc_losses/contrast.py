"""Contrast of matching points in two views: partners attract, all other points repel."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from pc_losses.reduction import gather_rows, mean_over_processes


def info_nce(
    query: Float[Tensor, "p c"],
    key: Float[Tensor, "p c"],
    *,
    temperature: float = 0.4,
    gather: bool = False,
) -> Float[Tensor, ""]:
    """Pick each query's own key among all keys: cross entropy over cosine / temperature.

    Row i of `query` and row i of `key` are one point seen twice; the keys of the other rows are its
    negatives. Both sides get gradients: detach one for a one-sided loss. The loss is the mean over
    the pairs of all processes (see `mean_over_processes`); no pairs give a zero that can be
    back-propagated, and a process without pairs still takes part in the collectives.

    Memory: the similarities are a [p, P] matrix, P being the number of keys, held about twice in
    the backward pass. 8192 pairs take 0.27 GB each time, 8 processes of as many with `gather`
    2.1 GB. Draw fewer pairs where that is too much.

    Args:
        query: Features of the first view, of any length; they are L2-normalised here.
        key: Features of the same points in the second view.
        temperature: What the cosines are divided by, above 0.
        gather: Contrast with the keys of all processes, with gradient to each, rather than with
            those of this process.

    Raises:
        ValueError: If the shapes differ or the temperature is not above 0.

    Source: MSC (Wu et al., CVPR 2023, arXiv:2303.14191), Eq. 1-2 and the temperature, and InfoNCE
        (van den Oord et al., 2018, arXiv:1807.03748). Differs from Eq. 2 by the mean instead of
        the sum over pairs (so does the released code), and from that code by the mean over
        processes. Float32 at least, for a cosine in bfloat16, over 0.07, is off by 0.03.
    """
    if query.ndim != 2 or query.shape != key.shape:
        raise ValueError(
            f"query and key must both be [p, c], got {list(query.shape)} and {list(key.shape)}; "
            "give the two features of each pair in the same row"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; papers use 0.07 to 0.4")
    with torch.autocast(query.device.type, enabled=False):
        query, key = _unit_pair(query, key)
        keys, first = gather_rows(key) if gather else (key, 0)
        own = torch.arange(first, first + len(query), device=query.device)
        similarity = (query / temperature) @ keys.T  # [p P]
        return mean_over_processes(functional.cross_entropy(similarity, own, reduction="none"))


def point_info_nce(
    query: Float[Tensor, "p c"],
    key: Float[Tensor, "p c"],
    *,
    temperature: float = 0.07,
    gather: bool = False,
) -> Float[Tensor, ""]:
    """`info_nce` at PointContrast's temperature.

    Give each point of the first view at most once, with one of its matches drawn at random.

    Source: PointContrast (Xie et al., ECCV 2020, arXiv:2007.10985), PointInfoNCE. Default settings
        of the released code: temperature 0.07 and at most 4096 pairs a process; its launch script
        sets 0.4.
    """
    return info_nce(query, key, temperature=temperature, gather=gather)


def hardest_contrastive(
    query: Float[Tensor, "n c"],
    key: Float[Tensor, "m c"],
    pairs: Int64[Tensor, "p 2"],
    *,
    generator: torch.Generator,
    positive_margin: float = 0.1,
    negative_margin: float = 1.4,
    negative_weight: float = 0.5,
    num_pairs: int = 4096,
    num_candidates: int = 1024,
) -> Float[Tensor, ""]:
    """Pull matches within one margin, push the nearest of random candidates beyond another.

    For either point of a drawn pair the nearest candidate of the other view is its hardest
    negative; where that candidate is one of its matches, the point has no negative in this step.
    With d the distance of L2-normalised features, the loss is the mean of
    max(0, d(i, j) - positive_margin)^2 over the drawn pairs plus, for each of the two directions,
    `negative_weight` times the mean of max(0, negative_margin - d(i, negative))^2 over the points
    that have a negative. Means are over all processes (see `mean_over_processes`); without pairs
    they are zeros that can be back-propagated. Candidates come from this process alone.

    Args:
        query: Features of all points of the first view (several scans: of the packed batch).
        key: Features of all points of the second view.
        pairs: All known matches, as (row of `query`, row of `key`).
        generator: Source of the draws of pairs, keys and queries, in this order.
        positive_margin: Distance up to which matches count as equal.
        negative_margin: Distance beyond which a negative repels no more; 2 is the largest there is.
        negative_weight: Factor of the negatives, for each direction.
        num_pairs: How many pairs to draw; all where there are fewer.
        num_candidates: How many candidates to draw from each view; all where there are fewer.

    Raises:
        ValueError: If shapes do not fit, a pair names a row that does not exist, or fewer than one
            pair or candidate is asked for.

    Source: FCGF (Choy, Park and Koltun, ICCV 2019), hardest-contrastive loss, weight 0.5; used in
        PointContrast (Xie et al., ECCV 2020, arXiv:2007.10985). Margins 0.1 and 1.4, and 1024 pairs
        and 256 candidates a scan at 4 scans a process, are the defaults of both released codes.
        Those hinge the squared distance of matches, max(0, d^2 - 0.1); this is the papers' form.
    """
    _check_matches(query, key, pairs, num_pairs, num_candidates)
    with torch.autocast(query.device.type, enabled=False):
        query, key = _unit_pair(query, key)
        drawn = pairs[_draw(len(pairs), num_pairs, generator, pairs.device)]
        among_keys = _draw(len(key), num_candidates, generator, pairs.device)
        among_queries = _draw(len(query), num_candidates, generator, pairs.device)
        anchor, partner = query[drawn[:, 0]], key[drawn[:, 1]]
        hard_key = among_keys[_nearest(anchor, key[among_keys])]
        hard_query = among_queries[_nearest(partner, query[among_queries])]

        positive = (_distance(anchor, partner) - positive_margin).relu().square()
        to_key = (negative_margin - _distance(anchor, key[hard_key])).relu().square()
        to_query = (negative_margin - _distance(partner, query[hard_query])).relu().square()

        known = _pair_id(pairs[:, 0], pairs[:, 1], len(key))
        is_negative = ~torch.isin(_pair_id(drawn[:, 0], hard_key, len(key)), known)
        is_negative_too = ~torch.isin(_pair_id(hard_query, drawn[:, 1], len(key)), known)
        return mean_over_processes(positive) + negative_weight * (
            mean_over_processes(to_key[is_negative])
            + mean_over_processes(to_query[is_negative_too])
        )


def unit_rows(rows: Float[Tensor, "n c"], *, eps: float = 1e-7) -> Float[Tensor, "n c"]:
    """Scale each row to length 1, in float32 at least.

    Rows of a length up to `eps` have no direction: they become zero and get no gradient, where a
    division by `eps` would give them one of 1 / eps.
    """
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return torch.where(length > eps, rows / length.clamp(min=eps), 0)


def _unit_pair(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(query.dtype, key.dtype)
    return unit_rows(query.to(dtype)), unit_rows(key.to(dtype))


def _draw(num: int, limit: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Up to `limit` of `num` rows, each at most once."""
    if num <= limit:
        return torch.arange(num, device=device)
    return torch.randperm(num, generator=generator, device=generator.device)[:limit].to(device)


@torch.no_grad()
def _nearest(anchor: Tensor, candidates: Tensor) -> Tensor:
    """Row of `candidates` nearest to each anchor; none where there are no anchors."""
    if not len(anchor):
        return torch.zeros(0, dtype=torch.int64, device=anchor.device)
    return (anchor @ candidates.T).argmax(dim=1)  # of unit vectors: the smallest distance


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a - b, dim=1)


def _pair_id(query: Tensor, key: Tensor, num_keys: int) -> Tensor:
    return query * num_keys + key


def _check_matches(
    query: Tensor, key: Tensor, pairs: Tensor, num_pairs: int, num_candidates: int
) -> None:
    if query.ndim != 2 or key.ndim != 2 or query.shape[1] != key.shape[1]:
        raise ValueError(
            "query and key must be [n, c] and [m, c], got "
            f"{list(query.shape)} and {list(key.shape)}; take both from the same head"
        )
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"pairs must be [p, 2], got {list(pairs.shape)}; give a row a match")
    limits = torch.tensor([len(query), len(key)], device=pairs.device)
    wrong = ((pairs < 0) | (pairs >= limits)).any(dim=1)
    if wrong.any():
        raise ValueError(
            f"pairs must name rows of query (below {len(query)}) and key (below {len(key)}), got "
            f"{pairs[wrong][0].tolist()}; number the points through the packed batch"
        )
    for name, value in (("num_pairs", num_pairs), ("num_candidates", num_candidates)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}; the default will do")
