"""Several levels of one image network: read in one pass, brought to the finest grid."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.nn import functional

from pc_2dteachers.readers import read_level, read_levels
from pc_2dteachers.sampling import check_pixels, find_corners, sample_map, sum_cells
from pc_2dteachers.teacher import Teacher, check_image

_TAPS = 3
"""Cells of a coarse map, along one axis, under two neighbouring cells of a finer one."""


class TeacherLevels(nn.Module):
    """Several levels of one teacher's network in one pass: a map each, on its own grid.

    `sample_levels` reads the maps as if they had been resized to the finest grid and concatenated,
    as in the paper; `sample_pixels` reads each on its own grid, which is cheaper and nearly the
    same. Like `Teacher`, it stays frozen, in eval mode and out of checkpoints.

    Attributes:
        teacher: The teacher whose network is read.
        levels: Stages of a CNN or hierarchical transformer, as non-negative indices.
        out_dim: Sum of the levels' channels, the width of the concatenated features.
        stride: Image heights and widths that are multiples of it suit every level.

    Source: cross-modal self-supervised learning with effective contrastive units (Cai et al.,
        2024), Sec. II-A and Table XI: strides 4, 8 and 16 (P2, P3, P4), 256 + 512 + 1024 channels
        of a ResNet-50. Whether the authors scale the levels is not stated; nothing is scaled here.
    """

    def __init__(self, teacher: Teacher, levels: Sequence[int] = (1, 2, 3)) -> None:
        """Read other levels of a teacher's network than the one that it reads itself.

        Args:
            teacher: Taken over, not copied; the level it was created with does not matter.
            levels: In the order in which their features are concatenated; negative counts from the
                end. The default is P2, P3, P4 of a ResNet, whose level 0 is the stem; those of
                Swin are 0, 1, 2.

        Raises:
            ValueError: If there is no level, one twice, one that the network has not, or the
                teacher does not read plain levels (DINO, DINOv2, MaskCLIP).
        """
        super().__init__()
        if getattr(teacher.read, "func", teacher.read) is not read_level:
            raise ValueError(
                f"{teacher.name} reads its map in a way of its own, which other levels do not "
                "have; use a CNN or Swin, or put several teachers side by side (TeacherConcat)"
            )
        stages: Any = teacher.network.feature_info
        self.teacher = teacher
        self.levels = _resolve_levels(teacher.name, levels, len(stages))
        self.out_dim = sum(stages[level]["num_chs"] for level in self.levels)
        self.stride = math.lcm(*(stages[level]["reduction"] for level in self.levels))

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b ..."], ...]:
        """Return the map of each level, in the order of `levels`.

        Args:
            image: RGB in 0..1 (a slight overshoot of bicubic resizing is fine).

        Raises:
            ValueError: If the image is of another type, range or shape than the network takes.
        """
        self._check(image)
        teacher = self.teacher
        return read_levels(teacher.network, teacher.normalize(image), levels=self.levels)

    def require_size(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError unless every level exists for images of (height, width) pixels."""
        self._check(torch.empty(0, 3, *image_size))

    def _check(self, image: Tensor) -> None:
        teacher = self.teacher
        check_image(image, name=teacher.name, stride=self.stride, image_size=teacher.image_size)


def _resolve_levels(name: str, levels: Sequence[int], num_levels: int) -> tuple[int, ...]:
    wrong = [level for level in levels if not -num_levels <= level < num_levels]
    found = tuple(level % num_levels for level in levels)
    if wrong or not found or len(set(found)) < len(found):
        raise ValueError(
            f"levels must be different ones in [{-num_levels}, {num_levels}) ({name} has "
            f"{num_levels} levels), at least one, got {list(levels)}"
        )
    return found


def resize_levels(
    maps: Sequence[Float[Tensor, "b ..."]], *, align_corners: bool = True
) -> Float[Tensor, "b c y x"]:
    """Resize maps to the finest grid, bilinearly, and concatenate them over channels.

    For looking at whole maps; 1792 channels at 1/4 of 640x960 are 275 MB an image, so read points
    with `sample_levels`.

    Args:
        maps: Of the same images.
        align_corners: See `sample_levels`.
    """
    grid = _finest_grid(maps)
    resized = [
        functional.interpolate(one, grid, mode="bilinear", align_corners=align_corners)
        for one in maps
    ]
    return torch.cat(resized, dim=1)


def sample_levels(
    maps: Sequence[Float[Tensor, "b ..."]],
    pixel: Float32[Tensor, "m 2"],
    image_index: Int64[Tensor, " m"],
    *,
    image_size: tuple[int, int],
    align_corners: bool = True,
) -> Float[Tensor, "m c"]:
    """Read maps at pixels as if they were resized to the finest grid and concatenated.

    Exactly `sample_pixels(resize_levels(maps), ...)`, but no map is resized: both steps are linear,
    so a point needs at most 3 x 3 cells of a coarse map. `sample_pixels(maps, ...)` is cheaper and
    not quite the same: it reads each map on its own grid, from 2 x 2 cells, whereas resizing cuts
    off what a coarse map has between two cells of the finest grid. Differentiable in `maps`.

    Args:
        maps: Levels of the same images, coarse or fine in any order.
        pixel: (u, v): column and row, in [0, width) and [0, height), as for `sample_pixels`.
        image_index: Which image each pixel lies in.
        image_size: (width, height) of the images whose pixels these are.
        align_corners: How levels are laid over each other: corner cells on corner cells, as
            `sample_pixels` lays the image over a map, or (False) outer edges on outer edges.

    Raises:
        ValueError: If a pixel lies outside the image, an index outside the batch, or shapes differ.

    Source: cross-modal self-supervised learning with effective contrastive units (Cai et al.,
        2024), Sec. II-A: maps of several resolutions are upsampled and concatenated. The paper
        names neither the interpolation nor the reading at points; both are bilinear here.
    """
    check_pixels(tuple(maps), pixel, image_index, image_size)
    grid = _finest_grid(maps)
    sampled = [
        sample_map(one, pixel, image_index, image_size)
        if one.shape[2:] == grid
        else _sample_resized(one, pixel, image_index, image_size, grid, align_corners)
        for one in maps
    ]
    return torch.cat(sampled, dim=1)


def _finest_grid(maps: Sequence[Tensor]) -> tuple[int, int]:
    return max(one.shape[2] for one in maps), max(one.shape[3] for one in maps)


def _sample_resized(
    features: Tensor,
    pixel: Tensor,
    image_index: Tensor,
    image_size: tuple[int, int],
    grid: tuple[int, int],
    align_corners: bool,
) -> Tensor:
    exact = torch.promote_types(features.dtype, torch.float32)
    column, column_weight = _taps(
        pixel[:, 0].to(exact), image_size[0], grid[1], features.shape[3], align_corners
    )
    row, row_weight = _taps(
        pixel[:, 1].to(exact), image_size[1], grid[0], features.shape[2], align_corners
    )
    return sum_cells(features, image_index, row, row_weight, column, column_weight)


def _taps(
    at: Tensor, pixels: int, fine: int, cells: int, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """Coarse cells and their weights along one axis: [m 3] each."""
    left, right, share = find_corners(at, pixels, fine)
    near = _position_of(left, fine, cells, align_corners, at.dtype)
    far = _position_of(right, fine, cells, align_corners, at.dtype)
    tap = near.floor()[:, None] + torch.arange(_TAPS, device=at.device)
    weight = torch.lerp(_hat(near[:, None] - tap), _hat(far[:, None] - tap), share[:, None])
    return tap.long().clamp(max=cells - 1), weight  # beyond the last cell the weight is 0


def _position_of(
    cell: Tensor, fine: int, cells: int, align_corners: bool, dtype: torch.dtype
) -> Tensor:
    """Where cells of the fine axis lie on the coarse one, in cells of it."""
    if align_corners:
        return cell.to(dtype) * ((cells - 1) / max(fine - 1, 1))
    return ((cell.to(dtype) + 0.5) * (cells / fine) - 0.5).clamp(0, cells - 1)


def _hat(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)
