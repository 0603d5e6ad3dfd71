import hashlib
import pickle

import numpy as np
import pytest
import torch
from pc_2dteachers import Segmenter, create_segmenter, list_segmenters, segment_image
from pc_2dteachers.ade20k import CLASS_NAMES
from pc_2dteachers.segmenter import argmax_resized, pad_to_stride
from torch import nn
from torch.nn import functional


class Brightest(nn.Module):
    """Class = the channel of the highest value at each pixel."""

    def __init__(self, scale=(1.0, 1.0, 1.0)):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        self.seen = tuple(images.shape)
        return (images * self.scale[:, None, None]).argmax(dim=1)


def segmenter(**options):
    return Segmenter(Brightest(**options), name="brightest", class_names=("r", "g", "b"))


def random_scores(channels, grid=(5, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, *grid, generator=generator)


def test_stays_frozen_and_in_eval_mode():
    one = segmenter().train().requires_grad_(False)
    assert not any(module.training for module in one.modules())
    assert not any(parameter.requires_grad for parameter in segmenter().parameters())
    assert (one.num_classes, one.class_names) == (3, ("r", "g", "b"))
    images = torch.rand(2, 3, 5, 9)
    assert torch.equal(one(images), images.argmax(dim=1))


def test_wrong_images_are_refused():
    with pytest.raises(ValueError, match=r"brightest takes image values in 0..1, got 0 to 255"):
        segmenter()(torch.tensor([0.0, 255.0]).expand(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"brightest takes image heights .* got 0x5"):
        segmenter()(torch.zeros(1, 3, 0, 5))


def test_the_digest_is_of_weights_and_statistics():
    one, same, other = segmenter(), segmenter(), segmenter(scale=(1.0, 2.0, 1.0))
    assert one.digest() == same.digest() == pickle.loads(pickle.dumps(one)).digest()  # noqa: S301
    assert len({one.digest(), other.digest()}) == 2
    same.network.norm.running_mean[0] = 1
    assert one.digest() != same.digest()
    assert len(one.digest()) == len(hashlib.sha256().hexdigest())


def test_the_digest_is_of_settings_too():
    made = [
        Segmenter(Brightest(), name="brightest", class_names=("r", "g", "b"), settings=settings)
        for settings in ({"size": [64, 96]}, {"size": [64, 128]}, {"size": [64, 96]}, None)
    ]
    assert made[0].settings == {"size": [64, 96]}
    digests = [one.digest() for one in made]
    assert digests[0] == digests[2]
    assert len(set(digests)) == 3


def test_an_image_file_is_segmented_at_its_own_size():
    image = np.random.default_rng(0).integers(0, 255, (9, 14, 3), np.uint8)
    got = segment_image(segmenter(), image)
    assert got.dtype == np.int32
    assert np.array_equal(got, image.argmax(axis=2))


def test_an_image_is_seen_at_another_size_and_its_classes_come_back():
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30, 0] = image[:20, 30:, 1] = image[20:, 30:, 2] = 200
    want = image.argmax(axis=2)
    for size in ((20, 30), (80, 120), (40, 60), (10, 12)):
        one = segmenter()
        got = segment_image(one, image, size=size)
        assert one.network.seen == (1, 3, *size)
        assert np.array_equal(got, want)


@pytest.mark.parametrize("channels", [1, 2, 16, 17, 40])
@pytest.mark.parametrize("size", [(5, 7), (23, 31), (3, 2)])
def test_argmax_is_that_of_the_resized_maps(channels, size):
    scores = random_scores(channels)
    resized = functional.interpolate(scores, size, mode="bilinear", align_corners=False)
    assert torch.equal(argmax_resized(scores, size), resized.argmax(dim=1))


def test_ties_go_to_the_lowest_class():
    assert not argmax_resized(torch.zeros(1, 40, 2, 2), (4, 4)).any()
    with pytest.raises(ValueError, match="scores must be of at least one class, got none"):
        argmax_resized(torch.zeros(1, 0, 2, 2), (4, 4))


@pytest.mark.parametrize("size", [(14, 28), (15, 41), (1, 1), (27, 14)])
def test_padding_is_even_and_comes_off_again(size):
    images = torch.rand(1, 3, *size)
    padded, (rows, columns) = pad_to_stride(images, 14)
    assert padded.shape[2] % 14 == padded.shape[3] % 14 == 0
    assert torch.equal(padded[:, :, rows, columns], images)
    assert padded.sum() == pytest.approx(float(images.sum()), rel=1e-5)
    assert abs(rows.start - (padded.shape[2] - rows.stop)) <= 1


def test_unknown_names_list_the_nearest():
    text = r"unknown segmenter 'dinov2_linear_vits14'; nearest: dinov2_linear_ade20k_vits14"
    with pytest.raises(ValueError, match=text):
        create_segmenter("dinov2_linear_vits14")
    assert "offline_clusters" in list_segmenters()
    with pytest.raises(ValueError, match=r"offline_clusters takes no weight file for a backbone"):
        create_segmenter("offline_clusters", backbone="vit.pth")


def test_ade20k_has_150_classes_each_once():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == 150
    known = {0: "wall", 2: "sky", 6: "road", 11: "sidewalk", 12: "person", 20: "car", 149: "flag"}
    assert {index: CLASS_NAMES[index] for index in known} == known
    assert (CLASS_NAMES[80], CLASS_NAMES[116], CLASS_NAMES[127]) == ("bus", "minibike", "bicycle")
