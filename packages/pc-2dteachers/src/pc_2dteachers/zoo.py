"""Teachers by name."""

import difflib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from pc_2dteachers.catalog import OFFLINE_TEACHER, TIMM_NAMES, list_teachers
from pc_2dteachers.dilated import replace_strides
from pc_2dteachers.published import AUTHOR_FILES, CONVERTERS
from pc_2dteachers.readers import read_dino, read_level, read_maskclip
from pc_2dteachers.teacher import Teacher
from pc_2dteachers.weights import find_hub_file, load_checkpoint, load_offline

_READERS: dict[str, Callable[..., Tensor]] = {
    "dino_vit_s8": read_dino,
    "dinov2_vit_b14": read_dino,
    "dinov2_vit_g14": read_dino,
    "dinov2_vit_l14": read_dino,
    "dinov2_vit_s14": read_dino,
    "maskclip_vit_b16": read_maskclip,
}
_DILATED = "moco_v2_resnet50_dilated"
# A residual branch whose last scale is 0, timm's way to start a training, adds nothing: as a random
# control such a network is a mere stack of its shortcuts, so its scales are 1, as in torchvision.
_RESNET = {"num_classes": 0, "zero_init_last": False}
_OPTIONS: dict[str, dict[str, Any]] = {
    "esvit_swin_t": {"num_classes": 0, "strict_img_size": False},
    "moco_v2_resnet50": _RESNET,
    _DILATED: _RESNET,
    "moco_v3_resnet50": _RESNET,
}


def create_teacher(
    name: str,
    *,
    pretrained: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    level: int | None = None,
    seed: int = 0,
) -> Teacher:
    """Create a frozen image network by name.

    Args:
        name: One of `list_teachers()`, or any model of timm that offers intermediate features,
            e.g. `vit_small_patch16_dinov3.lvd1689m` or `resnet50`.
        pretrained: Load the published weights, from the local cache or the model hub. False
            gives random weights, the control that tells what the pre-training is worth.
        checkpoint: Load this file instead (`.pth` or `.safetensors`, timm's layout or, for ViTs,
            that of DINO, DINOv2, MAE or CLIP). MoCo and EsViT are not on the hub and need it: the
            authors' own file, or its encoder alone; the dilated MoCo also takes the image model
            in files of SLidR and CSC.
        level: Which block of a ViT or stage of a CNN to read; negative counts from the end. The
            default is the last block of a ViT and the last stage but one of a CNN (stride 16
            as a rule), which is fine enough to tell objects apart; the last of a dilated one.
        seed: Of the random weights; the global generator is left as it was.

    Raises:
        ValueError: If the name or the level is unknown, or the checkpoint is of another network.
        FileNotFoundError: If the checkpoint is missing, or the weights cannot be downloaded.

    Source: ScaLR (Puy et al., CVPR 2024, arXiv:2310.17504), Sec. 4 and its released code: tokens
        of the last block before the final norm, without CLS. For the MAE teacher, whose code the
        authors did not release, the same is read.
    """
    timm_name = TIMM_NAMES.get(name, name)
    _require_known(name, timm_name)
    from_hub = pretrained and checkpoint is None and name != OFFLINE_TEACHER
    if from_hub and name in AUTHOR_FILES:
        raise FileNotFoundError(
            f"{name} needs the file of its authors as checkpoint: {AUTHOR_FILES[name]}; or take "
            "random weights (pretrained=False)"
        )
    weights = find_hub_file(timm_name) if from_hub else None
    network = _create_network(timm_name, _OPTIONS.get(name, {}), seed=seed, weights=weights)
    if name == _DILATED:
        replace_strides(network)
    if checkpoint is not None:
        load_checkpoint(network, checkpoint, convert=CONVERTERS.get(name))
    elif pretrained and name == OFFLINE_TEACHER:
        load_offline(network)
    return _freeze(name, network, level)


def _require_known(name: str, timm_name: str) -> None:
    known = timm.is_model(timm_name)
    if known and "." in timm_name:
        known = timm_name in timm.list_pretrained(f"{timm_name.partition('.')[0]}.*")
    if not known:
        near = difflib.get_close_matches(name, [*list_teachers(), *timm.list_models()], n=3)
        nearest = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(
            f"unknown teacher {name!r}{nearest}; use one of {', '.join(list_teachers())}, or a "
            "model name of timm"
        )


def _create_network(
    timm_name: str, options: dict[str, Any], *, seed: int, weights: Path | None = None
) -> nn.Module:
    build = partial(timm.create_model, timm_name, **options)
    if weights is not None:
        overlay = {"file": str(weights)}
        build = partial(build, pretrained=True, pretrained_cfg_overlay=overlay)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            return build(dynamic_img_size=True)
        except TypeError as error:  # only some ViTs can resample their positions
            if "dynamic_img_size" not in str(error):
                raise
            torch.default_generator.manual_seed(seed)
            return build()


def _freeze(name: str, network: nn.Module, level: int | None) -> Teacher:
    model: Any = network
    stages = getattr(network, "feature_info", None)
    if not stages or not hasattr(network, "forward_intermediates"):
        raise ValueError(
            f"{name} has no forward_intermediates in timm, so no map can be read from it; use "
            f"another model, such as {OFFLINE_TEACHER}"
        )
    is_vit = hasattr(network, "blocks") and hasattr(network, "num_prefix_tokens")
    if level is None:
        level = -1 if is_vit or name == _DILATED else max(-2, -len(stages))
    if not -len(stages) <= level < len(stages):
        raise ValueError(
            f"level must be in [{-len(stages)}, {len(stages)}) ({name} has {len(stages)} levels), "
            f"got {level}"
        )
    read = _READERS.get(name, read_level)
    config = model.pretrained_cfg
    mean, std = config["mean"], config["std"]
    if name == OFFLINE_TEACHER:
        mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    patches: Any = getattr(network, "patch_embed", None)
    fixed = getattr(patches, "strict_img_size", False)
    return Teacher(
        network,
        partial(read, level=level),
        name=name,
        out_dim=model.num_classes if read is read_maskclip else stages[level]["num_chs"],
        stride=stages[level]["reduction"],
        mean=mean,
        std=std,
        image_size=tuple(patches.img_size) if fixed else None,
    )
