"""Whole stories through the command lines."""

import json
import os
import subprocess
import sys

import pytest
from pc_data.cli import main as pc_data
from pc_train.callbacks import read_curve
from pc_train.cli import main as pc_train
from scalr.cli import main as scalr

FAST = ["--hardware.num_workers=0", "--hardware.accelerator=cpu"]


@pytest.mark.slow
def test_semantickitti_from_nothing_to_a_score(tmp_path):
    world, run = tmp_path / "kitti", tmp_path / "run"
    street = [
        "make",
        "street",
        "--format=semantickitti",
        f"--out={world}",
        "--scenes=2",
        "--seed=1",
    ]
    assert pc_data([*street, "--frames=2"]) == 0
    assert pc_data(["check", str(world)]) == 0
    assert pc_data(["show", str(world), f"--out={tmp_path / 'scan.png'}"]) == 0
    data = ["--data.name=semantickitti", f"--data.root={world}"]
    small = ["--preset=small", "--batch_size=1", "--max_steps=4", *FAST]
    assert scalr(["pretrain", *data, *small, f"--out={run}"]) == 0
    few = ["--batch_size=1", "--max_steps=4", "--max_points=4000", *FAST]
    assert pc_train(["probe", f"--backbone={run}", *data, *few, f"--out={tmp_path / 'probe'}"]) == 0
    tune = ["finetune", "--preset=few_labels", "--fraction=0.5", f"--backbone={run}"]
    assert pc_train([*tune, *data, *few, f"--out={tmp_path / 'tune'}"]) == 0
    again = ["evaluate", str(tmp_path / "tune"), *data, "--data.split=val", "--num_workers=0"]
    assert pc_train([*again, f"--out={tmp_path / 'val'}"]) == 0
    first, second = (
        json.loads((tmp_path / name / "scores.json").read_text())["miou"]
        for name in ("tune", "val")
    )
    assert first == pytest.approx(second)
    assert (tmp_path / "val" / "report.html").is_file()


@pytest.mark.slow
def test_two_processes_share_a_batch(street_world, tmp_path):
    run = tmp_path / "run"
    command = ["pretrain", f"--data.root={street_world}", "--preset=small", "--batch_size=2", *FAST]
    command += ["--max_steps=3", "--max_points=500", "--hardware.devices=2", f"--out={run}"]
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, "-m", "scalr", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [step for step, _, _ in read_curve(run / "metrics.csv")] == [1, 2, 3]
    assert (run / "backbone.safetensors").is_file()
    assert done.stdout.count("weights:") == 1
