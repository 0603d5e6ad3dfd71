"""CenterPoint on voxels: sparse 3D convolutions, then a map from above and 2D convolutions."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from pc_backbones.birds_eye import divide_box
from pc_backbones.norms import ConvNorm, RowNorm
from pc_backbones.rpn import NORM_EPS, RegionProposalNetwork
from pc_backbones.rulebooks import strided_shape
from pc_backbones.sparse_conv import (
    Rulebook,
    StridedConv,
    SubmanifoldConv,
)
from pc_backbones.voxel_encoder import FLATTENING, VoxelEncoder, halving_sizes
from pc_backbones.waffleiron import FieldOfView

_BLOCKS = 2  # residual blocks of each stage


class CenterPointVoxel(VoxelEncoder):
    """Mean of each voxel's points, residual sparse encoder, bird's-eye map, 2D convolutions.

    A voxel's input is the mean of `feat` over its points. Nothing else of a point's place enters,
    so `feat` itself must hold the coordinates: the published networks take x, y, z, intensity, in
    this order, then elongation (Waymo, its intensity through tanh) or age (nuScenes).

    Args:
        in_dim: Number of input features of a point, coordinates included.
        fov: Lower and upper corner in metres of the box that is divided into voxels.
        cell_size: Sides of a voxel along x, y and z in metres.
        encoder_widths: Channels of each stage of the encoder; each but the first begins by
            halving the resolution. Two residual blocks a stage.
        widths: Channels of each block of 2D convolutions.
        depths: Convolutions of each block after its first.
        strides: Of each block's first convolution.
        up_widths: Channels that each block adds to the map.
        up_strides: By how much each block's result is made finer.
        norm_momentum: Of all batch norms.

    Attributes:
        in_dim: As given.
        out_dim: Sum of `up_widths`.
        map_shape: Rows (along y) and columns (along x) of the map.
        map_cell: Sides in metres of its cells.
        arguments: What rebuilds the network.

    Raises:
        ValueError: If the box is not a whole number of voxels, too low for the encoder, or an
            argument is out of range.

    Source: CenterPoint (Yin et al., CVPR 2021, arXiv:2006.11275) with the encoder of SECOND (Yan
        et al., Sensors 2018) in its residual form, as configured for Waymo by default. Differs in
        that every point and every voxel counts, where the published code keeps the first 5 points
        (nuScenes: 10) of the first 150,000 voxels, so that nothing depends on the points' order.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        fov: FieldOfView = ((-75.2, -75.2, -2.0), (75.2, 75.2, 4.0)),
        cell_size: Sequence[float | int] = (0.1, 0.1, 0.15),
        encoder_widths: Sequence[int] = (16, 32, 64, 128),
        widths: Sequence[int] = (128, 256),
        depths: Sequence[int] = (5, 5),
        strides: Sequence[int] = (1, 2),
        up_widths: Sequence[int] = (256, 256),
        up_strides: Sequence[float | int] = (1, 2),
        norm_momentum: float = 0.01,
    ) -> None:
        if not encoder_widths or min(encoder_widths) < 1:
            raise ValueError(f"encoder_widths must be positive, got {tuple(encoder_widths)}")
        box = divide_box(fov, cell_size)
        layers = _count_layers(box.shape[2], len(encoder_widths))
        rpn = RegionProposalNetwork(
            encoder_widths[-1] * layers,
            widths=widths,
            depths=depths,
            strides=strides,
            up_widths=up_widths,
            up_strides=up_strides,
            norm_momentum=norm_momentum,
        )
        map_stride = 2 ** (len(encoder_widths) - 1)
        super().__init__(in_dim, box=box, rpn=rpn, map_stride=map_stride)
        self.arguments = {
            "in_dim": in_dim,
            "fov": tuple(tuple(corner) for corner in fov),
            "cell_size": tuple(cell_size),
            "encoder_widths": tuple(encoder_widths),
            "widths": tuple(widths),
            "depths": tuple(depths),
            "strides": tuple(strides),
            "up_widths": tuple(up_widths),
            "up_strides": tuple(up_strides),
            "norm_momentum": norm_momentum,
        }
        self.top_layer = 1
        self.num_layers, self.flat_width = layers, encoder_widths[-1]
        norm = partial(RowNorm, eps=NORM_EPS, momentum=norm_momentum)
        first = encoder_widths[0]
        self.stem = ConvNorm(SubmanifoldConv(in_dim, first, 3), norm(first))
        self.stages = nn.ModuleList([_Stage(None, first, norm_momentum)])
        for narrow, wide in pairwise(encoder_widths):
            down = ConvNorm(StridedConv(narrow, wide, (3, 3, 3)), norm(wide))
            self.stages.append(_Stage(down, wide, norm_momentum))
        last = encoder_widths[-1]
        self.flatten = ConvNorm(StridedConv(last, last, (1, 1, 3)), norm(last))


class _Stage(nn.Module):
    """Residual blocks, and what halving the resolution before them."""

    def __init__(self, down: ConvNorm | None, width: int, norm_momentum: float) -> None:
        super().__init__()
        self.down = down
        self.blocks = nn.ModuleList(_Block(width, norm_momentum) for _ in range(_BLOCKS))

    def forward(self, tokens: Tensor, halving: Rulebook | None, around: Rulebook) -> Tensor:
        if self.down is not None:
            tokens = self.down(tokens, halving)
        for block in self.blocks:
            tokens = block(tokens, around)
        return tokens


class _Block(nn.Module):
    """Two convolutions, here with a bias before their norm, and a shortcut around them."""

    def __init__(self, width: int, norm_momentum: float) -> None:
        super().__init__()
        self.conv1 = SubmanifoldConv(width, width, 3, bias=True)
        self.norm1 = RowNorm(width, eps=NORM_EPS, momentum=norm_momentum)
        self.conv2 = SubmanifoldConv(width, width, 3, bias=True)
        self.norm2 = RowNorm(width, eps=NORM_EPS, momentum=norm_momentum)

    def forward(self, tokens: Tensor, around: Rulebook) -> Tensor:
        hidden = functional.relu(self.norm1(self.conv1(tokens, around)))
        hidden = self.norm2(self.conv2(hidden, around))
        return functional.relu(hidden + tokens)


def _count_layers(num_cells: int, num_stages: int) -> int:
    """Layers along z that the encoder leaves of so many cells; every cell must reach one."""
    shape, highest = (1, 1, num_cells + 1), num_cells - 1
    strides = [halving_sizes(stage == num_stages - 1) for stage in range(1, num_stages)]
    for sizes in (*strides, FLATTENING):
        shape = strided_shape(shape, **sizes)
        pad = sizes["padding"][2]
        lowest = max(highest + pad - 1, 0) // 2  # of the layers that the highest one enters
        if lowest >= shape[2]:
            unit = 2 ** (num_stages - 1)
            raise ValueError(
                f"of {num_cells} voxels along z the uppermost would never leave the encoder; take "
                f"a fov of {unit} times an odd number of them, {3 * unit} or more, as the "
                f"published {5 * unit}"
            )
        highest = min((highest + pad) // 2, shape[2] - 1)
    return shape[2]
