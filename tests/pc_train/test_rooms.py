"""Rooms from files to scores: MSC's recipe on a sparse network, seen as a user runs it."""

import json

import numpy as np
import pytest
from pc_data.features import ROOM_FEATURES
from pc_train.cli import main


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    from pc_data.synthetic.scannet import make_room_scannet

    root = tmp_path_factory.mktemp("rooms") / "world"
    make_room_scannet(root, num_scenes=4, seed=0, num_frames=1, voxel_size=0.15)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    import torch
    from pc_train.networks import new_backbone, save_model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    backbone = new_backbone(
        "spunet14_small",
        len(ROOM_FEATURES),
        voxel_size=0.2,
        stem_width=8,
        stem_kernel=3,
        encoder_widths=(8, 8, 8, 8),
        decoder_widths=(8, 8, 8, 8),
    )
    save_model(folder, backbone, card={"features": list(ROOM_FEATURES)})
    return folder


@pytest.fixture
def words(world, weights):
    def call(command, out, *more):
        return [
            command,
            *("--preset", "rooms", f"--backbone={weights}", f"--data.root={world}"),
            *("--batch_size=2", "--max_points=1000", f"--out={out}"),
            *("--hardware.num_workers=0", "--hardware.accelerator=cpu", *more),
        ]

    return call


def _score(folder):
    return json.loads((folder / "scores.json").read_text())


def _losses(folder):
    rows = (folder / "metrics.csv").read_text().splitlines()[1:]
    return [float(row.split(",")[1]) for row in rows]


def _tell_the_truth(model, scan, *, features, voxel_size, device, **intensity):
    """What the precise test is asked for; it takes too long for a whole room here."""
    assert features == ROOM_FEATURES
    assert voxel_size == 0.2
    assert intensity == {"intensity_mean": 0, "intensity_std": 1}
    return np.eye(20, dtype=np.float32)[scan.labels]


def test_fine_tuning_evaluated_three_times(words, world, tmp_path, monkeypatch):
    out = tmp_path / "tuned"
    assert main(words("finetune", out, "--max_steps=10")) == 0
    losses = _losses(out)
    assert sum(losses[-3:]) < sum(losses[:3])
    score = _score(out)
    occur = [iou for iou in score["iou"].values() if iou == iou]
    assert len(occur) < len(score["iou"]) == 20
    assert score["miou"] == pytest.approx(sum(occur) / 20)  # absent classes count as 0
    data = [f"--data.root={world}", "--data.name=scannet", "--data.split=val", "--num_workers=0"]
    assert main(["evaluate", str(out), *data, f"--out={tmp_path / 'val'}"]) == 0
    assert _score(tmp_path / "val") == score
    monkeypatch.setattr("pc_train.precise.precise_scores", _tell_the_truth)
    assert main(["evaluate", str(out), *data, "--precise", f"--out={tmp_path / 'precise'}"]) == 0
    assert _score(tmp_path / "precise")["miou"] == pytest.approx(len(occur) / 20)


def test_what_the_run_records(words, tmp_path):
    from pc_backbones import read_card

    out = tmp_path / "tuned"
    assert main(words("finetune", out, "--max_steps=1")) == 0
    card = read_card(out / "backbone.safetensors")["card"]
    assert card["voxel_size"] == 0.2  # the network's own
    assert card["head"] == "linear"
    assert card["features"] == list(ROOM_FEATURES)
    assert card["absent_classes"] == "zero"


def test_killed_and_resumed_equals_never_killed(words, tmp_path, monkeypatch):
    import torch
    from pc_train.segmentation import FineTune

    more = ("--max_steps=5", "--save_every=2")
    assert main(words("finetune", tmp_path / "whole", *more)) == 0
    step = FineTune.training_step

    def dies(self, batch):
        if self.global_step == 3:
            raise RuntimeError("killed")
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(FineTune, "training_step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            main(words("finetune", tmp_path / "parts", *more))
    assert main(words("finetune", tmp_path / "parts", *more)) == 0
    assert _losses(tmp_path / "parts") == _losses(tmp_path / "whole")
    whole, parts = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_few_labels(words, world, tmp_path):
    import torch
    from pc_data.datasets import DataConfig, open_dataset

    names = open_dataset(DataConfig(root=world, name="scannet")).scene_names
    (tmp_path / "scenes.txt").write_text("\n".join(names[:2]))
    torch.save({name: [0, 5, 9, 100] for name in names[:2]}, tmp_path / "points")
    more = (
        *("--max_steps=2", f"--scenes={tmp_path / 'scenes.txt'}"),
        *(f"--points_file={tmp_path / 'points'}", "--mix_probability=0"),
    )
    assert main(words("finetune", tmp_path / "few", *more)) == 0
    assert _score(tmp_path / "few")["num_scans"] == 1
    (tmp_path / "scenes.txt").write_text(names[1])  # the content is part of the run
    assert main(words("finetune", tmp_path / "few", *more, "--batch_size=1")) == 2


def test_probing(words, tmp_path):
    assert main(words("probe", tmp_path / "probe", "--max_steps=3", "--lr=0.05")) == 0
    assert _score(tmp_path / "probe")["miou"] > 0


def test_features_that_the_data_lacks(words, street_world, tmp_path, capsys):
    street = (f"--data.root={street_world}", "--data.name=nuscenes", "--augmentation=lidar")
    assert main(words("finetune", tmp_path / "out", *street)) in (2, 3)
    said = capsys.readouterr().err
    assert "has no color, which the features red, green, blue are; open data with colour" in said
    assert not (tmp_path / "out").exists()
