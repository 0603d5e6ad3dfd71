"""Prediction as a user runs it: what is written, when it equals evaluation, what goes on."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pc_data.datasets import DataConfig, open_dataset
from pc_data.errors import DataError, MachineError, ResourceError
from pc_data.files.ply import read_ply, write_ply
from pc_train.cli import main
from pc_train.networks import HEADS, load_model, new_backbone, save_model
from pc_train.prediction import predict as predict_module
from pc_train.prediction.config import PredictConfig
from pc_train.prediction.predict import predict
from pc_train.scores import sample_to_score
from pc_train.segmentation import SegmentationModel, iou_per_class, predict_classes
from safetensors.numpy import load_file

ROOM = ("red", "green", "blue", "normal_x", "normal_y", "normal_z")


@pytest.fixture(scope="module")
def lidar_model(tmp_path_factory, street_world):
    """A finished run with random weights, for the classes of streets; read only."""
    torch.manual_seed(0)
    network = new_backbone(
        "waffleiron_6_64", 5, num_neighbors=4, grids=[[32, 32], [32, 8], [32, 8]]
    )
    names = open_dataset(DataConfig(root=street_world)).class_names
    return _save(tmp_path_factory.mktemp("lidar") / "run", network, names, voxel_size=0.5)


@pytest.fixture(scope="module")
def room_model(tmp_path_factory):
    """A sparse network for rooms whose answers reach 14 voxels; read only."""
    torch.manual_seed(1)
    one_stage = dict.fromkeys(("encoder_depths", "decoder_depths"), (1,))
    widths = dict.fromkeys(("encoder_widths", "decoder_widths", "down_widths"), (16,))
    network = new_backbone(
        "minkunet14_small", len(ROOM), voxel_size=0.1, init_std=0.2, **one_stage, **widths
    )
    place = tmp_path_factory.mktemp("room") / "run"
    return _save(place, network, ["wall", "floor", "chair"], features=list(ROOM), voxel_size=0.1)


def _save(folder, network, class_names, **card):
    head = HEADS["linear"](network.network.out_dim, len(class_names))
    torch.nn.init.normal_(head.weight)
    card |= {"class_names": list(class_names), "head": "linear"}
    save_model(folder, network, card=card, head=head)
    return folder


@pytest.fixture
def cloud():
    """Points of a floor and two walls, as columns."""
    rng = np.random.default_rng(0)
    floor = rng.uniform(0, [12, 7, 0.01], (4000, 3))
    walls = [rng.uniform(0, [0.01, 7, 2.5], (1500, 3)), rng.uniform(0, [12, 0.01, 2.5], (1500, 3))]
    xyz = rng.permutation(np.concatenate([floor, *walls])).astype(np.float32)
    colors = rng.integers(0, 256, (len(xyz), 3), np.uint8)
    columns = dict(zip("xyz", xyz.T, strict=True))
    return columns | dict(zip(("red", "green", "blue"), colors.T, strict=True))


@pytest.fixture
def run(tmp_path, room_model):
    """Predicts into a new folder; gives the folder."""

    def call(source, **settings):
        out = settings.pop("out", tmp_path / f"out{len(list(tmp_path.glob('out*')))}")
        settings = {"checkpoint": room_model, "accelerator": "cpu", **settings}
        predict(source, PredictConfig(out=out, **settings))
        return out

    return call


def _ply(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_ply(path, {"vertex": columns})
    return path


def _vertices(path):
    return read_ply(path)["vertex"]


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "config.yaml"}


# --- the same as evaluation


def test_dataset_gets_the_classes_that_evaluation_counts(
    lidar_model, street_world, tmp_path, capsys
):
    words = ["predict", str(street_world), f"--checkpoint={lidar_model}", "--split=val"]
    words += [f"--out={tmp_path / 'out'}", "--accelerator=cpu", "--features=none", "--ply=false"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out.endswith("classes.npy, prediction.json in each of 2 folders (69,376 points)\n")
    data = DataConfig(root=street_world, split="val")
    backbone, head, names = load_model(lidar_model)
    dataset = open_dataset(data)
    model = SegmentationModel(backbone.network, head).eval()
    counts = np.zeros((len(names), len(names)), np.int64)
    for scan in dataset:
        found = np.load(tmp_path / "out" / scan.name / "classes.npy")
        sample = sample_to_score(scan, dataset, backbone, voxel_size=0.5)
        np.testing.assert_array_equal(found, predict_classes(model, sample))
        labelled = scan.labels >= 0
        np.add.at(counts, (scan.labels[labelled], found[labelled]), 1)
    words = ["evaluate", str(lidar_model), f"--data.root={street_world}", "--data.split=val"]
    assert main([*words, "--num_workers=0", f"--out={tmp_path / 'val'}"]) == 0
    iou = json.loads((tmp_path / "val" / "scores.json").read_text())["iou"]
    np.testing.assert_allclose([iou[name] for name in names], iou_per_class(counts))
    assert len(np.unique(found)) > 2


def test_one_tile_for_all_is_no_tile(run, tmp_path, cloud):
    file = _ply(tmp_path / "room.ply", cloud)
    whole = _contents(run(file))
    assert _contents(run(file, max_points=len(cloud["x"]), tile_size=12.5, overlap=3)) == whole
    assert json.loads(whole["prediction.json"])["tiles"] == 1


def test_tiles_with_enough_around_them_answer_as_the_whole_cloud(run, tmp_path, cloud):
    file = _ply(tmp_path / "room.ply", cloud)
    # The whole cloud's normals, so that they do not differ where a ring ends.
    columns = cloud | {"nx": 0 * cloud["x"], "ny": 0 * cloud["x"], "nz": 0 * cloud["x"] + 1}
    _ply(file, columns)
    whole = run(file)
    tiled = run(file, tile_size=3.0, overlap=1.5)
    narrow = run(file, tile_size=3.0, overlap=0.0)
    assert json.loads((tiled / "prediction.json").read_text())["tiles"] == 16
    features = [np.load(out / "features.npy") for out in (whole, tiled, narrow)]
    np.testing.assert_allclose(features[1], features[0], atol=1e-5)
    assert np.abs(features[2] - features[0]).max() > 0.01
    classes = [np.load(out / "classes.npy") for out in (whole, tiled)]
    np.testing.assert_array_equal(*classes)


def test_map_is_shown_to_a_lidar_network_as_from_sensors(run, lidar_model, tmp_path):
    rng = np.random.default_rng(0)
    place = rng.uniform(0, [300, 200, 0.1], (40_000, 3))
    place += np.array([400_000, 5_000_000, 350])
    file = _ply(tmp_path / "map.ply", dict(zip("xyz", place.T, strict=True)))
    out = run(file, checkpoint=lidar_model, overlap=10)
    summary = json.loads((out / "prediction.json").read_text())
    assert summary["tiles"] == 8  # the network sees 128 m
    assert "there is no intensity: all points count as of mean intensity" in summary["notes"][1]
    assert "each seen as from a sensor in its middle" in summary["notes"][0]
    features = np.load(out / "features.npy")
    assert features.shape == (40_000, 64)
    assert features.any(axis=1).all()  # every point is answered
    written = _vertices(out / "features.ply")
    np.testing.assert_allclose(np.stack([written[k] for k in "xyz"]).T, place, atol=0.02)
    with pytest.raises(ValueError, match=r"sees 128 m, which leaves 0 m .* smaller --overlap"):
        run(file, checkpoint=lidar_model, overlap=64)
    with pytest.raises(ValueError, match="a smaller --overlap or --tile_size, got 120"):
        run(file, checkpoint=lidar_model, overlap=10, tile_size=120)


_LIMITED = """
import resource, sys
from pathlib import Path
from pc_train.prediction.predict import predict
from pc_train.prediction.config import PredictConfig
source, model, out, max_points = sys.argv[1:]
used = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + (1 << 30),) * 2)
settings = {"checkpoint": Path(model), "out": Path(out), "precision": "float16", "overlap": 1.0}
done = predict(Path(source), PredictConfig(max_points=int(max_points), **settings))
assert done.num_points == 1_000_000
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_large_cloud_in_the_memory_of_a_tile(tmp_path):
    torch.manual_seed(0)
    network = new_backbone("waffleiron_6_64", 5, depth=1)
    model = _save(tmp_path / "run", network, ["ground", "tree"], voxel_size=0.1)
    rng = np.random.default_rng(0)
    place = rng.uniform(-30, 30, (1_000_000, 3)).astype(np.float32)
    place[:, 2] = np.sin(place[:, 0]) - 1.8
    file = _ply(tmp_path / "large.ply", dict(zip("xyz", place.T, strict=True)))
    words = [sys.executable, "-c", _LIMITED, str(file), str(model)]
    done = subprocess.run([*words, str(tmp_path / "whole"), "10000000"], stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert b"can't allocate memory" in done.stderr
    assert not list((tmp_path / "whole").glob("*features*"))
    subprocess.run([*words, str(tmp_path / "tiled"), "40000"], check=True)
    features = np.load(tmp_path / "tiled" / "features.npy", mmap_mode="r")
    assert features.shape == (1_000_000, 64)
    assert features[::1000].any(axis=1).all()


# --- what is written


def test_files(run, tmp_path, cloud, room_model):
    out = run(_ply(tmp_path / "room.ply", cloud))
    names = {"features.npy", "features.ply", "classes.npy", "classes.ply", "prediction.json"}
    assert {path.name for path in out.iterdir()} == {*names, "config.yaml", "inputs.yaml", ".lock"}
    classes, features = np.load(out / "classes.npy"), np.load(out / "features.npy")
    assert (classes.dtype, features.dtype) == (np.int16, np.float32)
    assert features.shape == (len(classes), 16) == (7000, 16)
    summary = json.loads((out / "prediction.json").read_text())
    assert summary["classes"] == {
        name: int((classes == k).sum()) for k, name in enumerate(("wall", "floor", "chair"))
    }
    assert "estimated from 16 neighbours, toward the middle of the room" in summary["notes"][0]
    painted = _vertices(out / "classes.ply")
    np.testing.assert_array_equal(painted["label"], classes)
    for name in "xyz":
        np.testing.assert_array_equal(painted[name], cloud[name])
    colors = np.stack([painted[k] for k in ("red", "green", "blue")]).T
    for k in np.unique(classes):
        assert len(np.unique(colors[classes == k], axis=0)) == 1
    assert len(np.unique(_vertices(out / "features.ply")["red"])) > 50


def test_kinds_of_features(run, tmp_path, cloud, room_model):
    file = _ply(tmp_path / "room.ply", cloud)
    saved = np.load(run(file) / "features.npy")
    tensors = load_file(run(file, features="safetensors") / "features.safetensors")
    np.testing.assert_array_equal(tensors["features"], saved)
    half = np.load(run(file, precision="float16") / "features.npy")
    np.testing.assert_array_equal(half, saved.astype(np.float16))
    none = run(file, features="none")
    assert not list(none.glob("features.np*")) + list(none.glob(".features*"))
    assert (none / "features.ply").is_file()


def test_backbone_alone_gives_features(run, tmp_path, cloud, room_model):
    file = _ply(tmp_path / "room.ply", cloud)
    out = run(file, checkpoint=room_model / "backbone.safetensors")
    assert sorted(json.loads((out / "prediction.json").read_text())["files"]) == [
        "features.npy",
        "features.ply",
    ]
    with_head = run(file, checkpoint=room_model / "head.safetensors")
    np.testing.assert_array_equal(
        np.load(out / "features.npy"), np.load(with_head / "features.npy")
    )
    assert (with_head / "classes.npy").is_file()


def test_features_that_do_not_fit(run, tmp_path, cloud, monkeypatch):
    from pc_train.prediction import row_files

    file = _ply(tmp_path / "room.ply", cloud)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(row_files.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(
        ValueError, match=r"features of 7,000 points take 0.0 GB, but .* left; pass"
    ):
        run(file)


# --- what goes on, and what is refused


@pytest.fixture
def folder(tmp_path, cloud):
    for name in ("a.ply", "b/c.ply", "d.ply"):
        _ply(tmp_path / "clouds" / name, cloud)
    return tmp_path / "clouds"


def test_finished_clouds_are_left_alone(run, folder, tmp_path, monkeypatch, capsys):
    count = 0

    def write_two(*arguments, **settings):
        nonlocal count
        count += 1
        if count == 3:
            (arguments[0] / ".features.npy.rest").write_text("of a killed process")
            raise RuntimeError("a fault")
        return write(*arguments, **settings)

    write = predict_module.write_results
    monkeypatch.setattr(predict_module, "write_results", write_two)
    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="a fault"):
        run(folder, out=out)
    assert sorted(path.name for path in (out / "d.ply").iterdir()) == [".features.npy.rest"]
    first = (out / "a.ply" / "features.npy").stat().st_mtime_ns
    run(folder, out=out)
    assert count == 4  # d alone
    assert (out / "a.ply" / "features.npy").stat().st_mtime_ns == first
    assert not list(out.rglob(".features*"))
    assert {path.parent.relative_to(out).as_posix() for path in out.rglob("classes.npy")} == {
        *("a.ply", "b/c.ply", "d.ply")
    }
    (out / "d.ply" / "classes.npy").unlink()
    run(folder, out=out)
    assert count == 5
    run(folder, out=out)
    assert count == 5


def test_fault_in_a_tile_leaves_nothing_half_written(run, tmp_path, cloud, monkeypatch):
    file = _ply(tmp_path / "room.ply", cloud)
    answer = predict_module.Network.answer
    calls = []

    def fail_late(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer(*arguments)

    monkeypatch.setattr(predict_module.Network, "answer", fail_late)
    with pytest.raises(ResourceError, match=r"memory does not hold .*; pass --max_points \d+"):
        run(file, out=tmp_path / "out", tile_size=3.0)
    assert not (tmp_path / "out").exists()  # so that other settings may be passed


def test_fault_after_a_finished_cloud_leaves_it(run, folder, tmp_path):
    (folder / "d.ply").write_bytes(b"ply\nhello")
    with pytest.raises(DataError, match=r"d.ply: no end_header"):
        run(folder, out=tmp_path / "out")
    assert (tmp_path / "out/config.yaml").is_file()
    assert (tmp_path / "out/a.ply/classes.npy").is_file()


def test_damaged_cloud_among_others(run, folder, tmp_path, capsys):
    (folder / "b/c.ply").write_bytes(b"ply\nhello")
    with pytest.raises(ValueError, match=r"b/c.ply: no end_header"):
        run(folder, out=tmp_path / "out")
    out = run(folder, out=tmp_path / "out", on_error="skip")  # the same run goes on
    assert "skipped: " in capsys.readouterr().err
    assert {path.parent.name for path in out.rglob("classes.npy")} == {"a.ply", "d.ply"}
    for name in ("a.ply", "d.ply"):
        (folder / name).write_bytes(b"ply\nhello")
    with pytest.raises(ValueError, match="no end_header"):
        run(folder, out=tmp_path / "none", on_error="skip")


def test_used_places_are_refused(run, folder, tmp_path, cloud, room_model):
    file = _ply(tmp_path / "room.ply", cloud)
    out = run(file, out=tmp_path / "out")
    with pytest.raises(ValueError, match="belongs to a run with other settings"):
        run(file, out=out, precision="float16")
    with pytest.raises(ValueError, match="is no run of this command"):
        run(file, out=folder)
    with pytest.raises(ValueError, match=r"lies in .*clouds, whose clouds are to be read"):
        run(folder, out=folder / "results")
    _ply(file, {name: values[:100] for name, values in cloud.items()})
    with pytest.raises(ValueError, match=r"room.ply has changed since the run"):
        run(file, out=out)
    if not torch.cuda.is_available():
        with pytest.raises(MachineError, match="accelerator is gpu, but torch finds none"):
            run(file, accelerator="gpu")


def test_what_a_network_needs_and_a_cloud_lacks(run, tmp_path, cloud):
    file = _ply(tmp_path / "bare.ply", {name: cloud[name] for name in "xyz"})
    with pytest.raises(ValueError, match=r"bare.ply has no color, which the features red, green"):
        run(file)
    with pytest.raises(FileNotFoundError, match="is not a file"):
        run(file, checkpoint=Path("nothing.safetensors"))


def test_command_line(lidar_model, tmp_path, cloud, capsys):
    file = tmp_path / "scan.bin"
    np.stack([cloud["x"], cloud["y"], cloud["z"], cloud["x"]]).T.tofile(file)
    words = ["predict", str(file), f"--checkpoint={lidar_model}", f"--out={tmp_path / 'out'}"]
    words += ["--accelerator=cpu"]
    assert main(words) == 2
    assert "--columns x,y,z,intensity for SemanticKITTI" in capsys.readouterr().err
    words += ["--columns", "x,y,z,intensity"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "measured against its own mean" in said.err
    files = "features.npy, features.ply, classes.npy, classes.ply, prediction.json"
    assert said.out == f"{tmp_path / 'out'}: {files} (7,000 points)\n"
    assert main(words) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: {files} (finished earlier)\n"
    assert main([*words, "--intensity=1,0", f"--out={tmp_path / 'b'}"]) == 2
    assert "positive standard deviation" in capsys.readouterr().err
