"""Tensor names and kernel layouts of SLidR's and CSC's VoxelNet files (OpenPCDet's names).

Source: SLidR (Sautier et al., CVPR 2022, arXiv:2203.16258). They count space as z, y, x, where ours
    is x, y, z. A sparse kernel is (out, k, k, k, in) since version 2.2 of spconv; before, it was
    (k, k, k, out, in), and in version 1 (k, k, k, in, out). Whatever a 1x1 kernel's shape, spconv
    multiplies by its memory read as (in, out).
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from pc_backbones.published_files import CheckpointFile
from pc_backbones.published_parts import Parts, count_from_zero, network_prefix

_FAMILY = re.compile(r"((?:.*\.)?)(?:conv[1-9]\.\d+|conv_input|conv_out)\.[01]\.\w+$")
_LAYER = re.compile(r"(?:conv([1-9])\.(\d+)|conv_input|conv_out)\.([01])\.(\w+)")
_STRIDED = re.compile(r"(?:.*\.)?conv2\.0\.0\.weight")
_FINAL = "final.weight"
_LAYOUTS = ((0, 1, 2, 3, 4), (3, 0, 1, 2, 4), (4, 0, 1, 2, 3))


def find_voxelnet(checkpoint: CheckpointFile) -> Parts | None:
    """VoxelNet with its projection; None if not named like one.

    Raises:
        ValueError: If what tells the network's widths is not there or of no known layout.
    """
    if not any(_STRIDED.fullmatch(name) for name in checkpoint.tensors):
        return None  # others call their first layer conv_input, too
    prefix = network_prefix(checkpoint, _FAMILY)
    tensors, others = {}, []
    for name, value in checkpoint.tensors.items():
        inner = name.removeprefix(prefix or "")
        layer = _LAYER.fullmatch(inner)
        if name == f"{prefix}{_FINAL}":
            tensors[_FINAL] = value
        elif layer and name == f"{prefix}{inner}":
            tensors[_rename(layer)] = value
        else:
            others.append(name)
    tensors, arguments = _read(tensors, checkpoint.path)
    return Parts(
        name="voxelnet",
        arguments=arguments,
        backbone=tensors,
        left_over=tuple(others),
    )


def _rename(layer: re.Match[str]) -> str:
    stage, number, part, rest = layer.groups()
    kind = f"{('conv', 'norm')[int(part)]}.{rest}"
    if stage is None:
        return f"{'stem' if layer[0].startswith('conv_input') else 'flatten'}.{kind}"
    if stage == "1":
        return f"stages.0.layers.{number}.{kind}"
    if number == "0":
        return f"stages.{int(stage) - 1}.down.{kind}"
    return f"stages.{int(stage) - 1}.layers.{int(number) - 1}.{kind}"


def _read(tensors: dict[str, Tensor], file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors with kernels as (out, x, y, z, in), and the network's arguments."""
    tensors = dict(tensors)
    found = (re.match(r"stages\.(\d+)\.", name) for name in tensors)
    stages = range(1, count_from_zero({int(match[1]) for match in found if match}))
    widths = [_find(tensors, f"stages.{stage}.down.norm.weight", 1, file) for stage in stages]
    widths = [_find(tensors, "stem.norm.weight", 1, file), *widths]
    flat_width = _find(tensors, "flatten.norm.weight", 1, file).shape[0]
    kernels = [name for name in tensors if name.endswith(".conv.weight")]
    axes = _layout(kernels, tensors)
    if axes is None:
        raise ValueError(
            f"{file}: the kernels of VoxelNet are not all (out, k, k, k, in), (k, k, k, out, in) "
            "or (k, k, k, in, out), in any version of spconv; the file is damaged"
        )
    for name in kernels:
        tensors[name] = tensors[name].permute(*axes).transpose(1, 3).contiguous()
    final = _find(tensors, _FINAL, 5, file)
    if final.numel() % flat_width:
        raise ValueError(
            f"{file}: {_FINAL} is {tuple(final.shape)}, no 1x1 kernel on {flat_width} channels"
        )
    matrix = tensors.pop(_FINAL).reshape(flat_width, -1).T
    tensors["rpn.ups.0.weight"] = matrix[:, :, None, None].contiguous()
    return tensors, {
        "in_dim": _find(tensors, "stem.conv.weight", 5, file).shape[4],
        "encoder_widths": tuple(width.shape[0] for width in widths),
        "flat_width": flat_width,
        "out_dim": matrix.shape[0],
    }


def _layout(kernels: list[str], tensors: dict[str, Tensor]) -> tuple[int, ...] | None:
    """The order of axes that makes all kernels (out, z, y, x, in)."""
    for axes in _LAYOUTS:
        for name in kernels:
            norm, kernel = tensors.get(name.replace(".conv.", ".norm.")), tensors[name]
            taps = (3, 1, 1) if name.startswith("flatten") else (3, 3, 3)
            if kernel.ndim != 5 or norm is None:
                return None
            shape = [kernel.shape[axis] for axis in axes]
            if tuple(shape[1:4]) != taps or norm.numel() != shape[0]:
                break
        else:
            return axes
    return None


def _find(tensors: dict[str, Tensor], name: str, num_axes: int, file: Path) -> Tensor:
    value = tensors.get(name)
    if value is None or value.ndim != num_axes:
        found = "missing" if value is None else f"{tuple(value.shape)}"
        raise ValueError(f"{file}: {name} must have {num_axes} axes, and is {found}")
    return value
