"""All backbones by name."""

import difflib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from pc_backbones.contract import Backbone
from pc_backbones.inputs import InputFeatures
from pc_backbones.waffleiron import WaffleIron

_WAFFLEIRON: dict[str, dict[str, Any]] = {
    "waffleiron": {},
    "waffleiron_48_768": {"depth": 48, "channels": 768, "layer_norm": True},
    "waffleiron_48_384": {"depth": 48, "channels": 384, "layer_norm": False},
    "waffleiron_48_256": {"depth": 48, "channels": 256, "layer_norm": False},
    "waffleiron_48_96": {"depth": 48, "channels": 96, "layer_norm": False},
    "waffleiron_6_64": {"depth": 6, "channels": 64, "layer_norm": True},
}
_SMALL = {
    "stem_width": 16,
    "encoder_widths": (16, 32, 48, 64),
    "encoder_depths": (1, 1, 1, 1),
    "decoder_widths": (64, 48, 32, 32),
    "decoder_depths": (1, 1, 1, 1),
    "norm_momentum": 0.1,  # running statistics keep up with runs of some hundred steps
}
# SLidR (Sautier et al., CVPR 2022) on LiDAR; initialised as MinkowskiEngine does.
_MINKUNET34 = {
    "voxel_size": 0.1,
    "stem_kernel": 3,
    "down_widths": (32, 32, 64, 128),
    "norm_eps": 1e-5,
    "norm_momentum": 0.05,
    "block_norm_momentum": 0.1,
    "init_std": None,
    "pooling": "first",
    "absolute_grid": True,
}
_SPARSE_UNET: dict[str, dict[str, Any]] = {
    "sparse_unet": {},
    "spunet34": {},
    "spunet34_paper": {"decoder_widths": (256, 128, 64, 64)},
    "spunet14_small": _SMALL,
    "minkunet34": _MINKUNET34,
    "minkunet34_cylindrical": {**_MINKUNET34, "cylindrical": True},
    "minkunet14_small": {**_MINKUNET34, **_SMALL, "down_widths": (16, 16, 32, 48)},
}
_NAMES = ("inputs", *_WAFFLEIRON, *_SPARSE_UNET)


def list_backbones() -> list[str]:
    """Names that `create_backbone` knows."""
    return sorted(_NAMES)


def create_backbone(
    name: str,
    in_dim: int,
    **overrides: Any,  # noqa: ANN401 - keyword arguments of the network of that name
) -> Backbone:
    """Build a backbone with random weights.

    Every backbone answers `forward(xyz, feat, batch, *, neighbors=None) -> [n out_dim]` over packed
    batches and has the attributes of `Backbone`.

    Args:
        name: One of `list_backbones()`.
        in_dim: Number of input features of a point.
        overrides: Constructor arguments to change, e.g. `depth=12`.

    Raises:
        ValueError: If the name is unknown, or an override is none of the network's arguments.
    """
    if name not in _NAMES:
        nearest = difflib.get_close_matches(name, _NAMES, n=3, cutoff=0.3) or list_backbones()
        raise ValueError(f"no backbone is called {name!r}; the nearest are: {', '.join(nearest)}")
    network = _network(name)
    known = [key for key in inspect.signature(network).parameters if key != "in_dim"]
    for key in overrides:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=3) or known
            raise ValueError(
                f"backbone {name} has no argument {key!r}; the nearest are: {', '.join(nearest)}"
            )
    return network(in_dim, **overrides)


def _network(name: str) -> Callable[..., Backbone]:
    if name == "inputs":
        return InputFeatures
    if name in _WAFFLEIRON:
        return partial(WaffleIron, **_WAFFLEIRON[name])
    from pc_backbones.sparse_unet import SparseUNet  # takes seconds: it imports spconv

    return partial(SparseUNet, **_SPARSE_UNET[name])
