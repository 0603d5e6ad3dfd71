"""Depthwise 3x3 mixing on sparse 2D maps, exact, forward and backward, without the dense map.

A WaffleIron layer averages the points of each cell of a grid, applies two depthwise 3x3
convolutions with an activation between, and reads every point's own cell. Only the occupied cells
are ever read, so the second convolution is needed there alone and the first on their 3x3
neighbourhood: for one camera's view of a LiDAR scan that is 13 to 32 times fewer cells than the
three dense grids hold. All sums here run over precomputed index tables; the transpose of a table
is its partner read backwards, so no gradient needs a scatter, and results do not depend on the
order of threads.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

_TAPS = 9  # of a 3x3 kernel; tap t sits at (t // 3 - 1, t % 3 - 1), and 8 - t opposite to it

_Context = Any  # autograd's, which takes any attribute


class PlaneCells(NamedTuple):
    """Which cells of one plane a packed batch of points occupies, and how they touch.

    Attributes:
        cell: Row of each point's cell among the occupied cells, [n].
        order: Points sorted by cell, [n].
        starts: Where each occupied cell begins in `order`, [o].
        weight: 1 / (number of points + 1e-6) of each occupied cell, [o 1].
        touched: Row of the hidden cell under each tap of an occupied cell, [o 9]; the number of
            hidden cells stands for "outside the grid".
        touching: Row of the occupied cell under each tap of a hidden cell, [h 9]; the number of
            occupied cells stands for "empty".
    """

    cell: Int64[Tensor, " n"]
    order: Int64[Tensor, " n"]
    starts: Int64[Tensor, " o"]
    weight: Float[Tensor, "o 1"]
    touched: Int64[Tensor, "o 9"]
    touching: Int64[Tensor, "h 9"]


def find_cells(
    row: Int64[Tensor, " n"],
    column: Int64[Tensor, " n"],
    batch: Int64[Tensor, " n"],
    grid: tuple[int, int],
) -> PlaneCells:
    """Index the occupied cells of one plane and their 3x3 neighbourhoods.

    Args:
        row: Cell of each point along the first plane axis, in [0, grid[0]).
        column: Cell of each point along the second plane axis, in [0, grid[1]).
        batch: Scan of each point; cells of different scans never touch.
        grid: Number of cells along both axes.
    """
    height, width = grid
    flat = (batch * height + row) * width + column
    occupied, cell, count = torch.unique(flat, return_inverse=True, return_counts=True)
    order = torch.argsort(cell, stable=True)
    starts = count.cumsum(0) - count

    tap = torch.arange(_TAPS, device=row.device)
    down, right = tap // 3 - 1, tap % 3 - 1
    near_row = (occupied // width % height)[:, None] + down  # [o 9]
    near_column = (occupied % width)[:, None] + right
    inside = (near_row >= 0) & (near_row < height) & (near_column >= 0) & (near_column < width)
    near = occupied[:, None] + down * width + right
    hidden = torch.unique(near[inside])
    touched = torch.searchsorted(hidden, near).masked_fill_(~inside, len(hidden))

    touching = torch.full((len(hidden) + 1, _TAPS), len(occupied), device=row.device)
    rows = torch.arange(len(occupied), device=row.device)[:, None].expand(-1, _TAPS)
    touching[touched, _TAPS - 1 - tap] = rows  # the last row swallows what lies outside the grid
    weight = 1 / (count.to(torch.get_default_dtype()) + 1e-6)
    return PlaneCells(cell, order, starts, weight[:, None], touched, touching[:-1].contiguous())


def mean_per_cell(tokens: Float[Tensor, "n c"], cells: PlaneCells) -> Float[Tensor, "o c"]:
    """Average the points of each occupied cell."""
    return _MeanPerCell.apply(tokens, cells)


def read_cells(values: Float[Tensor, "o c"], cells: PlaneCells) -> Float[Tensor, "n c"]:
    """Give each point the value of its own cell."""
    return _ReadCell.apply(values, cells)


def spread_to_hidden(
    values: Float[Tensor, "o c"], kernel: Float[Tensor, "c 1 3 3"], cells: PlaneCells
) -> Float[Tensor, "h c"]:
    """Convolve the map of the occupied cells (zero elsewhere), read at the hidden cells."""
    return _TableConv.apply(values, _taps(kernel), cells.touching, cells.touched)


def gather_from_hidden(
    values: Float[Tensor, "h c"], kernel: Float[Tensor, "c 1 3 3"], cells: PlaneCells
) -> Float[Tensor, "o c"]:
    """Convolve the map of the hidden cells (zero outside the grid), read at the occupied cells."""
    return _TableConv.apply(values, _taps(kernel), cells.touched, cells.touching)


def _taps(kernel: Tensor) -> Tensor:
    return kernel.reshape(kernel.shape[0], _TAPS).t().contiguous()  # [c 1 3 3] -> [9 c]


def _sum_rows(values: Tensor, cells: PlaneCells, share: Tensor | None = None) -> Tensor:
    return functional.embedding_bag(
        cells.order, values.contiguous(), cells.starts, mode="sum", per_sample_weights=share
    )


class _MeanPerCell(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, values: Tensor, cells: PlaneCells) -> Tensor:
        ctx.cells = cells
        # Weighted before the sum, which could overflow in half precision.
        share = cells.weight[cells.cell[cells.order], 0].to(values.dtype)
        return _sum_rows(values, cells, share)

    @staticmethod
    # pyrefly: ignore[bad-override]
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None]:
        cells = ctx.cells
        return (grad * cells.weight.to(grad.dtype)).index_select(0, cells.cell), None


class _ReadCell(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, values: Tensor, cells: PlaneCells) -> Tensor:
        ctx.cells = cells
        return values.index_select(0, cells.cell)

    @staticmethod
    # pyrefly: ignore[bad-override]
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None]:
        return _sum_rows(grad, ctx.cells), None


class _TableConv(torch.autograd.Function):
    """out[i] = sum_t taps[t] * values[table[i, t]], a row past the end counting as zero.

    Saves the inputs and the tables only: nine gathered copies per layer would not fit in memory.
    """

    @staticmethod
    def forward(
        ctx: _Context, values: Tensor, taps: Tensor, table: Tensor, partner: Tensor
    ) -> Tensor:
        ctx.save_for_backward(values, taps, table, partner)
        return _apply_table(values, taps, table)

    @staticmethod
    # pyrefly: ignore[bad-override]
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        values, taps, table, partner = ctx.saved_tensors
        grad_values = grad_taps = None
        if ctx.needs_input_grad[0]:
            grad_values = _apply_table(grad, taps.flip(0), partner)
        if ctx.needs_input_grad[1]:
            grad_taps = _correlate(values, grad, table, partner)
        return grad_values, grad_taps, None, None


def _apply_table(values: Tensor, taps: Tensor, table: Tensor) -> Tensor:
    padded = torch.cat([values, values.new_zeros(1, values.shape[1])])
    out = padded.index_select(0, table[:, 0]) * taps[0]
    for tap in range(1, _TAPS):
        out.addcmul_(padded.index_select(0, table[:, tap]), taps[tap])
    return out


def _correlate(values: Tensor, grad: Tensor, table: Tensor, partner: Tensor) -> Tensor:
    """Gradient of the taps, summed over the shorter of the two sides."""
    if len(table) <= len(partner):
        here, there, index = grad, values, table
    else:
        here, there, index = values, grad, partner.flip(1)
    padded = torch.cat([there, there.new_zeros(1, there.shape[1])])
    return torch.stack(
        [(here * padded.index_select(0, index[:, tap])).sum(0) for tap in range(_TAPS)]
    )
