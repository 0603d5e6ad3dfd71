"""CenterPoint on pillars: points in columns, a map of columns, 2D convolutions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pc_backbones.birds_eye import BirdsEyeBackbone, divide_box, scatter_to_map
from pc_backbones.norms import RowNorm
from pc_backbones.rpn import NORM_EPS, RegionProposalNetwork
from pc_backbones.voxels import Occupants, mean_of_points, read_voxels
from pc_backbones.waffleiron import FieldOfView


class CenterPointPillar(BirdsEyeBackbone):
    """Pillar feature net, bird's-eye map and the convolutions on it, over packed batches.

    A point's input is `feat`, its offset to the mean of its pillar's points (x, y, z) and to its
    pillar's centre (x, y). Nothing else of its place enters, so `feat` itself must hold the
    coordinates: the published networks take x, y, z, intensity, in this order, then elongation
    (Waymo, its intensity through tanh) or age (nuScenes).

    Args:
        in_dim: Number of input features of a point, coordinates included.
        fov: Lower and upper corner in metres of the box that is divided into pillars.
        pillar_size: Side of a pillar in metres; it is as high as the box.
        pillar_widths: Channels after each layer of the pillar feature net; all but the last are
            half the point's own, half its pillar's maximum.
        widths: Channels of each block of 2D convolutions.
        depths: Convolutions of each block after its first.
        strides: Of each block's first convolution.
        up_widths: Channels that each block adds to the map.
        up_strides: By how much each block's result is made finer.
        norm_momentum: Of all batch norms.
        center_z: Whether the offset to the pillar's centre has z, too (as OpenPCDet has it).
        slots: Fill pillars of fewer points up with inputs of zeros, which count in the norms and
            in the maximum as they do in networks that store pillars as arrays of so many rows.

    Attributes:
        in_dim: As given.
        out_dim: Sum of `up_widths`.
        map_shape: Rows (along y) and columns (along x) of the map.
        map_cell: Sides in metres of its cells.
        arguments: What rebuilds the network.

    Raises:
        ValueError: If the box is not a whole number of pillars, or an argument is out of range.

    Source: CenterPoint (Yin et al., CVPR 2021, arXiv:2006.11275) with PointPillars (Lang et al.,
        CVPR 2019, arXiv:1812.05784), as configured for Waymo by default. Differs in that every
        point and every pillar counts, where the published code keeps the first 20 points of the
        first 32,000 pillars, so that nothing depends on the points' order.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        fov: FieldOfView = ((-74.88, -74.88, -2.0), (74.88, 74.88, 4.0)),
        pillar_size: float = 0.32,
        pillar_widths: Sequence[int] = (64, 64),
        widths: Sequence[int] = (64, 128, 256),
        depths: Sequence[int] = (3, 5, 5),
        strides: Sequence[int] = (1, 2, 2),
        up_widths: Sequence[int] = (128, 128, 128),
        up_strides: Sequence[float | int] = (1, 2, 4),
        norm_momentum: float = 0.01,
        center_z: bool = False,
        slots: int = 0,
    ) -> None:
        _check(pillar_widths, slots)
        box = divide_box(fov, (pillar_size, pillar_size))
        rpn = RegionProposalNetwork(
            pillar_widths[-1],
            widths=widths,
            depths=depths,
            strides=strides,
            up_widths=up_widths,
            up_strides=up_strides,
            norm_momentum=norm_momentum,
        )
        super().__init__(in_dim, box=box, rpn=rpn)
        self.arguments = {
            "in_dim": in_dim,
            "fov": tuple(tuple(corner) for corner in fov),
            "pillar_size": pillar_size,
            "pillar_widths": tuple(pillar_widths),
            "widths": tuple(widths),
            "depths": tuple(depths),
            "strides": tuple(strides),
            "up_widths": tuple(up_widths),
            "up_strides": tuple(up_strides),
            "norm_momentum": norm_momentum,
            "center_z": center_z,
            "slots": slots,
        }
        self._center_axes = 3 if center_z else 2
        self._slots = slots
        own_widths = [*(width // 2 for width in pillar_widths[:-1]), pillar_widths[-1]]
        in_dims = [in_dim + 3 + self._center_axes, *pillar_widths[:-1]]
        self.pillar_layers = nn.ModuleList(
            _PillarLayer(*dims, norm_momentum) for dims in zip(in_dims, own_widths, strict=True)
        )

    def _encode(self, xyz: Tensor, feat: Tensor, batch: Tensor, num_scans: int) -> Tensor:
        with torch.no_grad():
            grid, pillars = self.box.find_cells(xyz, batch, num_scans)
            offsets = self._offsets(xyz, grid.indices, pillars).to(feat.dtype)
        feat = torch.cat([feat, offsets], dim=1)
        if self._slots:
            pillars = _fill(pillars, self._slots)
            feat = functional.pad(feat, (0, 0, 0, len(pillars.order) - len(feat)))
        *inner, last = self.pillar_layers
        for layer in inner:
            feat = layer(feat)
            feat = torch.cat([feat, read_voxels(_maximum(feat, pillars), pillars)], dim=1)
        return scatter_to_map(_maximum(last(feat), pillars), grid)

    def _offsets(self, xyz: Tensor, indices: Tensor, pillars: Occupants) -> Tensor:
        """From the pillar's mean and from its centre, in metres, [n 5] or [n 6]."""
        size = xyz.new_tensor(self.box.cell_size, dtype=torch.float64)
        place, center = self.box.places(xyz) * size, (indices[:, 1:] + 0.5) * size
        to_mean = place - mean_of_points(place, pillars)[pillars.voxel]
        to_center = place - center[pillars.voxel]
        return torch.cat([to_mean, to_center[:, : self._center_axes]], dim=1)

    def _encoded_dim(self) -> int:
        return self.arguments["pillar_widths"][-1]

    def _encoder_groups(self) -> Sequence[nn.Module]:
        return list(self.pillar_layers)


class _PillarLayer(nn.Module):
    def __init__(self, in_dim: int, out_dim: int, norm_momentum: float) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, out_dim, bias=False)
        self.norm = RowNorm(out_dim, eps=NORM_EPS, momentum=norm_momentum)

    def forward(self, feat: Tensor) -> Tensor:
        return functional.relu(self.norm(self.linear(feat)))


def _maximum(feat: Tensor, pillars: Occupants) -> Tensor:
    """The largest value of each pillar's points, channel by channel."""
    return functional.embedding_bag(pillars.order, feat, pillars.starts, mode="max")


def _fill(pillars: Occupants, slots: int) -> Occupants:
    """Add rows past the points', so that every pillar has `slots` of them or more."""
    count = pillars.starts.diff(append=pillars.starts.new_tensor([len(pillars.order)]))
    missing = (slots - count).clamp(min=0)
    added = torch.repeat_interleave(torch.arange(len(count), device=count.device), missing)
    pillar = torch.cat([pillars.voxel, added])
    count = count + missing
    return Occupants(pillar, torch.argsort(pillar, stable=True), count.cumsum(0) - count)


def _check(pillar_widths: Sequence[int], slots: int) -> None:
    if not pillar_widths or min(pillar_widths) < 1 or any(w % 2 for w in pillar_widths[:-1]):
        raise ValueError(
            "pillar_widths must be positive, and even but for the last (half is the point's own, "
            f"half the pillar's); got {tuple(pillar_widths)}"
        )
    if slots < 0:
        raise ValueError(f"slots must not be negative, got {slots}")
