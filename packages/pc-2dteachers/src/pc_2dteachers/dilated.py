"""A ResNet whose late stages keep the resolution of the first one."""

from typing import Any

from torch import nn

STRIDE = 4


def replace_strides(network: nn.Module) -> nn.Module:
    """Replace the strides of a ResNet's stages 2, 3 and 4 by dilation, in place: stride 4.

    The weights stay as they are, so files of the ordinary network fit. Each late stage then works
    on the grid of the first one, with its taps 2, 4 or 8 cells apart; the first block of a stage
    still has the dilation of the stage before. timm itself builds strides 8, 16 and 32 only.

    Args:
        network: A ResNet of timm with bottlenecks, of stride 32, e.g. `resnet50`; not its variants
            with pooled shortcuts ("d") or anti-aliasing ("blur").

    Raises:
        ValueError: If it is another network.

    Source: SLidR (Sautier et al., CVPR 2022, arXiv:2203.16258), Sec. 3.2: MoCo v2's ResNet-50 with
        dilated convolutions, of stride 4; as torchvision's `replace_stride_with_dilation`.
    """
    late = [_blocks(network, name) for name in ("layer2", "layer3", "layer4")]
    before = 1
    for blocks in late:
        for index, block in enumerate(blocks):
            _dilate(block, 2 * before if index else before)
        before *= 2
    stages: Any = network.feature_info
    for stage in stages:
        stage["reduction"] = min(stage["reduction"], STRIDE)
    return network


def _blocks(network: nn.Module, name: str) -> list[nn.Module]:
    blocks = list(getattr(network, name, ()))
    first: Any = blocks[0] if blocks else None
    plain = (
        first is not None
        and hasattr(first, "conv3")
        and isinstance(first.downsample, nn.Sequential)
        and isinstance(first.downsample[0], nn.Conv2d)
        and first.downsample[0].kernel_size == (1, 1)
        and first.downsample[0].stride == (2, 2)
        and isinstance(first.aa, nn.Identity)
    )
    if not plain:
        raise ValueError(
            f"only a plain ResNet of stride 32 can trade its strides for dilation, but {name} "
            f"of {type(network).__name__} is otherwise; use timm's resnet50"
        )
    return blocks


def _dilate(block: nn.Module, dilation: int) -> None:
    for part in block.modules():
        if not isinstance(part, nn.Conv2d):
            continue
        part.stride = (1, 1)
        if part.kernel_size == (3, 3):
            part.dilation = part.padding = (dilation, dilation)
