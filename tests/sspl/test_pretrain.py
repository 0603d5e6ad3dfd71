"""Pre-training as a user runs it: real scans, baselines and switches, wrong input."""

import json

import numpy as np
import pytest
import torch
from pc_backbones import load_backbone, read_card
from pc_train.callbacks import read_columns, read_curve
from pc_train.checkpoints import newest_checkpoint, read_checkpoint
from pc_train.cli import main as pc_train
from sspl.cli import main

from tests.fork_server import run_two
from tests.real_data import REAL_DATA, needs_real_data

CPU = ["--hardware.num_workers=0", "--hardware.accelerator=cpu"]
FAST = ["--preset=small", *CPU, "--projection_dim=16", "--hidden_dim=32", "--num_clusters=8"]
TINY = ["--max_points=3000", "--volume_size=0.8", "--queue_size=300", "--num_negatives=64"]


def _pretrain(world, out, *more):
    words = ["pretrain", f"--data.root={world}", *FAST, *TINY, "--batch_size=2", "--max_steps=3"]
    return [*words, f"--out={out}", *more]


def _checkpoint(out):
    return read_checkpoint(newest_checkpoint(out / "checkpoints"))["state_dict"]


def _learned(out, num_steps):
    """The local objective falls, and the global one has begun."""
    columns = read_columns(out / "metrics.csv")
    assert len(columns["step"]) == num_steps
    assert columns["local"][-1] < 0.97 * columns["local"][0]
    assert columns["across"][0] == 0
    assert columns["across"][-1] > 0
    assert columns["clusters that occur"][-1] > 0.2


@pytest.mark.slow
@needs_real_data
def test_real_streets(tmp_path):
    """The scans of SemanticKITTI, twenty steps with the preset's volumes."""
    out = tmp_path / "run"
    words = ["pretrain", "--preset=semantickitti", *CPU, "--data.split=all"]
    words += [f"--data.root={REAL_DATA / 'semantickitti'}", "--backbone=spunet14_small"]
    small = ["--voxel_size=0.2", "--max_volumes=200", "--queue_size=2000", "--num_clusters=16"]
    more = ["--num_negatives=1000", "--batch_size=2", "--max_steps=20", "--ema=0.95"]
    assert main([*words, *small, *more, f"--out={out}"]) == 0
    _learned(out, 20)
    card = read_card(out / "backbone.safetensors")["card"]
    assert card["method"] == "SSPL"
    assert card["features"] == ["intensity"]
    assert (out / "report.html").read_text().count("data:image/png") == 4


@pytest.mark.slow
@needs_real_data
def test_real_rooms(tmp_path):
    """The two scenes of ScanNet, twenty steps of PointNet++."""
    file = REAL_DATA / "scannet/mmdet3d_scene0000_00/points/scene0000_00.bin"
    points = np.fromfile(file, np.float32).reshape(-1, 6)
    folder = tmp_path / "prepared" / "train" / "scene0000_00"
    folder.mkdir(parents=True)
    np.save(folder / "coord.npy", points[:, :3])
    np.save(folder / "color.npy", points[:, 3:].astype(np.uint8))
    out = tmp_path / "run"
    words = ["pretrain", "--preset=small", *CPU, f"--data.root={REAL_DATA / 'scannet'}"]
    second = json.dumps([{"name": "pointcept", "root": str(folder.parents[1])}])
    both = ["--data.split=all", "--more_data", second]
    more = ["--queue_size=1000", "--num_negatives=500", "--batch_size=2", "--max_steps=20"]
    assert main([*words, *both, *more, "--ema=0.95", f"--out={out}"]) == 0
    _learned(out, 20)


def test_run_and_what_follows(rooms, tmp_path, capsys):
    """Weights, card and report; a finished run is left alone; a probe takes the weights."""
    out = tmp_path / "run"
    assert main(_pretrain(rooms, out)) == 0
    assert "next: pc-train finetune --backbone" in capsys.readouterr().out
    card = read_card(out / "backbone.safetensors")
    assert card["name"] == "pointnet2_small"
    assert (card["card"]["level"], card["card"]["across"]) == ("volume", "clusters")
    exported = load_backbone(out / "backbone.safetensors").state_dict()
    state = _checkpoint(out)
    for name, value in exported.items():  # what learns, not its copy
        assert torch.equal(value, state[f"online.backbone.{name}"]), name
    assert any(
        not torch.equal(value, state[f"momentum.network.backbone.{name}"])
        for name, value in exported.items()
    )
    assert (out / "report.html").read_text().count("data:image/png") == 4
    before = (out / "backbone.safetensors").read_bytes()
    assert main(_pretrain(rooms, out)) == 0
    assert (out / "backbone.safetensors").read_bytes() == before
    words = ["probe", f"--backbone={out}", f"--data.root={rooms}", "--data.name=scannet", *CPU]
    more = ["--batch_size=1", "--max_steps=2", "--augmentation=rooms", "--max_points=500"]
    assert pc_train([*words, *more, f"--out={tmp_path / 'probe'}"]) == 0


@pytest.mark.parametrize(
    "flags",
    [
        ["--local=byol", "--across=none"],
        ["--across=classification", "--train_clusters=false", "--negatives=other"],
        ["--negatives=hard", "--backbone=spunet14_small", "--voxel_size=0.2"],
        ["--negatives=random", "--max_volumes=20", "--local_share=0.3"],
        ["--level=scan", "--local=byol", "--across=none", "--ema_to_one=true"],
        ["--level=scan", "--local=none", "--across=queue", "--view_points=500"],
    ],
    ids=["table 3", "classification", "hard", "random", "byol", "depthcontrast"],
)
def test_baselines_and_switches(rooms, tmp_path, flags):
    out = tmp_path / "run"
    assert main(_pretrain(rooms, out, *flags)) == 0
    assert np.isfinite([loss for _, loss, _ in read_curve(out / "metrics.csv")]).all()


def test_lidar(street_world, tmp_path):
    out = tmp_path / "run"
    words = ["pretrain", "--preset=semantickitti", f"--data.root={street_world}", *CPU]
    small = ["--data.name=nuscenes", "--backbone=centerpoint_pillar_small", "--voxel_size=0"]
    more = ["--queue_size=100", "--num_clusters=4", "--batch_size=1", "--max_steps=3"]
    assert main([*words, *small, *more, f"--out={out}"]) == 0
    assert np.isfinite([loss for _, loss, _ in read_curve(out / "metrics.csv")]).all()


@pytest.mark.slow
def test_two_processes_train_to_the_end(rooms, tmp_path):
    """Through DistributedDataParallel, from before the queue is full until after."""
    out = tmp_path / "run"
    flags = ["--max_steps=8", "--queue_size=400", "--hardware.devices=2"]
    codes, said = run_two("sspl", _pretrain(rooms, out, *flags), tmp_path)
    assert codes == [0, 0], said
    columns = read_columns(out / "metrics.csv")
    assert [len(columns["step"]), columns["across"][0]] == [8, 0]
    assert "".join(said).count("weights:") == 1
    state = _checkpoint(out)
    assert state["queue.num_pushed"] > 400
    lengths = state["queue.feature"].norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    assert (state["queue.labels"] >= 0).all()


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--features=[colour]"], "colour"),
        (["--backbone=pointnet3"], "no backbone is called 'pointnet3'"),
        (["--voxel_size=0.1"], "pointnet2_small has no argument 'voxel_size'"),
        (["--level=scan"], "local info_nce needs the other volumes of a scan"),
        (["--min_points=100000"], "none of its volumes of 0.8 m holds 100000 points"),
        (["--batch_size=96"], "batch_size must be in"),
    ],
)
def test_bad_settings(rooms, tmp_path, capsys, flags, match):
    assert main(_pretrain(rooms, tmp_path / "run", *flags)) in (2, 3)
    error = capsys.readouterr().err
    assert match in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()
