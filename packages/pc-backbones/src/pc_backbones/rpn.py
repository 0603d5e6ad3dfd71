"""The convolutions that CenterPoint runs on its bird's-eye map."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

NORM_EPS = 1e-3
"""Of all batch norms of CenterPoint."""


class RegionProposalNetwork(nn.Module):
    """Blocks on ever coarser maps; what each finds is brought to one resolution and joined.

    Args:
        in_dim: Channels of the map.
        widths: Channels of each block.
        depths: 3x3 convolutions of each block after its first.
        strides: Of each block's first convolution.
        up_widths: Channels that each block adds to the result.
        up_strides: By how much each block's result is made finer; 0.5 makes it coarser by 2.
        norm_momentum: Of all batch norms.

    Attributes:
        out_dim: Channels of the result.
        stride: Side of a cell of the result, in cells of the map.

    Raises:
        ValueError: If numbers of blocks do not agree, or blocks end at different resolutions.

    Source: SECOND (Yan et al., Sensors 2018) and PointPillars (Lang et al., CVPR 2019,
        arXiv:1812.05784), as in CenterPoint (Yin et al., CVPR 2021, arXiv:2006.11275).
    """

    def __init__(
        self,
        in_dim: int,
        *,
        widths: Sequence[int],
        depths: Sequence[int],
        strides: Sequence[int],
        up_widths: Sequence[int],
        up_strides: Sequence[float | int],
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        self._strides = _check(widths, depths, strides, up_widths, up_strides)
        self.stride = self._strides[0]
        self.out_dim = sum(up_widths)
        norm = partial(nn.BatchNorm2d, eps=NORM_EPS, momentum=norm_momentum)
        self.blocks, self.ups = nn.ModuleList(), nn.ModuleList()
        for width, depth, stride in zip(widths, depths, strides, strict=True):
            first = _ConvNorm(_conv3x3(in_dim, width, stride=stride), norm(width))
            more = (_ConvNorm(_conv3x3(width, width), norm(width)) for _ in range(depth))
            self.blocks.append(nn.Sequential(first, *more))
            in_dim = width
        for width, up_width, up_stride in zip(widths, up_widths, up_strides, strict=True):
            self.ups.append(_ConvNorm(_resample(width, up_width, up_stride), norm(up_width)))
        self._rates = tuple(zip(strides, up_strides, strict=True))

    def forward(self, values: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Convolve a map."""
        found = []
        for block, up in zip(self.blocks, self.ups, strict=True):
            values = block(values)
            found.append(up(values))
        return torch.cat(found, dim=1)

    def map_size(self, size: int) -> int:
        """Cells of the result along an axis of `size` cells.

        Raises:
            ValueError: If the blocks' results would differ in size, or have a single cell.
        """
        coarse, found = size, set()
        for stride, up_stride in self._rates:
            coarse = -(-coarse // stride)
            found.add(coarse * int(up_stride) if up_stride >= 1 else coarse // round(1 / up_stride))
        if len(found) > 1 or coarse < 2:
            coarsest = 1
            for stride, _ in self._rates:
                coarsest *= stride
            raise ValueError(
                f"a map of {size} cells does not divide evenly between the blocks; take a fov of a "
                f"multiple of {coarsest} cells, and at least {2 * coarsest}"
            )
        return found.pop()


class _ConvNorm(nn.Module):
    def __init__(self, conv: nn.Module, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm

    def forward(self, values: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(values)))


def _conv3x3(in_dim: int, out_dim: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_dim, out_dim, 3, stride=stride, padding=1, bias=False)


def _resample(in_dim: int, out_dim: int, up_stride: float | int) -> nn.Module:
    """A convolution without overlap: each cell becomes several, or several become one."""
    if up_stride > 1:
        size = int(up_stride)
        return nn.ConvTranspose2d(in_dim, out_dim, size, stride=size, bias=False)
    size = round(1 / up_stride)
    return nn.Conv2d(in_dim, out_dim, size, stride=size, bias=False)


def _check(
    widths: Sequence[int],
    depths: Sequence[int],
    strides: Sequence[int],
    up_widths: Sequence[int],
    up_strides: Sequence[float | int],
) -> list[float]:
    """Return the side of a cell of each block's result, in cells of the map: all the same."""
    given: tuple[Sequence[Any], ...] = (widths, depths, strides, up_widths, up_strides)
    lengths = [len(values) for values in given]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError(
            "widths, depths, strides, up_widths and up_strides must have one number a block; they "
            f"have {lengths}"
        )
    if min(*widths, *up_widths, *strides) < 1 or min(depths) < 0:
        raise ValueError("widths and strides must be at least 1, and depths not negative")
    for up_stride in up_strides:
        rate = up_stride if up_stride >= 1 else 1 / up_stride if up_stride > 0 else 0.5
        if abs(rate - round(rate)) > 1e-6:
            raise ValueError(f"up_strides must be whole numbers or 1 over one, got {up_stride}")
    sides, side = [], 1
    for stride, up_stride in zip(strides, up_strides, strict=True):
        side *= stride
        sides.append(side / up_stride)
    if max(sides) - min(sides) > 1e-6:
        raise ValueError(
            f"strides {tuple(strides)} and up_strides {tuple(up_strides)} end at cells of "
            f"{', '.join(f'{side:g}' for side in sides)} cells; they must be the same"
        )
    return sides
