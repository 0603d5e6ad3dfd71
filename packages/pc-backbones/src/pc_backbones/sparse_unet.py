"""SparseUNet: a U-Net of sparse 3D convolutions (Choy et al., CVPR 2019), and its relatives."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from pc_backbones.contract import Backbone
from pc_backbones.norms import ConvNorm, RowNorm
from pc_backbones.sparse_conv import (
    DoublingConv,
    HalvingConv,
    Rulebook,
    SubmanifoldConv,
    halving_rules,
    submanifold_rules,
    without_bfloat16,
)
from pc_backbones.voxels import (
    VoxelGrid,
    cartesian_cells,
    cylindrical_cells,
    find_voxels,
    first_point,
    mean_of_points,
    read_voxels,
)

_POOLING = {"mean": mean_of_points, "first": first_point}

Norm = Callable[[int], nn.BatchNorm1d]


class SparseUNet(Backbone):
    """Sparse convolutional U-Net over the voxels of packed batches.

    A stem at full resolution; an encoder whose stages each halve the resolution; a decoder whose
    stages each double it and join what the encoder had there. Points share their voxel's feature.

    Args:
        in_dim: Number of input features of a point.
        voxel_size: Side of a voxel in metres.
        stem_width: Channels of the stem.
        stem_kernel: Size of the stem's kernel; odd.
        encoder_widths: Channels of each encoder stage, fine to coarse.
        encoder_depths: Residual blocks of each encoder stage.
        decoder_widths: Channels of each decoder stage, coarse to fine.
        decoder_depths: Residual blocks of each decoder stage.
        down_widths: Channels after each halving; `encoder_widths` if not given. If narrower, the
            stage's first block widens.
        norm_eps: Of all batch norms.
        norm_momentum: Of all batch norms.
        block_norm_momentum: Of the two batch norms inside each block, if it differs.
        init_std: Standard deviation of the initial weights of the submanifold and 1x1
            convolutions; if None, they start uniform as the others do.
        pooling: A voxel's input is the "mean" of its points, or its "first" point.
        cylindrical: Voxels one degree wide around the sensor, instead of cubes.
        absolute_grid: Halve at the same places of the frame whatever a scan's extent, instead of
            starting at the scan's own minimum.

    Attributes:
        in_dim: As given.
        out_dim: Equals the last of `decoder_widths`.
        arguments: What rebuilds the network.

    Raises:
        ValueError: If numbers of stages do not agree, or an argument is out of range.

    Source: 4D Spatio-Temporal ConvNets (Choy et al., CVPR 2019, arXiv:1904.08755), MinkUNet34;
        with the widths, norms and initialisation of SpUNet in Masked Scene Contrast (Wu et al.,
        CVPR 2023, arXiv:2303.14191) by default. Differs in finding voxels inside the network,
        exactly, and in giving every point a feature.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        voxel_size: float = 0.02,
        stem_width: int = 32,
        stem_kernel: int = 5,
        encoder_widths: Sequence[int] = (32, 64, 128, 256),
        encoder_depths: Sequence[int] = (2, 3, 4, 6),
        decoder_widths: Sequence[int] = (256, 128, 96, 96),
        decoder_depths: Sequence[int] = (2, 2, 2, 2),
        down_widths: Sequence[int] | None = None,
        norm_eps: float = 1e-3,
        norm_momentum: float = 0.01,
        block_norm_momentum: float | None = None,
        init_std: float | None = 0.02,
        pooling: str = "mean",
        cylindrical: bool = False,
        absolute_grid: bool = False,
    ) -> None:
        super().__init__()
        down_widths = encoder_widths if down_widths is None else down_widths
        stages = (encoder_widths, encoder_depths, decoder_widths, decoder_depths, down_widths)
        _check(in_dim, voxel_size, stem_width, stem_kernel, stages, pooling)
        self.in_dim = in_dim
        self.out_dim = decoder_widths[-1]
        self.num_neighbors = 0
        self.register_buffer("fov", None, persistent=False)
        self.voxel_size = voxel_size
        self.arguments = {
            "in_dim": in_dim,
            "voxel_size": voxel_size,
            "stem_width": stem_width,
            "stem_kernel": stem_kernel,
            "encoder_widths": tuple(encoder_widths),
            "encoder_depths": tuple(encoder_depths),
            "decoder_widths": tuple(decoder_widths),
            "decoder_depths": tuple(decoder_depths),
            "down_widths": tuple(down_widths),
            "norm_eps": norm_eps,
            "norm_momentum": norm_momentum,
            "block_norm_momentum": block_norm_momentum,
            "init_std": init_std,
            "pooling": pooling,
            "cylindrical": cylindrical,
            "absolute_grid": absolute_grid,
        }
        to_cells = cylindrical_cells if cylindrical else cartesian_cells
        self._to_cells = partial(to_cells, voxel_size=voxel_size)
        self._multiple = 2 ** len(encoder_widths) if absolute_grid else None
        self._pool = _POOLING[pooling]

        norm = partial(RowNorm, eps=norm_eps, momentum=norm_momentum)
        if block_norm_momentum is None:
            block_norm_momentum = norm_momentum
        block_norm = partial(norm, momentum=block_norm_momentum)
        self.stem = ConvNorm(SubmanifoldConv(in_dim, stem_width, stem_kernel), norm(stem_width))
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        width = stem_width
        for down, out, depth in zip(down_widths, encoder_widths, encoder_depths, strict=True):
            self.encoder.append(_DownStage(width, down, out, depth, norm, block_norm))
            width = out
        skips = [*encoder_widths[-2::-1], stem_width]
        for skip, out, depth in zip(skips, decoder_widths, decoder_depths, strict=True):
            self.decoder.append(_UpStage(width, skip, out, depth, norm, block_norm))
            width = out
        if init_std is not None:
            for module in self.modules():
                if isinstance(module, SubmanifoldConv | nn.Linear):
                    nn.init.normal_(module.weight, std=init_std)

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
            xyz: Points in metres.
            feat: Input features.
            batch: Scan of each point, sorted.
            neighbors: Not used.

        Raises:
            ValueError: If there are not `in_dim` features for each point, a coordinate is not
                finite, or the scans span too many voxels.
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
        with torch.no_grad():
            cells = self._to_cells(xyz)
            grid, occupants = find_voxels(cells, batch, multiple=self._multiple)
        with without_bfloat16(xyz.device):
            feat = feat.to(next(self.stem.parameters()).dtype)
            tokens = self._mix(self._pool(feat, occupants), grid)
            return read_voxels(tokens, occupants)

    def layer_groups(self) -> Sequence[nn.Module]:
        """Modules from input to output, for layer-wise learning-rate decay."""
        return [self.stem, *self.encoder, *self.decoder]

    def _mix(self, tokens: Tensor, grid: VoxelGrid) -> Tensor:
        around = submanifold_rules(grid, 3)
        stem_kernel = self.arguments["stem_kernel"]
        stem_rules = around if stem_kernel == 3 else submanifold_rules(grid, stem_kernel)
        tokens = self.stem(tokens, stem_rules)
        passed = []  # on the way down: tokens, the rules around them, the rules to the next stage
        for stage in self.encoder:
            halving = halving_rules(grid)
            passed.append((tokens, around, halving))
            grid = halving.target
            around = submanifold_rules(grid, 3)
            tokens = stage(tokens, halving, around)
        for stage in self.decoder:
            skip, around, halving = passed.pop()
            tokens = stage(tokens, skip, halving, around)
        return tokens


class _DownStage(nn.Module):
    """Half the resolution, then residual blocks; the first widens to `out_dim`."""

    def __init__(
        self, in_dim: int, down_dim: int, out_dim: int, depth: int, norm: Norm, block_norm: Norm
    ) -> None:
        super().__init__()
        self.down = ConvNorm(HalvingConv(in_dim, down_dim), norm(down_dim))
        self.blocks = _blocks(down_dim, out_dim, depth, norm, block_norm)

    def forward(self, tokens: Tensor, halving: Rulebook, around: Rulebook) -> Tensor:
        tokens = self.down(tokens, halving)
        for block in self.blocks:
            tokens = block(tokens, around)
        return tokens


class _UpStage(nn.Module):
    """Twice the resolution, joined with what the encoder had there, then residual blocks."""

    def __init__(
        self, in_dim: int, skip_dim: int, out_dim: int, depth: int, norm: Norm, block_norm: Norm
    ) -> None:
        super().__init__()
        self.up = ConvNorm(DoublingConv(in_dim, out_dim), norm(out_dim))
        self.blocks = _blocks(out_dim + skip_dim, out_dim, depth, norm, block_norm)

    def forward(self, tokens: Tensor, skip: Tensor, halving: Rulebook, around: Rulebook) -> Tensor:
        tokens = torch.cat([self.up(tokens, halving), skip], dim=1)
        for block in self.blocks:
            tokens = block(tokens, around)
        return tokens


class _Block(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, in_dim: int, out_dim: int, norm: Norm, block_norm: Norm) -> None:
        super().__init__()
        self.conv1 = SubmanifoldConv(in_dim, out_dim, 3)
        self.norm1 = block_norm(out_dim)
        self.conv2 = SubmanifoldConv(out_dim, out_dim, 3)
        self.norm2 = block_norm(out_dim)
        self.shortcut = nn.Sequential()
        if in_dim != out_dim:
            self.shortcut = nn.Sequential(nn.Linear(in_dim, out_dim, bias=False), norm(out_dim))

    def forward(self, tokens: Tensor, around: Rulebook) -> Tensor:
        hidden = functional.relu(self.norm1(self.conv1(tokens, around)))
        hidden = self.norm2(self.conv2(hidden, around))
        return functional.relu(hidden + self.shortcut(tokens))


def _blocks(in_dim: int, out_dim: int, depth: int, norm: Norm, block_norm: Norm) -> nn.ModuleList:
    widths = [in_dim] + [out_dim] * depth
    return nn.ModuleList(_Block(*pair, norm, block_norm) for pair in pairwise(widths))


def _check(
    in_dim: int,
    voxel_size: float,
    stem_width: int,
    stem_kernel: int,
    stages: Sequence[Sequence[int]],
    pooling: str,
) -> None:
    if min(in_dim, stem_width) < 1:
        raise ValueError(
            f"in_dim and stem_width must be at least 1, got {in_dim} and {stem_width}; a network "
            "without input features takes a constant one"
        )
    if not voxel_size > 0:
        raise ValueError(f"voxel_size must be positive metres, got {voxel_size}")
    if stem_kernel < 1 or stem_kernel % 2 == 0:
        raise ValueError(f"stem_kernel must be odd, so that it has a centre; got {stem_kernel}")
    lengths = [len(stage) for stage in stages]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError(
            "encoder_widths, encoder_depths, decoder_widths, decoder_depths and down_widths must "
            f"have one number a stage; they have {lengths}"
        )
    if min(map(min, stages)) < 1:
        raise ValueError("widths and depths must be at least 1; a stage without blocks has none")
    if pooling not in _POOLING:
        raise ValueError(f"pooling must be one of {', '.join(_POOLING)}, got {pooling!r}")
