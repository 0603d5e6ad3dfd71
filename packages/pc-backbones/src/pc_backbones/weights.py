"""Backbones as safetensors files that know how to rebuild themselves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pc_geometry.atomic import atomic_file
from torch import nn

from pc_backbones.contract import Backbone
from pc_backbones.zoo import create_backbone

_KEY = "pc_backbones"


def save_backbone(
    path: str | Path,
    backbone: nn.Module,
    *,
    name: str,
    arguments: Mapping[str, Any],
    card: Mapping[str, Any],
) -> None:
    """Write weights with all that is needed to use them; the file is whole or not there.

    Args:
        path: A `.safetensors` file.
        backbone: The network.
        name: Its name for `create_backbone`.
        arguments: Its other arguments, `in_dim` included; plain JSON values.
        card: What a user must know: input features and their normalisation, data, versions.
    """
    from safetensors.torch import save

    header = json.dumps({"name": name, "arguments": dict(arguments), "card": dict(card)})
    tensors = {key: value.contiguous() for key, value in backbone.state_dict().items()}
    with atomic_file(Path(path)) as file:
        file.write(save(tensors, metadata={_KEY: header}))


def read_card(path: str | Path) -> dict[str, Any]:
    """Read `name`, `arguments` and `card` of a file by `save_backbone`, without its tensors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or not such a file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; pass a backbone.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); copy it anew"
        ) from error
    try:
        card = json.loads(metadata.get(_KEY, "null"))
    except json.JSONDecodeError:
        card = None
    if not isinstance(card, dict) or not isinstance(card.get("arguments"), dict):
        raise ValueError(f"{path} says nothing of its network; pass a file by save_backbone")
    return card


def load_backbone(
    path: str | Path,
    **overrides: Any,  # noqa: ANN401 - keyword arguments of the network in the file
) -> Backbone:
    """Rebuild the network of a file by `save_backbone`, in eval mode.

    Args:
        path: The file.
        overrides: Arguments to change that no weight depends on, e.g. `drop_path`, `fov`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or its tensors do not fit its own description.
    """
    from safetensors.torch import load_file

    card = read_card(path)
    arguments = {**card["arguments"], **overrides}
    try:
        backbone = create_backbone(card["name"], arguments.pop("in_dim"), **arguments)
    except (LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:500]
        raise ValueError(f"{path}: its network cannot be built: {reason}") from error
    try:
        backbone.load_state_dict(load_file(path))
    except RuntimeError as error:
        difference = " ".join(str(error).split())[:500]
        raise ValueError(f"{path} does not fit the network that it names: {difference}") from error
    return backbone.eval()
