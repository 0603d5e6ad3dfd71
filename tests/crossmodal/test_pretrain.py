"""Pre-training as a user runs it: real keyframe, modalities and switches, a kill."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from crossmodal.cli import main
from pc_backbones import load_backbone, read_card
from pc_train.callbacks import read_columns, read_curve
from pc_train.cli import main as pc_train

from tests.real_data import REAL_DATA, needs_real_data

CPU = ["--hardware.num_workers=0", "--hardware.accelerator=cpu"]
FAST = ["--preset=small", *CPU, "--image_size=[64,128]", "--num_units=48", "--num_negatives=16"]


def _pretrain(world, out, *more):
    words = ["pretrain", f"--data.root={world}", *FAST, "--batch_size=1", "--max_steps=2"]
    return [*words, f"--out={out}", *more]


@needs_real_data
def test_real_keyframe(tmp_path):
    out = tmp_path / "run"
    data = [f"--data.root={REAL_DATA / 'nuscenes'}", "--data.version=v1.0-mini"]
    words = ["pretrain", "--preset=small", *CPU, *data, "--batch_size=1", "--max_steps=20"]
    assert main([*words, f"--out={out}"]) == 0
    losses = [loss for _, loss, _ in read_curve(out / "metrics.csv")]
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    card = read_card(out / "backbone.safetensors")["card"]
    assert card["modality"] == "cross"
    assert card["features"] == ["x", "y", "z", "intensity"]
    assert (out / "report.html").read_text().count("data:image/png") >= 3
    assert {"accuracy", "alignment"} <= set(read_columns(out / "metrics.csv"))


@pytest.mark.parametrize(
    "flags",
    [
        ["--modality=single", "--instances=false"],
        ["--modality=multi"],
        ["--context=pillar", "--sampling=random", "--num_negatives=0"],
        ["--random_teacher=true", "--levels=[1]"],
        ["--backbone=minkunet14_small", "--features=[intensity]"],
    ],
    ids=["single", "multi", "table IX", "tables X and XI", "MinkUNet"],
)
def test_presets_and_switches(street_world, tmp_path, flags):
    out = tmp_path / "run"
    assert main(_pretrain(street_world, out, *flags)) == 0
    assert np.isfinite([loss for _, loss, _ in read_curve(out / "metrics.csv")]).all()


def test_probe_takes_what_was_pretrained(street_world, tmp_path):
    out = tmp_path / "run"
    assert main(_pretrain(street_world, out)) == 0
    words = ["probe", f"--backbone={out}", f"--data.root={street_world}", "--batch_size=1", *CPU]
    more = ["--max_steps=2", "--augmentation=cloud", "--max_points=500"]
    assert pc_train([*words, *more, f"--out={tmp_path / 'probe'}"]) == 0


@pytest.mark.slow
def test_killed_and_resumed_equals_never_killed(street_world, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    long = ["--max_steps=30", "--save_every=3"]
    assert main(_pretrain(street_world, whole, *long)) == 0
    command = [sys.executable, "-m", "crossmodal", *_pretrain(street_world, killed, *long)]
    with subprocess.Popen(command) as process:
        until = time.monotonic() + 120
        while len(read_curve(killed / "metrics.csv")) < 11 and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert 11 <= len(read_curve(killed / "metrics.csv")) < 30
    assert main(_pretrain(street_world, killed, *long)) == 0
    assert (killed / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    first, second = (load_backbone(run / "backbone.safetensors") for run in (whole, killed))
    for value, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert value.equal(other)


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--teacher=moco_v3_resnet50"], "moco_v3_resnet50 needs the file of its authors"),
        (["--levels=[9]"], "levels must be different ones"),
        (["--features=[x,y,colour]"], "colour"),
        (["--min_depth=1000000"], "no point off the ground is seen by a camera"),
    ],
)
def test_bad_settings(street_world, tmp_path, capsys, flags, match):
    assert main(_pretrain(street_world, tmp_path / "run", *flags)) == 2
    error = capsys.readouterr().err
    assert match in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()
