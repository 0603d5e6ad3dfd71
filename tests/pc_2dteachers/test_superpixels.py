import sys

import numpy as np
import pytest
from pc_2dteachers import slic_superpixels
from sklearn.datasets import load_sample_image

from tests.lanes import unchecked_only

HALVES = np.zeros((60, 90, 3), np.uint8)
HALVES[:, 45:] = (250, 200, 40)


def photo():
    return np.ascontiguousarray(load_sample_image("china.jpg")[::3, ::3])


def test_every_pixel_has_a_segment_without_gaps():
    pytest.importorskip("skimage")
    for num_segments in (2, 30, 150):
        segments = slic_superpixels(photo(), num_segments=num_segments)
        assert segments.dtype == np.int32
        assert segments.shape == photo().shape[:2]
        present = np.unique(segments)
        assert np.array_equal(present, np.arange(len(present)))
        assert 0.5 * num_segments <= len(present) <= 1.5 * num_segments


def test_segments_are_connected_and_repeatable():
    pytest.importorskip("skimage")
    from scipy.ndimage import label

    segments = slic_superpixels(photo(), num_segments=60)
    assert all(label(segments == index)[1] == 1 for index in np.unique(segments))
    assert np.array_equal(segments, slic_superpixels(photo(), num_segments=60))


def test_segments_keep_to_colors():
    pytest.importorskip("skimage")
    segments = slic_superpixels(HALVES, num_segments=20, sigma=0.0)
    assert not set(segments[:, :45].flat) & set(segments[:, 45:].flat)


def test_it_is_scikit_images_with_slidrs_settings():
    segmentation = pytest.importorskip("skimage.segmentation")
    want = segmentation.slic(photo(), n_segments=150, compactness=6, sigma=3.0, start_label=0)
    assert np.array_equal(slic_superpixels(photo()), want)


def test_tiny_images():
    pytest.importorskip("skimage")
    assert slic_superpixels(HALVES[:1, :1]).tolist() == [[0]]
    assert slic_superpixels(HALVES[:2, :3], num_segments=1).max() == 0


@unchecked_only
def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"RGB bytes \[h, w, 3\] .* got uint8 \[60, 90\]"):
        slic_superpixels(HALVES[:, :, 0])
    with pytest.raises(ValueError, match=r"got float64 \[60, 90, 3\]"):
        slic_superpixels(HALVES / 255)
    with pytest.raises(ValueError, match=r"num_segments must be 1 or more.* got 0, 6.0 and 3.0"):
        slic_superpixels(HALVES, num_segments=0)


def test_without_scikit_image_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ImportError, match=r"need scikit-image: pip install '.*\[superpixels\]'"):
        slic_superpixels(HALVES)
