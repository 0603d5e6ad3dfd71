"""From the tensors of a published file to a filled network, every difference an error."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pc_backbones.contract import Backbone
from pc_backbones.published_files import CheckpointFile
from pc_backbones.zoo import create_backbone


@dataclass(frozen=True, kw_only=True)
class Published:
    """A network from a published file, in eval mode; iterates as `(backbone, head)`.

    Attributes:
        backbone: The network; its `arguments` rebuild it by `create_backbone(name, ...)`.
        head: What the file holds on top of it, None if nothing.
        name: Name of the network for `create_backbone`.
        used: Tensors of our network that the file gave; those of the head begin with `head.`.
        missing: Tensors of our network that the file lacks: batch norm's step counters at most.
        left_over: Tensors of the file, without `module.`, that belong to neither.
    """

    backbone: Backbone
    head: nn.Module | None
    name: str
    used: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]

    def __iter__(self) -> Iterator[Any]:
        return iter((self.backbone, self.head))


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a published file holds, in our names and layouts.

    Attributes:
        name: Name of the network for `create_backbone`.
        arguments: Its arguments as the tensors tell them, `in_dim` included.
        backbone: Tensors of the backbone.
        head: The head, not yet filled.
        head_tensors: Tensors of the head.
        left_over: Names of the file's other tensors.
    """

    name: str
    arguments: Mapping[str, Any]
    backbone: dict[str, Tensor]
    head: nn.Module | None = None
    head_tensors: dict[str, Tensor] = field(default_factory=dict)
    left_over: tuple[str, ...] = ()


def assemble(parts: Parts, overrides: Mapping[str, Any], file: Path) -> Published:
    """Build the network of the parts and fill it.

    Raises:
        ValueError: If a tensor is missing, unexpected or of another shape, or an override unknown.
    """
    arguments = {**parts.arguments, **overrides}
    in_dim = arguments.pop("in_dim")
    # The file's word is checked before memory is spent on it.
    with torch.device("meta"):
        blank = create_backbone(parts.name, in_dim, **arguments)
    _compare(blank, parts.backbone, file)
    if parts.head is not None:
        _compare(parts.head, parts.head_tensors, file)
    backbone = create_backbone(parts.name, in_dim, **arguments)
    modules = {"": (backbone, parts.backbone), "head.": (parts.head, parts.head_tensors)}
    used, missing = [], []
    for prefix, (module, tensors) in modules.items():
        if module is not None:
            used += [prefix + name for name in module.state_dict() if name in tensors]
            missing += [prefix + name for name in module.state_dict() if name not in tensors]
            _fill(module.eval(), tensors)
    return Published(
        backbone=backbone,
        head=parts.head,
        name=parts.name,
        used=tuple(used),
        missing=tuple(missing),
        left_over=parts.left_over,
    )


def linear_head(tensors: Mapping[str, Tensor], in_dim: int, file: Path) -> nn.Linear:
    """A linear layer of the shape of `weight` [d c], with a bias if there is one.

    Raises:
        ValueError: If it does not fit onto `in_dim` features.
    """
    weight = tensors.get("weight")
    if weight is None or weight.ndim < 2 or weight.shape[1] != in_dim:
        found = "no weight" if weight is None else f"a weight {tuple(weight.shape)}"
        raise ValueError(f"{file}: the head has {found}, for a backbone of {in_dim} features")
    return nn.Linear(in_dim, weight.shape[0], bias="bias" in tensors)


def count_from_zero(indices: set[int]) -> int:
    """How many of 0, 1, 2, ... are there before the first gap."""
    return next(i for i in range(len(indices) + 1) if i not in indices)


def network_prefix(checkpoint: CheckpointFile, names: re.Pattern[str]) -> str | None:
    """What stands before the network's names (`backbone.`, `model.`, ...), judged from all tensors.

    Args:
        checkpoint: The file.
        names: Matches the beginning of a name of this family; its group 1 is the prefix.

    Returns:
        The prefix, or None if no name matches.

    Raises:
        ValueError: If there are several such networks.
    """
    matches = (names.match(name) for name in checkpoint.tensors)
    prefixes = sorted({match[1] for match in matches if match})
    if len(prefixes) > 1:
        raise ValueError(
            f"{checkpoint.path} holds {len(prefixes)} networks of one kind, under "
            f"{', '.join(map(repr, prefixes[:4]))}; save the tensors of one of them"
        )
    return prefixes[0] if prefixes else None


def _compare(module: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Any difference is an error, but for trailing kernel axes of size 1 and step counters."""
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in tensors and not _is_counter(name)]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in tensors
        and (
            tensors[name].numel() != value.numel()
            or tensors[name].shape[: value.ndim] != value.shape
        )
    ]
    parts = (
        ("missing", sorted(missing)),
        ("unexpected", sorted(set(tensors) - set(wanted))),
        ("wrong shape", shapes),
    )
    said = "; ".join(
        f"{len(names)} {what}: {', '.join(names[:4])}" for what, names in parts if names
    )
    if said:
        raise ValueError(f"{file} is a checkpoint of another network ({said})")


def _fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    wanted = module.state_dict()
    counter = torch.tensor(0)
    module.load_state_dict(
        {name: tensors.get(name, counter).reshape(wanted[name].shape) for name in wanted}
    )


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")
