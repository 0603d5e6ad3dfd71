"""Sparse 3D convolutions, computed by spconv with the algorithm that suits the device.

Importing spconv takes seconds, so that only what convolves imports this module.
"""

import math
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pc_backbones.rulebooks import (
    Triple,
    halving_pairs,
    strided_pairs,
    strided_shape,
    submanifold_pairs,
)
from pc_backbones.voxels import VoxelGrid

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of functions that Python and PyTorch deprecate
    from spconv.core import ConvAlgo
    from spconv.pytorch import functional as spconv_functional
    from spconv.pytorch import ops as spconv_ops

_MAX_TAPS = 32  # of spconv's implicit GEMM at its best


class Rulebook(NamedTuple):
    """What a kernel of one size needs to know of the voxels, found once for all layers on them.

    Attributes:
        source: Voxels that a convolution reads.
        target: Voxels that it writes.
        tables: spconv's, as `algorithm` wants them.
        algorithm: spconv's way to compute.
        submanifold: Whether source and target are the same voxels.
    """

    source: VoxelGrid
    target: VoxelGrid
    tables: tuple[Any, ...]
    algorithm: ConvAlgo
    submanifold: bool


def submanifold_rules(grid: VoxelGrid, kernel_size: int) -> Rulebook:
    """Find each voxel's neighbours in a cube of odd side.

    Raises:
        ValueError: If the kernel size is even, or the grid too large to count.
    """
    if kernel_size % 2 == 0:
        raise ValueError(f"a submanifold kernel has a centre: its size is odd, got {kernel_size}")
    algorithm = _algorithm(grid.indices.is_cuda, kernel_size**3)
    if algorithm == ConvAlgo.Native:
        tables = submanifold_pairs(grid, kernel_size)
    else:
        cube = (kernel_size, kernel_size, kernel_size)
        _, tables = implicit_tables(grid, algorithm, cube, submanifold=True)
    return Rulebook(grid, grid, tables, algorithm, submanifold=True)


def halving_rules(grid: VoxelGrid) -> Rulebook:
    """Find the voxels of twice the size, for kernels of size 2 and stride 2."""
    algorithm = _algorithm(grid.indices.is_cuda, 8)
    if algorithm == ConvAlgo.Native:
        target, tables = halving_pairs(grid)
    else:
        x_size, y_size, z_size = ((size + 1) // 2 for size in grid.shape)
        # Of an odd size, spconv would drop the last voxel.
        even = grid._replace(shape=(2 * x_size, 2 * y_size, 2 * z_size))
        indices, tables = implicit_tables(even, algorithm, (2, 2, 2), stride=(2, 2, 2))
        target = VoxelGrid(indices, (x_size, y_size, z_size), grid.num_scans)
    return Rulebook(grid, target, tables, algorithm, submanifold=False)


def strided_rules(
    grid: VoxelGrid, *, kernel_size: Triple, stride: Triple, padding: Triple = (0, 0, 0)
) -> Rulebook:
    """Find all voxels that a kernel over the padded grid makes, as a dense convolution would.

    Args:
        grid: Voxels to read; its shape counts, as a kernel may reach past it or stop short of it.
        kernel_size: Along x, y and z.
        stride: Along x, y and z.
        padding: Empty cells on both sides along x, y and z.

    Raises:
        ValueError: If the grid is smaller than the kernel, or too large to count.
    """
    sizes = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
    shape = strided_shape(grid.shape, **sizes)
    if min(shape) < 1:
        raise ValueError(
            f"a grid of {grid.shape} voxels is smaller than a kernel of {kernel_size} with padding "
            f"{padding}; make the grid larger"
        )
    algorithm = _algorithm(grid.indices.is_cuda, math.prod(kernel_size))
    if algorithm == ConvAlgo.Native:
        target, tables = strided_pairs(grid, **sizes)
    else:
        indices, tables = implicit_tables(
            grid, algorithm, kernel_size, stride=stride, padding=padding
        )
        target = VoxelGrid(indices, shape, grid.num_scans)
    return Rulebook(grid, target, tables, algorithm, submanifold=False)


def implicit_tables(
    grid: VoxelGrid,
    algorithm: ConvAlgo,
    kernel_size: Triple,
    *,
    stride: Triple = (1, 1, 1),
    padding: Triple = (0, 0, 0),
    submanifold: bool = False,
) -> tuple[Tensor, tuple[Any, ...]]:
    """Find the voxels that a kernel writes, and spconv's tables for one of its implicit GEMMs.

    Args:
        grid: Voxels that it reads, on a GPU.
        algorithm: Which of them.
        kernel_size: Along x, y and z.
        stride: Along x, y and z.
        padding: Empty cells on both sides along x, y and z.
        submanifold: Whether the voxels stay the same.

    Returns:
        Indices of the voxels written, and the tables of a `Rulebook`.
    """
    indices, _, *tables = spconv_ops.get_indice_pairs_implicit_gemm(
        grid.indices,
        grid.num_scans,
        list(grid.shape),
        algorithm,
        ksize=list(kernel_size),
        stride=list(stride),
        padding=list(padding),
        dilation=[1] * 3,
        out_padding=[0] * 3,
        subm=submanifold,
        is_train=True,
    )
    return indices, tuple(tables)


def without_bfloat16(device: torch.device) -> AbstractContextManager[Any]:
    """Context in which autocast asks for nothing that spconv lacks.

    spconv computes in float32, and in half precision on a GPU: any other autocast (bfloat16, or a
    CPU's) is turned off.
    """
    if device.type == "cuda" and torch.get_autocast_dtype("cuda") == torch.float16:
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


class SparseConv(nn.Module):
    """A kernel over voxels: [v in_dim] -> [w out_dim].

    Its weight is [out_dim x y z in_dim], as spconv keeps it; it and the bias start uniform in
    +-1/sqrt(in_dim x y z).

    Args:
        in_dim: Channels of a voxel that is read.
        out_dim: Channels of a voxel that is written.
        kernel_size: Along x, y and z; one number for a cube.
        bias: Whether to add one.
    """

    def __init__(
        self, in_dim: int, out_dim: int, kernel_size: int | Triple, *, bias: bool = False
    ) -> None:
        super().__init__()
        sizes = [kernel_size] * 3 if isinstance(kernel_size, int) else kernel_size
        self.weight = nn.Parameter(torch.empty(out_dim, *sizes, in_dim))
        bound = 1 / math.sqrt(in_dim * math.prod(sizes))
        nn.init.uniform_(self.weight, -bound, bound)
        self.bias = nn.Parameter(torch.empty(out_dim).uniform_(-bound, bound)) if bias else None

    def forward(self, feat: Float[Tensor, "v c"], rules: Rulebook) -> Float[Tensor, "w d"]:
        """Convolve from the rules' source voxels to their target voxels."""
        feat = _convolve(feat, self.weight, rules, inverse=False)
        return feat if self.bias is None else feat + self.bias

    def extra_repr(self) -> str:
        """Describe the kernel."""
        out_dim, *sizes, in_dim = self.weight.shape
        size = sizes[0] if len(set(sizes)) == 1 else tuple(sizes)
        return f"{in_dim}, {out_dim}, kernel_size={size}" + ", bias" * (self.bias is not None)


class SubmanifoldConv(SparseConv):
    """From voxels to the same voxels; takes `submanifold_rules` of its kernel size."""


class StridedConv(SparseConv):
    """To the voxels that `strided_rules` of its kernel size found; takes those rules."""


class HalvingConv(SparseConv):
    """Kernel and stride 2, to voxels of twice the size; takes `halving_rules`."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim, 2)


class DoublingConv(HalvingConv):
    """The way back of a `HalvingConv`, to the very voxels that it came from; takes its rules.

    Where the fine voxel 2i + k exists, it gets the weight under k times what coarse voxel i holds.
    """

    def forward(self, feat: Float[Tensor, "w c"], rules: Rulebook) -> Float[Tensor, "v d"]:
        """Convolve from the rules' target voxels to their source voxels."""
        return _convolve(feat, self.weight, rules, inverse=True)


def _algorithm(is_cuda: bool, num_taps: int) -> ConvAlgo:
    return ConvAlgo.MaskImplicitGemm if is_cuda and num_taps <= _MAX_TAPS else ConvAlgo.Native


def _convolve(feat: Tensor, weight: Tensor, rules: Rulebook, *, inverse: bool) -> Tensor:
    if feat.dtype == torch.bfloat16:
        raise ValueError("spconv does not know bfloat16; pass float32, or float16 on a GPU")
    target = rules.source if inverse else rules.target
    num_out = len(target.indices)
    if rules.algorithm == ConvAlgo.Native:
        if rules.submanifold:
            convolve = spconv_functional.indice_subm_conv
        elif inverse:
            convolve = spconv_functional.indice_inverse_conv
        else:
            convolve = spconv_functional.indice_conv
        return convolve(feat, weight, *rules.tables, num_out, rules.algorithm)
    tables = rules.tables
    if inverse:  # the tables of the forward and of the backward pass change places
        tables = (*(tables[i] for i in (1, 0, 3, 2, 5, 4)), tables[6])
    *pairs_and_masks, masks = tables
    return spconv_functional.implicit_gemm(
        feat, weight, *pairs_and_masks, num_out, masks, True, rules.submanifold
    )
