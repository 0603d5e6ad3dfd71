import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_2dteachers import (
    TeacherLevels,
    create_teacher,
    resize_levels,
    sample_levels,
    sample_pixels,
)
from torch import nn
from torch.nn import functional

from tests.lanes import unchecked_only


def image(height=64, width=96):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def random_maps(grids, seed=0, dtype=torch.float32, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, c + 1, *grid, generator=generator, dtype=dtype)
        for c, grid in enumerate(grids)
    ]


def random_pixels(count, image_size, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    pixel = torch.rand(count, 2, generator=generator) * torch.tensor(image_size)
    pixel = torch.minimum(pixel, torch.tensor(image_size) - 1e-3)
    return pixel, torch.randint(batch, (count,), generator=generator)


def resize_then_read(maps, pixel, image_index, image_size, align_corners):
    grid = max(one.shape[2] for one in maps), max(one.shape[3] for one in maps)
    resized = torch.cat(
        [
            functional.interpolate(one, grid, mode="bilinear", align_corners=align_corners)
            for one in maps
        ],
        dim=1,
    )
    return sample_pixels(resized, pixel, image_index, image_size=image_size)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_equals_resizing_and_reading(grids, image_size, align_corners, seed):
    maps = random_maps(grids, seed)
    pixel, image_index = random_pixels(25, image_size, seed)
    got = sample_levels(
        maps, pixel, image_index, image_size=image_size, align_corners=align_corners
    )
    want = resize_then_read(maps, pixel, image_index, image_size, align_corners)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=0)


@pytest.mark.parametrize("align_corners", [True, False])
def test_equals_resizing_at_the_papers_levels(align_corners):
    maps = random_maps([(56, 112), (28, 56), (14, 28)])
    pixel, image_index = random_pixels(3000, (448, 224))
    pixel[:4] = torch.tensor([[0, 0], [447, 0], [0, 223], [447, 223]])
    options = {"image_size": (448, 224), "align_corners": align_corners}
    got = sample_levels(maps, pixel, image_index, **options)
    want = resize_then_read(maps, pixel, image_index, **options)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=0)


def test_the_finest_map_is_read_as_alone_and_the_others_nearly_so():
    maps = random_maps([(7, 14), (28, 56)])
    pixel, image_index = random_pixels(200, (448, 224))
    got = sample_levels(maps, pixel, image_index, image_size=(448, 224))
    direct = sample_pixels(maps, pixel, image_index, image_size=(448, 224))
    assert torch.equal(got[:, 1:], direct[:, 1:])
    difference = (got - direct)[:, 0].abs()
    assert 0.01 < difference.max() < 0.5
    assert difference.mean() < 0.05


def test_by_hand():
    """A tent of two cells on a grid of three: the resizing puts a cell on its middle."""
    coarse, fine = torch.tensor([[[[0.0, 4.0]]]]), torch.zeros(1, 1, 1, 3)
    pixel = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    index = torch.zeros(4, dtype=torch.int64)
    got = sample_levels([coarse, fine], pixel, index, image_size=(5, 1))
    assert got[:, 0].tolist() == [0, 1, 2, 4]
    assert not got[:, 1].any()
    outer = sample_levels([coarse, fine], pixel, index, image_size=(5, 1), align_corners=False)
    # cells of the fine grid lie at -1/6, 1/2, 7/6 of the coarse one: 0, 2, 4 after clamping
    assert outer[:, 0].tolist() == [0, 1, 2, 4]
    three, wide = torch.tensor([[[[0.0, 4.0, 0.0]]]]), torch.zeros(1, 1, 1, 4)
    pixel = torch.tensor([[1.5, 0.0]])
    cut = sample_levels([three, wide], pixel, index[:1], image_size=(4, 1))
    assert cut[0, 0].item() == pytest.approx(8 / 3)  # the peak lies between two fine cells
    assert sample_pixels(three, pixel, index[:1], image_size=(4, 1)).item() == 4


def test_gradient_is_that_of_resizing():
    maps = random_maps([(8, 10), (4, 5), (2, 3)], dtype=torch.float64)
    maps = [one.requires_grad_(True) for one in maps]
    pixel, image_index = random_pixels(40, (31, 24))
    weight = torch.randn(40, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    options = {"image_size": (31, 24), "align_corners": False}
    gradients = [
        torch.autograd.grad((read(maps, pixel, image_index, **options) * weight).sum(), maps)
        for read in (sample_levels, resize_then_read)
    ]
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_half_precision_maps_are_read_in_single_precision():
    maps = [one.bfloat16() for one in random_maps([(6, 7), (3, 4)])]
    pixel, image_index = random_pixels(50, (448, 224))
    got = sample_levels(maps, pixel, image_index, image_size=(448, 224))
    single = [one.float() for one in maps]
    want = sample_levels(single, pixel, image_index, image_size=(448, 224))
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, want.bfloat16())


def test_no_points_give_no_features():
    maps = [one.requires_grad_(True) for one in random_maps([(4, 4), (2, 2)])]
    none = torch.zeros(0, dtype=torch.int64)
    got = sample_levels(maps, torch.zeros(0, 2), none, image_size=(8, 8))
    assert got.shape == (0, 3)
    got.sum().backward()


def test_wrong_pixels_are_refused():
    maps = random_maps([(4, 4), (2, 2)])
    one = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"image of 8x6 .* but 1 of 1 do not"):
        sample_levels(maps, torch.tensor([[8.0, 0.0]]), one, image_size=(8, 6))
    with pytest.raises(ValueError, match=r"image_index must be in \[0, 2\)"):
        sample_levels(maps, torch.zeros(1, 2), one + 2, image_size=(8, 6))


@unchecked_only
def test_wrong_maps_are_refused():
    one = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"not empty, got no map"):
        sample_levels([], torch.zeros(1, 2), one, image_size=(8, 6))


def test_levels_are_those_of_single_teachers():
    several = TeacherLevels(create_teacher("test_resnet", pretrained=False), (3, 1, -3))
    single = [create_teacher("test_resnet", pretrained=False, level=i) for i in (3, 1, 2)]
    assert several.levels == (3, 1, 2)
    assert several.out_dim == sum(teacher.out_dim for teacher in single)
    assert several.stride == max(teacher.stride for teacher in single)
    for got, teacher in zip(several(image()), single, strict=True):
        assert torch.equal(got, teacher(image()))


@pytest.mark.parametrize(
    ("name", "levels", "channels"),
    [
        ("moco_v3_resnet50", (1, 2, 3), (256, 512, 1024)),
        ("esvit_swin_t", (0, 1, 2), (96, 192, 384)),
    ],
)
def test_the_papers_levels(name, levels, channels):
    teacher = TeacherLevels(create_teacher(name, pretrained=False), levels)
    maps = teacher(image(64, 128))
    want = [(2, c, 64 // s, 128 // s) for c, s in zip(channels, (4, 8, 16), strict=True)]
    assert [tuple(one.shape) for one in maps] == want
    assert (teacher.out_dim, teacher.stride) == (sum(channels), 16)
    assert resize_levels(maps).shape == (2, sum(channels), 16, 32)
    pixel, image_index = random_pixels(30, (128, 64))
    got = sample_levels(maps, pixel, image_index, image_size=(128, 64))
    want = sample_pixels(resize_levels(maps), pixel, image_index, image_size=(128, 64))
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_one_pass_through_the_network(monkeypatch):
    teacher = TeacherLevels(create_teacher("test_resnet", pretrained=False))
    calls = []
    teacher.teacher.network.conv1.register_forward_hook(lambda *_: calls.append(1))
    last = []
    teacher.teacher.network.layer4.register_forward_hook(lambda *_: last.append(1))
    teacher(image())
    assert (len(calls), len(last)) == (1, 0)  # and none beyond the last level


def test_stays_frozen_in_eval_mode_and_out_of_checkpoints():
    method = nn.ModuleDict(
        {"teacher": TeacherLevels(create_teacher("test_resnet", pretrained=False))}
    )
    method.train().requires_grad_(True)
    assert not any(module.training for module in method["teacher"].teacher.modules())
    assert not any(one.requires_grad for one in method["teacher"](image()))
    assert not method.state_dict()
    method.load_state_dict({}, strict=True)


def test_wrong_levels_are_refused():
    for wrong in ((), (1, 5), (-6,), (1, 1), (1, -4)):
        with pytest.raises(ValueError, match=r"different ones in \[-5, 5\) \(test_resnet has 5"):
            TeacherLevels(create_teacher("test_resnet", pretrained=False), wrong)


def test_teachers_with_a_reading_of_their_own_are_refused():
    with pytest.raises(ValueError, match=r"dino_vit_s8 reads its map in a way of its own"):
        TeacherLevels(create_teacher("dino_vit_s8", pretrained=False))


def test_images_must_suit_the_coarsest_level_read():
    teacher = TeacherLevels(create_teacher("resnet50", pretrained=False, level=-1), (1, 2))
    assert teacher.stride == 8
    assert teacher(image(72, 88))[0].shape == (2, 256, 18, 22)
    with pytest.raises(ValueError, match=r"resnet50 takes .* multiples of 8, got 60x88"):
        teacher(image(60, 88))
    with pytest.raises(ValueError, match=r"resnet50 takes .* multiples of 8, got 60x88"):
        teacher.require_size((60, 88))
