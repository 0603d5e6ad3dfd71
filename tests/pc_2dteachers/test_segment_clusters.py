import os

import numpy as np
import pytest
import torch
from pc_2dteachers import create_segmenter, create_teacher, fit_clusters
from pc_2dteachers.segment_clusters import save_clusters
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_image
from torch.nn import functional


@pytest.fixture(scope="module")
def photos():
    """Two photographs of 64x96, each also mirrored."""
    rgb = [torch.from_numpy(np.array(load_sample_image(f"{n}.jpg"))) for n in ("china", "flower")]
    images = torch.stack(rgb).permute(0, 3, 1, 2) / 255
    images = functional.interpolate(images, (64, 96), mode="bilinear", antialias=True)
    return torch.cat([images, images.flip(3)])


@pytest.fixture(scope="module")
def segmenter(photos):
    return fit_clusters([photos[:2], photos[2:]], num_clusters=6)


def test_a_class_is_the_nearest_centroid(segmenter, photos):
    teacher, network = create_teacher("efficientnet_lite0_offline"), segmenter.network
    maps = teacher(photos)
    unit = functional.normalize(maps - network.mean.view(1, -1, 1, 1), dim=1)
    scores = torch.stack([(unit * c.view(1, -1, 1, 1)).sum(1) for c in network.centroids], dim=1)
    resized = functional.interpolate(scores, (64, 96), mode="bilinear", align_corners=False)
    got = segmenter(photos)
    assert (got == resized.argmax(dim=1)).double().mean() > 0.999
    assert len(got.unique()) == 6
    assert segmenter.class_names == tuple(f"cluster {index}" for index in range(6))


def test_one_class_means_the_same_in_every_image(segmenter, photos):
    """Two photographs share few classes; one and its mirror image nearly all."""
    share = [torch.bincount(one.flatten(), minlength=6) / one.numel() for one in segmenter(photos)]
    common = [torch.minimum(share[0], other).sum() for other in share]
    assert common[2] > 0.75
    assert common[1] < 0.5 * common[2]


def test_fitting_is_repeatable_and_follows_its_seed(segmenter, photos):
    again = fit_clusters(iter([photos[:2], photos[2:]]), num_clusters=6)
    assert again.digest() == segmenter.digest()
    other = fit_clusters([photos], num_clusters=6, seed=1)
    assert other.digest() != segmenter.digest()


def test_memory_is_bounded_and_samples_come_from_all_images(photos, monkeypatch):
    seen = []

    def keep(unit, num_clusters, **_):
        seen.append(unit)
        return unit[:num_clusters]

    monkeypatch.setattr("pc_2dteachers.segment_clusters.spherical_kmeans", keep)
    fit_clusters((photos[[i % 4]] for i in range(40)), num_clusters=2, max_samples=96)
    few = fit_clusters([photos[:1]], num_clusters=2, max_samples=96).network
    assert [len(unit) for unit in seen] == [96, 24]
    cells = create_teacher("efficientnet_lite0_offline")(photos[:2]).permute(0, 2, 3, 1)
    torch.testing.assert_close(few.mean, cells[0].flatten(0, 1).mean(0), atol=1e-5, rtol=1e-4)
    mean = fit_clusters((photos[[i % 2]] for i in range(40)), num_clusters=2, max_samples=200)
    want = cells.flatten(0, 2)
    error = (mean.network.mean - want.mean(0)) / (want.std(0) / 200**0.5)
    assert error.abs().max() < 5  # an unbiased sample of both photographs


def test_any_image_size(segmenter):
    for size in ((1, 1), (17, 50), (224, 64)):
        classes = segmenter(torch.rand(2, 3, *size))
        assert classes.shape == (2, *size)
        assert 0 <= classes.min() <= classes.max() < 6


def test_saved_clusters_are_the_same_segmenter(tmp_path, segmenter, photos):
    save_clusters(segmenter, tmp_path / "new/clusters.safetensors")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["clusters.safetensors"]
    again = create_segmenter("offline_clusters", checkpoint=tmp_path / "new/clusters.safetensors")
    assert again.digest() == segmenter.digest()
    assert torch.equal(again(photos), segmenter(photos))


@pytest.mark.parametrize(
    ("change", "metadata", "text"),
    [
        ({"centroids": torch.zeros(6, 9)}, {}, r"centroids must be \[k, 112\], got \[6, 9\]"),
        ({"mean": torch.zeros(9)}, {}, r"mean must be \[112\], got \[9\]"),
        ({"other": torch.zeros(9)}, {}, r"centroids and mean of .*, got centroids, mean, other"),
        ({}, {"teacher": "resnet50"}, r"got centroids, mean of resnet50; fit it anew"),
    ],
)
def test_other_files_are_refused(tmp_path, segmenter, change, metadata, text):
    file = tmp_path / "clusters.safetensors"
    save_clusters(segmenter, file)
    metadata = {"teacher": "efficientnet_lite0_offline"} | metadata
    save_file(load_file(file) | change, file, metadata=metadata)
    with pytest.raises(ValueError, match=rf"clusters\.safetensors: .*{text}"):
        create_segmenter("offline_clusters", checkpoint=file)


def test_missing_and_damaged_files(tmp_path, segmenter):
    with pytest.raises(FileNotFoundError, match=r"^offline_clusters needs the clusters .*fit_clu"):
        create_segmenter("offline_clusters")
    with pytest.raises(FileNotFoundError, match=r"none is no file: offline_clusters needs"):
        create_segmenter("offline_clusters", checkpoint=tmp_path / "none")
    file = tmp_path / "clusters.safetensors"
    save_clusters(segmenter, file)
    data = file.read_bytes()
    for size in (0, 4, len(data) - 1):
        file.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"is no whole safetensors file"):
            create_segmenter("offline_clusters", checkpoint=file)


def test_wrong_settings_are_refused(photos):
    with pytest.raises(ValueError, match=r"max_samples must be at least num_clusters \(9\), got 8"):
        fit_clusters([photos], num_clusters=9, max_samples=8)
    with pytest.raises(ValueError, match=r"num_clusters must be in \[1, 24\]"):
        fit_clusters([photos[:1]], num_clusters=25)
    with pytest.raises(ValueError, match=r"num_clusters must be in \[1, 0\]"):
        fit_clusters([], num_clusters=2)


def test_wrong_images_are_refused(photos):
    with pytest.raises(
        ValueError, match=r"offline_clusters takes image values in 0..1, got .* to 255"
    ):
        fit_clusters([255 * photos], num_clusters=2)
    hole = photos.clone()
    hole[0, 0, 3, 4] = torch.nan
    with pytest.raises(ValueError, match=r"offline_clusters takes image values in 0..1, got nan"):
        fit_clusters([photos, hole], num_clusters=2)


def test_saving_reaches_the_disk(tmp_path, segmenter, monkeypatch):
    flushed = []
    monkeypatch.setattr("os.fsync", lambda handle: flushed.append(os.fstat(handle).st_ino))
    save_clusters(segmenter, tmp_path / "clusters.safetensors")
    places = (tmp_path / "clusters.safetensors", tmp_path)
    assert flushed == [place.stat().st_ino for place in places]


def test_only_clusters_are_saved(tmp_path, segmenter):
    other = type(segmenter)(torch.nn.Identity(), name="other", class_names=("a",))
    with pytest.raises(ValueError, match=r"only offline_clusters has clusters .* got other"):
        save_clusters(other, tmp_path / "x.safetensors")
