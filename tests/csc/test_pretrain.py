"""Pre-training as a user runs it: real keyframe, presets and switches, a kill, two processes."""

import itertools
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from csc.cli import main
from pc_backbones import load_backbone, read_card
from pc_losses.prototypes import PrototypeBank
from pc_train.callbacks import read_columns, read_curve
from pc_train.checkpoints import newest_checkpoint, read_checkpoint
from pc_train.cli import main as pc_train

from tests.fork_server import Trial, run_to_end, run_two
from tests.real_data import REAL_DATA, needs_real_data

CPU = ["--hardware.num_workers=0", "--hardware.accelerator=cpu"]
FAST = ["--preset=small", *CPU, "--image_size=[64,128]", "--dim=16"]


def _pretrain(world, superpixels, out, *more):
    words = ["pretrain", f"--data.root={world}", f"--superpixels={superpixels}", *FAST]
    return [*words, "--batch_size=1", "--max_steps=2", f"--out={out}", *more]


def _checkpoint(out):
    return read_checkpoint(newest_checkpoint(out / "checkpoints"))["state_dict"]


@pytest.mark.slow
@needs_real_data
def test_real_keyframe(tmp_path):
    """Twenty steps on one keyframe, which is an epoch; prototypes from the eleventh on."""
    data = [f"--data.root={REAL_DATA / 'nuscenes'}", "--data.version=v1.0-mini"]
    made, out = tmp_path / "superpixels", tmp_path / "run"
    words = ["prepare", "--preset=offline", *data, "--num_clusters=32", "--jobs=1"]
    assert main([*words, "--accelerator=cpu", f"--out={made}"]) == 0
    words = ["pretrain", "--preset=small", *CPU, *data, "--batch_size=1", "--max_steps=20"]
    more = [f"--superpixels={made}", "--prototype_epochs=9", f"--out={out}"]
    assert main([*words, *more]) == 0
    columns = read_columns(out / "metrics.csv")
    loss = columns["loss"]
    assert len(loss) == 20
    assert np.mean(loss[5:9]) < 0.95 * np.mean(loss[:4])  # of superpixels alone
    watched = columns["superpixels"]
    assert watched[19] < 0.95 * watched[0]
    assert columns["prototypes"][0] == 0
    assert columns["prototypes"][9] > 0
    assert columns["prototypes"][19] > 0
    np.testing.assert_allclose(loss[19], watched[19] + columns["prototypes"][19], rtol=1e-5)
    card = read_card(out / "backbone.safetensors")["card"]
    assert (card["method"], card["prototypes"]) == ("CSC", "blend")
    assert card["superpixels"] == "offline_clusters"
    assert card["features"] == ["intensity"]
    assert (out / "report.html").read_text().count("data:image/png") == 4
    present = _checkpoint(out)["bank.present"]
    assert 8 <= present.sum() <= 32


def test_run_and_what_follows(street_world, semantic_run, tmp_path, capsys, monkeypatch):
    """Weights, card and report; a finished run is left alone; a probe takes the weights."""
    out = tmp_path / "run"
    words = _pretrain(street_world, semantic_run, out, "--max_steps=10")
    assert main(words) == 0
    told = capsys.readouterr()
    assert "next: pc-train probe --backbone" in told.out
    assert "no prototypes will be made" not in told.err
    columns = read_columns(out / "metrics.csv")
    assert columns["prototypes"][0] == 0  # two keyframes are an epoch of two steps
    assert columns["prototypes"][9] > 0
    expected = columns["superpixels"][9] + columns["prototypes"][9]
    np.testing.assert_allclose(columns["loss"][9], expected, rtol=1e-5)
    card = read_card(out / "backbone.safetensors")
    assert card["name"] == "minkunet14_small"
    assert card["card"]["teachers"] == ["efficientnet_lite0_offline"]
    state = _checkpoint(out)
    for name, value in load_backbone(out / "backbone.safetensors").state_dict().items():
        assert torch.equal(value, state[f"backbone.{name}"]), name
    assert state["bank.present"].any()
    assert not any(name.startswith("teacher") for name in state)
    assert (out / "report.html").read_text().count("data:image/png") == 4
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with monkeypatch.context() as patch:  # not even the image network is needed any more
        patch.setattr("csc.pretrain.create_teacher", None)
        assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    words = ["probe", f"--backbone={out}", f"--data.root={street_world}", "--batch_size=1", *CPU]
    more = ["--max_steps=2", "--augmentation=cloud", "--max_points=500"]
    assert pc_train([*words, *more, f"--out={tmp_path / 'probe'}"]) == 0


XYZI = "--features=[x,y,z,intensity]"
NONE = "--prototypes=none"
SWITCHES = {
    "slidr": ["slic", NONE],
    "ppkt": ["none", "--contrast=pixel", NONE, "--num_pairs=100"],
    "st_slidr": ["slic", "--contrast=tolerant", NONE],
    "tolerant with prototypes": ["semantic", "--contrast=tolerant"],
    "semantic": ["semantic", NONE],
    "point_prototypes": ["semantic", "--prototypes=point"],
    "released": [
        "semantic",
        *("--prototypes=concat", "--absent_classes=true", "--average_losses=true"),
    ],
    "voxelnet": ["semantic", "--backbone=voxelnet_small", XYZI],
    "cylinder3d": ["semantic", "--backbone=cylinder3d_small"],
    "released_cylinder3d": [
        "semantic",
        *("--backbone=cylinder3d_small", "--learn_heads=false", "--prototypes=concat"),
    ],
    "sgd": ["semantic", "--optimizer=sgd", "--lr=0.1", "--weight_decay=0.0001"],
    "dim of the backbone": ["semantic", "--dim=32", "--voxel_size=0.2"],
}
_QUICK = ("ppkt", "st_slidr", "released")


@pytest.mark.parametrize(
    "name",
    [one if one in _QUICK else pytest.param(one, marks=pytest.mark.slow) for one in SWITCHES],
)
def test_presets_and_switches(street_world, semantic_run, slic_run, tmp_path, name):
    """Four steps, a pass between the second and the third."""
    kind, *flags = SWITCHES[name]
    superpixels = {"slic": slic_run, "semantic": semantic_run, "none": "nowhere"}[kind]
    out = tmp_path / "run"
    assert main(_pretrain(street_world, superpixels, out, "--max_steps=4", *flags)) == 0
    assert np.isfinite([loss for _, loss, _ in read_curve(out / "metrics.csv")]).all()
    card = read_card(out / "backbone.safetensors")["card"]
    assert (card["prototypes"] == "none") == (NONE in flags)
    state = _checkpoint(out)
    assert ("bank.present" in state) == (NONE not in flags)
    if NONE not in flags:
        assert state["bank.present"].any()


def test_a_run_that_ends_before_the_first_pass(street_world, semantic_run, tmp_path, capsys):
    """As a large dataset and few steps make it: that is told, and the loss is of superpixels."""
    out = tmp_path / "run"
    assert main(_pretrain(street_world, semantic_run, out)) == 0  # an epoch of two steps
    told = "no prototypes will be made: the first pass comes after step 2, and the run has 2"
    assert told in capsys.readouterr().err
    assert not _checkpoint(out)["bank.present"].any()


def test_superpixels_by_several_names(street_world, slic_run, tmp_path):
    """The folder of the PNGs will do, and one place has several spellings."""
    flags = [NONE, "--max_steps=1"]
    world = str(street_world)
    assert main(_pretrain(world, slic_run / "superpixels", tmp_path / "run", *flags)) == 0
    other = slic_run / "superpixels" / ".." / "superpixels"
    assert main(_pretrain(world, other, tmp_path / "run", *flags)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("prototypes", ["blend", "point"])
def test_killed_in_a_pass(street_world, semantic_run, tmp_path, prototypes):
    """Weights, prototypes and curve are those of a run that was not."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = ["--max_steps=12", "--save_every=3", f"--prototypes={prototypes}"]
    code, said = run_to_end("csc", _pretrain(street_world, semantic_run, whole, *flags), tmp_path)
    assert code == 0, said
    words = _pretrain(street_world, semantic_run, killed, *flags)
    trial = Trial(_run_and_die_in_a_pass, words, said=tmp_path / "said.txt")
    assert trial.wait() == -signal.SIGKILL, (tmp_path / "said.txt").read_text()
    # Passes come before steps 3, 5, 7, 9, of two keyframes each.
    assert newest_checkpoint(killed / "checkpoints").name.startswith("step-00000006.")
    assert not (killed / "backbone.safetensors").exists()
    code, said = run_to_end("csc", words, tmp_path)
    assert code == 0, said
    assert (killed / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    assert read_columns(whole / "metrics.csv")["prototypes"][9] > 0
    one, other = _checkpoint(whole), _checkpoint(killed)
    assert {"bank.point", "bank.pixel", "bank.present"} <= set(one)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def _run_and_die_in_a_pass(words):
    """The fourth one, before the ninth step."""
    add, count = PrototypeBank.add, itertools.count(1)

    def add_or_die(self, *what):
        add(self, *what)
        if next(count) == 7:
            os.kill(os.getpid(), signal.SIGKILL)

    PrototypeBank.add = add_or_die
    return main(words)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "flags",
    [
        ["--prototypes=blend"],
        ["--prototypes=point", "--average_losses=true"],
        ["--prototypes=concat", "--absent_classes=true", "--learn_heads=false"],
        ["--backbone=voxelnet_small", XYZI],
        ["--backbone=cylinder3d_small"],
    ],
    ids=["blend", "point", "released", "voxelnet", "cylinder3d"],
)
def test_two_processes_train_to_the_end(street_world, semantic_run, tmp_path, flags):
    """Through DistributedDataParallel, before the first pass and after it."""
    out = tmp_path / "run"
    more = ["--batch_size=2", "--max_steps=5", "--prototype_epochs=2", "--hardware.devices=2"]
    words = _pretrain(street_world, semantic_run, out, *more, *flags)
    codes, said = run_two("csc", words, tmp_path)
    assert codes == [0, 0], said
    assert "unused" not in "".join(said)
    columns = read_columns(out / "metrics.csv")
    assert [len(columns["step"]), columns["prototypes"][0]] == [5, 0]
    assert np.isfinite(columns["loss"]).all()
    assert "".join(said).count("weights:") == 1
    state = _checkpoint(out)
    assert state["bank.present"].any()
    assert state["bank.point"][state["bank.present"]].abs().sum(dim=1).min() > 0


# --- refusals, with nothing written


@pytest.mark.parametrize(
    ("kind", "flags", "match"),
    [
        ("nowhere", [], "holds no superpixels; run csc prepare for this dataset"),
        ("empty", [], "holds no"),
        ("slic", [], "prototypes blend are of classes, which superpixels of slic have not"),
        ("semantic", ["--contrast=pixel"], "prototypes blend are of superpixels, which contrast"),
        ("semantic", ["--teacher=moco_v2_resnet50"], "needs the file of its authors"),
        ("semantic", ["--teacher=moco_v2_resnet5"], "moco_v2_resnet5"),
        ("semantic", ["--image_size=[60,128]"], "multiples of 16, got 60x128; resize to 64x128"),
        ("semantic", ["--features=[x,y,colour]"], "colour"),
        ("semantic", ["--backbone=minkunet15"], "no backbone is called 'minkunet15'"),
        ("semantic", ["--min_depth=1000000"], "no point falls on a superpixel"),
        ("semantic", ["--data.split=val"], r"are missing; prepare the dataset again"),
        ("semantic", ["--batch_size=7"], "batch_size must be in [1, 2]"),
    ],
)
def test_bad_settings(street_world, semantic_run, slic_run, tmp_path, capsys, kind, flags, match):
    (tmp_path / "empty").mkdir()
    superpixels = {"slic": slic_run, "semantic": semantic_run}.get(kind, tmp_path / kind)
    assert main(_pretrain(street_world, superpixels, tmp_path / "run", *flags)) in (2, 3)
    _is_one_sentence(capsys.readouterr().err, match)
    assert not (tmp_path / "run").exists()


def _is_one_sentence(error, match):
    assert match in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def test_superpixels_of_a_part_of_the_images(street_world, semantic_run, tmp_path, capsys):
    part = tmp_path / "part"
    shutil.copytree(semantic_run, part)
    (part / "summary.json").unlink()
    assert main(_pretrain(street_world, part, tmp_path / "run")) in (2, 3)
    _is_one_sentence(capsys.readouterr().err, "holds superpixels of a part of the images only")
    assert not (tmp_path / "run").exists()


def test_superpixels_changed_since_the_run_began(street_world, slic_run, tmp_path, capsys):
    """In the same place, by another network or other settings."""
    made, out = tmp_path / "made", tmp_path / "run"
    shutil.copytree(slic_run, made)
    words = _pretrain(street_world, made, out, NONE, "--max_steps=1")
    assert main(words) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    shutil.rmtree(made)
    prepare = ["prepare", "--preset=slic", f"--data.root={street_world}", f"--out={made}"]
    assert main([*prepare, "--num_segments=15", "--jobs=1"]) == 0
    capsys.readouterr()
    assert main(words) == 2
    _is_one_sentence(capsys.readouterr().err, "has changed since the run in")
    assert {path: path.read_bytes() for path in before} == before
