"""DINOv2 under the linear ADE20K head of its authors."""

import os
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pc_2dteachers.ade20k import CLASS_NAMES
from pc_2dteachers.catalog import DINOV2_LINEAR
from pc_2dteachers.readers import walk_dino
from pc_2dteachers.segmenter import Segmenter, argmax_resized, pad_to_stride
from pc_2dteachers.teacher import Teacher
from pc_2dteachers.weights import read_tensors
from pc_2dteachers.zoo import create_teacher

_HEAD = "decode_head."
_NORM = ("weight", "bias", "running_mean", "running_var")


class LinearSegmentation(nn.Module):
    """Patch tokens of the last blocks, batch norm, 1x1 convolution, bilinear to the image.

    The released code pads the image to multiples of 14 as here, but then stretches the padded map
    over the image; here the padding is cut off. It also averages over windows of 640x640 with half
    of them overlapping, at images of 640 pixels of the shorter side; here an image is one window.

    Source: DINOv2 (Oquab et al., TMLR 2024, arXiv:2304.07193), Sec. 7.4, "lin." (one block) and
        "+ms" (four blocks, concatenated).
    """

    def __init__(self, teacher: Teacher, head: nn.Sequential, num_levels: int) -> None:
        """Put a head on a teacher.

        Args:
            teacher: A DINOv2 of `create_teacher`.
            head: Concatenated tokens [b c y x] -> scores of classes.
            num_levels: How many of the last blocks it reads.
        """
        super().__init__()
        self.teacher = teacher
        self.head = head
        self.num_levels = num_levels

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Int64[Tensor, "b h w"]:
        """Return the class of each pixel."""
        teacher = self.teacher
        padded, (rows, columns) = pad_to_stride(teacher.normalize(images), teacher.stride)
        depth = len(teacher.network.blocks)  # pyrefly: ignore[bad-argument-type]
        levels = range(depth - self.num_levels, depth)
        norm = teacher.network.norm
        tokens = [
            norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # pyrefly: ignore[not-callable]
            for maps in walk_dino(teacher.network, padded, levels=levels)
        ]
        scores = self.head(torch.cat(tokens, dim=1))
        height, width = padded.shape[2:]
        return argmax_resized(scores, (height, width))[:, rows, columns]


def create_dinov2_linear(
    name: str,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    backbone: str | os.PathLike[str] | None = None,
) -> Segmenter:
    """Create DINOv2 with its linear ADE20K head.

    Args:
        name: A key of `DINOV2_LINEAR`.
        checkpoint: The head's file, of one block (`..._ade20k_linear_head.pth`) or of four
            (`..._ade20k_ms_head.pth`); which one is read from its width.
        backbone: DINOv2's own file; by default it comes from the model hub.

    Raises:
        FileNotFoundError: If a file is missing, or the backbone cannot be downloaded.
        ValueError: If a file holds something else; names the file and the tensor.
    """
    if checkpoint is None:
        size = name.rpartition("_")[2]
        raise FileNotFoundError(
            f"{name} needs the head of its authors as checkpoint: https://dl.fbaipublicfiles.com/"
            f"dinov2/dinov2_{size}/dinov2_{size}_ade20k_linear_head.pth"
        )
    channels, head = _read_head(Path(checkpoint))  # before anything is downloaded
    teacher = create_teacher(DINOV2_LINEAR[name], checkpoint=backbone)
    width, depth = teacher.out_dim, len(teacher.network.blocks)  # pyrefly: ignore[bad-argument-type]
    if channels % width or channels // width > depth:
        raise ValueError(
            f"{checkpoint}: {_HEAD}conv_seg.weight reads {channels} channels, but {name} needs a "
            f"multiple of {width}; use the head of the same network"
        )
    network = LinearSegmentation(teacher, head, channels // width)
    return Segmenter(network, name=name, class_names=CLASS_NAMES)


def _read_head(file: Path) -> tuple[int, nn.Sequential]:
    """Channels that are read, and batch norm and 1x1 convolution as the file has them."""
    tensors = read_tensors(file)
    weight = tensors.get(f"{_HEAD}conv_seg.weight")
    if weight is None:
        held = ", ".join(list(tensors)[:4])
        raise ValueError(
            f"{file}: holds no {_HEAD}conv_seg.weight, but {held}; use a linear ADE20K head of "
            "DINOv2's authors"
        )
    classes = len(CLASS_NAMES)
    if weight.ndim != 4 or weight.shape[0] != classes or weight.shape[2:] != (1, 1):
        raise ValueError(
            f"{file}: {_HEAD}conv_seg.weight must be [{classes}, c, 1, 1] (ADE20K's classes), got "
            f"{list(weight.shape)}; use a linear ADE20K head"
        )
    channels = weight.shape[1]
    norm = nn.BatchNorm2d(channels)
    convolution = nn.Conv2d(channels, classes, 1)
    convolution.weight.data = weight.float()
    convolution.bias = nn.Parameter(_take(tensors, "conv_seg.bias", classes, file))
    for part in _NORM:
        getattr(norm, part).data = _take(tensors, f"bn.{part}", channels, file)
    return channels, nn.Sequential(norm, convolution)


def _take(tensors: dict[str, Tensor], name: str, length: int, file: Path) -> Tensor:
    value = tensors.get(_HEAD + name)
    if value is None or value.shape != (length,):
        got = "none" if value is None else list(value.shape)
        raise ValueError(
            f"{file}: {_HEAD}{name} must be [{length}], got {got}; fetch the file again"
        )
    return value.float()
