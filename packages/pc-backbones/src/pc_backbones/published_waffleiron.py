"""Tensor names of WaffleIron's, ScaLR's and ScaLR+'s files."""

import re
from pathlib import Path

from torch import Tensor, nn

from pc_backbones.published_files import CheckpointFile
from pc_backbones.published_parts import Parts, count_from_zero, network_prefix

_FAMILY = re.compile(r"((?:.*\.)?)(?:embed\.(?:norm|conv1|conv2|final)|waffleiron\.\w+_mix)\.")
_RENAMES = (
    (r"embed\.norm\.", "embedding.norm."),
    (r"embed\.conv1\.", "embedding.point."),
    (r"embed\.conv2\.", "embedding.neighbor."),
    (r"embed\.final\.", "embedding.merge."),
    (r"waffleiron\.spatial_mix\.(\d+)\.norm\.", r"layers.\1.spatial_norm."),
    (r"waffleiron\.spatial_mix\.(\d+)\.ffn\.0\.", r"layers.\1.spread."),
    (r"waffleiron\.spatial_mix\.(\d+)\.ffn\.2\.", r"layers.\1.gather."),
    (r"waffleiron\.spatial_mix\.(\d+)\.scale\.weight", r"layers.\1.spatial_scale"),
    (r"waffleiron\.channel_mix\.(\d+)\.norm\.", r"layers.\1.channel_norm."),
    (r"waffleiron\.channel_mix\.(\d+)\.mlp\.0\.", r"layers.\1.expand."),
    (r"waffleiron\.channel_mix\.(\d+)\.mlp\.2\.", r"layers.\1.contract."),
    (r"waffleiron\.channel_mix\.(\d+)\.scale\.weight", r"layers.\1.channel_scale"),
)


def find_waffleiron(checkpoint: CheckpointFile) -> Parts | None:
    """WaffleIron and its head; None if the tensors are not named like one.

    Raises:
        ValueError: If they are, but the first layers are not there or the head is of no known kind.
    """
    prefix = network_prefix(checkpoint, _FAMILY)
    if prefix is None:
        return None
    tensors, head_tensors = {}, {}
    for name, value in checkpoint.tensors.items():
        inner = name.removeprefix(prefix)
        if inner.startswith("classif."):
            head_tensors[inner.removeprefix("classif.")] = value
        else:
            tensors[_rename(inner)] = value
    head = _new_head(head_tensors, checkpoint.path)
    depths = {int(found[1]) for name in tensors if (found := re.match(r"layers\.(\d+)\.", name))}
    point = tensors.get("embedding.point.weight")
    if point is None or point.ndim < 2 or not depths:
        names = sorted(tensors)
        raise ValueError(
            f"{checkpoint.path} is not a WaffleIron checkpoint: embed.conv1.weight [c d 1] or the "
            f"tensors of waffleiron.* are missing; it holds {len(names)} tensors: "
            f"{', '.join(names[:6])}, ..."
        )
    channels, in_dim = point.shape[:2]
    arguments = {
        "in_dim": in_dim,
        "channels": channels,
        "depth": count_from_zero(depths),
        "layer_norm": "layers.0.spatial_norm.running_mean" not in tensors,
        # Only ScaLR+ publishes a two-layer head.
        "gelu": isinstance(head, nn.Sequential) and isinstance(head[0], nn.Linear),
    }
    return Parts(
        name="waffleiron",
        arguments=arguments,
        backbone=tensors,
        head=head,
        head_tensors=head_tensors,
    )


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        renamed, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            return renamed
    return name


def _new_head(tensors: dict[str, Tensor], file: Path) -> nn.Module | None:
    if not tensors:
        return None
    if "weight" in tensors:
        out_dim, in_dim = _shape(tensors["weight"], file)
        return nn.Linear(in_dim, out_dim)
    if "0.running_mean" in tensors and "1.weight" in tensors:
        out_dim, in_dim = _shape(tensors["1.weight"], file)
        return nn.Sequential(nn.BatchNorm1d(in_dim), nn.Linear(in_dim, out_dim))
    if "0.weight" in tensors and "2.weight" in tensors:
        hidden_dim, in_dim = _shape(tensors["0.weight"], file)
        out_dim = tensors["2.weight"].shape[0]
        return nn.Sequential(
            nn.Linear(in_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
        )
    raise ValueError(
        f"{file}: a head of {', '.join('classif.' + name for name in sorted(tensors))} is none "
        "of the published kinds (linear, batch norm + linear, two-layer)"
    )


def _shape(weight: Tensor, file: Path) -> tuple[int, int]:
    if weight.ndim < 2:
        raise ValueError(f"{file}: a weight of the head is {tuple(weight.shape)} instead of [c d]")
    return weight.shape[0], weight.shape[1]
