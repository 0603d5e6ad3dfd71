"""The scaffold of pre-training, around a method of one line."""

import json
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from pc_backbones import load_backbone, read_card
from pc_data import DataError
from pc_data.batch import to_batch
from pc_data.commandline import run
from pc_data.datasets import DataConfig
from pc_data.features import point_features
from pc_train.callbacks import read_curve
from pc_train.hardware import HardwareConfig
from pc_train.networks import BACKBONE_FILE, save_model
from pc_train.pretrain_config import PretrainConfig
from pc_train.pretraining import (
    first_scan,
    open_datasets,
    run_pretraining,
    start_backbone,
    write_report,
)
from pc_train.reports.first_batch import FIRST_BATCH
from pc_train.reports.viewer import Cloud
from pc_train.tables import read_table
from torch import nn

FEATURES = ("intensity", "z")
SMALL = {"grids": ((8, 8),) * 3, "num_neighbors": 4}


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Settings of a method.

    Attributes:
        data: Dataset with a view.
        lr: Learning rate.
    """

    out: Path = Path("runs/test")
    epochs: int = 2
    batch_size: int = 1
    lr: float = 1e-3


class Method(lightning.LightningModule):
    """Features are pulled to a drawn vector."""

    def __init__(self, backbone, lr):
        super().__init__()
        self.backbone, self.lr = backbone, lr
        self.head = nn.Linear(backbone.out_dim, 1)

    def training_step(self, batch):
        feat = self.backbone(batch.xyz, batch.feat, batch.batch, neighbors=batch.neighbors)
        return (self.head(feat) - 1).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def _make_sample(scan, rng):
    near = np.flatnonzero(np.abs(scan.xyz).max(1) < 8)  # in the field of view
    scan = scan.select(rng.permutation(near)[:100])
    return to_batch(scan, point_features(scan, FEATURES), num_neighbors=4)


@pytest.fixture
def config(street_world, tmp_path):
    return Config(
        data=DataConfig(root=street_world),
        out=tmp_path / "run",
        hardware=HardwareConfig(accelerator="cpu", num_workers=0),
    )


def _start(config, *, name="waffleiron", features=FEATURES, depth=3):
    return start_backbone(config, name, features, depth=depth, channels=8, **SMALL)


def _run(config, *, make_method=None, report=None, first_batch=None):
    backbone = _start(config)
    return run_pretraining(
        config,
        [(dataset, _make_sample) for dataset in open_datasets(config)],
        backbone=backbone,
        make_method=make_method or (lambda *_: Method(backbone.network, config.lr)),
        card={"method": "Test"},
        first_batch=first_batch or (lambda _: Figure()),
        report=report or (lambda *_: None),
    )


def _weights(backbone):
    return torch.cat([value.flatten() for value in backbone.network.parameters()])


def _weights_of(file):
    return torch.cat([value.flatten() for value in load_backbone(file).parameters()])


def _never(*_):
    raise AssertionError("called")


def test_pictures_show_the_first_scan_that_can_be_read(config, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(config.data.root, root)
    data = replace(config.data, root=root)
    first, second = (open_datasets(replace(config, data=data))[0][index] for index in (0, 1))
    assert first_scan(replace(config, data=data)).name == first.name
    broken = next(root.glob(f"samples/LIDAR_TOP/{Path(_file_of(root, first.name)).name}"))
    broken.write_bytes(b"123")
    with pytest.raises(DataError, match="bytes"):
        first_scan(replace(config, data=data))
    assert first_scan(replace(config, data=data, on_error="skip")).name == second.name


def _file_of(root, name):
    """The point file of a keyframe."""
    tables = json.loads((next(root.glob("v1.0-*")) / "sample_data.json").read_text())
    return next(
        row["filename"]
        for row in tables
        if row["sample_token"] == name and "LIDAR_TOP" in row["filename"]
    )


def test_run_saves_the_trained_backbone_and_its_card(config):
    config = replace(config, more_data=[replace(config.data, split="val")])
    asked, drawn, reported = [], [], []

    def draw(sample):
        drawn.append(sample.names)
        return Figure()

    def make_method(num_steps, steps_per_epoch):
        assert (config.out / FIRST_BATCH).is_file()
        asked.append(num_steps)
        return Method(backbone.network, config.lr)

    datasets = open_datasets(config)
    assert [dataset.split for dataset in datasets] == ["train", "val"]
    backbone = _start(config)
    before = _weights(backbone)
    file = run_pretraining(
        config,
        [(dataset, _make_sample) for dataset in datasets],
        backbone=backbone,
        make_method=make_method,
        card={"method": "Test", "teachers": []},
        first_batch=draw,
        report=lambda method, sample: reported.append((type(method), sample.names)),
    )
    assert asked == [8]  # two epochs of two scans of each dataset, one by one
    assert len(read_curve(config.out / "metrics.csv")) == 8
    assert reported == [(Method, (datasets[0][0].name,))]
    assert drawn == [(datasets[0][0].name,)]
    assert file == config.out / BACKBONE_FILE
    assert torch.equal(_weights_of(file), _weights(backbone))
    assert not torch.equal(_weights_of(file), before)
    intensity = [datasets[0].intensity_mean, datasets[0].intensity_std]
    assert read_card(file)["card"] == {
        "features": list(FEATURES),
        "data": [
            {"name": "nuscenes", "split": "train", "scans": 2, "intensity": intensity},
            {"name": "nuscenes", "split": "val", "scans": 2, "intensity": intensity},
        ],
        "method": "Test",
        "teachers": [],
        "steps": 8,
    }


def test_card_of_a_network_without_intensity(config):
    config = replace(config, max_steps=1)
    backbone = _start(config, features=("x", "y"))
    file = run_pretraining(
        config,
        [(dataset, _make_sample) for dataset in open_datasets(config)],
        backbone=backbone,
        make_method=lambda *_: Method(backbone.network, config.lr),
        card={},
        first_batch=lambda _: Figure(),
        report=lambda *_: None,
    )
    assert read_card(file)["card"]["data"] == [{"name": "nuscenes", "split": "train", "scans": 2}]


def test_finished_run_is_left_alone(config):
    config = replace(config, max_steps=1)
    file = _run(config)
    before = file.stat().st_mtime_ns
    assert _run(config, make_method=_never, report=_never, first_batch=_never) == file
    assert file.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"other settings \(lr 0\.001 -> 0\.5\)"):
        _run(replace(config, lr=0.5))


def test_an_online_probe_changes_no_weight(config, tmp_path):
    plain = _weights_of(_run(config))
    looked = replace(config, out=tmp_path / "looked", probe_data=config.data, probe_every=2)
    looked = replace(looked, probe_scans=1)

    def report(*_):
        write_report(looked.out, title="Test", lead="a network", loss="A distance.")

    assert torch.equal(_weights_of(_run(looked, report=report)), plain)
    probe = read_table(looked.out / "probe.csv")
    assert probe["step"].tolist() == [0, 2, 4]
    assert ((probe["accuracy"] > 0) & (probe["accuracy"] < 1)).all()
    assert (config.out / "metrics.csv").read_bytes() == (looked.out / "metrics.csv").read_bytes()
    assert "Linear probe while it learned" in (looked.out / "report.html").read_text()
    assert not (config.out / "probe.csv").exists()


def test_nothing_is_written_before_the_first_sample(config):
    def fail(scan, rng):
        raise DataError(f"scan {scan.name} is damaged")

    with pytest.raises(DataError, match="is damaged"):
        run_pretraining(
            config,
            [(dataset, fail) for dataset in open_datasets(config)],
            backbone=_start(config),
            make_method=_never,
            card={},
            first_batch=_never,
            report=_never,
        )
    with pytest.raises(ValueError, match=r"batch_size must be in \[1, 2\]"):
        _run(replace(config, batch_size=3))
    assert not config.out.exists()


def test_seed_decides_the_weights_and_what_is_drawn_next(config):
    first, drawn = _weights(_start(config)), torch.rand(3)
    torch.rand(5)
    assert torch.equal(_weights(_start(config)), first)
    assert torch.equal(torch.rand(3), drawn)
    assert not torch.equal(_weights(_start(replace(config, seed=1))), first)


@pytest.fixture
def older(config, tmp_path):
    """A folder with weights of another seed."""
    backbone = _start(replace(config, seed=7))
    save_model(tmp_path / "older", backbone, card={})
    return tmp_path / "older", _weights(backbone)


def test_start_from_weights(config, older):
    folder, weights = older
    for path in (folder, folder / BACKBONE_FILE):
        backbone = _start(replace(config, start_from=path))
        assert torch.equal(_weights(backbone), weights)
        assert backbone.card == {"features": list(FEATURES)}


def test_start_from_weights_that_do_not_fit(config, older):
    config = replace(config, start_from=older[0])
    with pytest.raises(ValueError, match=r"holds waffleiron, which does not fit waffleiron_6_64; "):
        start_backbone(config, "waffleiron_6_64", FEATURES, **SMALL)
    with pytest.raises(ValueError, match=r"does not fit waffleiron; .*layers\.3.* \.\.\.\)"):
        _start(config, depth=6)
    with pytest.raises(ValueError, match="features intensity, z, this run has intensity, x; pass"):
        _start(config, features=("intensity", "x"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        _start(replace(config, start_from=Path("nowhere.safetensors")))


def test_run_remembers_what_it_started_from(config, older):
    config = replace(config, max_steps=2, start_from=older[0])
    _run(config)
    digests = yaml.safe_load((config.out / "inputs.yaml").read_text())
    assert list(digests) == ["start_from"]
    save_model(older[0], _start(replace(config, start_from=None, seed=3)), card={})
    with pytest.raises(ValueError, match=r"has changed since the run in .* bring the start_from"):
        _run(config)


def test_report(config):
    config = replace(config, max_steps=2)
    write = partial(
        write_report,
        config.out,
        title="Test & try",
        lead="a network from nothing",
        loss="A distance.",
        sections=[("Own heading", Figure(figsize=(1, 1)), "Own caption.")],
        cloud=Cloud(xyz=np.eye(3), colorings={}),
    )
    _run(config, report=lambda *_: write())
    page = (config.out / "report.html").read_text()
    parts = ["Test &amp; try", "a network from nothing, 2 steps", "<h2>Loss</h2>", "A distance."]
    parts += ["<h2>Own heading</h2>", "Own caption.", "<h2>The features, to turn</h2>", '"height"']
    parts += ["<h2>Configuration</h2>", "batch_size: 1"]
    places = [page.index(part, page.index("<h1>")) for part in parts]
    assert places == sorted(places)
    assert page.count("data:image/png") == 3  # the loss, what is watched, the own section


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"epochs": 0}, "epochs must be positive, got 0"),
        ({"batch_size": -1}, "batch_size must be positive, got -1"),
        ({"save_every": 0}, "save_every must be positive, got 0"),
        ({"max_steps": -1}, "max_steps must be 0 or more, got -1"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
    ],
)
def test_limits(config, values, match):
    with pytest.raises(ValueError, match=match):
        replace(config, **values)


def test_help_of_inherited_settings(capsys):
    def pretrain(config: Config) -> None:
        """Pre-train."""

    assert run({"pretrain": pretrain}, prog="test", description="", argv=["pretrain", "-h"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for part in ("Passes over all scans.", "Learning rate. (type: float, default: 0.001)"):
        assert part in said
    assert "Dataset with a view" in said
    assert "its labels are not read" not in said
    assert "default: runs/test" in said
