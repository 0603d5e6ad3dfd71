"""WaffleIron weights as their authors publish them, read without executing pickles."""

import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pc_backbones.waffleiron import WaffleIron

_WRAPPERS = ("net", "model_points", "model_point", "state_dict")
# What torch.load raises over a damaged file, as found by flipping and cutting bytes.
_UNREADABLE = (
    *(pickle.UnpicklingError, struct.error, EOFError, OSError, RuntimeError, ValueError),
    *(LookupError, AttributeError, TypeError, AssertionError),
)
FILE_NAMES = ("ckpt_last.pth", "model.pth")
"""What the weights are called in the folder of an unpacked checkpoint."""
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


def load_published(
    path: str | Path,
    **overrides: Any,  # noqa: ANN401 - keyword arguments of WaffleIron
) -> tuple[WaffleIron, nn.Module | None]:
    """Rebuild a published WaffleIron and its head, both in eval mode.

    Reads the files of ScaLR, ScaLR+ and WaffleIron: weights under `net`, `model_point` or
    `model_points`, tensor names with or without `module.`. Width, depth, kind of norm and head are
    inferred from the tensors.

    Args:
        path: The checkpoint file, or the folder that holds it as `ckpt_last.pth` or `model.pth`.
        overrides: Arguments of `WaffleIron` that no tensor tells: `grids` and `fov` (default: those
            of ScaLR's pre-training), `num_neighbors`, `drop_path`.

    Returns:
        The backbone, and its head or None: a linear layer (distillation or segmentation), batch
        norm and a linear layer (ScaLR's downstream files), or an MLP (ScaLR+).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not such a checkpoint: names the keys and shapes at odds.
    """
    file = _find_file(Path(path))
    tensors = _read_tensors(file)
    head_tensors = {
        name.removeprefix("classif."): tensors.pop(name)
        for name in list(tensors)
        if name.startswith("classif.")
    }
    head = _build_head(head_tensors, file)
    if isinstance(head, nn.Sequential) and isinstance(head[0], nn.Linear):
        overrides = {"gelu": True} | overrides  # only ScaLR+ publishes a two-layer head
    renamed = {_rename(name): value for name, value in tensors.items()}
    backbone = _build_backbone(renamed, file, overrides)
    return backbone.eval(), None if head is None else head.eval()


def _find_file(path: Path) -> Path:
    candidates = [path / name for name in FILE_NAMES] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    wanted = f"a folder with {' or '.join(FILE_NAMES)}" if path.is_dir() else "a checkpoint file"
    raise FileNotFoundError(f"{path} is not {wanted}; pass the unpacked checkpoint")


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{file} cannot be read as plain tensors ({reason}); pass a file saved by torch.save "
            "without code objects"
        ) from error
    while isinstance(content, Mapping):
        wrapper = next((key for key in _WRAPPERS if key in content), None)
        if wrapper is None:
            break
        content = content[wrapper]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content)
        raise ValueError(
            f"{file} holds no weights under {', '.join(_WRAPPERS)}; its top level is: {found}"
        )
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        renamed, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            return renamed
    return name


def _build_backbone(
    tensors: dict[str, Tensor], file: Path, overrides: Mapping[str, Any]
) -> WaffleIron:
    depths = [int(found[1]) for name in tensors if (found := re.match(r"layers\.(\d+)\.", name))]
    point = tensors.get("embedding.point.weight")
    if point is None or point.ndim < 2 or not depths:
        names = sorted(tensors)
        raise ValueError(
            f"{file} is not a WaffleIron checkpoint: embed.conv1.weight [c d 1] or the tensors of "
            f"waffleiron.* are missing; it holds {len(names)} tensors: {', '.join(names[:6])}, ..."
        )
    channels, in_dim = point.shape[:2]
    backbone = WaffleIron(
        in_dim,
        channels=channels,
        depth=1 + max(depths),
        layer_norm="layers.0.spatial_norm.running_mean" not in tensors,
        **overrides,
    )
    _load_exactly(backbone, tensors, file)
    return backbone


def _build_head(tensors: dict[str, Tensor], file: Path) -> nn.Module | None:
    if not tensors:
        return None
    if "weight" in tensors:
        out_dim, in_dim = tensors["weight"].shape[:2]
        head: nn.Module = nn.Linear(in_dim, out_dim)
    elif "0.running_mean" in tensors and "1.weight" in tensors:
        out_dim, in_dim = tensors["1.weight"].shape[:2]
        head = nn.Sequential(nn.BatchNorm1d(in_dim), nn.Linear(in_dim, out_dim))
    elif "0.weight" in tensors and "2.weight" in tensors:
        hidden_dim, in_dim = tensors["0.weight"].shape[:2]
        out_dim = tensors["2.weight"].shape[0]
        head = nn.Sequential(
            nn.Linear(in_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
        )
    else:
        raise ValueError(
            f"{file}: a head of {', '.join('classif.' + name for name in sorted(tensors))} is none "
            "of the published kinds (linear, batch norm + linear, two-layer)"
        )
    _load_exactly(head, tensors, file)
    return head


def _load_exactly(module: nn.Module, tensors: dict[str, Tensor], file: Path) -> None:
    """Load with trailing kernel axes of size 1 dropped; any difference is an error."""
    wanted = module.state_dict()
    for name in wanted:
        if name.endswith("num_batches_tracked"):
            tensors.setdefault(name, torch.tensor(0))
    missing = sorted(set(wanted) - set(tensors))
    unexpected = sorted(set(tensors) - set(wanted))
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in tensors
        and (
            tensors[name].numel() != value.numel()
            or tensors[name].shape[: value.ndim] != value.shape
        )
    ]
    if missing or unexpected or shapes:
        parts = (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
        said = "; ".join(
            f"{len(names)} {what}: {', '.join(names[:4])}" for what, names in parts if names
        )
        raise ValueError(f"{file} is a checkpoint of another network ({said})")
    module.load_state_dict({name: tensors[name].reshape(wanted[name].shape) for name in wanted})
