"""Training on few labels: lists of scenes, drawn points, listed points."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from pc_data import DataError
from pc_train.limited import (
    DrawnLabels,
    ListedLabels,
    keep_labels,
    read_points,
    require_listed,
    scans_of_every_scene,
    scans_of_scenes,
)

from tests.pc_data.scans import scan_of
from tests.pc_data.tiny_worlds import write_json, write_nuscenes


@dataclasses.dataclass
class Rooms:
    """A dataset whose scenes have two scans each."""

    scene_names: tuple = ("scene0000_00", "scene0000_01", "scene0001_00")
    split: str = "train"
    root: str = "here"

    def __len__(self):
        return 2 * len(self.scene_names)

    def scene_of(self, index):
        return self.scene_names[index // 2]

    def __getitem__(self, index):
        return scan_of(200, seed=index, name=f"{self.scene_of(index)}/{index % 2}")


def _list(tmp_path, text):
    file = tmp_path / "1.txt"
    file.write_text(text)
    return file


def test_scans_of_listed_scenes(tmp_path):
    file = _list(tmp_path, "scene0001_00\n  scene0000_00  \n\n")
    assert scans_of_scenes(Rooms(), file).tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scene0000_00\nscene0000_00\n", "lists scene 'scene0000_00' twice"),
        ("scene0001_01", "'scene0001_01', which is not in split 'train' of here; the nearest are"),
        ("kitchen", "the nearest are: scene0000_00, scene0000_01, scene0001_00"),
        ("\n \n", "lists no scene; write one name a line"),
    ],
)
def test_wrong_lists(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        scans_of_scenes(Rooms(), _list(tmp_path, text))


@pytest.mark.parametrize(("step", "chosen"), [(1, [0, 1, 2, 3, 4, 5]), (2, [2, 3]), (3, [4, 5])])
def test_every_so_manieth_scene(step, chosen):
    assert scans_of_every_scene(Rooms(), step).tolist() == chosen


def test_fewer_scenes_than_that():
    with pytest.raises(ValueError, match="every_scene 4 needs at least 4 scenes, split 'train' of"):
        scans_of_every_scene(Rooms(), 4)


def test_scenes_count_in_the_order_of_their_table(tmp_path):
    from pc_data.datasets import DataConfig, open_dataset

    root = write_nuscenes(tmp_path)
    table = root / "v1.0-trainval" / "scene.json"
    rows = json.loads(table.read_text())
    for order in (rows, rows[::-1]):
        write_json(table, order)
        dataset = open_dataset(DataConfig(root=root, split="all"))
        chosen = scans_of_every_scene(dataset, 2)
        assert {dataset.scene_of(int(i)) for i in chosen} == {order[1]["name"]}


def test_no_list(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a file; pass a list of scenes"):
        scans_of_scenes(Rooms(), tmp_path / "none.txt")
    (tmp_path / "1.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no text"):
        scans_of_scenes(Rooms(), tmp_path / "1.txt")


def _labelled(scan):
    return set(np.flatnonzero(scan.labels >= 0).tolist())


def test_drawn_points():
    rooms = Rooms()
    few, more = (DrawnLabels(rooms, num_points=n, seed=0) for n in (20, 50))
    assert len(few) == len(rooms)
    for index in range(3):
        whole = rooms[index]
        assert len(_labelled(few[index])) == 20
        assert _labelled(few[index]) < _labelled(more[index]) < _labelled(whole)
        kept = few[index].labels >= 0
        assert np.array_equal(few[index].labels[kept], whole.labels[kept])
        assert np.array_equal(few[index].xyz, whole.xyz)
    assert _labelled(few[0]) == _labelled(few[0])
    assert _labelled(few[0]) != _labelled(DrawnLabels(rooms, num_points=20, seed=1)[0])
    assert _labelled(few[0]) != _labelled(few[1])


def test_drawn_points_follow_from_the_name_alone():
    rooms = Rooms()
    reordered = [rooms[3], rooms[0]]
    assert _labelled(DrawnLabels(reordered, num_points=9, seed=4)[1]) == _labelled(
        DrawnLabels(rooms, num_points=9, seed=4)[0]
    )


def test_fewer_points_than_asked_for():
    rooms = Rooms()
    assert _labelled(DrawnLabels(rooms, num_points=999, seed=0)[0]) == _labelled(rooms[0])
    bare = [dataclasses.replace(rooms[0], labels=None)]
    assert DrawnLabels(bare, num_points=3, seed=0)[0].labels is None


@pytest.mark.parametrize(
    "value", [[3, 5], torch.tensor([3, 5]), np.array([3, 5]), np.int32([3, 5]), [np.int64(3), 5]]
)
def test_listed_points(tmp_path, value):
    torch.save({"scene0000_00/0": value, "other": []}, tmp_path / "points20")
    points = read_points(tmp_path / "points20")
    assert points["scene0000_00/0"].dtype == np.int64
    rooms = [dataclasses.replace(Rooms()[0], labels=np.arange(200))]
    listed = ListedLabels(rooms, points)
    assert len(listed) == 1
    assert _labelled(listed[0]) == {3, 5}
    assert listed[0].labels[[3, 5]].tolist() == [3, 5]


def test_arrays_as_numpy_1_wrote_them(tmp_path):
    """The published lists are older than NumPy 2, where the module moved."""
    torch.save({"a": np.arange(3)}, tmp_path / "new", _use_new_zipfile_serialization=False)
    content = (tmp_path / "new").read_bytes()
    old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "old").write_bytes(old)
    assert read_points(tmp_path / "old")["a"].tolist() == [0, 1, 2]


class Code:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    "content", [{"a": Code()}, [1, 2], {}, {"a": [0.5]}, {"a": [[1, 2]]}, {"a": "points"}]
)
def test_other_files(tmp_path, capsys, content):
    torch.save(content, tmp_path / "points")
    with pytest.raises(ValueError, match="is no dictionary from scene to point indices"):
        read_points(tmp_path / "points")
    assert "executed" not in capsys.readouterr().out


def test_no_file_and_no_torch_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="pass a torch file of points by scene"):
        read_points(tmp_path / "none")
    (tmp_path / "text").write_text("scene0000_00 3 5")
    with pytest.raises(ValueError, match="is no dictionary from scene to point indices"):
        read_points(tmp_path / "text")


def test_points_of_another_mesh():
    with pytest.raises(DataError, match="has 200 points, but point 200 is to keep its label"):
        keep_labels(scan_of(200), np.array([3, 200]))
    with pytest.raises(DataError, match="but point -1 is"):
        keep_labels(scan_of(200), np.array([-1]))
    with pytest.raises(DataError, match="scan test/0 is not among the 1 with listed points"):
        ListedLabels([scan_of(9)], {"other": np.array([1])})[0]


def test_list_that_lacks_scans(tmp_path):
    points = {"scene0000_00": None}
    require_listed(Rooms(), np.array([0, 1]), points, tmp_path)
    with pytest.raises(ValueError, match=r"lacks 1 of the 2 scans to train on, .* scene0001_00"):
        require_listed(Rooms(), np.array([0, 4]), points, tmp_path)
