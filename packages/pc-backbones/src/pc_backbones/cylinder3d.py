"""Cylinder3D: cells around the sensor, and a U-Net of sparse convolutions on them."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn
from torch.nn import functional

from pc_backbones.contract import Backbone
from pc_backbones.cylinder_blocks import (
    CrossBlock,
    Decomposition,
    DownBlock,
    UpBlock,
    down_rules,
    level_rules,
)
from pc_backbones.norms import RowNorm
from pc_backbones.sparse_conv import SubmanifoldConv, without_bfloat16
from pc_backbones.voxels import Occupants, VoxelGrid, find_voxels, read_voxels
from pc_backbones.waffleiron import FieldOfView


class Cylinder3D(Backbone):
    """A network on each point, its maximum in each cell around the sensor, a sparse U-Net.

    Cells are counted along distance from the sensor's axis, azimuth and height; they grow with
    distance, as scans thin out. Points share their cell's feature. A point out of range counts to
    the nearest cell at the border, so that every point has a feature: one cell an axis, the last,
    holds nothing else. Azimuth does not wrap, as in the published network: the cells on both sides
    of its seam, behind the sensor, are no neighbours.

    A point's input is what the network derives from `xyz` (its offset from its cell's middle, its
    place in cylinder coordinates, x and y), and then `feat`: the original adds intensity alone.

    Args:
        in_dim: Number of input features of a point, besides what is derived from `xyz`.
        polar_range: Lower and upper corner of the cells: distance in metres, azimuth in radians,
            height in metres.
        grid_shape: Number of cells along distance, azimuth and height. All but the last divide the
            range evenly.
        offsets: Give offset, x and y to a point's network, too; without them, distance, azimuth
            and height alone, as CSC pre-trains.
        point_widths: Channels of each layer of the points' network.
        cell_width: Channels of a cell before the first convolution.
        base_width: Channels at the finest resolution; every coarser one doubles them, the decoder
            ends with twice as many.
        strides: Of each step to a coarser resolution, along distance, azimuth and height.
        out_dim: Number of output features of a point.

    Attributes:
        in_dim: As given.
        out_dim: As given.
        arguments: What rebuilds the network.

    Raises:
        ValueError: If an argument is out of range.

    Source: Cylinder3D (Zhu et al., CVPR 2021, arXiv:2011.10033), with the sizes that CSC (Chen et
        al., CVPR 2024) takes. Differs in finding cells inside the network, in float64; in leaving
        out what a norm takes away again (biases before one, scale and shift of the first); and as
        `Decomposition` says.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        polar_range: FieldOfView = ((0.0, -math.pi, -3.0), (50.0, math.pi, 3.0)),
        grid_shape: Sequence[int] = (480, 360, 32),
        offsets: bool = True,
        point_widths: Sequence[int] = (64, 128, 256, 256),
        cell_width: int = 16,
        base_width: int = 32,
        strides: Sequence[Sequence[int]] = ((2, 2, 2), (2, 2, 2), (2, 2, 1), (2, 2, 1)),
        out_dim: int = 64,
    ) -> None:
        super().__init__()
        _check(polar_range, grid_shape, strides)
        widths = [*point_widths, cell_width, base_width, out_dim]
        if in_dim < 0 or not point_widths or min(widths) < 1:
            raise ValueError(
                f"in_dim must not be negative, and all widths positive; got {in_dim} and "
                f"{tuple(point_widths)}, {cell_width}, {base_width}, {out_dim}"
            )
        self.in_dim = in_dim
        self.out_dim = out_dim
        self.num_neighbors = 0
        self.register_buffer("fov", None, persistent=False)
        self.voxel_size = None  # a cell's sides are not the same, nor those of two cells
        self.arguments = {
            "in_dim": in_dim,
            "polar_range": tuple(tuple(corner) for corner in polar_range),
            "grid_shape": tuple(grid_shape),
            "offsets": offsets,
            "point_widths": tuple(point_widths),
            "cell_width": cell_width,
            "base_width": base_width,
            "strides": tuple(tuple(stride) for stride in strides),
            "out_dim": out_dim,
        }
        self.points = _PointNetwork(in_dim + (8 if offsets else 3), point_widths, cell_width)
        self.stem = CrossBlock(cell_width, base_width)
        widths = [base_width * 2**step for step in range(len(strides) + 1)]
        self.encoder = nn.ModuleList(DownBlock(*pair) for pair in pairwise(widths))
        up_widths = [widths[-1], *widths[:0:-1]]
        self.decoder = nn.ModuleList(UpBlock(*pair) for pair in pairwise(up_widths))
        self.decomposition = Decomposition(widths[1])
        self.final = SubmanifoldConv(2 * widths[1], out_dim, 3, bias=True)

    def forward(
        self,
        xyz: Float[Tensor, "n 3"],
        feat: Float[Tensor, "n c"],
        batch: Int64[Tensor, " n"],
        *,
        neighbors: Int64[Tensor, "n k"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "n d"]:
        """Compute a feature for every point.

        Args:
            xyz: Points in metres, the sensor's axis at x = y = 0.
            feat: Input features.
            batch: Scan of each point, sorted.
            neighbors: Not used.

        Raises:
            ValueError: If there are not `in_dim` features for each point, or a coordinate is not
                finite.
        """
        if feat.shape != (len(xyz), self.in_dim):
            raise ValueError(
                f"feat must be [{len(xyz)}, {self.in_dim}], the features of each point that the "
                f"network was built for (in_dim), got {list(feat.shape)}"
            )
        if not len(xyz):
            # Everything gets a gradient, zero: other processes may wait for it.
            nothing = feat.sum() + sum(parameter.sum() for parameter in self.parameters())
            return feat.new_zeros(0, self.out_dim) * nothing
        feat = feat.to(self.final.weight.dtype)
        with torch.no_grad():
            cells, geometry = self._locate(xyz)
            # Moved by a multiple of more cells than there are: not at all.
            grid, occupants = find_voxels(cells, batch, multiple=max(self.arguments["grid_shape"]))
            grid = grid._replace(shape=self.arguments["grid_shape"])
        with without_bfloat16(xyz.device):
            feat = torch.cat([geometry.to(feat.dtype), feat], dim=1)
            return read_voxels(self._mix(self.points(feat, occupants), grid), occupants)

    def layer_groups(self) -> Sequence[nn.Module]:
        """Modules from input to output, for layer-wise learning-rate decay."""
        return [
            self.points,
            self.stem,
            *self.encoder,
            *self.decoder,
            self.decomposition,
            self.final,
        ]

    def _locate(self, xyz: Tensor) -> tuple[Int64[Tensor, "n 3"], Float64[Tensor, "n g"]]:
        """The cell of each point, and what a point's network sees of its place."""
        if not (finite := xyz.isfinite().all(1)).all():
            raise ValueError(
                f"{int((~finite).sum())} of {len(xyz)} points have a coordinate that is not "
                f"finite, the first is point {int((~finite).int().argmax())}; drop them"
            )
        x, y, z = xyz.double().unbind(1)
        polar = torch.stack([torch.hypot(x, y), torch.atan2(y, x), z], dim=1)
        low, high = polar.new_tensor(self.arguments["polar_range"])
        interval = (high - low) / (polar.new_tensor(self.arguments["grid_shape"]) - 1)
        cells = ((polar.clamp(low, high) - low) / interval).floor().long()
        if not self.arguments["offsets"]:
            return cells, polar
        middle = low + (cells + 0.5) * interval
        return cells, torch.cat([polar - middle, polar, xyz[:, :2].double()], dim=1)

    def _mix(self, tokens: Tensor, grid: VoxelGrid) -> Tensor:
        level = level_rules(grid)
        tokens = self.stem(tokens, level)
        passed = []  # on the way down: tokens, the rules around them, the rules to the next
        for block, stride in zip(self.encoder, self.arguments["strides"], strict=True):
            downward = down_rules(grid, stride)
            skip, tokens = block(tokens, level, downward)
            passed.append((skip, level, downward))
            grid = downward.target
            level = level_rules(grid)
        around = level.cube
        for block in self.decoder:
            skip, level, downward = passed.pop()
            tokens = block(tokens, skip, around, downward, level)
            around = level.cube
        return self.final(torch.cat([self.decomposition(tokens, level), tokens], dim=1), around)


class _PointNetwork(nn.Module):
    """Layers on each point, the maximum in each cell, and one layer on that."""

    def __init__(self, in_dim: int, widths: Sequence[int], cell_width: int) -> None:
        super().__init__()
        *inner, last = widths
        self.norm = RowNorm(in_dim, affine=False)
        self.layers = nn.Sequential()
        for width in inner:
            self.layers.append(nn.Linear(in_dim, width, bias=False))
            self.layers.append(RowNorm(width))
            self.layers.append(nn.ReLU())
            in_dim = width
        self.layers.append(nn.Linear(in_dim, last))
        self.compress = nn.Linear(last, cell_width)

    def forward(self, feat: Tensor, occupants: Occupants) -> Tensor:
        feat = self.layers(self.norm(feat))
        largest = functional.embedding_bag(occupants.order, feat, occupants.starts, mode="max")
        return functional.relu(self.compress(largest))


def _check(
    polar_range: FieldOfView, grid_shape: Sequence[int], strides: Sequence[Sequence[int]]
) -> None:
    corners = [[float(value) for value in corner] for corner in polar_range]
    if [len(corner) for corner in corners] != [3, 3] or not all(
        low < high and math.isfinite(high - low) for low, high in zip(*corners, strict=True)
    ):
        raise ValueError(
            "polar_range must be a lower and a higher corner (distance, azimuth, height), got "
            f"{polar_range}"
        )
    if len(grid_shape) != 3 or min(grid_shape) < 2:
        raise ValueError(
            f"grid_shape must be three numbers of cells, 2 or more, got {tuple(grid_shape)}"
        )
    if not strides or any(len(step) != 3 or not set(step) <= {1, 2} for step in strides):
        raise ValueError(
            "strides must be three numbers a step, 1 or 2 each so that no cell is lost, got "
            f"{tuple(strides)}"
        )
