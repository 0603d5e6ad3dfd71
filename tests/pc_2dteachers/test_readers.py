import numpy as np
import pytest
import torch
from pc_2dteachers.readers import read_dino, read_level, read_maskclip, resample_positions
from timm.models.vision_transformer import VisionTransformer


def small_vit(**options):
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=3,
        num_heads=3,
        dynamic_img_size=True,
        num_classes=options.pop("num_classes", 0),
        **options,
    ).eval()
    for parameter in vit.parameters():  # fresh biases and scales are 0 and 1: too easy
        torch.nn.init.normal_(parameter, std=0.3)
    return vit


def images(height, width):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(7))


def as_tokens(maps):
    return maps.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("read", [read_dino, read_level])
def test_tokens_are_those_before_the_final_norm(read):
    vit = small_vit()
    maps = read(vit, images(32, 32), level=-1)
    assert maps.shape == (2, 24, 4, 4)
    want = vit.forward_features(images(32, 32))[:, 1:]
    torch.testing.assert_close(vit.norm(as_tokens(maps)), want)


def test_register_tokens_are_removed():
    vit = small_vit(reg_tokens=4, no_embed_class=True)
    maps = read_level(vit, images(16, 40), level=-1)
    want = vit.forward_features(images(16, 40))[:, 5:]
    torch.testing.assert_close(vit.norm(as_tokens(maps)), want)


@pytest.mark.parametrize("level", [0, 1, 2, -1, -2])
def test_dino_differs_from_the_plain_read_by_positions_alone(level):
    vit = small_vit()
    plain = read_level(vit, images(16, 40), level=level)
    assert not torch.allclose(read_dino(vit, images(16, 40), level=level), plain, atol=1e-3)
    with torch.no_grad():
        vit.pos_embed.zero_()
    plain = read_level(vit, images(16, 40), level=level)
    torch.testing.assert_close(read_dino(vit, images(16, 40), level=level), plain)


def cubic_matrix(old, new):
    """Weights of the old cells (columns) in each new one, at the scale (new + 0.1) / old."""
    matrix = np.zeros((new, old))
    for row in range(new):
        at = (row + 0.5) * old / (new + 0.1) - 0.5
        for cell in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            d, a = abs(at - cell), -0.75
            inner = (a + 2) * d**3 - (a + 3) * d**2 + 1
            weight = inner if d <= 1 else a * (d**3 - 5 * d**2 + 8 * d - 4)
            matrix[row, np.clip(cell, 0, old - 1)] += weight
    return matrix


@pytest.mark.parametrize("new", [(16, 32), (28, 56), (3, 37), (1, 1)])
def test_positions_are_cubic_at_dinos_scale(new):
    positions = torch.randn(1, 1 + 37 * 37, 2, generator=torch.Generator().manual_seed(0))
    got = resample_positions(positions, (37, 37), new)
    grid = positions[0, 1:].reshape(37, 37, 2).double().numpy()
    want = np.einsum(
        "yi,xj,ijc->yxc", cubic_matrix(37, new[0]), cubic_matrix(37, new[1]), grid
    ).reshape(-1, 2)
    assert torch.equal(got[:, 0], positions[:, 0])
    np.testing.assert_allclose(got[0, 1:].numpy(), want, atol=2e-4)


def test_positions_stay_as_they_are_on_their_own_grid():
    positions = torch.randn(1, 1 + 12, 2, generator=torch.Generator().manual_seed(0))
    assert resample_positions(positions, (3, 4), (3, 4)) is positions


@pytest.mark.parametrize("size", [(32, 32), (16, 40)])
def test_maskclip_is_a_last_block_where_tokens_attend_to_themselves(size):
    vit = small_vit(pre_norm=True, num_classes=10, act_layer="quick_gelu")
    maps = read_maskclip(vit, images(*size), level=-1)
    _, (_, tokens) = vit.forward_intermediates(
        images(*size), indices=[0, 1], output_fmt="NLC", return_prefix_tokens=False
    )
    alone = torch.eye(tokens.shape[1], dtype=torch.bool)
    want = vit.head(vit.norm(vit.blocks[-1](tokens, attn_mask=alone)))
    assert maps.shape == (2, 10, size[0] // 8, size[1] // 8)
    torch.testing.assert_close(as_tokens(maps), want, atol=1e-4, rtol=1e-4)


def test_maskclip_needs_two_blocks():
    with pytest.raises(ValueError, match="needs a block before"):
        read_maskclip(small_vit(num_classes=10), images(16, 16), level=0)
