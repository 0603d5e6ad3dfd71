"""How a dense map is read out of a timm network: plain level, DINO's positions, MaskCLIP's values.

A reader takes (network, normalised image [b 3 h w]) and returns the map [b c y x].
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


def read_level(
    network: nn.Module, image: Float[Tensor, "b 3 h w"], *, level: int
) -> Float[Tensor, "b c y x"]:
    """Read one intermediate map: a stage of a CNN or the patch tokens of a block of a ViT.

    Tokens come before the final norm; CLS and register tokens are dropped.
    """
    return read_levels(network, image, levels=[level])[0]


def read_levels(
    network: nn.Module, image: Float[Tensor, "b 3 h w"], *, levels: Sequence[int]
) -> tuple[Float[Tensor, "b ..."], ...]:
    """Read several intermediate maps in one pass, in the order of `levels`, each as `read_level`.

    Args:
        network: A timm model.
        image: Normalised as the network was trained.
        levels: Indices of stages or blocks, none twice; one alone may count from the end.
    """
    maps = network.forward_intermediates(  # pyrefly: ignore[not-callable]
        image, indices=list(levels), norm=False, stop_early=True, intermediates_only=True
    )
    order = {level: rank for rank, level in enumerate(sorted(levels))}
    return tuple(maps[order[level]] for level in levels)


def read_dino(
    network: nn.Module, image: Float[Tensor, "b 3 h w"], *, level: int
) -> Float[Tensor, "b c y x"]:
    """Read the patch tokens of a block of a DINO or DINOv2 ViT before the final norm, CLS dropped.

    Differs from `read_level` only in the position embedding of image sizes other than the
    pre-training one; see `resample_positions`.
    """
    return next(walk_dino(network, image, levels=[level % len(_blocks(network))]))


def walk_dino(
    network: nn.Module, image: Float[Tensor, "b 3 h w"], *, levels: Sequence[int]
) -> Iterator[Float[Tensor, "b c y x"]]:
    """Read several blocks in one pass, in ascending order, each as `read_dino`.

    Args:
        network: A ViT of timm.
        image: Normalised as the network was trained.
        levels: Indices of blocks, none negative.
    """
    vit: Any = network
    patches = vit.patch_embed(image)  # [b y x c]
    batch, rows, columns, width = patches.shape
    classes = vit.cls_token.expand(batch, -1, -1)
    tokens = torch.cat([classes, patches.reshape(batch, rows * columns, width)], dim=1)
    grid = vit.patch_embed.grid_size
    tokens = tokens + resample_positions(vit.pos_embed, grid, (rows, columns))
    for index, block in enumerate(_blocks(network)[: max(levels) + 1]):
        tokens = block(tokens)
        if index in levels:
            maps = tokens[:, 1:].reshape(batch, rows, columns, width)
            yield maps.permute(0, 3, 1, 2).contiguous()


def _blocks(network: nn.Module) -> Any:  # noqa: ANN401
    vit: Any = network
    return vit.blocks


def resample_positions(
    positions: Float[Tensor, "1 n c"], grid: tuple[int, int], new_grid: tuple[int, int]
) -> Float[Tensor, "1 m c"]:
    """Interpolate a position embedding to another grid as DINO and DINOv2 do.

    Bicubic, without antialiasing, by the scale (new + 0.1) / old: the 0.1 was put there against
    rounding, but it shifts the sampling positions, so features depend on it. timm antialiases and
    leaves it out.

    Args:
        positions: Embedding of the CLS token, then of the grid row by row.
        grid: (rows, columns) it was trained for.
        new_grid: (rows, columns) wanted.

    Source: DINO (Caron et al., ICCV 2021, arXiv:2104.14294) and DINOv2 (Oquab et al., TMLR 2024,
        arXiv:2304.07193), the models without registers.
    """
    if new_grid == grid:
        return positions
    maps = positions[:, 1:].reshape(1, *grid, -1).permute(0, 3, 1, 2).float()
    scale = tuple((new + 0.1) / old for new, old in zip(new_grid, grid, strict=True))
    maps = functional.interpolate(maps, scale_factor=scale, mode="bicubic")
    patches = maps.flatten(2).transpose(1, 2).to(positions.dtype)
    return torch.cat([positions[:, :1], patches], dim=1)


def read_maskclip(
    network: nn.Module, image: Float[Tensor, "b 3 h w"], *, level: int
) -> Float[Tensor, "b c y x"]:
    """Read dense features in CLIP's image-text space: each token attends to itself alone.

    In the block read, attention is replaced by its value path (value projection, then output
    projection), so a token keeps what is at its own place; the residual connections and the MLP
    stay. The final norm and the projection to the text space follow, as for the CLS token.

    Source: MaskCLIP (Zhou, Loy and Dai, ECCV 2022, arXiv:2112.01071), Sec. 3.2. The paper states
        it for CLIP's attention pooling; for the ViT, which has none, this is the form of the
        authors' released network. Features are not L2-normalised here: the losses do that.
    """
    vit: Any = network
    last = level % len(vit.blocks)
    if last == 0:
        raise ValueError("MaskCLIP needs a block before the one it reads, got level 0; use -1")
    maps = read_level(network, image, level=last - 1)
    block = vit.blocks[last]
    tokens = maps.permute(0, 2, 3, 1)  # [b y x c]
    width = tokens.shape[-1]
    attention = block.attn
    bias = attention.qkv.bias
    values = functional.linear(
        block.norm1(tokens),
        attention.qkv.weight[2 * width :],
        None if bias is None else bias[2 * width :],
    )
    tokens = tokens + block.ls1(attention.proj(values))
    tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
    return vit.head(vit.norm(tokens)).permute(0, 3, 1, 2).contiguous()
