"""Backbones and segmentation models on disk."""

import json
from collections.abc import Callable, Sequence
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
from pc_backbones.heads import two_conv_head
from pc_backbones.published import FILE_NAMES
from pc_data.features import LIDAR_FEATURES, ROOM_FEATURES
from pc_geometry.atomic import atomic_file
from torch import nn

from pc_train.runs import CONFIG

BACKBONE_FILE = "backbone.safetensors"
HEAD_FILE = "head.safetensors"
# By name and number of input features; a published file says neither what they are nor in which
# order they come.
_PUBLISHED_FEATURES: dict[tuple[str, int], tuple[str, ...]] = {
    ("waffleiron", 5): LIDAR_FEATURES,
    ("sparse_unet", 1): ("raw_intensity",),
    ("sparse_unet", 6): ROOM_FEATURES,
    ("sparse_unet", 3): ROOM_FEATURES[:3],
    ("pointnet2", 1): ("height",),
    ("pointnet2", 0): (),
}


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


def linear_head(in_dim: int, num_classes: int) -> nn.Linear:
    """A linear layer with small normal weights.

    Source: the classifier of MSC's released code (Wu et al., CVPR 2023): std 0.02, no offset.
    """
    head = nn.Linear(in_dim, num_classes)
    nn.init.normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head


HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "norm_linear": linear_probe_head,
    "linear": linear_head,
    "plain_linear": nn.Linear,
    "two_conv": two_conv_head,
}
"""By the name that settings and cards give them; from input width and number of classes."""


def new_backbone(name: str, in_dim: int, **arguments: Any) -> NamedBackbone:  # noqa: ANN401
    """Build a backbone with random weights."""
    network = create_backbone(name, in_dim, **arguments)
    return NamedBackbone(
        network=network, name=name, arguments={"in_dim": in_dim, **arguments}, card={}
    )


def open_backbone(
    path: Path,
    *,
    random_seed: int | None = None,
    drop_path: float | None = None,
    reach: float = 0.0,
) -> NamedBackbone:
    """Load a backbone to continue with.

    Args:
        path: A backbone.safetensors, a run folder that holds one, or a published checkpoint that
            `load_published` knows (.pth, .pt, or the folder that it was unpacked to).
        random_seed: Keep only the architecture, and draw the weights from this seed.
        drop_path: Probability that a scan skips a residual branch in training, instead of that in
            the file; for networks that have it.
        reach: Metres that a network with a grid sees to each side, with cells as large as before;
            0 for what is in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or of another network; if `reach` is given for a network
            without a grid.
    """
    file = weights_file(path)
    if file.suffix == ".safetensors":
        card = read_card(file)
        network: Backbone = load_backbone(file)
        arguments: dict[str, Any] = card["arguments"]
        name, known = card["name"], card["card"]
    else:
        published = load_published(file)
        network, name = published.backbone, published.name
        arguments, known = network.arguments, {"weights": path.name}
        features = _PUBLISHED_FEATURES.get((name, network.in_dim))
        if features is not None:
            known |= {"features": list(features)}
    changes: dict[str, Any] = {"drop_path": drop_path} if drop_path is not None else {}
    changes = {key: value for key, value in changes.items() if key in network.arguments}
    if reach:
        changes |= _wider(network, reach)
    if random_seed is not None or changes:
        arguments, trained = {**arguments, **changes}, network
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_seed or 0)
            network = create_backbone(name, **arguments).eval()
        if random_seed is None:
            network.load_state_dict(trained.state_dict())
    return NamedBackbone(network=network, name=name, arguments=arguments, card=known)


def _wider(network: Backbone, reach: float) -> dict[str, Any]:
    """Arguments of a grid that ends so many metres to each side; no weight depends on them."""
    if "grids" not in network.arguments:
        raise ValueError(
            f"reach is for networks with a grid (WaffleIron), got {reach:g} for "
            f"{type(network).__name__}; pass 0"
        )
    low, high = network.arguments["fov"]
    (rows, columns), (_, layers), _ = network.arguments["grids"]
    rows, columns = (
        round(2 * reach * cells / (end - start))
        for cells, start, end in zip((rows, columns), low, high, strict=False)
    )
    return {
        "fov": ((-reach, -reach, low[2]), (reach, reach, high[2])),
        "grids": ((rows, columns), (rows, layers), (columns, layers)),
    }


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
        make_head = HEADS[backbone.card.get("head", "norm_linear")]
        head = make_head(backbone.network.out_dim, len(class_names))
        head.load_state_dict(tensors)
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{folder / HEAD_FILE} is damaged or of another backbone ({reason}); copy both files "
            "of the run anew"
        ) from error
    return backbone, head.eval(), class_names
