"""Features of the volumes of a scan, seen twice: contrast inside the scan, or agreement alone."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from pc_losses.balanced import scan_sizes
from pc_losses.contrast import unit_rows
from pc_losses.reduction import mean_over_processes


def volume_info_nce(
    query: Float[Tensor, "v c"],
    key: Float[Tensor, "v c"],
    scan: Int64[Tensor, " v"],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Pick each volume's own key among the keys of all volumes of the same scan.

    Row i of `query` and row i of `key` are one volume seen twice. A scan's loss is the mean over
    its volumes of the cross entropy over cosine / temperature; the result is the mean over the
    scans of all processes (see `mean_over_processes`), so that a scan weighs the same however many
    volumes it has. A scan with one volume has no negatives and a loss of 0; one with none does not
    count. Without any the loss is a zero that can be back-propagated.

    Both sides get gradients where they ask for them; keys of a momentum network do not.

    Memory: a matrix of similarities a scan, never one across scans. 400 volumes in each of 96
    scans make 61 MB, where one matrix would take 5.9 GB.

    Args:
        query: Features of the volumes in the first view, of any length; L2-normalised here.
        key: Features of the same volumes in the second view.
        scan: Scan of each volume, sorted.
        temperature: What the cosines are divided by, above 0.

    Raises:
        ValueError: If shapes differ, `scan` is not sorted or the temperature is not above 0.

    Source: SSPL (Zhang, Bai and Li, NeurIPS 2022), Eq. 1 and the temperature. Differs by the mean
        over volumes and scans where Eq. 1 sums, so that learning rates do not depend on how many
        volumes are drawn.
    """
    check_temperature(temperature)
    sizes = scan_sizes(query, key, scan, name="scan")
    with torch.autocast(query.device.type, enabled=False):
        query, key = _unit_pair(query, key)
        blocks = zip((query / temperature).split(sizes), key.split(sizes), strict=True)
        terms = (_own_among_all(own_query @ own_key.T) for own_query, own_key in blocks)
        return _mean_over_scans(terms, (query * key).sum(dim=1))


def byol_loss(
    predicted: Float[Tensor, "v c"], target: Float[Tensor, "v c"], scan: Int64[Tensor, " v"]
) -> Float[Tensor, ""]:
    """Average the squared distance of L2-normalised features: 0 if they agree, 4 if opposite.

    Nothing pushes volumes apart; only the predictor and the momentum network keep features from
    collapsing. Mean over the volumes of a scan, then over the scans of all processes, as in
    `volume_info_nce`.

    Args:
        predicted: What the predictor makes of the volumes in the first view.
        target: Features of the same volumes from the momentum network; they get no gradient.
        scan: Scan of each volume, sorted.

    Raises:
        ValueError: If shapes differ or `scan` is not sorted.

    Source: SSPL (Zhang, Bai and Li, NeurIPS 2022), Eq. 3, after BYOL (Grill et al., NeurIPS 2020,
        arXiv:2006.07733), Eq. 2. Differs by the mean where Eq. 3 sums.
    """
    sizes = scan_sizes(predicted, target, scan, name="scan")
    with torch.autocast(predicted.device.type, enabled=False):
        predicted, target = _unit_pair(predicted, target.detach())
        distance = (predicted - target).square().sum(dim=1)
        return _mean_over_scans(distance.split(sizes), distance)


def check_temperature(temperature: float) -> None:
    """Raise ValueError if cosines cannot be divided by it."""
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; papers use 0.07 to 0.4")


def _own_among_all(similarity: Tensor) -> Float[Tensor, " v"]:
    own = torch.arange(len(similarity), device=similarity.device)
    return functional.cross_entropy(similarity, own, reduction="none")


def _mean_over_scans(terms: Iterable[Tensor], rows: Tensor) -> Float[Tensor, ""]:
    """Mean of the scans' means; `rows` hang on the graph where there is no scan."""
    means = [term.mean() for term in terms]
    return mean_over_processes(torch.stack(means) if means else rows[:0])


def _unit_pair(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(query.dtype, key.dtype)
    return unit_rows(query.to(dtype)), unit_rows(key.to(dtype))
