"""The arguments of a sparse U-Net as its tensors tell them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pc_backbones.published_parts import count_from_zero


def unet_arguments(tensors: Mapping[str, Tensor], file: Path) -> dict[str, Any]:
    """Widths, depths, stem and input of a `SparseUNet` whose tensors have our names and layouts.

    Raises:
        ValueError: If a stage lacks what tells its width, or the stem's kernel has no centre.
    """
    depth = count_stages(tensors, "encoder")
    decoder_depth = count_stages(tensors, "decoder")
    if depth != decoder_depth or not depth:
        raise ValueError(
            f"{file}: a U-Net with {depth} stages of encoder and {decoder_depth} of decoder; both "
            "must be there, and as many"
        )
    stem = _find(tensors, "stem.conv.weight", 5, file)
    if stem.shape[1] % 2 == 0:
        raise ValueError(f"{file}: the stem's kernel {tuple(stem.shape)} is even and has no centre")
    encoder = [f"encoder.{stage}" for stage in range(depth)]
    decoder = [f"decoder.{stage}" for stage in range(depth)]
    return {
        "in_dim": stem.shape[4],
        "stem_width": stem.shape[0],
        "stem_kernel": stem.shape[1],
        "down_widths": _widths(tensors, encoder, "down.norm.weight", file),
        "encoder_widths": _widths(tensors, encoder, "blocks.0.norm1.weight", file),
        "encoder_depths": tuple(count_stages(tensors, f"{stage}.blocks") for stage in encoder),
        "decoder_widths": _widths(tensors, decoder, "blocks.0.norm1.weight", file),
        "decoder_depths": tuple(count_stages(tensors, f"{stage}.blocks") for stage in decoder),
    }


def count_stages(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many of `prefix.0`, `prefix.1`, ... there are before the first gap."""
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    return count_from_zero({int(found[1]) for name in tensors if (found := pattern.match(name))})


def _widths(
    tensors: Mapping[str, Tensor], stages: list[str], norm: str, file: Path
) -> tuple[int, ...]:
    return tuple(_find(tensors, f"{stage}.{norm}", 1, file).shape[0] for stage in stages)


def _find(tensors: Mapping[str, Tensor], name: str, num_axes: int, file: Path) -> Tensor:
    value = tensors.get(name)
    if value is None or value.ndim != num_axes:
        found = "missing" if value is None else f"{tuple(value.shape)}"
        raise ValueError(f"{file}: {name} must have {num_axes} axes, and is {found}")
    return value
