"""Sparse 3x3 mixing against full grids and conv2d."""

import pytest
import torch
from pc_backbones.planes import (
    find_cells,
    gather_from_hidden,
    mean_per_cell,
    read_cells,
    spread_to_hidden,
)
from torch.nn import functional

CHANNELS = 3


def cloud(kind, generator):
    """Return (row, column, batch, grid)."""

    def draw(high, n):
        return torch.randint(high, (n,), generator=generator)

    if kind == "random":
        return draw(7, 40), draw(5, 40), draw(3, 40).sort().values, (7, 5)
    if kind == "two scans, same cells":
        row, column = draw(4, 10), draw(6, 10)
        return row.repeat(2), column.repeat(2), torch.arange(2).repeat_interleave(10), (4, 6)
    if kind in BY_HAND:
        cells, grid = BY_HAND[kind]
        batch, row, column = torch.tensor(cells).T
        return row, column, batch, grid
    height, width = map(int, kind.split("x"))
    return draw(height, 6), draw(width, 6), draw(2, 6).sort().values, (height, width)


def in_one_scan(cells):
    return [(0, *cell) for cell in cells]


BY_HAND = {  # (scan, row, column) of each point, and the grid
    "one point": (in_one_scan([(3, 2)]), (7, 5)),
    "two points": (in_one_scan([(3, 2), (4, 1)]), (7, 5)),
    "one cell": (in_one_scan([(2, 2)] * 9), (5, 5)),
    "corners": (in_one_scan([(0, 0), (0, 4), (6, 0), (6, 4)]), (7, 5)),
    "borders": (
        in_one_scan((r, c) for r in range(6) for c in range(4) if r in (0, 5) or c in (0, 3)),
        (6, 4),
    ),
    "full": (in_one_scan((r, c) for r in range(4) for c in range(4)), (4, 4)),
    "scan ends meet": ([(0, 2, 3), (1, 0, 0)], (3, 4)),  # neighbours in memory, not in space
    "no second scan": ([(0, 1, 1), (2, 2, 1)], (4, 4)),
}
KINDS = ("random", "two scans, same cells", *BY_HAND, "1x1", "1x4", "2x2", "2x9")


@pytest.fixture(params=KINDS)
def problem(request):
    """Return cells, the dense description of the same points, and a generator."""
    generator = torch.Generator().manual_seed(KINDS.index(request.param))
    row, column, batch, grid = cloud(request.param, generator)
    return find_cells(row, column, batch, grid), Dense(row, column, batch, grid), generator


class Dense:
    """The same operations over whole maps [scans c h w]."""

    def __init__(self, row, column, batch, grid):
        self.where = (batch, row, column)
        self.size = (int(batch.max()) + 1, *grid)
        count = torch.zeros(self.size, dtype=torch.float64)
        for b, r, c in zip(*self.where, strict=True):
            count[b, r, c] += 1
        self.count = count
        self.occupied = count > 0
        around = functional.max_pool2d(self.occupied.double()[:, None], 3, 1, 1)[:, 0]
        self.hidden = around > 0

    def mean(self, tokens):
        total = tokens.new_zeros(*self.size, tokens.shape[1])
        total = total.index_put(self.where, tokens, accumulate=True)
        return total / (self.count + 1e-6).to(tokens.dtype)[..., None]

    def scatter(self, values, mask):
        dense = values.new_zeros(*self.size, values.shape[1])
        return dense.index_put(tuple(mask.nonzero().T), values)

    def conv(self, dense, kernel):
        maps = dense.permute(0, 3, 1, 2)
        return functional.conv2d(maps, kernel, padding=1, groups=len(kernel)).permute(0, 2, 3, 1)


def draw(shape, generator):
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def same_with_gradients(ours, dense, inputs, generator):
    """Compare outputs, and the gradients of a random linear function of them."""
    torch.testing.assert_close(ours, dense, rtol=1e-6, atol=1e-6)
    weight = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    mine = torch.autograd.grad((ours * weight).sum(), inputs)
    theirs = torch.autograd.grad((dense * weight).sum(), inputs)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_tables(problem):
    cells, dense, _ = problem
    n, o, h = len(dense.where[0]), int(dense.occupied.sum()), int(dense.hidden.sum())
    assert cells.cell.shape == cells.order.shape == (n,)
    assert cells.touched.shape == (o, 9)
    assert cells.touching.shape == (h, 9)
    assert sorted(cells.order.tolist()) == list(range(n))
    assert torch.equal(cells.cell[cells.order[cells.starts]], torch.arange(o))


def test_mean_per_cell(problem):
    cells, dense, generator = problem
    tokens = draw((len(dense.where[0]), CHANNELS), generator)
    same_with_gradients(
        mean_per_cell(tokens, cells), dense.mean(tokens)[dense.occupied], [tokens], generator
    )


def test_read_cells(problem):
    cells, dense, generator = problem
    values = draw((int(dense.occupied.sum()), CHANNELS), generator)
    expected = dense.scatter(values, dense.occupied)[dense.where]
    same_with_gradients(read_cells(values, cells), expected, [values], generator)


def test_spread_to_hidden(problem):
    cells, dense, generator = problem
    values = draw((int(dense.occupied.sum()), CHANNELS), generator)
    kernel = draw((CHANNELS, 1, 3, 3), generator)
    expected = dense.conv(dense.scatter(values, dense.occupied), kernel)
    assert expected[~dense.hidden].abs().sum() == 0  # nothing is lost by leaving the rest out
    same_with_gradients(
        spread_to_hidden(values, kernel, cells), expected[dense.hidden], [values, kernel], generator
    )


def test_gather_from_hidden(problem):
    cells, dense, generator = problem
    values = draw((int(dense.hidden.sum()), CHANNELS), generator)
    kernel = draw((CHANNELS, 1, 3, 3), generator)
    expected = dense.conv(dense.scatter(values, dense.hidden), kernel)[dense.occupied]
    same_with_gradients(
        gather_from_hidden(values, kernel, cells), expected, [values, kernel], generator
    )


def test_whole_mixing(problem):
    """Mean, two convolutions with bias and ReLU between, read back; all gradients."""
    cells, dense, generator = problem
    tokens = draw((len(dense.where[0]), CHANNELS), generator)
    first, second = (draw((CHANNELS, 1, 3, 3), generator) for _ in range(2))
    bias = draw((CHANNELS,), generator)
    hidden = torch.relu(spread_to_hidden(mean_per_cell(tokens, cells), first, cells) + bias)
    ours = read_cells(gather_from_hidden(hidden, second, cells), cells)
    dense_hidden = torch.relu(dense.conv(dense.mean(tokens), first) + bias)
    expected = dense.conv(dense_hidden, second)[dense.where]
    same_with_gradients(ours, expected, [tokens, first, second, bias], generator)


@pytest.mark.parametrize("kind", ["random", "corners", "one point", "2x2"])
def test_gradcheck(kind):
    generator = torch.Generator().manual_seed(7)
    row, column, batch, grid = cloud(kind, generator)
    row, column, batch = row[:8], column[:8], batch[:8]
    cells = find_cells(row, column, batch, grid)
    occupied = draw((len(cells.starts), 2), generator)
    hidden = draw((len(cells.touching), 2), generator)
    kernel = draw((2, 1, 3, 3), generator)
    tokens = draw((len(row), 2), generator)
    check = torch.autograd.gradcheck
    assert check(lambda t: mean_per_cell(t, cells), (tokens,))
    assert check(lambda v: read_cells(v, cells), (occupied,))
    assert check(lambda v, k: spread_to_hidden(v, k, cells), (occupied, kernel))
    assert check(lambda v, k: gather_from_hidden(v, k, cells), (hidden, kernel))


def test_only_what_needs_a_gradient():
    generator = torch.Generator().manual_seed(8)
    cells = find_cells(*cloud("random", generator))
    values = draw((len(cells.starts), 2), generator)
    kernel = draw((2, 1, 3, 3), generator)
    spread_to_hidden(values.detach(), kernel, cells).sum().backward()
    spread_to_hidden(values, kernel.detach(), cells).sum().backward()
    assert values.grad is not None
    assert kernel.grad is not None


def test_scans_do_not_mix():
    """What one scan holds does not reach the other, though they share every cell."""
    generator = torch.Generator().manual_seed(9)
    row, column, batch, grid = cloud("two scans, same cells", generator)
    cells = find_cells(row, column, batch, grid)
    tokens = draw((len(row), CHANNELS), generator)
    kernel = draw((CHANNELS, 1, 3, 3), generator)
    hidden = spread_to_hidden(mean_per_cell(tokens, cells), kernel, cells)
    out = read_cells(gather_from_hidden(hidden, kernel, cells), cells)
    (grad,) = torch.autograd.grad(out[batch == 0].square().sum(), tokens)
    assert grad[batch == 0].abs().sum() > 0
    assert torch.equal(grad[batch == 1], torch.zeros_like(grad[batch == 1]))


def test_order_of_points_does_not_matter():
    generator = torch.Generator().manual_seed(10)
    row, column, batch, grid = cloud("one cell", generator)
    tokens = torch.randn(len(row), CHANNELS, generator=generator)
    cells = find_cells(row, column, batch, grid)
    mean = read_cells(mean_per_cell(tokens, cells), cells)
    torch.testing.assert_close(mean, tokens.mean(0).expand_as(mean), rtol=1e-5, atol=1e-6)
