"""Tensor names of PointNet++ in VoteNet's and DepthContrast's files.

Source: VoteNet (Qi et al., ICCV 2019, arXiv:1904.09664); DepthContrast (Zhang et al., ICCV 2021,
    arXiv:2101.02691). Their layers are 1x1 convolutions (out, in, 1, 1).
"""

import dataclasses
import re
from pathlib import Path

from torch import Tensor, nn

from pc_backbones.heads import mlp_head
from pc_backbones.published_files import CheckpointFile
from pc_backbones.published_parts import Parts, count_from_zero, network_prefix

_FAMILY = re.compile(r"((?:.*\.)?)(?:sa\d+\.mlp_module|fp\d+\.mlp)\.layer\d+\.")
# DepthContrast's key network and those of other formats of the data; trunk.0 is the query's.
_OTHER_TRUNK = re.compile(r"(?:.*\.)?trunk\.[1-9]\d*\.")
_LAYER = re.compile(r"(sa|fp)(\d+)\.(?:mlp_module|mlp)\.layer(\d+)\.(conv|bn\.bn)\.")
_SIDES = {"sa": "encoder", "fp": "decoder"}
_PARTS = {"conv": "linear", "bn.bn": "norm"}
_HEAD = "head.clf."


def find_votenet(checkpoint: CheckpointFile) -> Parts | None:
    """PointNet++, with DepthContrast's projection as head; None if not named like one.

    Raises:
        ValueError: If the first layers are not there, or the head is not two linear layers.
    """
    mine = {n: value for n, value in checkpoint.tensors.items() if not _OTHER_TRUNK.match(n)}
    prefix = network_prefix(dataclasses.replace(checkpoint, tensors=mine), _FAMILY)
    if prefix is None:
        return None
    tensors, head_tensors, others = {}, {}, []
    for name, value in checkpoint.tensors.items():
        inner = name.removeprefix(prefix)
        if not name.startswith(prefix):
            others.append(name)
        elif inner.startswith(_HEAD):
            head_tensors[inner.removeprefix(_HEAD)] = value
        elif _FAMILY.match(inner):
            tensors[_LAYER.sub(_rename, inner)] = value
        else:
            others.append(name)
    widths = _widths(tensors, "encoder", checkpoint.path)
    in_dim = tensors["encoder.0.layers.0.linear.weight"].shape[1] - 3
    if in_dim < 0:
        raise ValueError(f"{checkpoint.path}: the first layer of sa1 takes no coordinates")
    return Parts(
        name="pointnet2",
        arguments={
            "in_dim": in_dim,
            "widths": widths,
            "up_widths": _widths(tensors, "decoder", checkpoint.path),
            "skip_origin": True,
        },
        backbone=tensors,
        head=_new_head(head_tensors, checkpoint.path),
        head_tensors=head_tensors,
        left_over=tuple(others),
    )


def _rename(found: re.Match[str]) -> str:
    side, level, layer, part = found.groups()
    return f"{_SIDES[side]}.{int(level) - 1}.layers.{layer}.{_PARTS[part]}."


def _widths(tensors: dict[str, Tensor], side: str, file: Path) -> tuple[tuple[int, ...], ...]:
    """Channels of each level's layers, as the shapes say."""
    layers = re.compile(rf"{side}\.(\d+)\.layers\.(\d+)\.linear\.weight")
    found = {
        (int(name[1]), int(name[2])): value
        for key, value in tensors.items()
        if (name := layers.fullmatch(key))
    }
    if any(value.ndim < 2 for value in found.values()):
        raise ValueError(f"{file}: a convolution of PointNet++ has fewer than two axes")
    widths = []
    for level in range(count_from_zero({level for level, _ in found})):
        depth = count_from_zero({layer for at, layer in found if at == level})
        if not depth:
            raise ValueError(f"{file}: a layer of PointNet++ ({side}.{level}.layers.0) is missing")
        widths.append(tuple(found[level, layer].shape[0] for layer in range(depth)))
    if not widths and side == "encoder":
        raise ValueError(f"{file}: the first layer of PointNet++ (sa1.mlp_module) is missing")
    return tuple(widths)


def _new_head(tensors: dict[str, Tensor], file: Path) -> nn.Module | None:
    if not tensors:
        return None
    shapes = [tensors[name].shape for name in ("0.weight", "2.weight") if name in tensors]
    if len(shapes) < 2 or any(len(shape) < 2 for shape in shapes):
        raise ValueError(
            f"{file}: a head of {', '.join(_HEAD + name for name in sorted(tensors))} is not the "
            "published one of two linear layers"
        )
    return mlp_head(shapes[0][1], shapes[0][0], shapes[1][0])
