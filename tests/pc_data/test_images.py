"""Resizing against a loop over pixels."""

import numpy as np
import pytest
import torch
from pc_data import Camera
from pc_data.images import resize_image, resize_pixels
from PIL import Image


def bilinear(image, size):
    """Sample at the centres of the new pixels, edges repeated; one pixel at a time."""
    (height, width), (rows, columns) = image.shape[:2], size
    out = np.zeros((3, rows, columns))
    for r in range(rows):
        for c in range(columns):
            y = np.clip((r + 0.5) * height / rows - 0.5, 0, height - 1)
            x = np.clip((c + 0.5) * width / columns - 0.5, 0, width - 1)
            top, left = int(y), int(x)
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            upper = (1 - dx) * image[top, left] + dx * image[top, right]
            lower = (1 - dx) * image[below, left] + dx * image[below, right]
            out[:, r, c] = ((1 - dy) * upper + dy * lower) / 255
    return out


def image_of(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(4, 6), (8, 12), (2, 3), (1, 1), (7, 5), (3, 20)], ids=str)
def test_against_a_loop(size):
    image = image_of(4, 6)
    resized = resize_image(image, size)
    assert resized.shape == (3, *size)
    assert resized.dtype == torch.float32
    np.testing.assert_allclose(resized.numpy(), bilinear(image, size), atol=1e-6)


@pytest.mark.parametrize("antialias", [False, True])
def test_same_size_changes_nothing(antialias):
    image = image_of(5, 7)
    resized = resize_image(image, (5, 7), antialias=antialias)
    np.testing.assert_allclose(resized.numpy(), image.transpose(2, 0, 1) / 255, atol=1e-6)


def test_antialias_sees_all_pixels():
    """A fine checkerboard becomes grey with the low-pass and keeps its contrast without."""
    board = np.indices((32, 32)).sum(0) % 2 * 255
    image = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    smooth = resize_image(image, (5, 5), antialias=True)
    assert (smooth - 0.5).abs().max() < 0.1
    assert (resize_image(image, (5, 5)) - 0.5).abs().max() > 0.3


def test_range_and_input_stay():
    image = np.full((3, 3, 3), 255, np.uint8)
    image.flags.writeable = False  # as decoders give them
    resized = resize_image(image, (9, 9), antialias=True)
    assert float(resized.max()) == 1.0
    assert (image == 255).all()


def test_resize_pixels_floors():
    pixel = np.float32([[0.5, 0.5], [1598.9, 898.9], [800, 450], [799.9, 449.9]])
    resized = resize_pixels(pixel, (1600, 900), (224, 448))
    assert resized.dtype == np.float32
    np.testing.assert_array_equal(resized, [[0, 0], [447, 223], [224, 112], [223, 111]])


def test_resize_pixels_floors_twice():
    """The pixel is whole before it is scaled: 5.9 is pixel 5, and pixel 5 of 10 is 15 of 30."""
    pixel = np.float32([[5.9, 0.999], [-1e-7, 9.99]])  # rounding leaves the image
    np.testing.assert_array_equal(resize_pixels(pixel, (10, 10), (30, 30)), [[15, 0], [0, 27]])


def test_resize_pixels_to_the_same_size():
    pixel = np.random.default_rng(0).uniform(0, 40, (50, 2)).astype(np.float32)
    np.testing.assert_array_equal(resize_pixels(pixel, (40, 40), (40, 40)), np.floor(pixel))


def test_resized_pixels_point_at_the_same_thing():
    """A bright block keeps its pixels when image and pixels are resized together."""
    image = np.zeros((90, 160, 3), np.uint8)
    image[30:60, 100:140] = 255
    v, u = np.nonzero(image[..., 0])
    pixel = resize_pixels(np.stack([u, v], 1).astype(np.float32), (160, 90), (45, 120)).astype(int)
    resized = resize_image(image, (45, 120))
    assert resized[0, pixel[:, 1], pixel[:, 0]].min() >= 0.25
    assert resized[0, pixel[:, 1], pixel[:, 0]].mean() > 0.95


@pytest.mark.parametrize(
    ("size", "at_least", "expected"),
    [
        ((1600, 896), (448, 224), (800, 448)),  # a quarter would be too narrow
        ((1600, 896), (400, 224), (400, 224)),
        ((1600, 896), (100, 100), (200, 112)),
        ((1600, 900), (300, 200), (400, 225)),  # an eighth is no whole number of rows
        ((1601, 900), (300, 200), (1601, 900)),
        ((64, 48), (448, 224), (64, 48)),
    ],
)
def test_a_jpeg_is_decoded_no_larger_than_needed(tmp_path, size, at_least, expected):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (7, 9, 3), np.uint8)
    picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    camera = camera_of(tmp_path, picture, "JPEG")
    pixels = camera.load_image(at_least=at_least)
    assert (pixels.shape[1], pixels.shape[0]) == expected
    # A position scales with the size: the mean of a block of pixels is the pixel in its place.
    factor = size[0] // expected[0]
    whole = camera.load_image().astype(float)
    blocks = whole.reshape(expected[1], factor, expected[0], factor, 3).mean((1, 3))
    assert np.abs(blocks - pixels).mean() < 1


def test_a_png_is_decoded_whole(tmp_path):
    camera = camera_of(tmp_path, Image.new("RGB", (320, 160), (9, 99, 200)), "PNG")
    assert camera.load_image(at_least=(10, 10)).shape == (160, 320, 3)


def camera_of(folder, picture, kind):
    file = folder / "image"
    picture.save(file, format=kind, quality=95)
    return Camera(
        name="CAM",
        image_file=file,
        image_size=picture.size,
        intrinsics=np.eye(3),
        from_scan=np.eye(4),
    )
