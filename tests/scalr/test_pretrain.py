"""Pre-training as a user runs it: real data, several datasets, wrong input."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pc_backbones import load_backbone, read_card
from pc_train.callbacks import read_curve
from scalr.cli import main

from tests.real_data import FIXTURES, REAL_DATA, needs_fixtures, needs_real_data

FAST = ["--preset", "small", "--hardware.num_workers", "0", "--hardware.accelerator", "cpu"]


def _losses(out):
    return [loss for _, loss, _ in read_curve(out / "metrics.csv")]


@needs_real_data
def test_real_keyframe(tmp_path):
    out = tmp_path / "run"
    flags = ["--data.root", str(REAL_DATA / "nuscenes"), "--data.version", "v1.0-mini"]
    assert (
        main(["pretrain", *flags, *FAST, "--batch_size=1", "--max_steps=20", f"--out={out}"]) == 0
    )
    losses = _losses(out)
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    backbone = load_backbone(out / "backbone.safetensors")
    assert backbone.out_dim == 64
    assert read_card(out / "backbone.safetensors")["card"]["method"] == "ScaLR"
    page = (out / "report.html").read_text()
    assert "data:image/png" in page
    assert '"title":"features"' in page


@needs_real_data
def test_real_kitti_and_nuscenes_together(tmp_path):
    out, kitti = tmp_path / "run", str(REAL_DATA / "semantickitti")
    flags = ["--data.root", str(REAL_DATA / "nuscenes"), "--data.version", "v1.0-mini"]
    more = json.dumps([{"name": "semantickitti", "root": kitti, "split": "val"}])
    command = ["pretrain", *flags, *FAST, "--more_data", more, "--batch_size=2", "--max_steps=3"]
    assert main([*command, f"--out={out}"]) == 0
    assert len(_losses(out)) == 3


def _pretrain(world, out, *more):
    return [
        "pretrain",
        "--data.root",
        str(world),
        *FAST,
        "--batch_size=1",
        "--max_steps=40",
        "--save_every=3",
        "--max_points=400",
        f"--out={out}",
        *more,
    ]


def test_finished_run_is_left_alone(street_world, tmp_path, capsys):
    command = _pretrain(street_world, tmp_path / "run", "--max_steps=2")
    assert main(command) == 0
    before = (tmp_path / "run" / "backbone.safetensors").stat().st_mtime_ns
    assert main(command) == 0
    assert (tmp_path / "run" / "backbone.safetensors").stat().st_mtime_ns == before
    assert main([*command, "--lr=0.5"]) == 2
    assert "other settings (lr 0.002 -> 0.5)" in capsys.readouterr().err


def test_start_from_weights(street_world, tmp_path):
    first = tmp_path / "first"
    assert main(_pretrain(street_world, first, "--max_steps=2")) == 0
    weights = first / "backbone.safetensors"
    again = _pretrain(street_world, tmp_path / "second", "--max_steps=1", "--lr=1e-12")
    assert main([*again, "--min_lr=1e-12", "--weight_decay=0", f"--start_from={weights}"]) == 0
    folder = _pretrain(
        street_world, tmp_path / "third", "--max_steps=1", "--start_from", str(first)
    )
    assert main(folder) == 0
    assert "start_from" in (tmp_path / "third" / "inputs.yaml").read_text()
    old, new = (
        load_backbone(tmp_path / run / "backbone.safetensors") for run in ("first", "second")
    )
    torch.testing.assert_close(new.layers[0].spread.weight, old.layers[0].spread.weight)


def test_start_from_weights_of_another_network(street_world, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(_pretrain(street_world, first, "--max_steps=1")) == 0
    capsys.readouterr()
    command = ["pretrain", "--data.root", str(street_world), *FAST, f"--start_from={first}"]
    _fails(
        [*command, "--batch_size=1", "--backbone=waffleiron_48_256"],
        second,
        capsys,
        "holds waffleiron_6_64, which does not fit waffleiron_48_256; pass.*Missing key.*layers",
    )


def test_labels_are_not_read(world, tmp_path):
    for file in (world / "lidarseg" / "v1.0-trainval").glob("*.bin"):
        os.truncate(file, 7)
    assert main(_pretrain(world, tmp_path / "run", "--max_steps=1")) == 0


def test_damage_met_by_a_loading_process(world, tmp_path, capfd):
    """Only the first scan is read before the run; the others, by processes of the loader."""
    for scan in _scans(world)[1:]:
        os.truncate(scan, 1003)
    command = _pretrain(world, tmp_path / "run", "--hardware.num_workers=2")
    assert main(command) == 3
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("error"))
    assert re.match(r"error: .*\.bin\S* .*1,?003", line), line
    assert "Traceback" not in line


@pytest.fixture
def world(street_world, tmp_path):
    """A copy of the synthetic world that a test may damage."""
    return Path(shutil.copytree(street_world, tmp_path / "world"))


def _scans(world):
    return list((world / "samples" / "LIDAR_TOP").glob("*.bin"))


def _truncate(world):
    for scan in _scans(world):
        os.truncate(scan, 1003)


def _put_nan(world):
    for scan in _scans(world):
        points = np.fromfile(scan, np.float32)
        points[15] = np.nan
        points.tofile(scan)


def _break_images(world):
    for image in (world / "samples").glob("CAM_*/*.jpg"):
        image.write_bytes(b"no image")


def _break_table(world):
    (world / "v1.0-trainval" / "sample.json").write_text("[{")


def _look_away(world):
    """Turn all cameras to the sky, where no point is."""
    file = world / "v1.0-trainval" / "calibrated_sensor.json"
    sensors = json.loads(file.read_text())
    for sensor in sensors:
        if sensor["camera_intrinsic"]:
            sensor["rotation"], sensor["translation"] = [1, 0, 0, 0], [0, 0, 500]
    file.write_text(json.dumps(sensors))


DAMAGE = {
    "truncated": (_truncate, r"\.pcd\.bin"),
    "nan": (_put_nan, r"\.pcd\.bin"),
    "image": (_break_images, r"\.jpg: image does not decode"),
    "table": (_break_table, r"sample\.json"),
    "unseen": (_look_away, "no point is visible in any camera"),
    "removed": (shutil.rmtree, "world"),
}


def _fails(command, out, capsys, match):
    assert main([*command, f"--out={out}"]) in (2, 3)
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert "\n" not in said.partition("\nsee:")[0]
    assert re.search(match, said), said
    assert not out.exists()


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_data(world, tmp_path, capsys, kind):
    damage, match = DAMAGE[kind]
    damage(world)
    command = ["pretrain", "--data.root", str(world), *FAST, "--batch_size=1", "--max_steps=2"]
    _fails(command, tmp_path / "run", capsys, match)


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--teachers=dinov2_vit_l41"], "unknown teacher 'dinov2_vit_l41'.*dinov2_vit_l14"),
        (["--teachers=dinov2_vit_l14"], "efficientnet_lite0_offline"),
        (["--backbone=wafleiron_48_768"], "waffleiron_48_768"),
        (["--batch_size=50"], "batch_size"),
        (["--data.name=semantickitti"], "nuScenes"),
        (["--start_from=nowhere.safetensors"], "nowhere.safetensors is not a file"),
        (["--batchsize=5"], "did you mean --batch_size"),
        (["--lr=0"], r"lr must be positive, got 0\.0"),
        (["--max_points=0"], "max_points must be positive, got 0"),
        (["--image_size=60,128"], "multiples of 16, got 60x128; resize to 64x128"),
        (["--image_size=64,0"], r"image_size must be positive, got \(64, 0\)"),
        (["--seed=-1"], "seed must be 0 or more, got -1"),
        (["--weight_decay=.nan"], "weight_decay must be 0 or more, got nan"),
        (["--fov=[[0,0,0],[64,64,-8]]"], "fov must be a lower corner and a higher one"),
        (["--hardware.devices=-1"], "devices must be 0 or more, got -1"),
        (["--data=street"], "--data takes a YAML file of its settings; these are --data.root"),
    ],
)
def test_wrong_settings(street_world, tmp_path, capsys, flags, match, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    command = ["pretrain", "--data.root", str(street_world), *FAST, "--max_steps=2", *flags]
    _fails(command, tmp_path / "run", capsys, match)


@needs_fixtures
def test_start_from_a_published_network_of_rooms(street_world, tmp_path, capsys):
    weights = FIXTURES / "spunet_tiny.pth"
    command = ["pretrain", "--data.root", str(street_world), *FAST, f"--start_from={weights}"]
    match = "spunet_tiny.pth was trained on the features red, green.*this run has intensity, x,"
    _fails([*command, "--batch_size=1"], tmp_path / "run", capsys, match)
