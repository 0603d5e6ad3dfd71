"""All backbones by name."""

import difflib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from pc_backbones.contract import Backbone
from pc_backbones.inputs import InputFeatures
from pc_backbones.waffleiron import WaffleIron

_BACKBONES: dict[str, Callable[..., Backbone]] = {
    "inputs": InputFeatures,
    "waffleiron": WaffleIron,
    "waffleiron_48_768": partial(WaffleIron, depth=48, channels=768, layer_norm=True),
    "waffleiron_48_384": partial(WaffleIron, depth=48, channels=384, layer_norm=False),
    "waffleiron_48_256": partial(WaffleIron, depth=48, channels=256, layer_norm=False),
    "waffleiron_48_96": partial(WaffleIron, depth=48, channels=96, layer_norm=False),
    "waffleiron_6_64": partial(WaffleIron, depth=6, channels=64, layer_norm=True),
}


def list_backbones() -> list[str]:
    """Names that `create_backbone` knows."""
    return sorted(_BACKBONES)


def create_backbone(
    name: str,
    in_dim: int,
    **overrides: Any,  # noqa: ANN401 - keyword arguments of the network of that name
) -> Backbone:
    """Build a backbone with random weights.

    Every backbone answers `forward(xyz, feat, batch, *, neighbors=None) -> [n out_dim]` over packed
    batches and has the attributes `in_dim` and `out_dim`.

    Args:
        name: One of `list_backbones()`.
        in_dim: Number of input features of a point.
        overrides: Constructor arguments to change, e.g. `depth=12`.

    Raises:
        ValueError: If the name is unknown, or an override is none of the network's arguments.
    """
    if name not in _BACKBONES:
        nearest = difflib.get_close_matches(name, _BACKBONES, n=3, cutoff=0.3) or list_backbones()
        raise ValueError(f"no backbone is called {name!r}; the nearest are: {', '.join(nearest)}")
    known = [key for key in inspect.signature(_BACKBONES[name]).parameters if key != "in_dim"]
    for key in overrides:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=3) or known
            raise ValueError(
                f"backbone {name} has no argument {key!r}; the nearest are: {', '.join(nearest)}"
            )
    return _BACKBONES[name](in_dim, **overrides)
