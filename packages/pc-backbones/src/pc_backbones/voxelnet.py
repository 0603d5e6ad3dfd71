"""VoxelNet as SLidR and CSC pre-train it: sparse 3D convolutions, read from above."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pc_backbones.birds_eye import divide_box, read_map
from pc_backbones.norms import ConvNorm, RowNorm
from pc_backbones.rpn import NORM_EPS, RegionProposalNetwork
from pc_backbones.rulebooks import Triple, strided_shape
from pc_backbones.sparse_conv import (
    Rulebook,
    StridedConv,
    SubmanifoldConv,
)
from pc_backbones.voxel_encoder import FLATTENING, VoxelEncoder, halving_sizes
from pc_backbones.waffleiron import FieldOfView


class VoxelNet(VoxelEncoder):
    """Mean of each voxel's points, sparse encoder, bird's-eye map of its features, one projection.

    A voxel's input is the mean of `feat` over its points. Nothing else of a point's place enters,
    so `feat` itself must hold the coordinates: the published network takes x, y, z, intensity (0 to
    255), in this order.

    Args:
        in_dim: Number of input features of a point, coordinates included.
        fov: Lower and upper corner in metres of the box that is divided into voxels.
        cell_size: Sides of a voxel along x, y and z in metres.
        encoder_widths: Channels of each stage of the encoder; each but the first begins by
            halving the resolution.
        flat_width: Channels after the convolution along z that ends the encoder.
        out_dim: Channels of the map, and so features of a point.
        top_layer: Add a layer of voxels on top, always empty, as OpenPCDet does. Without it, as
            SLidR and CSC train, the uppermost voxels reach the map only through those below: of the
            published 40 layers the last 12, from 0.6 m over the sensor.
        norm_momentum: Of all batch norms.

    Attributes:
        in_dim: As given.
        out_dim: As given.
        map_shape: Rows (along y) and columns (along x) of the map.
        map_cell: Sides in metres of its cells.
        arguments: What rebuilds the network.

    Raises:
        ValueError: If the box is not a whole number of voxels, too low for the encoder, or an
            argument is out of range.

    Source: the encoder of SECOND (Yan et al., Sensors 2018) as OpenPCDet's VoxelBackBone8x, which
        SLidR (Sautier et al., CVPR 2022, arXiv:2203.16258) and CSC (Chen et al., CVPR 2024)
        pre-train. Differs in that every point and every voxel counts, where they keep the first 10
        points of the first 60,000 voxels; in that features are not L2-normalised, which SLidR does
        to each cell of the map and which is left to the caller; and past the map's outermost cells,
        where theirs fall to zero and ours stay the same.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        fov: FieldOfView = ((-51.2, -51.2, -5.0), (51.2, 51.2, 3.0)),
        cell_size: Sequence[float | int] = (0.1, 0.1, 0.2),
        encoder_widths: Sequence[int] = (16, 32, 64, 64),
        flat_width: int = 128,
        out_dim: int = 64,
        top_layer: bool = False,
        norm_momentum: float = 0.01,
    ) -> None:
        if min((in_dim, flat_width, out_dim, *encoder_widths)) < 1 or not encoder_widths:
            raise ValueError(
                f"in_dim, flat_width, out_dim and encoder_widths must be positive, got {in_dim}, "
                f"{flat_width}, {out_dim} and {tuple(encoder_widths)}"
            )
        box = divide_box(fov, cell_size)
        layers = _count_layers(box.shape[2] + top_layer, len(encoder_widths))
        super().__init__(
            in_dim,
            box=box,
            rpn=_Projection(flat_width * layers, out_dim),
            map_stride=2 ** (len(encoder_widths) - 1),
        )
        self.arguments = {
            "in_dim": in_dim,
            "fov": tuple(tuple(corner) for corner in fov),
            "cell_size": tuple(cell_size),
            "encoder_widths": tuple(encoder_widths),
            "flat_width": flat_width,
            "out_dim": out_dim,
            "top_layer": top_layer,
            "norm_momentum": norm_momentum,
        }
        self.top_layer, self.num_layers, self.flat_width = int(top_layer), layers, flat_width
        norm = partial(RowNorm, eps=NORM_EPS, momentum=norm_momentum)
        first, last = encoder_widths[0], encoder_widths[-1]
        self.stem = ConvNorm(SubmanifoldConv(in_dim, first, 3), norm(first))
        self.stages = nn.ModuleList([_Stage(None, first, 1, norm)])
        for narrow, wide in pairwise(encoder_widths):
            down = ConvNorm(StridedConv(narrow, wide, (3, 3, 3)), norm(wide))
            self.stages.append(_Stage(down, wide, 2, norm))
        flatten = StridedConv(last, flat_width, (1, 1, 3))
        self.flatten = ConvNorm(flatten, norm(flat_width))

    def forward(
        self,
        xyz: Float[Tensor, "n 3"],
        feat: Float[Tensor, "n c"],
        batch: Int64[Tensor, " n"],
        *,
        neighbors: Int64[Tensor, "n k"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "n d"]:
        """Read each scan's map at its points, bilinearly between the places that its cells see.

        Strided convolutions leave the cell in row i and column j looking at the voxels around
        (i, j) times its stride: at the cell's lower corner, not at its middle.

        Args:
            xyz: Points in metres, inside the field of view.
            feat: Input features, coordinates among them.
            batch: Scan of each point, sorted.
            neighbors: Not used.

        Raises:
            ValueError: If a point lies outside the field of view.
        """
        if not len(xyz):
            return super().forward(xyz, feat, batch)
        scans, scan = torch.unique(batch, return_inverse=True)
        values = self.forward_map(xyz, feat, scan, num_scans=len(scans))
        # `read_map` takes values to be those of the cells' middles.
        return read_map(values, self.box.places(xyz)[:, :2] / self._stride + 0.5, scan)


class _Stage(nn.Module):
    """Convolutions on the same voxels, and what halving the resolution before them."""

    def __init__(
        self, down: ConvNorm | None, width: int, depth: int, norm: Callable[[int], RowNorm]
    ) -> None:
        super().__init__()
        self.down = down
        self.layers = nn.ModuleList(
            ConvNorm(SubmanifoldConv(width, width, 3), norm(width)) for _ in range(depth)
        )

    def forward(self, tokens: Tensor, halving: Rulebook | None, around: Rulebook) -> Tensor:
        if self.down is not None:
            tokens = self.down(tokens, halving)
        for layer in self.layers:
            tokens = layer(tokens, around)
        return tokens


class _Projection(RegionProposalNetwork):
    """A 1x1 convolution in the place of all blocks; an empty cell stays zero."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        nn.Module.__init__(self)
        self.out_dim = out_dim
        self.stride = 1
        self.blocks = nn.ModuleList()
        self.ups = nn.ModuleList([nn.Conv2d(in_dim, out_dim, 1, bias=False)])

    def forward(self, values: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return self.ups[0](values)

    def map_size(self, size: int) -> int:
        return size


def _count_layers(num_cells: int, num_stages: int) -> int:
    """Layers along z that the encoder leaves of so many cells."""
    shape: Triple = (1, 1, num_cells)
    strides = [halving_sizes(stage == num_stages - 1) for stage in range(1, num_stages)]
    for sizes in (*strides, FLATTENING):
        shape = strided_shape(shape, **sizes)
        if shape[2] < 1:
            raise ValueError(
                f"{num_cells} layers of voxels are too low for an encoder of {num_stages} stages; "
                "take a higher fov, or lower cells"
            )
    return shape[2]
