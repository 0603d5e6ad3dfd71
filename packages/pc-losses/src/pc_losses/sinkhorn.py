"""Balanced soft assignment of rows to columns by Sinkhorn-Knopp iterations, in the log domain."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pc_losses.reduction import gather_rows

_BLOCK = 2**22
"""Scores that are in float64 at a time: 34 MB."""


@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "n k"],
    *,
    sharpness: float = 25.0,
    num_iterations: int = 1000,
    tolerance: float = 1e-6,
    row_marginal: Float[Tensor, " n"] | None = None,
    column_marginal: Float[Tensor, " k"] | None = None,
    over_processes: bool = False,
) -> Float[Tensor, "n k"]:
    """Find the table u_i * exp(sharpness * scores_ij) * v_j of given sums of rows and columns.

    Rows have their sums exactly, columns as far as the iterations went. The whole table sums to 1,
    over all processes with `over_processes`; divided by the sums of its rows it is a probability of
    the columns for each row. No gradient.

    Args:
        scores: How well each row fits each column; pass log-probabilities log P for P^lambda.
        sharpness: Factor of the scores, above 0: the lambda of Asano et al., 25; 1 / epsilon in
            SwAV, whose epsilon 0.05 is 20.
        num_iterations: How often the columns are scaled, at most. SwAV: 3, with `tolerance=0`.
        tolerance: Stop once the sums of the columns are off by no more, all together.
        row_marginal: Wanted share of each row, above 0; default: all alike. Scaled to sum to 1.
        column_marginal: Wanted share of each column, as for rows, the same in every process.
        over_processes: The rows are spread over the processes, unevenly if need be; each must call.

    Raises:
        ValueError: If a shape does not fit, a marginal is not above 0, or the sharpness or the
            number of iterations is too small.

    Source: Cuturi (NeurIPS 2013, arXiv:1306.0895); Asano, Rupprecht and Vedaldi (ICLR 2020,
        arXiv:1911.05371), Sec. 3.2; SwAV (Caron et al., NeurIPS 2020, arXiv:2006.09882), Sec. 3.1.
        Differs from their codes by logarithms in double precision, right at any sharpness.
    """
    potential = column_potential(
        scores,
        sharpness=sharpness,
        num_iterations=num_iterations,
        tolerance=tolerance,
        row_marginal=row_marginal,
        column_marginal=column_marginal,
        over_processes=over_processes,
    )
    log_row = _log_marginal(scores, row_marginal, over_processes=over_processes)
    table = torch.empty_like(scores)
    for part, own, log_share in _blocks(scores, table, log_row):
        own.copy_((_log_rows(part, sharpness, potential) + log_share[:, None]).exp())
    return table


@torch.no_grad()
def column_potential(
    scores: Float[Tensor, "n k"],
    *,
    sharpness: float = 25.0,
    num_iterations: int = 1000,
    tolerance: float = 1e-6,
    row_marginal: Float[Tensor, " n"] | None = None,
    column_marginal: Float[Tensor, " k"] | None = None,
    start: Float[Tensor, " k"] | None = None,
    over_processes: bool = False,
) -> Float64[Tensor, " k"]:
    """Find what to add to each column so that `sinkhorn`'s table is a softmax of the rows.

    That table is softmax(sharpness * scores + potential, dim=1) times the marginal of the rows. So
    the potential also tells the column of a row that took no part. Arguments and errors are those
    of `sinkhorn`, and `start`: the potential of similar scores, from which few iterations are left.
    """
    _check(scores, sharpness, num_iterations, row_marginal, column_marginal)
    log_row = _log_marginal(scores, row_marginal, over_processes=over_processes)
    wanted = _log_marginal(scores.T, column_marginal, over_processes=False)

    def log_sums(potential: Tensor | None) -> Tensor:
        parts = [
            (_log_rows(part, sharpness, potential) + log_share[:, None]).logsumexp(dim=0)
            for part, _, log_share in _blocks(scores, scores, log_row)
        ]
        sums = torch.stack(parts).logsumexp(dim=0)
        return gather_rows(sums[None])[0].logsumexp(dim=0) if over_processes else sums

    if start is None:
        potential = wanted - log_sums(None)  # rows are not scaled yet
        num_iterations -= 1
    else:
        potential = start.double()
    for _ in range(num_iterations):
        current = log_sums(potential)
        if not (current.exp() - wanted.exp()).abs().sum() > tolerance:  # also without rows: NaN
            break
        potential = potential + (wanted - current)
    return potential - potential.mean()


def _log_rows(scores: Tensor, sharpness: float, potential: Tensor | None) -> Tensor:
    """Logarithm of each row's table, scaled to sum to 1 if there is a potential."""
    kernel = sharpness * scores.double()
    return kernel if potential is None else (kernel + potential).log_softmax(dim=1)


def _blocks(*tensors: Tensor) -> zip:
    """Corresponding rows of each tensor, few enough to be copied; one empty block if none."""
    num_rows = max(_BLOCK // max(tensors[0].shape[1], 1), 1)
    return zip(*(tensor.split(num_rows) for tensor in tensors), strict=True)


def _log_marginal(
    scores: Tensor, marginal: Tensor | None, *, over_processes: bool
) -> Float64[Tensor, " n"]:
    shares = scores.new_ones(len(scores)) if marginal is None else marginal
    log_shares = shares.double().log()
    total = log_shares.logsumexp(dim=0)
    if over_processes:
        total = gather_rows(total[None, None])[0].logsumexp(dim=0)
    return log_shares - total


def _check(
    scores: Tensor,
    sharpness: float,
    num_iterations: int,
    row_marginal: Tensor | None,
    column_marginal: Tensor | None,
) -> None:
    if scores.ndim != 2 or not scores.shape[1]:
        raise ValueError(f"scores must be [n, k] with a column or more, got {list(scores.shape)}")
    if not sharpness > 0:
        raise ValueError(f"sharpness must be above 0, got {sharpness}; papers use 20 to 25")
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}; SwAV uses 3")
    sides = zip(("row", "column"), scores.shape, (row_marginal, column_marginal), strict=True)
    for side, num, marginal in sides:
        if marginal is None:
            continue
        if marginal.shape != (num,):
            raise ValueError(
                f"{side}_marginal must be [{num}], a share a {side}, got {list(marginal.shape)}"
            )
        if not (marginal > 0).all():
            raise ValueError(
                f"{side}_marginal must be above 0, got {float(marginal.min())}; leave out the "
                f"{side}s that may hold nothing"
            )
