"""The scaffold of a demo, around a pre-training that draws weights."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
from pc_backbones import read_card
from pc_data.datasets import DataConfig
from pc_data.features import LIDAR_FEATURES
from pc_train.callbacks import read_curve
from pc_train.configs import FineTuneConfig, ProbeConfig
from pc_train.demos.demo import run_demo
from pc_train.demos.plan import Demo
from pc_train.demos.report import summary_rows, summary_text
from pc_train.hardware import HardwareConfig
from pc_train.networks import save_model
from pc_train.pretrain_config import PretrainConfig
from pc_train.pretraining import start_backbone

CPU = HardwareConfig(accelerator="cpu", num_workers=0)
LATER = DataConfig(root=Path())
_SEEN = ("prediction", "error", "features")
COMMON = {"backbone": Path(), "data": LATER, "out": Path(), "batch_size": 1, "hardware": CPU}
COMMON |= {"max_points": 300, "voxel_size": 0.5}


def _pretrain(out, data, seed, num_steps):
    """Stand in for pre-training; as every run, it leaves a finished one alone."""
    file = out / "backbone.safetensors"
    if not file.is_file():
        config = PretrainConfig(data=data, out=out, epochs=1, batch_size=1, seed=seed)
        arguments = {"depth": 3, "channels": 8, "num_neighbors": 4, "grids": ((8, 8),) * 3}
        backbone = start_backbone(config, "waffleiron", LIDAR_FEATURES, **arguments)
        save_model(out, backbone, card={"steps": num_steps})
        (out / "metrics.csv").write_text("step,loss,lr\n1,0.5,0.1\n2,0.4,0.1\n")
    return file


@pytest.fixture
def demo(street_world):
    def make_world(root, small):
        assert small
        shutil.copytree(street_world, root)  # fails if it is there

    return Demo(
        title="A demo",
        lead="This against that",
        loss="Distance",
        data=LATER,
        make_world=make_world,
        pretrain=_pretrain,
        pretraining_steps=7,
        features=LIDAR_FEATURES,
        probing=ProbeConfig(**COMMON, max_steps=5),
        tuning=FineTuneConfig(**COMMON, fraction=0.5, max_steps=5),
        ceiling=FineTuneConfig(**COMMON, lr=1e-3),
        add_figures=lambda report, run, data: report.paragraph(f"{run.name} on {data.root.name}"),
    )


def test_whole_demo(demo, tmp_path, monkeypatch):
    out = tmp_path / "demo"
    monkeypatch.setattr("pc_train.downstream.report_segmentation", lambda *_, **__: None)  # slow
    summary = run_demo(demo, out, num_seeds=2, max_steps=2)
    for measure in ("linear_probe_miou", "finetune_50pct_miou"):
        for source in ("pretrained", "random"):
            values = summary[f"{measure}_by_seed"][source]
            assert len(values) == 2
            assert summary[measure][source] == pytest.approx(sum(values) / 2)
    assert set(summary) == {
        "linear_probe_miou",
        "linear_probe_miou_by_seed",
        "finetune_50pct_miou",
        "finetune_50pct_miou_by_seed",
        "floor_linear_probe_miou",
        "ceiling_all_labels_miou",
    }
    assert json.loads((out / "summary.json").read_text()) == summary
    assert read_card(out / "inputs" / "backbone.safetensors")["card"] == {
        "features": list(LIDAR_FEATURES)
    }
    steps = {
        run: len(read_curve(out / run / "metrics.csv"))
        for run in ("seed1/probe-random", "seed0/finetune-pretrained", "floor", "ceiling")
    }
    expected = {"seed1/probe-random": 2, "seed0/finetune-pretrained": 2, "floor": 2, "ceiling": 4}
    assert steps == expected
    page = (out / "report.html").read_text()
    parts = ["A demo", "This against that; mean and range over 2 seeds.", "Distance, raw and"]
    parts += ["pretrain on world", "fine-tuning, 50% of the labels", "linear probe, all labels"]
    for part in parts:
        assert part in page
    assert page.count("data:image/png") == 7
    titles = re.findall('"title":"(.*?)"', page)
    of = [
        f"{what}, linear probe, {source}" for source in ("pretrained", "random") for what in _SEEN
    ]
    assert titles == ["ground truth", *of, "intensity", "height"]

    monkeypatch.setattr("pc_train.downstream.fit", None)
    monkeypatch.setattr("pc_train.demos.demo.report_demo", lambda *_: None)
    assert run_demo(demo, out, num_seeds=2, max_steps=2) == summary  # nothing is done again


def test_cut(demo):
    assert demo.cut(0) == demo
    cut = demo.cut(3)
    assert (cut.pretraining_steps, cut.probing.max_steps, cut.tuning.max_steps) == (3, 3, 3)
    assert (
        dataclasses.replace(cut, pretraining_steps=7, probing=demo.probing, tuning=demo.tuning)
        == demo
    )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_seeds": 0}, "num_seeds must be at least 1, got 0"),
        ({"max_steps": -1}, "max_steps must be 0 or more, got -1"),
    ],
)
def test_limits(demo, tmp_path, arguments, match):
    with pytest.raises(ValueError, match=match):
        run_demo(demo, tmp_path / "demo", **arguments)
    assert not (tmp_path / "demo").exists()


def test_folder_of_another_demo(demo, tmp_path):
    (tmp_path / "config.yaml").write_text("num_seeds: 1\nmax_steps: 0\n")
    with pytest.raises(ValueError, match=r"other settings \(max_steps 0 -> 2\)"):
        run_demo(demo, tmp_path, num_seeds=1, max_steps=2)


def test_table():
    summary = {
        "linear_probe_miou": {"pretrained": 0.5, "random": 0.25},
        "linear_probe_miou_by_seed": {"pretrained": [0.4, 0.6], "random": [0.25, 0.25]},
        "finetune_1pct_miou": {"pretrained": 0.3, "random": 0.31},
        "finetune_1pct_miou_by_seed": {"pretrained": [0.3], "random": [0.31]},
        "floor_linear_probe_miou": 0.1,
        "ceiling_all_labels_miou": 0.9,
    }
    assert summary_rows(summary) == [
        ["linear probe, all labels", "50.0 (40.0 to 60.0)", "25.0 (25.0 to 25.0)", "+25.0"],
        ["fine-tuning, 1% of the labels", "30.0", "31.0", "-1.0"],
    ]
    text = summary_text(summary, Path("out"))
    assert text.startswith("\nmIoU (%), mean (range) ")
    assert "floor (raw inputs) 10.0, ceiling (all labels) 90.0\n" in text
    assert text.endswith("report: out/report.html; numbers: out/summary.json")
    assert len({len(line) for line in text.splitlines()[1:4]}) == 1
