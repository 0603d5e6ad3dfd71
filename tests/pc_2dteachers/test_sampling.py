import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_2dteachers import sample_pixels
from torch.nn import functional

from tests.lanes import unchecked_only


def upsample_and_index(features, pixel, image_index, image_size):
    width, height = image_size
    whole = functional.interpolate(features, (height, width), mode="bilinear", align_corners=True)
    return whole[image_index, :, pixel[:, 1].long(), pixel[:, 0].long()]


def random_pixels(count, batch, image_size, generator):
    u = torch.randint(image_size[0], (count,), generator=generator)
    v = torch.randint(image_size[1], (count,), generator=generator)
    image_index = torch.randint(batch, (count,), generator=generator)
    return torch.stack([u, v], dim=1).float(), image_index


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 5),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    image_size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**16),
)
def test_equals_upsampling_and_indexing(batch, channels, grid, image_size, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, channels, *grid, generator=generator)
    pixel, image_index = random_pixels(30, batch, image_size, generator)
    got = sample_pixels(features, pixel, image_index, image_size=image_size)
    want = upsample_and_index(features, pixel, image_index, image_size)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("stride", "channels"), [(14, 1024), (16, 512), (8, 384)])
def test_equals_upsampling_at_the_papers_sizes(stride, channels):
    generator = torch.Generator().manual_seed(stride)
    features = torch.randn(2, channels, 224 // stride, 448 // stride, generator=generator)
    pixel, image_index = random_pixels(200, 2, (448, 224), generator)
    pixel[:4] = torch.tensor([[0, 0], [447, 0], [0, 223], [447, 223]])
    got = sample_pixels(features, pixel, image_index, image_size=(448, 224))
    assert got.shape == (200, channels)
    for channel in range(0, channels, channels // 4):  # the whole maps are large
        part = features[:, [channel]]
        want = upsample_and_index(part, pixel, image_index, (448, 224))
        torch.testing.assert_close(got[:, [channel]], want, atol=1e-5, rtol=0)


def test_corners_read_the_corner_cells():
    features = torch.arange(6.0).reshape(1, 1, 2, 3)
    pixel = torch.tensor([[0, 0], [9, 0], [0, 4], [9, 4], [9.9, 4.9]])
    got = sample_pixels(features, pixel, torch.zeros(5, dtype=torch.int64), image_size=(10, 5))
    assert got.flatten().tolist() == [0, 2, 3, 5, 5]


def test_fractions_between_pixels_are_linear():
    features = torch.tensor([0.0, 10.0]).reshape(1, 1, 1, 2)
    pixel = torch.tensor([[0.25, 0.0], [2.5, 0.0]])
    got = sample_pixels(features, pixel, torch.zeros(2, dtype=torch.int64), image_size=(5, 1))
    torch.testing.assert_close(got.flatten(), torch.tensor([0.625, 6.25]))


def test_several_maps_are_concatenated_each_read_on_its_own_grid():
    generator = torch.Generator().manual_seed(3)
    maps = tuple(
        torch.randn(2, c, *grid, generator=generator) for c, grid in [(3, (4, 8)), (2, (3, 5))]
    )
    pixel, image_index = random_pixels(20, 2, (33, 17), generator)
    got = sample_pixels(maps, pixel, image_index, image_size=(33, 17))
    want = [upsample_and_index(one, pixel, image_index, (33, 17)) for one in maps]
    torch.testing.assert_close(got, torch.cat(want, dim=1), atol=1e-5, rtol=0)


def test_gradient_is_that_of_upsampling():
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    pixel, image_index = random_pixels(25, 2, (21, 14), generator)
    weight = torch.randn(25, 3, generator=generator, dtype=torch.float64)
    got = sample_pixels(features, pixel, image_index, image_size=(21, 14))
    want = upsample_and_index(features, pixel, image_index, (21, 14))
    gradients = [torch.autograd.grad((y * weight).sum(), features)[0] for y in (got, want)]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-9, rtol=0)


def test_half_precision_maps_are_read_in_single_precision():
    features = torch.randn(1, 8, 6, 7, generator=torch.Generator().manual_seed(1)).bfloat16()
    pixel, image_index = random_pixels(50, 1, (448, 224), torch.Generator().manual_seed(2))
    got = sample_pixels(features, pixel, image_index, image_size=(448, 224))
    want = sample_pixels(features.float(), pixel, image_index, image_size=(448, 224))
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, want.bfloat16())


def test_no_points_give_no_features():
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    got = sample_pixels(features, torch.zeros(0, 2), none, image_size=(8, 8))
    assert got.shape == (0, 4)
    got.sum().backward()


@pytest.mark.parametrize("bad", [(8, 0), (0, 6), (-0.1, 0), (float("nan"), 0), (0, float("inf"))])
def test_pixels_outside_the_image_are_refused(bad):
    pixel = torch.tensor([[1.0, 1.0], bad])
    with pytest.raises(ValueError, match=r"image of 8x6 .* but 1 of 2 do not, the first at"):
        sample_pixels(
            torch.zeros(1, 1, 2, 2), pixel, torch.zeros(2, dtype=torch.int64), image_size=(8, 6)
        )


@pytest.mark.parametrize("index", [-1, 2])
def test_image_index_outside_the_batch_is_refused(index):
    with pytest.raises(ValueError, match=r"image_index must be in \[0, 2\)"):
        sample_pixels(
            torch.zeros(2, 1, 2, 2), torch.zeros(1, 2), torch.tensor([index]), image_size=(8, 6)
        )


@unchecked_only
def test_wrong_shapes_are_refused():
    one = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"pixel must be \[m, 2\]"):
        sample_pixels(torch.zeros(1, 1, 2, 2), torch.zeros(2, 2), one, image_size=(8, 6))
    with pytest.raises(ValueError, match=r"feature maps must be .* not empty, got no map"):
        sample_pixels((), torch.zeros(1, 2), one, image_size=(8, 6))
    maps = (torch.zeros(1, 1, 2, 2), torch.zeros(2, 1, 2, 2))
    with pytest.raises(ValueError, match="same images, got batches of 1, 2"):
        sample_pixels(maps, torch.zeros(1, 2), one, image_size=(8, 6))
