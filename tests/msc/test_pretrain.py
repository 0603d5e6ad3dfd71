"""Pre-training as a user runs it: real rooms, several datasets, LiDAR, wrong input."""

import json

import numpy as np
import pytest
from msc.cli import main
from pc_backbones import read_card
from pc_geometry import estimate_normals
from pc_train.callbacks import read_curve
from pc_train.cli import main as pc_train

from tests.real_data import REAL_DATA, needs_real_data

FAST = ["--preset", "small", "--hardware.num_workers=0", "--hardware.accelerator=cpu"]
TINY = ["--voxel_size=0.2", "--match_radius=0.3", "--max_pairs=128", "--mask_size=0.5"]


def _losses(out):
    return [loss for _, loss, _ in read_curve(out / "metrics.csv")]


def _pretrain(root, out, *more):
    words = ["pretrain", "--data.root", str(root), "--data.name=scannet", *FAST, *TINY]
    return [*words, "--batch_size=2", "--max_steps=40", "--save_every=3", f"--out={out}", *more]


def _second_room(root):
    """scene0000_00 in the prepared layout: its points have colours, its normals are estimated."""
    file = REAL_DATA / "scannet/mmdet3d_scene0000_00/points/scene0000_00.bin"
    points = np.fromfile(file, np.float32).reshape(-1, 6)
    folder = root / "train" / "scene0000_00"
    folder.mkdir(parents=True)
    normal = estimate_normals(points[:, :3], 16)
    np.save(folder / "coord.npy", points[:, :3])
    np.save(folder / "color.npy", points[:, 3:].astype(np.uint8))
    np.save(folder / "normal.npy", normal)
    return root


@needs_real_data
def test_real_rooms(tmp_path):
    """The two ScanNet scenes, twenty steps: the loss falls."""
    out, second = tmp_path / "run", _second_room(tmp_path / "prepared")
    words = ["pretrain", *FAST, "--data.name=scannet", f"--data.root={REAL_DATA / 'scannet'}"]
    both = [
        "--data.split=all",
        "--more_data",
        json.dumps([{"name": "pointcept", "root": str(second)}]),
    ]
    more = ["--batch_size=2", "--max_steps=20", "--voxel_size=0.05"]
    assert main([*words, *both, *more, f"--out={out}"]) == 0
    losses = _losses(out)
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])
    card = read_card(out / "backbone.safetensors")["card"]
    assert card["method"] == "MSC"
    assert card["features"][:3] == ["red", "green", "blue"]
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") >= 4  # loss, two reconstructions, features


def test_two_datasets(rooms, tmp_path):
    more = json.dumps([{"name": "scannet", "root": str(rooms), "split": "val"}])
    command = _pretrain(rooms, tmp_path / "run", "--max_steps=2", "--more_data", more)
    assert main([*command, "--batch_size=4"]) == 0
    data = read_card(tmp_path / "run" / "backbone.safetensors")["card"]["data"]
    assert [part["scans"] for part in data] == [3, 1]


def test_lidar_has_no_color(street_world, tmp_path):
    out = tmp_path / "run"
    small = ["--backbone=spunet14_small", "--voxel_size=0.5", "--match_radius=0.75"]
    command = ["pretrain", "--preset=lidar", f"--data.root={street_world}", *small]
    hardware = ["--hardware.num_workers=0", "--hardware.accelerator=cpu"]
    assert main([*command, *hardware, "--batch_size=2", "--max_steps=3", f"--out={out}"]) == 0
    assert read_card(out / "backbone.safetensors")["card"]["features"] == ["intensity"]
    probe = ["probe", f"--backbone={out}", f"--data.root={street_world}", "--batch_size=1"]
    assert pc_train([*probe, *hardware, "--max_steps=2", f"--out={tmp_path / 'probe'}"]) == 0


def test_pointcontrast(rooms, tmp_path):
    words = ["pretrain", "--preset=pointcontrast", f"--data.root={rooms}", *TINY]
    small = ["--backbone=spunet14_small", "--batch_size=2", "--max_steps=3"]
    hardware = ["--hardware.num_workers=0", "--hardware.accelerator=cpu"]
    assert main([*words, *small, *hardware, f"--out={tmp_path / 'run'}"]) == 0
    assert "Reconstruction" not in (tmp_path / "run" / "report.html").read_text()


def test_second_dataset_that_lacks_an_input(rooms, street_world, tmp_path, capsys):
    more = json.dumps([{"name": "nuscenes", "root": str(street_world)}])
    assert main(_pretrain(rooms, tmp_path / "run", "--more_data", more)) in (2, 3)
    assert "has no color, which the features red, green, blue are" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_finetune_with_the_paper_recipe(rooms, tmp_path):
    """Pre-train, then MSC's fine-tuning with Mix3D, few labels and the precise test."""
    out = tmp_path / "run"
    assert main(_pretrain(rooms, out, "--max_steps=2")) == 0
    words = ["finetune", "--preset=rooms", f"--backbone={out}", f"--data.root={rooms}"]
    more = ["--batch_size=2", "--max_steps=3", "--points_per_scene=50", "--precise=true"]
    hardware = ["--hardware.num_workers=0", "--hardware.accelerator=cpu"]
    assert pc_train([*words, *more, *hardware, f"--out={tmp_path / 'tuned'}"]) == 0
    scores = json.loads((tmp_path / "tuned" / "scores.json").read_text())
    assert 0 <= scores["miou"] < 1


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--backbone=spunet99"], "no backbone is called 'spunet99'"),
        (["--features=red,green,bleu"], "bleu"),
        (["--reconstruct=[intensity]"], "reconstruct intensity needs intensity"),
        (["--backbone=waffleiron_6_64"], "waffleiron_6_64 has no argument 'voxel_size'"),
    ],
)
def test_bad_settings(rooms, tmp_path, capsys, flags, match):
    assert main(_pretrain(rooms, tmp_path / "run", *flags)) in (2, 3)
    error = capsys.readouterr().err
    assert match in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()
