import inspect
import json
from importlib import import_module

import pytest
from pc_data.cli import main
from pc_data.synthetic import formats
from pc_data.synthetic.formats import WRITERS
from PIL import Image

from tests.pc_data.tiny_worlds import write_nuscenes, write_semantic_kitti


@pytest.fixture
def nuscenes(tmp_path):
    return write_nuscenes(tmp_path / "nuscenes")


def test_check_of_a_clean_dataset(nuscenes, capsys):
    assert main(["check", str(nuscenes)]) == 0
    captured = capsys.readouterr()
    assert "ok: nothing is missing or damaged" in captured.out
    assert f"next: pc-data show {nuscenes}" in captured.out
    assert captured.err.startswith("checking: 4 of 4")


def test_check_of_a_damaged_dataset(nuscenes, capsys):
    (nuscenes / "v1.0-trainval/sensor.json").write_text("[")
    assert main(["check", str(nuscenes)]) == 3
    out = capsys.readouterr().out
    assert "1 defect:" in out
    assert "sensor.json" in out
    assert "next:" not in out


def test_check_as_json(nuscenes, capsys):
    assert main(["check", str(nuscenes), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert report["inventories"][0]["num_scans"] == 4
    (nuscenes / "v1.0-trainval/log.json").write_text("[")
    assert main(["check", "--json", str(nuscenes)]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert "log.json" in report["defects"][0]


def test_check_of_a_folder_that_is_not_there(tmp_path, capsys):
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("write", [write_nuscenes, write_semantic_kitti])
def test_show(tmp_path, capsys, write):
    root = write(tmp_path / "data")
    out = tmp_path / "pictures/scan.png"
    assert main(["show", str(root), "--split", "val", "--index", "1", "--out", str(out)]) == 0
    assert "2 of 2 in split val" in capsys.readouterr().out
    with Image.open(out) as image:
        assert min(image.size) > 400


def test_show_finds_the_version_that_has_the_split(tmp_path, capsys):
    root = write_nuscenes(tmp_path / "data", version="v1.0-mini")
    out = tmp_path / "scan.png"
    assert main(["show", str(root), "--split", "mini_val", "--out", str(out)]) == 0
    assert "scene-0103-0" in capsys.readouterr().out


@pytest.mark.parametrize("out", ["", "scan", "scan.jpg"])
def test_show_writes_pngs_only(nuscenes, tmp_path, capsys, out):
    assert main(["show", str(nuscenes), "--out", str(tmp_path / out)]) == 2
    assert (
        f"--out must be a file that ends in .png, got {tmp_path / out}" in capsys.readouterr().err
    )


@pytest.mark.parametrize("index", ["4", "-1"])
def test_show_of_a_scan_that_is_not_there(nuscenes, tmp_path, capsys, index):
    line = ["show", str(nuscenes), "--index", index, "--out", str(tmp_path / "x.png")]
    assert main(line) == 2
    assert f"--index must be in [0, 3] (split all of {nuscenes}), got {index}" in (
        capsys.readouterr().err
    )


def test_show_of_a_split_that_is_not_there(nuscenes, capsys):
    assert main(["show", str(nuscenes), "--split", "test"]) == 3
    assert "no keyframe of split 'test'" in capsys.readouterr().err
    assert main(["show", str(nuscenes), "--split", "tset"]) == 2
    assert "did you mean 'test'?" in capsys.readouterr().err


@pytest.fixture
def writers(monkeypatch):
    """Stand-ins for the functions that write worlds, which only note how they are called."""
    calls = []

    class Module:
        def __init__(self, place):
            self.place = place

        def __getattr__(self, name):
            def write(out, *, progress, **options):
                progress(1, 2)
                calls.append((f"{self.place}:{name}", out, options))

            return write

    monkeypatch.setattr(formats, "import_module", Module)
    return calls


@pytest.mark.parametrize(
    ("world", "layout"), [(world, layout) for world in WRITERS for layout in WRITERS[world]]
)
def test_make_passes_its_flags_on(writers, tmp_path, capsys, world, layout):
    out = tmp_path / "world"
    line = f"make {world} --format {layout} --out {out} --scenes 3 --seed 9 --frames 2"
    assert main(line.split()) == 0
    ((place, where, options),) = writers
    writer = WRITERS[world][layout]
    assert (place, where) == (writer.place, out)
    frames = {writer.frames: 2} if writer.frames else {}
    assert options == {"num_scenes": 3, "seed": 9} | frames
    assert f"next: pc-data check {out}" in capsys.readouterr().out
    module, _, name = place.partition(":")
    taken = inspect.signature(getattr(import_module(module), name)).parameters
    assert options.keys() | {"progress"} <= taken.keys()


def test_make_has_a_usual_layout_for_each_world(writers, tmp_path):
    assert main(["make", "street", "--out", str(tmp_path / "a")]) == 0
    assert main(["make", "room", "--out", str(tmp_path / "b")]) == 0
    assert [call[0].rpartition("_")[2] for call in writers] == ["nuscenes", "scannet"]


def test_make_refuses_a_layout_of_the_other_world(writers, tmp_path, capsys):
    assert main(["make", "room", "--format", "waymo", "--out", str(tmp_path / "x")]) == 2
    assert "format must be one of scannet, " in capsys.readouterr().err
    assert not writers


def test_make_then_check_then_show(tmp_path, capsys):
    world, picture = tmp_path / "world", tmp_path / "scan.png"
    line = f"make street --out {world} --scenes 1 --frames 1 --seed 3"
    assert main(line.split()) == 0
    assert main(["check", str(world)]) == 0
    assert "labelled  1 of 1 scans" in capsys.readouterr().out
    assert main(["show", str(world), "--out", str(picture)]) == 0
    assert picture.is_file()


def test_make_refuses_a_used_folder(writers, nuscenes, capsys):
    assert main(["make", "street", "--out", str(nuscenes)]) == 2
    assert "is in use; pass a new folder as --out" in capsys.readouterr().err
    assert not writers


@pytest.mark.parametrize("flag", ["--scenes", "--frames"])
def test_make_refuses_nothing(writers, tmp_path, capsys, flag):
    assert main(["make", "street", "--out", str(tmp_path / "x"), flag, "0"]) == 2
    assert "must be at least 1" in capsys.readouterr().err
    assert not writers
