"""From voxels to a map: the sparse encoder of SECOND, which several networks share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pc_backbones.birds_eye import BirdsEyeBackbone, scatter_to_map
from pc_backbones.norms import ConvNorm
from pc_backbones.rulebooks import Triple
from pc_backbones.sparse_conv import strided_rules, submanifold_rules, without_bfloat16
from pc_backbones.voxels import VoxelGrid, mean_of_points

FLATTENING: dict[str, Triple] = {
    "kernel_size": (1, 1, 3),
    "stride": (1, 1, 2),
    "padding": (0, 0, 0),
}


def halving_sizes(is_last: bool) -> dict[str, Triple]:
    """Sizes of the convolution that halving the resolution before a stage."""
    return {"kernel_size": (3, 3, 3), "stride": (2, 2, 2), "padding": (1, 1, 0 if is_last else 1)}


class VoxelEncoder(BirdsEyeBackbone):
    """A bird's-eye network whose map comes from stages of sparse 3D convolutions.

    A subclass makes the modules; a stage takes (tokens, halving rules or None, rules around).

    Attributes:
        stem: On all voxels.
        stages: Each but the first begins by halving the resolution.
        flatten: Ends the encoder, along z.
        top_layer: Layers of voxels added on top, always empty.
        num_layers: Layers along z that the encoder leaves.
        flat_width: Channels of each.

    Source: SECOND (Yan et al., Sensors 2018), as OpenPCDet's VoxelBackBone8x.
    """

    stem: ConvNorm
    stages: nn.ModuleList
    flatten: ConvNorm
    top_layer: int
    num_layers: int
    flat_width: int

    def _encode(self, xyz: Tensor, feat: Tensor, batch: Tensor, num_scans: int) -> Tensor:
        with torch.no_grad():
            grid, occupants = self.box.find_cells(xyz, batch, num_scans)
            x_size, y_size, z_size = grid.shape
            grid = grid._replace(shape=(x_size, y_size, z_size + self.top_layer))
        with without_bfloat16(xyz.device):
            tokens, grid = self._convolve(mean_of_points(feat, occupants), grid)
            return scatter_to_map(tokens, grid)

    def _convolve(self, tokens: Tensor, grid: VoxelGrid) -> tuple[Tensor, VoxelGrid]:
        """Convolve up to the map; spconv knows no empty scan, as one above all kernels becomes."""
        halving = None
        around = submanifold_rules(grid, 3)
        tokens = self.stem(tokens, around)
        for number, stage in enumerate(self.stages):
            if number:
                halving = strided_rules(grid, **halving_sizes(number == len(self.stages) - 1))
                grid = halving.target
                if not len(grid.indices):
                    return self._nothing(tokens, num_scans=grid.num_scans)
                around = submanifold_rules(grid, 3)
            tokens = stage(tokens, halving, around)
        flattening = strided_rules(grid, **FLATTENING)
        if not len(flattening.target.indices):
            return self._nothing(tokens, num_scans=grid.num_scans)
        return self.flatten(tokens, flattening), flattening.target

    def _nothing(self, tokens: Tensor, *, num_scans: int) -> tuple[Tensor, VoxelGrid]:
        """Cells of an empty map. Everything gets a gradient, zero: other processes may wait."""
        nothing = tokens.sum() + sum(parameter.sum() for parameter in self.parameters())
        rows, columns = self._input_shape
        indices = torch.zeros(1, 4, dtype=torch.int32, device=tokens.device)
        cell = tokens.new_zeros(1, self.flat_width) * nothing
        return cell, VoxelGrid(indices, (columns, rows, self.num_layers), num_scans)

    def _encoded_dim(self) -> int:
        return self.flat_width * self.num_layers

    def _encoder_groups(self) -> Sequence[nn.Module]:
        return [self.stem, *self.stages, self.flatten]
