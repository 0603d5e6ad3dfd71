"""Classes by the nearest labelled features: what features tell without any training."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

_ROWS = 1024  # of the matrix of similarities that are held at once


@torch.no_grad()
def nearest_classes(
    feat: Float[Tensor, "n c"],
    known: Float[Tensor, "m c"],
    labels: Int64[Tensor, " m"],
    *,
    num_classes: int,
    num_neighbors: int = 20,
    temperature: float = 0.07,
) -> Int64[Tensor, " n"]:
    """Let the most similar known features vote for a class, by their cosine.

    Args:
        feat: Features to find a class for.
        known: Features whose class is known; more than one.
        labels: Class of each.
        num_classes: Number of classes.
        num_neighbors: Features that vote; all, where there are fewer.
        temperature: A vote weighs exp(cosine / temperature).

    Raises:
        ValueError: If there is no known feature, or not one label for each.

    Source: Wu et al. (CVPR 2018, arXiv:1805.01978), section 3.4, with 20 neighbours as in DINO
        (Caron et al., ICCV 2021, arXiv:2104.14294).
    """
    if not len(known) or len(known) != len(labels):
        raise ValueError(
            f"known features and labels must be as many and at least one, got {len(known)} and "
            f"{len(labels)}; draw them from scans with labels"
        )
    feat, known = functional.normalize(feat.float()), functional.normalize(known.float())
    votes = functional.one_hot(labels, num_classes).to(known.dtype)
    found = []
    for rows in feat.split(_ROWS):
        cosine, index = (rows @ known.T).topk(min(num_neighbors, len(known)))
        # The largest is taken off, which scales a point's weights alike and keeps them finite.
        weight = torch.exp((cosine - cosine[:, :1]) / temperature)
        found.append((weight[:, :, None] * votes[index]).sum(1).argmax(1))
    return torch.cat(found) if found else labels.new_zeros(0)
