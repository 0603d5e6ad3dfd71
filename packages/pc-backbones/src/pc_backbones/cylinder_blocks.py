"""The sparse blocks of Cylinder3D: kernels of a cube's parts, on voxels around the sensor."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pc_backbones.norms import RowNorm
from pc_backbones.rulebooks import Triple
from pc_backbones.sparse_conv import (
    ConvAlgo,
    DoublingConv,
    Rulebook,
    SparseConv,
    StridedConv,
    SubmanifoldConv,
    implicit_tables,
    strided_rules,
    submanifold_rules,
)
from pc_backbones.voxels import VoxelGrid

SHELL: Triple = (1, 3, 3)
"""Across azimuth and height, at one distance."""

FAN: Triple = (3, 1, 3)
"""Across distance and height, at one azimuth."""

LINES: tuple[Triple, ...] = ((3, 1, 1), (1, 3, 1), (1, 1, 3))
"""Along distance, azimuth and height."""


class Level(NamedTuple):
    """What the kernels need to know of the voxels at one resolution.

    Attributes:
        cube: Rules of 3x3x3.
        shell: Rules of `SHELL`.
        fan: Rules of `FAN`.
    """

    cube: Rulebook
    shell: Rulebook
    fan: Rulebook


def level_rules(grid: VoxelGrid) -> Level:
    """Find the neighbours of each voxel, for all kernels at this resolution."""
    cube = submanifold_rules(grid, 3)
    return Level(cube, part_rules(cube, SHELL), part_rules(cube, FAN))


def part_rules(cube: Rulebook, kernel_size: Triple) -> Rulebook:
    """The rules of a kernel of 1 or 3 along each axis, of those of 3x3x3 on the same voxels."""
    grid = cube.source
    if cube.algorithm == ConvAlgo.Native:
        x, y, z = (slice(None) if size == 3 else slice(1, 2) for size in kernel_size)
        taps = torch.arange(27, device=grid.indices.device).view(3, 3, 3)[x, y, z].flatten()
        pairs, count = cube.tables
        return cube._replace(tables=(pairs[:, taps], count[taps]))
    # Tables for a GPU are sorted by which taps meet a voxel: of fewer taps, in another order.
    _, tables = implicit_tables(grid, cube.algorithm, kernel_size, submanifold=True)
    return cube._replace(tables=tables)


def down_rules(grid: VoxelGrid, stride: Triple) -> Rulebook:
    """Find the voxels that a kernel of 3x3x3 makes at a coarser resolution."""
    return strided_rules(grid, kernel_size=(3, 3, 3), stride=stride, padding=(1, 1, 1))


class CrossBlock(nn.Module):
    """Two ways through a shell and a fan, in either order, added: [v in_dim] -> [v out_dim].

    A shell and a fan cross in an upright line, as the surfaces of poles, people and cars do; they
    cost 18 taps where a cube costs 27.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.shell = _Layer(in_dim, out_dim, SHELL)
        self.shell_to_fan = _Layer(out_dim, out_dim, FAN)
        self.fan = _Layer(in_dim, out_dim, FAN)
        self.fan_to_shell = _Layer(out_dim, out_dim, SHELL)

    def forward(self, tokens: Float[Tensor, "v c"], level: Level) -> Float[Tensor, "v d"]:
        """Convolve at one resolution."""
        one = self.shell_to_fan(self.shell(tokens, level.shell), level.fan)
        return one + self.fan_to_shell(self.fan(tokens, level.fan), level.shell)


class DownBlock(nn.Module):
    """A cross block, and a strided convolution to a coarser resolution."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.cross = CrossBlock(in_dim, out_dim)
        self.down = StridedConv(out_dim, out_dim, 3)

    def forward(
        self, tokens: Float[Tensor, "v c"], level: Level, downward: Rulebook
    ) -> tuple[Float[Tensor, "v d"], Float[Tensor, "w d"]]:
        """Return what it finds at its own resolution and at the coarser one."""
        tokens = self.cross(tokens, level)
        return tokens, self.down(tokens, downward)


class UpBlock(nn.Module):
    """Back to a finer resolution, joined with what the encoder had there, by a sum."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.coarse = _Layer(in_dim, out_dim, (3, 3, 3))
        self.up = ReturnConv(out_dim, out_dim)
        self.shell = _Layer(out_dim, out_dim, SHELL)
        self.fan = _Layer(out_dim, out_dim, FAN)
        self.cube = _Layer(out_dim, out_dim, (3, 3, 3))

    def forward(
        self,
        tokens: Float[Tensor, "w c"],
        skip: Float[Tensor, "v d"],
        around: Rulebook,
        downward: Rulebook,
        level: Level,
    ) -> Float[Tensor, "v d"]:
        """Convolve from coarse to fine voxels.

        Args:
            tokens: Of the coarse voxels.
            skip: Of the fine voxels.
            around: Rules of 3x3x3 on the coarse voxels.
            downward: Rules by which the coarse voxels were made of the fine.
            level: Rules on the fine voxels.
        """
        tokens = self.up(self.coarse(tokens, around), downward) + skip
        tokens = self.fan(self.shell(tokens, level.shell), level.fan)
        return self.cube(tokens, level.cube)


class Decomposition(nn.Module):
    """Weighs every channel of a voxel by what lies along each axis: [v dim] -> [v dim].

    Source: Cylinder3D (Zhu et al., CVPR 2021, arXiv:2011.10033), dimension-decomposition based
        context modeling. Differs in that all three axes count; the authors' code drops what the
        third convolution finds and passes the first one's weights through another norm instead.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(SubmanifoldConv(dim, dim, line) for line in LINES)
        self.norms = nn.ModuleList(RowNorm(dim) for _ in LINES)

    def forward(self, tokens: Float[Tensor, "v c"], level: Level) -> Float[Tensor, "v c"]:
        """Multiply by the sum of the three axes' weights, each between 0 and 1."""
        weight = torch.zeros_like(tokens)
        for line, conv, norm in zip(LINES, self.convs, self.norms, strict=True):
            weight = weight + norm(conv(tokens, part_rules(level.cube, line))).sigmoid()
        return tokens * weight


class ReturnConv(DoublingConv):
    """The way back of a 3x3x3 `StridedConv`, to the very voxels it came from; takes its rules."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        SparseConv.__init__(self, in_dim, out_dim, 3)


class _Layer(nn.Module):
    """Convolution, leaky ReLU and norm, in this order."""

    def __init__(self, in_dim: int, out_dim: int, kernel_size: Triple) -> None:
        super().__init__()
        self.conv = SubmanifoldConv(in_dim, out_dim, kernel_size)
        self.norm = RowNorm(out_dim)

    def forward(self, tokens: Tensor, rules: Rulebook) -> Tensor:
        return self.norm(functional.leaky_relu(self.conv(tokens, rules)))
