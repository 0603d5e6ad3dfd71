"""Tensor names and kernel layout of SLidR's MinkUNet files (MinkowskiEngine).

Source: SLidR (Sautier et al., CVPR 2022, arXiv:2203.16258). A MinkowskiEngine kernel is
    (taps, in, out) with the first axis of space fastest among the taps, where ours is
    (out, x, y, z, in).
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pc_backbones.published_files import CheckpointFile
from pc_backbones.published_parts import Parts, linear_head, network_prefix
from pc_backbones.published_unet import unet_arguments

_STAGES = 4
_FAMILY = re.compile(
    r"((?:.*\.)?)(?:conv(?:tr)?\dp\d+s\d\.kernel$|bn(?:tr)?\d\.bn\.|block\d\.\d+\.(?:conv|norm|down))"
)
_IN_BLOCK = (
    *((".kernel", ".weight"), (".norm1.bn.", ".norm1."), (".norm2.bn.", ".norm2.")),
    *((".downsample.0.", ".shortcut.0."), (".downsample.1.bn.", ".shortcut.1.")),
)


def find_minkunet(checkpoint: CheckpointFile) -> Parts | None:
    """SLidR's MinkUNet, with its `final` layer as head; None if not named like one.

    Raises:
        ValueError: If a kernel has no cube of taps, or the head does not fit.
    """
    prefix = network_prefix(checkpoint, _FAMILY)
    if prefix is None:
        return None
    tensors, head_tensors, others = {}, {}, []
    for name, value in checkpoint.tensors.items():
        inner = name.removeprefix(prefix)
        if name.startswith(prefix) and inner in ("final.kernel", "final.bias"):
            head_tensors[_rename(inner).removeprefix("final.")] = value
        elif name.startswith(prefix) and _FAMILY.match(inner):
            tensors[_rename(inner)] = value
        else:
            others.append(name)
    for name in tensors:
        if name.endswith("shortcut.0.weight"):
            tensors[name] = _matrix(tensors[name])
        elif name.endswith(("conv.weight", "conv1.weight", "conv2.weight")):
            tensors[name] = _kernel(tensors[name], name, checkpoint.path)
    arguments = unet_arguments(tensors, checkpoint.path)
    head = None
    if head_tensors:
        head_tensors = {
            name: _matrix(value) if name == "weight" else value.flatten()
            for name, value in head_tensors.items()
        }
        head = linear_head(head_tensors, arguments["decoder_widths"][-1], checkpoint.path)
    return Parts(
        name="sparse_unet",
        arguments={**arguments, **_as_trained(checkpoint.config)},
        backbone=tensors,
        head=head,
        head_tensors=head_tensors,
        left_over=tuple(others),
    )


def _as_trained(config: Mapping[Any, Any]) -> dict[str, Any]:
    """What no tensor tells: SLidR's own choices, voxels as the file's configuration says."""
    size, cylindrical = config.get("voxel_size"), config.get("cylindrical_coordinates")
    plain = isinstance(size, int | float) and not isinstance(size, bool) and size > 0
    return {
        "voxel_size": float(size) if plain and math.isfinite(size) else 0.1,
        "cylindrical": cylindrical if isinstance(cylindrical, bool) else True,
        "pooling": "first",
        "absolute_grid": True,
        "norm_eps": 1e-5,
        "norm_momentum": 0.05,
        "block_norm_momentum": 0.1,
        "init_std": None,
    }


def _rename(name: str) -> str:
    for theirs, ours in _IN_BLOCK:
        name = name.replace(theirs, ours)
    if found := re.match(r"(conv|bn|block|convtr|bntr)(\d)(?:p\d+s\d)?\.(bn\.)?", name):
        kind, number, rest = found[1], int(found[2]), name[found.end() :]
        layer = "conv" if kind.startswith("conv") else "norm"
        if kind in ("conv", "bn") and number == 0:
            return f"stem.{layer}.{rest}"
        if kind in ("conv", "bn"):
            return f"encoder.{number - 1}.down.{layer}.{rest}"
        if kind in ("convtr", "bntr"):
            return f"decoder.{number - _STAGES}.up.{layer}.{rest}"
        if number <= _STAGES:
            return f"encoder.{number - 1}.blocks.{rest}"
        return f"decoder.{number - _STAGES - 1}.blocks.{rest}"
    return name


def _kernel(kernel: Tensor, name: str, file: Path) -> Tensor:
    size = round(kernel.shape[0] ** (1 / 3)) if kernel.ndim == 3 else 0
    if not size or size**3 != kernel.shape[0]:
        raise ValueError(
            f"{file}: the kernel {name} is {tuple(kernel.shape)} instead of (taps, in, out) with "
            "a cube of taps"
        )
    z_y_x_in_out = kernel.unflatten(0, (size, size, size))
    return z_y_x_in_out.permute(4, 2, 1, 0, 3).contiguous()


def _matrix(kernel: Tensor) -> Tensor:
    """A linear weight (out, in) of a 1x1 kernel (in, out), of some versions (1, in, out)."""
    return kernel.flatten(0, -2).T.contiguous() if kernel.ndim > 1 else kernel
