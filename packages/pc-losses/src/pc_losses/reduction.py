"""Means and rows over all processes of a distributed run, right under gradient averaging."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.nn import functional


def mean_over_processes(values: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Average values over the processes of a run, however many each of them holds.

    With W processes the result is W * (sum of this process) / (count of all). Data-parallel
    training averages gradients over processes, and the average of these results is the joint mean:
    every value weighs the same, be the counts equal or not. The results of different processes
    differ; log their average. Without torch.distributed this is the plain mean.

    No values give a zero that can be back-propagated. Every process must call this equally often,
    also one without values: the count is a collective.

    Args:
        values: Loss of each point or pair of this process; halves are summed in float32.

    Source: differs from the released code of MSC (Wu et al., CVPR 2023, arXiv:2303.14191), which
        divides the contrastive loss by the number of processes once more than the gradient
        averaging does, so that its weight falls as processes are added.
    """
    total = values.to(torch.promote_types(values.dtype, torch.float32)).sum()
    num_processes = _num_processes()
    count = len(values)
    if num_processes > 1:
        joint = torch.tensor(count, device=values.device)
        distributed.all_reduce(joint)
        count = int(joint)
    return total * (num_processes / max(count, 1))


def gather_rows(rows: Float[Tensor, "n c"]) -> tuple[Float[Tensor, "p c"], int]:
    """Collect the rows of all processes, with gradient to whichever process they came from.

    Counts may differ and may be zero. Where any process wants gradients all take part in the
    backward pass, so each must back-propagate a loss that depends on the rows returned here; one
    over an empty selection of them is enough. Without torch.distributed the rows come back as
    they are.

    Args:
        rows: Rows of this process. Type and width must be the same everywhere.

    Returns:
        The rows of all processes in order of rank, and the position of this process's first.
    """
    num_processes = _num_processes()
    if num_processes == 1:
        return rows, 0
    about = torch.tensor([len(rows), rows.requires_grad], dtype=torch.int64, device=rows.device)
    everyone = about.new_empty(2 * num_processes)
    distributed.all_gather_into_tensor(everyone, about)
    counts, wanted = everyone.view(num_processes, 2).T.tolist()
    longest = max(counts)
    if any(wanted) and not rows.requires_grad:
        rows = rows.detach().requires_grad_(True)  # else the others would wait in backward
    if longest:
        padded = functional.pad(rows, (0, 0, 0, longest - len(rows)))
        blocks = _Gather.apply(padded).split(longest)
        rows = torch.cat([block[:count] for block, count in zip(blocks, counts, strict=True)])
    return rows, sum(counts[: distributed.get_rank()])


def _num_processes() -> int:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


class _Gather(torch.autograd.Function):
    """Equally many rows of each process; backward sums what all processes say about them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ANN401 - torch's own signature
        ctx.num_rows = len(rows)
        gathered = rows.new_empty(distributed.get_world_size() * len(rows), *rows.shape[1:])
        distributed.all_gather_into_tensor(gathered, rows.contiguous())
        return gathered

    @staticmethod
    @once_differentiable  # the sum over processes is unknown to autograd
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401 # pyrefly: ignore[bad-override]
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total.split(ctx.num_rows)[distributed.get_rank()]
