"""Feature maps pooled by superpixel, without upsampling the maps."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from pc_2dteachers.sampling import find_corners, sum_cells

_EPS = 1e-12  # of functional.normalize
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_CANCELLED = 0.01  # below this share of what its cells have, a squared norm has lost digits


class _Axis(NamedTuple):
    """Cells before and after each pixel along one axis, and the share of the one after."""

    low: Tensor
    high: Tensor
    share: Tensor


class _Groups(NamedTuple):
    """Pixels of one superpixel between the same four cells.

    A run is those of them that follow one another in a row of an image.
    """

    run: Tensor  # of each pixel
    row: Tensor  # of each run, in its image
    group: Tensor  # of each run; one more than there are = none
    superpixel: Tensor  # of each group, ascending
    cell: Tensor  # of each group, the first of the four
    num_pixels: Tensor  # of each superpixel


def pool_superpixels(
    features: Float[Tensor, "i c y x"],
    superpixel: Integer[Tensor, "i h w"],
    num_superpixels: int,
    *,
    normalize: bool = True,
) -> Float[Tensor, "s c"]:
    """Average the upsampled map over the pixels of each superpixel.

    The same numbers as `interpolate(features, (h, w), mode="bilinear", align_corners=True)`, then
    `functional.normalize` over channels, then the mean over each superpixel's pixels; but no map
    of the image's size is ever made. Upsampling is linear, so a mean is a weighted sum of cells of
    the map; and the norm of a vector between four cells follows from their squared norms and dot
    products. Differentiable in `features`, through the norms as well. Half precision is computed
    in float32, and float32 comes back. On a CPU the same input gives the same bits.

    Memory: a few numbers for each pixel, however many channels there are; 64 channels at 224x416
    are 24 MB an image when upsampled. With 12 such images at stride 4, forward and backward take
    0.2 s and 200 MB on one core of a CPU, where upsampling takes 3 s and 1.7 GB.

    Args:
        features: Map of each image.
        superpixel: Of each pixel, below `num_superpixels`; negative = none. Numbers are those of
            the batch: pixels of one number belong together whichever image they are in. As
            `align_corners` has it, the first pixel lies on the centre of the first cell and the
            last on that of the last cell.
        num_superpixels: How many rows the result has. Those without pixels are zeros.
        normalize: Scale the vector of each pixel to length 1 before the mean.

    Raises:
        ValueError: If the shapes do not fit, a map is empty, a type is wrong, or a superpixel is
            not below `num_superpixels`.

    Source: SLidR (Sautier et al., CVPR 2022, arXiv:2203.16258), its image branch: the released
        code upsamples, normalises and multiplies by a sparse matrix; same numbers, other order.
    """
    _check(features, superpixel, num_superpixels)
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        images, _, num_rows, num_columns = features.shape
        rows = _find_axis(features, superpixel.shape[1], num_rows)
        columns = _find_axis(features, superpixel.shape[2], num_columns)
        groups = _find_groups(superpixel, rows, columns, (num_rows, num_columns), num_superpixels)
        if normalize:
            scale = 1 / _upsampled_norms(features, rows, columns)
        else:
            scale = features.new_ones(()).expand(superpixel.shape)
        corners = _corner_weights(scale, rows, columns, groups)
        of, cell, pair = _pair_cells(groups, (num_rows, num_columns), images)
        weight = corners.new_zeros(len(cell)).index_add(0, pair.flatten(), corners.flatten())
        ends = torch.arange(num_superpixels + 1, device=of.device)
        cells = features.permute(0, 2, 3, 1).flatten(0, 2)
        return functional.embedding_bag(
            cell,
            cells,
            torch.searchsorted(of, ends),
            per_sample_weights=weight / groups.num_pixels[of],
            mode="sum",
            include_last_offset=True,
        )


def _find_axis(features: Tensor, pixels: int, cells: int) -> _Axis:
    at = torch.arange(pixels, dtype=features.dtype, device=features.device)
    return _Axis(*find_corners(at, pixels, cells))


def _find_groups(
    superpixel: Tensor, rows: _Axis, columns: _Axis, grid: tuple[int, int], num_superpixels: int
) -> _Groups:
    images, height, _ = superpixel.shape
    lines, num_cells = images * height, images * grid[0] * grid[1]
    image = torch.arange(images, device=superpixel.device)[:, None, None]
    cell = (image * grid[0] + rows.low[:, None]) * grid[1] + columns.low
    line = image * height + torch.arange(height, device=superpixel.device)[:, None]
    key = torch.where(superpixel < 0, -1, superpixel.long() * num_cells + cell) * lines + line
    runs, run, length = key.flatten().unique_consecutive(return_inverse=True, return_counts=True)
    row, key = runs % lines % height, runs // lines
    counts = length.new_zeros(num_superpixels + 1).index_add(0, key // num_cells + 1, length)
    keys, group = key.unique(return_inverse=True)
    some = keys[keys >= 0]
    group = (group - (len(keys) - len(some))) % (len(some) + 1)  # that of none comes last
    return _Groups(run, row, group, some // num_cells, some % num_cells, counts[1:])


def _corner_weights(
    scale: Float[Tensor, "i h w"], rows: _Axis, columns: _Axis, groups: _Groups
) -> Float[Tensor, "4 g"]:
    """Sum scale times share over each group's pixels, for each of its four cells."""
    runs, num = scale.new_zeros(len(groups.row)), len(groups.cell)
    low, high = (
        runs.index_add(0, groups.run, (scale * share).flatten())
        for share in (1 - columns.share, columns.share)
    )
    share = rows.share[groups.row]
    corners = [(1 - share) * low, (1 - share) * high, share * low, share * high]
    empty = scale.new_zeros(num + 1)
    return torch.stack([empty.index_add(0, groups.group, one)[:num] for one in corners])


def _pair_cells(groups: _Groups, grid: tuple[int, int], images: int) -> tuple[Tensor, ...]:
    """Pairs of a superpixel and a cell, each once, in order.

    Returns:
        Superpixel and cell of each pair, and the pair of each of the groups' four cells.
    """
    num_cells = images * grid[0] * grid[1]
    right = groups.cell % grid[1] < grid[1] - 1  # past the end a share is 0
    below = (groups.cell // grid[1] % grid[0] < grid[0] - 1) * grid[1]
    first = groups.superpixel * num_cells + groups.cell
    corners = torch.stack([first, first + right, first + below, first + below + right])
    keys, pair = corners.unique(return_inverse=True)
    return keys // num_cells, keys % num_cells, pair


def _upsampled_norms(
    features: Float[Tensor, "i c y x"], rows: _Axis, columns: _Axis
) -> Float[Tensor, "i h w"]:
    """Norms of the upsampled map's vectors, at least `_EPS`.

    Where the cells of a pixel all but cancel each other, products have lost the digits of its
    norm: those few pixels are read.
    """
    square, below, right, across = _NeighborProducts.apply(features)
    along = _square(square, right, columns, dim=2)
    whole = _square(along, _square(below, across, columns, dim=2), rows, dim=1)
    most = _blend(_blend(square.detach(), columns, dim=2), rows, dim=1)
    image, v, u = (whole.detach() < _CANCELLED * most).nonzero(as_tuple=True)
    if len(image):
        read = sum_cells(features, image, *_at_pixels(rows, v), *_at_pixels(columns, u))
        whole = whole.index_put((image, v, u), read.square().sum(dim=1))
    return whole.clamp_min(_EPS**2).sqrt()


def _at_pixels(axis: _Axis, at: Tensor) -> tuple[Tensor, Tensor]:
    """Both cells of some pixels, and the shares of both."""
    share = axis.share[at]
    cells = torch.stack([axis.low[at], axis.high[at]], dim=1)
    return cells, torch.stack([1 - share, share], dim=1)


def _square(
    square: Float[Tensor, "i ..."], product: Float[Tensor, "i ..."], axis: _Axis, *, dim: int
) -> Float[Tensor, "i ..."]:
    """Squares between cells, from those of the cells and the products of each with the next."""
    share = axis.share if dim == 2 else axis.share[:, None]
    low = square.index_select(dim, axis.low) * (1 - share) ** 2
    middle = product.index_select(dim, axis.low) * (2 * share * (1 - share))
    return low + middle + square.index_select(dim, axis.high) * share**2


def _blend(values: Float[Tensor, "i ..."], axis: _Axis, *, dim: int) -> Float[Tensor, "i ..."]:
    share = axis.share if dim == 2 else axis.share[:, None]
    low, high = (values.index_select(dim, end) for end in (axis.low, axis.high))
    return low + (high - low) * share


# Of each product: how many rows and columns fewer than the map it has, where its pairs of factors
# begin, and their weight.
_SAME, _BELOW, _RIGHT, _ACROSS = (0, 0), (1, 0), (0, 1), (1, 1)
_PRODUCTS = (
    (_SAME, ((_SAME, _SAME),), 1.0),
    (_BELOW, ((_SAME, _BELOW),), 1.0),
    (_RIGHT, ((_SAME, _RIGHT),), 1.0),
    (_ACROSS, ((_SAME, _ACROSS), (_RIGHT, _BELOW)), 0.5),
)


class _NeighborProducts(torch.autograd.Function):
    """Dot products of each cell's vector: with itself, the one below, the one to the right.

    Last, the mean over both diagonals of the 2x2 cells that it begins. 0 where the map ends. The
    gradient is gathered in place, where autograd would keep a map for each factor.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        ctx.save_for_backward(features)
        products = []
        for less, pairs, weight in _PRODUCTS:
            product = torch.zeros_like(features[:, 0])
            for pair in pairs:
                one, other = (_window(features, start, less) for start in pair)
                _window(product, _SAME, less).add_((one * other).sum(dim=1), alpha=weight)
            products.append(product)
        return tuple(products)

    @staticmethod
    @once_differentiable
    # pyrefly: ignore[bad-override]
    def backward(ctx: Any, *grad_outputs: Any) -> Tensor:  # noqa: ANN401
        (features,) = ctx.saved_tensors
        total = torch.zeros_like(features)
        for (less, pairs, weight), gradient in zip(_PRODUCTS, grad_outputs, strict=True):
            given = _window(gradient, _SAME, less)[:, None]
            for one, other in pairs:
                for start, factor in ((one, other), (other, one)):
                    values = _window(features, factor, less)
                    _window(total, start, less).addcmul_(given, values, value=weight)
        return total


def _window(maps: Tensor, start: tuple[int, int], less: tuple[int, int]) -> Tensor:
    """The part that begins at a cell and is smaller than the map, as a view."""
    rows, columns = (size - few for size, few in zip(maps.shape[-2:], less, strict=True))
    return maps[..., start[0] : start[0] + rows, start[1] : start[1] + columns]


def _check(features: Tensor, superpixel: Tensor, num_superpixels: int) -> None:
    if features.ndim != 4 or 0 in features.shape or not features.is_floating_point():
        raise ValueError(
            "features must be maps of floats [i, c, y, x] and not empty, got "
            f"{features.dtype} {list(features.shape)}"
        )
    if superpixel.ndim != 3 or superpixel.dtype not in _INTEGERS or 0 in superpixel.shape:
        raise ValueError(
            "superpixel must be integers [i, h, w] and not empty, got "
            f"{superpixel.dtype} {list(superpixel.shape)}"
        )
    if len(features) != len(superpixel):
        raise ValueError(
            "features and superpixel must be of the same images, got batches of "
            f"{len(features)} and {len(superpixel)}"
        )
    if (most := int(superpixel.max())) >= num_superpixels:
        raise ValueError(
            f"superpixels must be below num_superpixels, {num_superpixels}, got {most}; number "
            "those of all images of a batch through, and give how many there are"
        )
