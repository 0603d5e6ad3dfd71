"""Opening a dataset by name."""

import numpy as np
import pytest
from pc_data import DataError, NuScenes, SemanticKITTI
from pc_data.datasets import DataConfig, open_dataset
from pc_data.synthetic.scannet import make_room_scannet

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


def test_alignment(tmp_path):
    root = tmp_path / "rooms"
    make_room_scannet(root, num_scenes=1, seed=0, num_frames=1, image_size=(32, 24), voxel_size=0.2)
    raw, aligned = (
        open_dataset(DataConfig(root=root, name="scannet", align=align), split="all")[0]
        for align in (False, True)
    )
    assert len(raw) == len(aligned)
    assert not np.allclose(raw.xyz, aligned.xyz, atol=0.1)
    for name in ("nuscenes", "arkitscenes"):
        config = DataConfig(root=root, name=name, align=True)
        with pytest.raises(ValueError, match=f"align must be false for {name}, got true; scannet"):
            open_dataset(config)


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
