"""The picture of units shows those that the settings ask for."""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from crossmodal.config import Config
from crossmodal.pictures import picture_of_batch, picture_of_units
from crossmodal.samples import make_units
from crossmodal.units import unit_finder
from pc_data import NuScenes
from pc_data.colors import IGNORED, number_colors
from pc_data.datasets import DataConfig
from pc_data.loading import sample_rng

CONFIG = Config(data=DataConfig(root=Path("x")), sensor_height=1.84, num_units=256)


@pytest.mark.parametrize(
    ("changes", "largest", "merged"),
    [
        ({"num_neighbors": 5}, 5, True),
        ({"context": "pillar", "pillar_size": 2.0, "sampling": "random"}, 60, True),
        ({"num_neighbors": 5, "instances": False}, 5, False),
    ],
)
def test_units_are_those_of_the_settings(street_world, monkeypatch, changes, largest, merged):
    drawn = {}
    monkeypatch.setattr("crossmodal.pictures.show_units", lambda _, **parts: drawn.update(parts))
    scan = NuScenes(street_world)[0]
    picture_of_units(scan, dataclasses.replace(CONFIG, cluster_radius=1.0, **changes))
    before, after = drawn["before"], drawn["after"]
    sizes = np.diff(before.splits)
    assert len(before) == 256
    if changes.get("context") == "pillar":
        assert sizes.max() > largest  # a pillar holds what it holds
        assert len(set(sizes)) > 5
    else:
        assert set(sizes) == {largest}
    assert np.array_equal(after.center, before.center[np.unique(after.unit_of_sample, True)[1]])
    assert (len(after) < 256) == merged
    assert (drawn["cluster"] >= 0).any() == merged


def test_a_unit_has_one_colour_in_clouds_and_images(street_world):
    make = partial(
        make_units,
        features=("x", "y", "z"),
        intensity_mean=0.0,
        intensity_std=1.0,
        box=None,
        find_units=partial(unit_finder(CONFIG), num_units=30),
        image_size=(32, 64),
        with_other=True,
    )
    sample = make(NuScenes(street_world)[0], sample_rng(0, 0, 0))
    axes = [axes for axes in picture_of_batch(sample).axes if axes.get_title()]
    *images, cloud, other = axes
    assert len(images) == 6
    assert cloud.get_title() == "the cloud, augmented"
    colors = number_colors(np.arange(len(sample.unit_scan)))
    expected = np.tile(np.asarray(IGNORED), (len(sample.points.xyz), 1))
    ends = [*sample.point_bags.starts.tolist()[1:], len(sample.point_bags.rows)]
    begin = 0
    for unit, end in enumerate(ends):  # of a point of two units, the later one
        expected[sample.point_bags.rows[begin:end].numpy()] = colors[unit]
        begin = end
    for panel, view in ((cloud, sample.points), (other, sample.other)):
        order = np.argsort(view.xyz[:, 2].numpy(), kind="stable")
        shown = np.asarray(panel.collections[0].get_facecolors())[:, :3]
        np.testing.assert_allclose(shown, expected[order])
    seen = sum(len(panel.collections[0].get_offsets()) for panel in images)
    assert seen == len(sample.pixel_bags.rows)
