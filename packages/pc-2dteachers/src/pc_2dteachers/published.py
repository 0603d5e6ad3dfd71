"""Weight files as their authors publish them: MoCo v2, MoCo v3, EsViT, SLidR and CSC.

Each function takes what such a file holds, by its key, and returns the tensors of the image encoder
under the names of timm; heads, predictors, queues and momentum copies are left out.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

_MOCO_V2 = (
    "https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_800ep/"
    "moco_v2_800ep_pretrain.pth.tar"
)
AUTHOR_FILES = {
    "esvit_swin_t": (
        "checkpoint_best.pth of Swin-T with window 7, linked in the README of microsoft/esvit"
    ),
    "moco_v2_resnet50": _MOCO_V2,
    "moco_v2_resnet50_dilated": _MOCO_V2,
    "moco_v3_resnet50": ("https://dl.fbaipublicfiles.com/moco-v3/r-50-1000ep/r-50-1000ep.pth.tar"),
}
"""Where the weights of a teacher are that no model hub offers."""

_SWIN_BUFFERS = re.compile(r"relative_position_index$|attn_mask$")


def take_moco_v2(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The query encoder of MoCo v2, `module.encoder_q.*`, without its MLP `fc`.

    Raises:
        ValueError: If the file holds no such encoder.

    Source: MoCo v2 (Chen et al., 2020, arXiv:2003.04297), the released checkpoints.
    """
    return _take_resnet(content, "encoder_q.")


def take_moco_v3(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The base encoder of MoCo v3, `module.base_encoder.*`, without its MLP `fc`.

    Raises:
        ValueError: If the file holds no such encoder.

    Source: MoCo v3 (Chen, Xie and He, ICCV 2021, arXiv:2104.02057), the released ResNet-50s.
    """
    return _take_resnet(content, "base_encoder.")


def take_image_branch(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The image encoder of SLidR or CSC, `encoder.*` under `model_images`, or that of MoCo v2.

    The 1x1 convolution that they train on top of it (`decoder.*`) is left out.

    Raises:
        ValueError: If the file holds no such encoder.

    Source: SLidR (Sautier et al., CVPR 2022, arXiv:2203.16258), the released file with the image
        model ("raw"); CSC (Chen et al., CVPR 2024) saves the same.
    """
    branch = content.get("model_images", content)
    names = list(map(str, branch)) if isinstance(branch, Mapping) else []
    encoder = {
        bare.removeprefix("encoder."): branch[name]
        for name in names
        if (bare := name.removeprefix("module.")).startswith("encoder.")
    }
    if encoder or branch is not content:
        _require(encoder, "conv1.weight", content, "model_images.encoder.*")
        return {name: value for name, value in encoder.items() if not name.startswith("fc.")}
    return take_moco_v2(content)


def take_esvit(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The teacher of EsViT, the copy that its authors evaluate, without its two heads.

    A Swin of the first publication merges patches at the end of a stage; in timm this is the start
    of the next one. Where a level's grid is no multiple of the window (image sides that are no
    multiples of 112, for strides up to 16), timm shifts before it pads and the authors pad before
    they shift, so features near the lower and right border differ.

    Raises:
        ValueError: If the file holds no such network.

    Source: EsViT (Li et al., ICLR 2022, arXiv:2106.09785), the released checkpoints.
    """
    tensors = content.get("teacher", content)
    if isinstance(tensors, Mapping):
        tensors = {str(name).removeprefix("module."): value for name, value in tensors.items()}
    else:
        tensors = {}
    _require(tensors, "patch_embed.proj.weight", content, "teacher")
    if "layers.0.downsample.reduction.weight" in tensors:
        tensors = {_to_timms_stage(name): value for name, value in tensors.items()}
    return {
        name: value
        for name, value in tensors.items()
        if not name.startswith(("head.", "head_dense.")) and not _SWIN_BUFFERS.search(name)
    }


CONVERTERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Tensor]]] = {
    "esvit_swin_t": take_esvit,
    "moco_v2_resnet50": take_moco_v2,
    "moco_v2_resnet50_dilated": take_image_branch,
    "moco_v3_resnet50": take_moco_v3,
}
"""How the file of a teacher becomes tensors under timm's names."""


def _take_resnet(content: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    names = [name for name in content if name.startswith(prefix)]
    if names:
        tensors = {name.removeprefix(prefix): content[name] for name in names}
    else:  # the encoder alone
        tensors = dict(content)
    _require(tensors, "conv1.weight", content, f"module.{prefix}*")
    return {name: value for name, value in tensors.items() if not name.startswith("fc.")}


def _to_timms_stage(name: str) -> str:
    return re.sub(
        r"^layers\.(\d+)\.downsample\.",
        lambda found: f"layers.{int(found[1]) + 1}.downsample.",
        name,
    )


def _require(
    tensors: Mapping[str, Any], first: str, content: Mapping[str, Any], where: str
) -> None:
    if first not in tensors:
        held = ", ".join(map(str, list(content)[:4])) or "nothing"
        raise ValueError(
            f"holds no network under {where} (no {first}), but {held}{', ...' * (len(content) > 4)}"
        )
