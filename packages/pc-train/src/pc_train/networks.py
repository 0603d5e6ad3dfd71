"""Backbones and segmentation models on disk."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pc_backbones import (
    Backbone,
    create_backbone,
    linear_probe_head,
    load_backbone,
    load_published,
    read_card,
    save_backbone,
)
from pc_backbones.published import FILE_NAMES
from pc_geometry.atomic import atomic_file
from torch import nn

from pc_train.runs import CONFIG

BACKBONE_FILE = "backbone.safetensors"
HEAD_FILE = "head.safetensors"


@dataclass(frozen=True, kw_only=True)
class NamedBackbone:
    """A network and what rebuilds it.

    Attributes:
        network: The backbone.
        name: For `create_backbone`.
        arguments: Its other arguments, `in_dim` included.
        card: What is known of its training.
    """

    network: Backbone
    name: str
    arguments: dict[str, Any]
    card: dict[str, Any]


def new_backbone(name: str, in_dim: int, **arguments: Any) -> NamedBackbone:  # noqa: ANN401
    """Build a backbone with random weights."""
    network = create_backbone(name, in_dim, **arguments)
    return NamedBackbone(
        network=network, name=name, arguments={"in_dim": in_dim, **arguments}, card={}
    )


def open_backbone(path: Path, *, random_seed: int | None = None, **changes: Any) -> NamedBackbone:  # noqa: ANN401
    """Load a backbone to continue with.

    Args:
        path: A backbone.safetensors, a run folder that holds one, or a published WaffleIron
            checkpoint (.pth, or the folder that it was unpacked to).
        random_seed: Keep only the architecture, and draw the weights from this seed.
        changes: Arguments that no weight depends on, e.g. `drop_path`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or of another network.
    """
    file = weights_file(path)
    if file.suffix == ".safetensors":
        card = read_card(file)
        network: Backbone = load_backbone(file, **changes)
        arguments: dict[str, Any] = {**card["arguments"], **changes}
        name, known = card["name"], card["card"]
    else:
        network, _ = load_published(file, **changes)
        name, known = "waffleiron", {"weights": path.name}
        arguments = network.arguments
    if random_seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_seed)
            network = create_backbone(name, **arguments).eval()
    return NamedBackbone(network=network, name=name, arguments=arguments, card=known)


def weights_file(path: Path) -> Path:
    """Find the file of weights that `open_backbone` reads.

    Raises:
        FileNotFoundError: If the folder holds none; says so if it is that of an unfinished run.
    """
    if not path.is_dir():
        return path
    for name in (BACKBONE_FILE, *FILE_NAMES):
        if (path / name).is_file():
            return path / name
    if (path / CONFIG).is_file():
        raise FileNotFoundError(
            f"the run in {path} is not finished: it holds no {BACKBONE_FILE} yet; let its command "
            "run to the end first"
        )
    raise FileNotFoundError(
        f"{path} holds neither {BACKBONE_FILE} nor {' or '.join(FILE_NAMES)}; pass the "
        "folder of a finished run, or an unpacked checkpoint"
    )


def save_model(
    folder: Path, backbone: NamedBackbone, *, card: dict[str, Any], head: nn.Module | None = None
) -> None:
    """Write `backbone.safetensors`, and `head.safetensors` if there is a segmentation head."""
    from safetensors.torch import save

    save_backbone(
        folder / BACKBONE_FILE,
        backbone.network,
        name=backbone.name,
        arguments=backbone.arguments,
        card={**backbone.card, **card},
    )
    if head is not None:
        tensors = {key: value.contiguous() for key, value in head.state_dict().items()}
        with atomic_file(folder / HEAD_FILE) as file:
            file.write(save(tensors, metadata={"class_names": json.dumps(card["class_names"])}))


def load_model(folder: Path) -> tuple[NamedBackbone, nn.Module, Sequence[str]]:
    """Load what `save_model` wrote with a head: backbone, head, class names; in eval mode.

    Raises:
        FileNotFoundError: If the folder holds no finished probing or fine-tuning run.
        ValueError: If a file is damaged, or the two do not belong together.
    """
    from safetensors import SafetensorError, safe_open

    if not (folder / HEAD_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} holds no {HEAD_FILE}; pass the folder of a finished probe or finetune run"
        )
    backbone = open_backbone(folder)
    try:
        with safe_open(folder / HEAD_FILE, framework="pt") as file:
            class_names = json.loads(file.metadata()["class_names"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        head = linear_probe_head(backbone.network.out_dim, len(class_names))
        head.load_state_dict(tensors)
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{folder / HEAD_FILE} is damaged or of another backbone ({reason}); copy both files "
            "of the run anew"
        ) from error
    return backbone, head.eval(), class_names
