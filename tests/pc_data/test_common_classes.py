"""Classes that datasets share, by hand."""

import numpy as np
import pytest
from pc_data.datasets import DataConfig, open_dataset
from pc_data.readers.common_classes import COMMON_6, COMMON_10, choose_classes

from tests.pc_data.layouts import make_world

OFFICIAL = np.array([-1, 0, 1, -2, *range(2, 30)], np.int8)


def test_official_classes_stay():
    names, table = choose_classes("", "nuscenes", ("a", "b"), OFFICIAL)
    assert names == ("a", "b")
    assert table is OFFICIAL


@pytest.mark.parametrize(
    ("dataset", "classes", "raw", "name"),
    [
        ("nuscenes", "10", 17, "car"),
        ("nuscenes", "10", 15, "other_vehicle"),
        ("nuscenes", "10", 6, "pedestrian"),
        ("nuscenes", "10", 27, "terrain"),
        ("semantickitti", "10", 252, "car"),
        ("semantickitti", "10", 60, "driveable_surface"),
        ("semantickitti", "10", 71, "vegetation"),
        ("semantickitti", "10", 259, "other_vehicle"),
        ("nuscenes", "6", 21, "bike"),
        ("nuscenes", "6", 27, "ground"),
        ("nuscenes", "6", 12, "manmade"),
        ("semanticposs", "6", 21, "bike"),
        ("semanticposs", "6", 17, "manmade"),
        ("semanticposs", "6", 9, "vegetation"),
    ],
)
def test_some_raw_ids(dataset, classes, raw, name):
    everything = np.zeros(300, np.int8)
    names, table = choose_classes(classes, dataset, ("all",), everything)
    assert names == {"10": COMMON_10, "6": COMMON_6}[classes]
    assert names[table[raw]] == name
    assert set(table.tolist()) == set(range(-1, len(names)))


def test_unknown_ids_stay_unknown():
    unknown = np.full(300, -2, np.int8)
    _, table = choose_classes("10", "semantickitti", ("all",), unknown)
    assert table[99] == -2


@pytest.mark.parametrize(
    ("name", "classes", "names"),
    [
        ("nuscenes", "10", COMMON_10),
        ("nuscenes", "6", COMMON_6),
        ("semantickitti", "10", COMMON_10),
        ("semanticposs", "6", COMMON_6),
    ],
)
def test_datasets_give_them(tmp_path, name, classes, names):
    root = make_world(name, tmp_path / "world")
    official = open_dataset(DataConfig(root=root, name=name, split="all"))
    shared = open_dataset(DataConfig(root=root, name=name, split="all", classes=classes))
    assert shared.class_names == names
    assert shared.num_classes == len(names)
    before, after = official[0].labels, shared[0].labels
    is_car = before == official.class_names.index("car")
    assert is_car.any()
    assert (after[is_car] == names.index("car")).all()
    assert -1 <= after.min() <= after.max() < len(names)
    with pytest.raises(ValueError, match=f"classes of {name} must be {classes[0]}|must be 10 or 6"):
        open_dataset(DataConfig(root=root, name=name, classes="7"))


def test_datasets_without_them(tmp_path):
    root = make_world("once", tmp_path / "world")
    with pytest.raises(ValueError, match="classes must be empty for once, got '10'"):
        open_dataset(DataConfig(root=root, name="once", classes="10"))
