import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_2dteachers.pooling import pool_superpixels
from torch.nn import functional

from tests.lanes import unchecked_only


def upsample_and_average(features, superpixel, num, *, normalize=True):
    whole = functional.interpolate(
        features, superpixel.shape[1:], mode="bilinear", align_corners=True
    )
    pixels = functional.normalize(whole, dim=1) if normalize else whole
    pixels, of = pixels.permute(0, 2, 3, 1).flatten(0, 2), superpixel.flatten().long()
    total = pixels.new_zeros(num, pixels.shape[1]).index_add(0, of[of >= 0], pixels[of >= 0])
    return total / torch.bincount(of[of >= 0], minlength=num).clamp(min=1)[:, None]


def draw(images, channels, grid, size, *, seed=0, num=6, dtype=torch.float64):
    """Random maps, and superpixels of which some span images and some pixels have none."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(images, channels, *grid, generator=generator, dtype=dtype)
    superpixel = torch.randint(-1, num, (images, *size), generator=generator)
    return features.requires_grad_(True), superpixel


def gradient(pooled, features, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(pooled.shape, generator=generator, dtype=pooled.dtype)
    return torch.autograd.grad((pooled * weight).sum(), features)[0]


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 3),
    channels=st.integers(2, 5),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    normalize=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_equals_upsampling_and_averaging(images, channels, grid, size, normalize, seed):
    features, superpixel = draw(images, channels, grid, size, seed=seed)
    got = pool_superpixels(features, superpixel, 8, normalize=normalize)
    want = upsample_and_average(features, superpixel, 8, normalize=normalize)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        gradient(got, features), gradient(want, features), atol=1e-9, rtol=1e-9
    )


@pytest.mark.parametrize(
    ("grid", "size"),
    [
        ((5, 7), (12, 19)),
        ((7, 8), (3, 2)),  # fewer pixels than cells
        ((1, 1), (4, 5)),  # one cell
        ((4, 6), (1, 1)),  # one pixel
        ((1, 5), (1, 9)),  # one row
        ((5, 1), (9, 1)),
        ((4, 5), (4, 5)),  # a cell each
    ],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_sizes_in_single_precision(grid, size, normalize):
    features, superpixel = draw(2, 16, grid, size, dtype=torch.float32)
    got = pool_superpixels(features, superpixel, 6, normalize=normalize)
    want = upsample_and_average(features, superpixel, 6, normalize=normalize)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        gradient(got, features), gradient(want, features), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("stride", [4, 16])
def test_equals_upsampling_at_the_papers_sizes(stride):
    features, _ = draw(2, 64, (224 // stride, 416 // stride), (1, 1), dtype=torch.float32)
    v, u = torch.arange(224)[:, None], torch.arange(416)
    superpixel = (v // 23) * 10 + u // 42 + 100 * torch.arange(2)[:, None, None]
    got = pool_superpixels(features, superpixel, 200)
    want = upsample_and_average(features, superpixel, 200)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        gradient(got, features), gradient(want, features), atol=1e-7, rtol=1e-4
    )


@pytest.mark.parametrize("normalize", [True, False])
def test_gradcheck(normalize):
    features, superpixel = draw(2, 3, (3, 4), (8, 9))
    assert torch.autograd.gradcheck(
        lambda maps: pool_superpixels(maps, superpixel, 7, normalize=normalize), (features,)
    )


def test_by_hand():
    features = torch.tensor([[[[3.0, 0.0]], [[0.0, 4.0]]]])  # (3, 0) and (0, 4), pixels between
    superpixel = torch.tensor([[[0, 1, 0, -1, 3]]])
    got = pool_superpixels(features, superpixel, 4)
    middle = torch.tensor([1.5, 2.0]) / 2.5
    quarter = torch.tensor([2.25, 1.0]) / (2.25**2 + 1) ** 0.5
    ends = torch.eye(2)
    want = torch.stack([(ends[0] + middle) / 2, quarter, torch.zeros(2), ends[1]])
    torch.testing.assert_close(got, want)


def test_a_superpixel_may_span_images():
    features, _ = draw(3, 4, (3, 5), (1, 1))
    superpixel = torch.zeros(3, 7, 11, dtype=torch.int64)
    superpixel[1] = 1
    got = pool_superpixels(features, superpixel, 2)
    apart = [pool_superpixels(one[None], superpixel[:1], 1)[0] for one in features]
    torch.testing.assert_close(got, torch.stack([(apart[0] + apart[2]) / 2, apart[1]]))


def test_an_image_does_not_depend_on_its_batch():
    features, superpixel = draw(3, 8, (4, 6), (20, 30), dtype=torch.float32)
    own = superpixel + 6 * torch.arange(3)[:, None, None] * (superpixel >= 0)
    whole = pool_superpixels(features, own, 18)
    for image in range(3):
        alone = pool_superpixels(features[[image]], superpixel[[image]], 6)
        torch.testing.assert_close(whole[6 * image : 6 * image + 6], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("num", [0, 3])
def test_without_superpixels_all_is_zero(num):
    features, superpixel = draw(2, 4, (3, 3), (5, 5))
    got = pool_superpixels(features, torch.full_like(superpixel, -1), num)
    assert got.shape == (num, 4)
    assert not got.any()
    assert not torch.autograd.grad(got.sum(), features)[0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_that_cancel_between_cells(dtype):
    """Opposite cells: their products have lost the norm, which may even come out negative."""
    generator = torch.Generator().manual_seed(2)
    one = torch.randn(32, generator=generator, dtype=dtype)
    other = -one + 1e-4 * torch.randn(32, generator=generator, dtype=dtype)
    features = torch.stack([one, other], dim=1)[None, :, None]  # [1 32 1 2]
    superpixel = torch.arange(101)[None, None]  # a superpixel a pixel; the middle all but cancels
    got = pool_superpixels(features, superpixel, 101)
    want = upsample_and_average(features.double(), superpixel, 101)
    torch.testing.assert_close(got.norm(dim=1), torch.ones(101, dtype=dtype), atol=1e-4, rtol=0)
    close = 1e-12 if dtype == torch.float64 else 1e-3  # what float32 upsampling reaches too
    torch.testing.assert_close(got.double(), want, atol=close, rtol=0)


def test_exact_opposites_and_zeros_give_zeros_and_a_finite_gradient():
    features = torch.zeros(1, 3, 3, 3)
    features[0, :, 0, 0], features[0, :, 0, 2] = torch.tensor([1.0, -2.0, 0.5]), 1.0
    features[0, :, 0, 1] = -features[0, :, 0, 0]
    features.requires_grad_(True)
    superpixel = torch.arange(25).reshape(1, 5, 5)
    got = pool_superpixels(features, superpixel, 25)
    assert not got[1].any()  # between opposites
    assert not got[10:].any()  # where all cells are 0
    torch.testing.assert_close(got, upsample_and_average(features, superpixel, 25))
    assert torch.isfinite(gradient(got[2:5], features)).all()


def test_tiny_vectors_are_divided_by_the_same_epsilon():
    features, superpixel = draw(1, 3, (3, 4), (7, 7))
    tiny = (features.detach() * 1e-12).requires_grad_(True)
    got, want = (pool(tiny, superpixel, 6) for pool in (pool_superpixels, upsample_and_average))
    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)
    assert want.norm(dim=1).max() < 0.9  # some were divided by more than their norm
    torch.testing.assert_close(gradient(got, tiny), gradient(want, tiny), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(dtype):
    features, superpixel = draw(2, 8, (5, 6), (17, 23), dtype=torch.float32)
    half = features.detach().to(dtype).requires_grad_(True)
    want = pool_superpixels(half.detach().float(), superpixel, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = pool_superpixels(half, superpixel, 6)
    assert got.dtype == torch.float32
    assert torch.equal(got, want)
    assert gradient(got, half).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_all_integers(dtype):
    features, superpixel = draw(2, 3, (3, 4), (9, 8))
    superpixel = superpixel.clamp(min=0)
    want = pool_superpixels(features, superpixel, 6)
    assert torch.equal(pool_superpixels(features, superpixel.to(dtype), 6), want)


def test_the_same_bits_each_time_and_for_maps_of_any_layout():
    features, superpixel = draw(2, 16, (7, 9), (40, 50), dtype=torch.float32)
    got = pool_superpixels(features, superpixel, 6)
    again = pool_superpixels(features, superpixel, 6)
    assert torch.equal(got, again)
    assert torch.equal(gradient(got, features), gradient(again, features))
    last = features.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(pool_superpixels(last, superpixel, 6), got, atol=1e-6, rtol=0)
    turned = superpixel.mT.contiguous().mT
    assert torch.equal(pool_superpixels(features, turned, 6), got)


def test_no_map_of_the_images_size_is_made():
    """The largest tensor that is made, and all that is kept for the gradient."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            made = function(*args, **(kwargs or {}))
            for one in made if isinstance(made, tuple | list) else (made,):
                if isinstance(one, torch.Tensor):
                    largest = max(largest, one.untyped_storage().nbytes())
            return made

    kept = {}
    features, superpixel = draw(2, 64, (14, 26), (224, 416), dtype=torch.float32)
    with (
        torch.autograd.graph.saved_tensors_hooks(
            lambda one: kept.update({one.data_ptr(): one.untyped_storage().nbytes()}) or one,
            lambda one: one,
        ),
        Watch(),
    ):
        pool_superpixels(features, superpixel // 6, 1).sum().backward()
    pixels = superpixel.numel()
    assert largest <= pixels * 8  # an int64 a pixel; a map would be 64 floats
    assert 0 < sum(kept.values()) < pixels * 64


def test_what_does_not_fit_is_refused():
    features, superpixel = draw(2, 3, (3, 4), (9, 8))
    with pytest.raises(ValueError, match="below num_superpixels, 5, got 5; number those of all"):
        pool_superpixels(features, superpixel, 5)
    with pytest.raises(ValueError, match=r"maps of floats .* and not empty, got .*0, 4"):
        pool_superpixels(features[:, :, :0], superpixel, 6)
    with pytest.raises(ValueError, match=r"superpixel must be integers .* and not empty, got"):
        pool_superpixels(features, superpixel[:, :0], 6)


@unchecked_only
def test_wrong_shapes_and_types_are_refused():
    features, superpixel = draw(2, 3, (3, 4), (9, 8))
    with pytest.raises(ValueError, match="same images, got batches of 2 and 1"):
        pool_superpixels(features, superpixel[:1], 6)
    with pytest.raises(ValueError, match=r"maps of floats \[i, c, y, x\].* got .*\[3, 3, 4\]"):
        pool_superpixels(features[0], superpixel, 6)
    with pytest.raises(ValueError, match=r"maps of floats .* got torch.int64"):
        pool_superpixels(features.long(), superpixel, 6)
    with pytest.raises(ValueError, match=r"integers \[i, h, w\].* got torch.int64 \[9, 8\]"):
        pool_superpixels(features, superpixel[0], 6)
    with pytest.raises(ValueError, match=r"integers \[i, h, w\].* got torch.float32"):
        pool_superpixels(features, superpixel.float(), 6)
