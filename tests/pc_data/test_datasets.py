"""Opening a dataset by name."""

import pytest
from pc_data import DataError, NuScenes, SemanticKITTI
from pc_data.datasets import DataConfig, open_dataset

from tests.pc_data.tiny_worlds import write_nuscenes, write_semantic_kitti

SPLITS = ("train", "val", "all")


def test_nuscenes(tmp_path):
    config = DataConfig(root=write_nuscenes(tmp_path))
    dataset = open_dataset(config)
    assert isinstance(dataset, NuScenes)
    assert len(dataset) == 2
    names = {split: {scan.name for scan in open_dataset(config, split=split)} for split in SPLITS}
    assert names["train"].isdisjoint(names["val"])
    assert names["train"] | names["val"] == names["all"]


def test_version(tmp_path):
    root = write_nuscenes(tmp_path, version="v1.0-mini")
    assert len(open_dataset(DataConfig(root=root, version="v1.0-mini", split="mini_train"))) == 2
    with pytest.raises((DataError, FileNotFoundError), match=r"v1\.0-trainval"):
        open_dataset(DataConfig(root=root))


def test_semantic_kitti(tmp_path):
    config = DataConfig(root=write_semantic_kitti(tmp_path), name="semantickitti", split="val")
    dataset = open_dataset(config)
    assert isinstance(dataset, SemanticKITTI)
    assert {scan.name.split("/")[0] for scan in dataset} == {"08"}
    assert {scan.name.split("/")[0] for scan in open_dataset(config, split="train")} == {"00"}


@pytest.mark.parametrize("name", ["nuscenes", "semantickitti"])
def test_missing_folder(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_dataset(DataConfig(root=tmp_path / "nowhere", name=name))


@pytest.mark.parametrize("name", ["nuscenes", "semantickitti"])
def test_wrong_folder(tmp_path, name):
    with pytest.raises((DataError, FileNotFoundError), match=str(tmp_path)):
        open_dataset(DataConfig(root=tmp_path, name=name))


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("nuscene", "nuscenes"), ("semantic_kitti", "semantickitti"), ("xyz", "nuscenes, semantick")],
)
def test_unknown_name(tmp_path, wrong, nearest):
    with pytest.raises(
        ValueError, match=f"no dataset is called '{wrong}'; the nearest .*{nearest}"
    ):
        open_dataset(DataConfig(root=tmp_path, name=wrong))
