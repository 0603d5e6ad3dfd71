"""Tensor names and kernel layouts of CenterPoint files, of det3d and of OpenPCDet.

Source: CenterPoint (Yin et al., CVPR 2021, arXiv:2006.11275), whose own code is det3d's. Both count
    space as z, y, x, where ours is x, y, z. A sparse kernel is (out, k, k, k, in) since version 2.2
    of spconv; before, it was (k, k, k, out, in), and in version 1 (k, k, k, in, out).
"""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from pc_backbones.published_files import CheckpointFile
from pc_backbones.published_parts import Parts, count_from_zero, network_prefix
from pc_backbones.zoo import CENTERPOINT_PILLAR, CENTERPOINT_VOXEL

_FAMILY = re.compile(r"((?:.*\.)?)(?:neck|backbone_2d)\.(?:de)?blocks\.\d+\.\d+\.")
_OURS = re.compile(r"(?:reader|backbone|neck|vfe|backbone_3d|backbone_2d)\.")
_TASK = re.compile(r"(?:bbox_head\.tasks|dense_head\.heads_list)\.(\d+)\.")
_MAP = r"(?:neck|backbone_2d)"
_SPARSE = r"(?:backbone|backbone_3d)"
_Rename = str | Callable[[re.Match[str]], str]


def _of_block(found: re.Match[str]) -> str:
    """Of a block: padding, then convolution, norm and ReLU by turns."""
    layer, kind = divmod(int(found[2]) - 1, 3)
    return f"rpn.blocks.{found[1]}.{layer}.{('conv', 'norm', 'relu')[kind]}."


def _of_first_stage(found: re.Match[str]) -> str:
    return f"stages.0.blocks.{found[1]}."


def _of_det3d_stage(found: re.Match[str]) -> str:
    """Of a stage: convolution, norm, ReLU and the residual blocks."""
    stage, layer = int(found[1]) - 1, int(found[2])
    kind = ("down.conv", "down.norm", "down.relu")[layer] if layer < 3 else f"blocks.{layer - 3}"
    return f"stages.{stage}.{kind}."


def _of_openpcdet_stage(found: re.Match[str]) -> str:
    """Of a stage: convolution, norm and ReLU as one, and the residual blocks."""
    return f"stages.{int(found[1]) - 1}.blocks.{int(found[2]) - 1}."


def _of_openpcdet_down(found: re.Match[str]) -> str:
    return f"stages.{int(found[1]) - 1}.down.{'norm' if int(found[2]) else 'conv'}."


_RENAMES: tuple[tuple[str, _Rename], ...] = (
    (r"(?:reader|vfe)\.pfn_layers\.", "pillar_layers."),
    (rf"{_MAP}\.blocks\.(\d+)\.(\d+)\.", _of_block),
    (rf"{_MAP}\.deblocks\.(\d+)\.0\.", r"rpn.ups.\1.conv."),
    (rf"{_MAP}\.deblocks\.(\d+)\.1\.", r"rpn.ups.\1.norm."),
    (rf"{_SPARSE}\.conv_input\.0\.", "stem.conv."),
    (rf"{_SPARSE}\.conv_input\.1\.", "stem.norm."),
    (rf"{_SPARSE}\.conv1\.([01])\.(?=conv|bn)", _of_first_stage),
    (r"backbone\.conv([2-9])\.(\d+)\.", _of_det3d_stage),
    (r"backbone_3d\.conv([2-9])\.0\.([01])\.", _of_openpcdet_down),
    (r"backbone_3d\.conv([2-9])\.([1-9])\.(?=conv|bn)", _of_openpcdet_stage),
    (r"(?:backbone\.extra_conv|backbone_3d\.conv_out)\.0\.", "flatten.conv."),
    (r"(?:backbone\.extra_conv|backbone_3d\.conv_out)\.1\.", "flatten.norm."),
)
_IN_BLOCK = ((".bn1.", ".norm1."), (".bn2.", ".norm2."))


def find_centerpoint(checkpoint: CheckpointFile) -> Parts | None:
    """CenterPoint on pillars or voxels, its heads left over; None if not named like one.

    Raises:
        ValueError: If what tells the network's widths is not there or of no known layout.
    """
    prefix = network_prefix(checkpoint, _FAMILY)
    if prefix is None:
        return None
    tensors, others, tasks = {}, [], set()
    for name, value in checkpoint.tensors.items():
        inner = name.removeprefix(prefix)
        if name.startswith(prefix) and _OURS.match(inner):
            tensors[_rename(inner)] = value
        else:
            others.append(name)
            if found := _TASK.match(inner):
                tasks.add(int(found[1]))
    openpcdet = any(name.startswith(f"{prefix}backbone_2d.") for name in checkpoint.tensors)
    tensors, arguments = _read_map_network(tensors, openpcdet, checkpoint.path)
    if any(name.startswith("pillar_layers.") for name in tensors):
        name, variants = "centerpoint_pillar", CENTERPOINT_PILLAR
        arguments |= _pillar_arguments(tensors, openpcdet, checkpoint.path)
        dataset = "nuscenes" if arguments["strides"][0] == 2 else "waymo"
    else:
        name, variants = "centerpoint_voxel", CENTERPOINT_VOXEL
        tensors, told = _read_encoder(tensors, checkpoint.path)
        arguments |= told
        dataset = "nuscenes" if len(tasks) == 6 else "once" if told["in_dim"] == 4 else "waymo"
    return Parts(
        name=name,
        arguments={**variants[f"{name}_{dataset}"], **arguments},
        backbone=tensors,
        left_over=tuple(others),
    )


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        renamed, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            name = renamed
            break
    for theirs, ours in _IN_BLOCK:
        name = name.replace(theirs, ours)
    return name


def _pillar_arguments(tensors: dict[str, Tensor], openpcdet: bool, file: Path) -> dict[str, Any]:
    count = max(_count(tensors, r"pillar_layers\.(\d+)\."), 1)
    weights = [_find(tensors, f"pillar_layers.{i}.linear.weight", 2, file) for i in range(count)]
    widths = [weight.shape[0] for weight in weights]
    in_dim = weights[0].shape[1] - (6 if openpcdet else 5)
    if in_dim < 1:
        raise ValueError(
            f"{file}: the first layer of the pillars takes {weights[0].shape[1]} inputs, not more "
            "than the offsets that come to a point's own features"
        )
    return {
        "in_dim": in_dim,
        "pillar_widths": (*(2 * width for width in widths[:-1]), widths[-1]),
        "center_z": openpcdet,
        "slots": 0 if openpcdet else 20,
    }


def _read_map_network(
    tensors: dict[str, Tensor], openpcdet: bool, file: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The 2D convolutions' arguments, and the tensors with 1x1 ones in our layout."""
    tensors = dict(tensors)
    blocks = range(_count(tensors, r"rpn\.blocks\.(\d+)\."))
    if not blocks:
        raise ValueError(f"{file}: the first block of 2D convolutions (blocks.0) is missing")
    ups = [_find(tensors, f"rpn.ups.{b}.conv.weight", 4, file) for b in blocks]
    widths = [_find(tensors, f"rpn.blocks.{b}.0.norm.weight", 1, file).shape[0] for b in blocks]
    up_widths = [_find(tensors, f"rpn.ups.{b}.norm.weight", 1, file).shape[0] for b in blocks]
    sizes = [up.shape[2] for up in ups]
    is_conv = [up.shape[:2] == (u, w) for up, u, w in zip(ups, up_widths, widths, strict=True)]
    is_deconv = [up.shape[:2] == (w, u) for up, u, w in zip(ups, up_widths, widths, strict=True)]
    # OpenPCDet writes 1x1 convolutions as transposed ones, unless told not to: one choice a file.
    transposed = openpcdet
    for size, conv, deconv in zip(sizes, is_conv, is_deconv, strict=True):
        if size == 1 and conv != deconv:
            transposed = deconv
    up_strides: list[float | int] = []
    for b, (size, conv, deconv) in enumerate(zip(sizes, is_conv, is_deconv, strict=True)):
        if size == 1 and transposed:
            tensors[f"rpn.ups.{b}.conv.weight"] = ups[b].transpose(0, 1).contiguous()
        # Of a square kernel: what comes before a block that keeps its resolution gets coarser.
        coarser = conv and (not deconv or 1 in sizes[b + 1 :])
        up_strides.append(1 / size if coarser and size > 1 else size)
    strides = [1 if up_strides[0] >= 1 else 1 / up_strides[0]]
    strides += [fine / coarse for coarse, fine in pairwise(up_strides)]
    if any(stride < 1 or stride != int(stride) for stride in strides):
        raise ValueError(
            f"{file}: blocks that are made finer by {', '.join(f'{up:g}' for up in up_strides)} do "
            "not meet at one resolution, whatever their strides"
        )
    return tensors, {
        "widths": tuple(widths),
        "depths": tuple(_count(tensors, rf"rpn\.blocks\.{b}\.(\d+)\.") - 1 for b in blocks),
        "strides": tuple(int(stride) for stride in strides),
        "up_widths": tuple(up_widths),
        "up_strides": tuple(up_strides),
    }


def _read_encoder(
    tensors: dict[str, Tensor], file: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The sparse encoder's arguments, and the tensors with its kernels as (out, x, y, z, in)."""
    tensors = dict(tensors)
    stages = range(1, _count(tensors, r"stages\.(\d+)\."))
    norms = ["stem.norm.weight", *(f"stages.{stage}.down.norm.weight" for stage in stages)]
    kernels = {
        name: _find(tensors, name, 5, file)
        for name in tensors
        if re.fullmatch(r"(?:stem|flatten|stages)\..*conv\d?\.weight", name)
    }
    widths = [_find(tensors, norm, 1, file).shape[0] for norm in norms]
    axes = _layout(kernels, tensors)
    if axes is None:
        raise ValueError(
            f"{file}: the kernels of the sparse encoder are not all (out, k, k, k, in), (k, k, k, "
            "out, in) or (k, k, k, in, out), in any version of spconv; the file is damaged"
        )
    for name, kernel in kernels.items():
        tensors[name] = kernel.permute(*axes).transpose(1, 3).contiguous()
    stem = _find(tensors, "stem.conv.weight", 5, file)
    return tensors, {"in_dim": stem.shape[4], "encoder_widths": tuple(widths)}


def _layout(kernels: dict[str, Tensor], tensors: dict[str, Tensor]) -> tuple[int, ...] | None:
    """The order of axes that makes all kernels (out, k, k, k, in)."""
    for axes in ((0, 1, 2, 3, 4), (3, 0, 1, 2, 4), (4, 0, 1, 2, 3)):
        for name, kernel in kernels.items():
            shape = tuple(kernel.shape[axis] for axis in axes)
            taps = (3, 1, 1) if name.startswith("flatten") else (3, 3, 3)
            norm = tensors.get(name.replace("conv", "norm"))
            if shape[1:4] != taps or norm is None or norm.numel() != shape[0]:
                break
        else:
            return axes
    return None


def _count(tensors: dict[str, Tensor], pattern: str) -> int:
    """How many of 0, 1, 2, ... the pattern's group is before the first gap."""
    return count_from_zero({int(m[1]) for name in tensors if (m := re.match(pattern, name))})


def _find(tensors: dict[str, Tensor], name: str, num_axes: int, file: Path) -> Tensor:
    value = tensors.get(name)
    if value is None or value.ndim != num_axes:
        found = "missing" if value is None else f"{tuple(value.shape)}"
        raise ValueError(f"{file}: {name} must have {num_axes} axes, and is {found}")
    return value
