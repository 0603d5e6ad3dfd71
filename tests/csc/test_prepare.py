"""Superpixels as a run: the same whatever happened, once, and refusals before anything is there."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from csc.prepare import prepare
from csc.prepare_config import PrepareConfig
from csc.prepare_presets import PREPARE_PRESETS
from pc_2dteachers import create_segmenter, segment_image, slic_superpixels
from pc_data.commandline import run
from pc_data.datasets import DataConfig, open_dataset
from pc_data.errors import DataError, MachineError, MissingExtraError
from pc_data.superpixel_files import open_superpixels
from pc_data.synthetic.formats import make_world
from PIL import Image

from tests.real_data import REAL_DATA, needs_real_data

SLIC = {"network": "slic", "num_segments": 20, "sigma": 1.0, "jobs": 1}
CLUSTERS = {"network": "offline_clusters", "num_clusters": 8, "jobs": 1, "accelerator": "cpu"}


def _silent(what):
    return lambda *done: None  # noqa: ARG005


def _config(world, out, split="train", **settings):
    return PrepareConfig(data=DataConfig(root=world, split=split), out=out, **settings)


def _prepare(*words, **settings):
    return prepare(_config(*words, **settings), progress=_silent)


def _is_kept(path):
    is_whole = path.suffix in (".png", ".json", ".safetensors") and path.name != "summary.json"
    return path.is_file() and (is_whole or ".png." in path.name)


def _files(out):
    """What a run makes for others to read, and what is left of it being made."""
    files = filter(_is_kept, sorted(out.rglob("*")))
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def _pngs(out):
    return sorted(path for path in out.rglob("*.png") if not path.name.startswith("."))


def _images(config):
    """Each image of a run with its superpixels."""
    files = open_superpixels(config.out / "superpixels")
    for scan in open_dataset(config.data):
        for camera in scan.cameras:
            yield camera, files.read(scan, camera)


@pytest.fixture(scope="module")
def slic_run(street_world, tmp_path_factory):
    """All four scans, six images each; read only."""
    out = tmp_path_factory.mktemp("slic") / "run"
    return _prepare(street_world, out, "all", **SLIC)


@pytest.fixture(scope="module")
def clusters_run(street_world, tmp_path_factory):
    """The training scans; read only."""
    return _prepare(street_world, tmp_path_factory.mktemp("clusters") / "run", **CLUSTERS)


def test_slic(street_world, slic_run):
    config = _config(street_world, slic_run, "all", **SLIC)
    counts = []
    for camera, superpixels in _images(config):
        oracle = slic_superpixels(camera.load_image(), num_segments=20, compactness=6.0, sigma=1.0)
        np.testing.assert_array_equal(superpixels, oracle)
        counts.append(len(np.unique(oracle)))
    manifest = open_superpixels(slic_run / "superpixels").manifest
    assert manifest.network == "slic"
    assert manifest.num_classes == 40
    assert manifest.class_names == ()
    assert manifest.settings == {"num_segments": 20, "compactness": 6.0, "sigma": 1.0}
    summary = json.loads((slic_run / "summary.json").read_text())
    assert summary["images"] == len(counts) == 24
    assert summary["superpixels_per_image"] == pytest.approx(np.mean(counts))
    assert summary["share_without"] == 0
    report = (slic_run / "report.html").read_text()
    assert report.count("data:image/png") == 2
    assert "Most frequent classes" not in report


def test_clusters_mean_the_same_in_every_image(street_world, clusters_run):
    config = _config(street_world, clusters_run, **CLUSTERS)
    segmenter = create_segmenter(
        "offline_clusters", checkpoint=clusters_run / "clusters.safetensors"
    )
    seen = Counter()
    for camera, superpixels in _images(config):
        np.testing.assert_array_equal(superpixels, segment_image(segmenter, camera.load_image()))
        seen.update(np.unique(superpixels).tolist())
    manifest = open_superpixels(clusters_run / "superpixels").manifest
    assert manifest.settings == {"image_size": None}
    assert manifest.digest == segmenter.digest()
    assert manifest.class_names == segmenter.class_names
    assert sorted(seen) == list(range(8))
    assert max(seen.values()) == 12  # there is a class that every image has, as the road
    assert "Most frequent classes" in (clusters_run / "report.html").read_text()


def test_equal_pictures_have_equal_classes(street_world, clusters_run, tmp_path):
    """The first scan's front image stands in for the last one's back: classes are not by place."""
    world = tmp_path / "world"
    shutil.copytree(street_world, world)
    first, last = (open_dataset(DataConfig(root=world))[index] for index in (0, -1))
    source, target = first.camera("CAM_FRONT"), last.camera("CAM_BACK")
    shutil.copyfile(source.image_file, target.image_file)
    checkpoint = clusters_run / "clusters.safetensors"
    out = _prepare(world, tmp_path / "run", checkpoint=checkpoint, **CLUSTERS)
    files = open_superpixels(out / "superpixels")
    np.testing.assert_array_equal(files.read(first, source), files.read(last, target))
    assert (out / "clusters.safetensors").read_bytes() == checkpoint.read_bytes()


def test_clusters_follow_from_the_seed(street_world, clusters_run, tmp_path):
    out = _prepare(street_world, tmp_path / "run", seed=1, fit_scans=1, **CLUSTERS)
    digests = [open_superpixels(run / "superpixels").manifest.digest for run in (clusters_run, out)]
    assert digests[0] != digests[1]


@pytest.mark.parametrize("network", ["slic", pytest.param("clusters", marks=pytest.mark.slow)])
def test_parallel_is_sequential(network, street_world, request, tmp_path):
    before = request.getfixturevalue(f"{network}_run")
    settings, split = (SLIC, "all") if network == "slic" else (CLUSTERS, "train")
    out = _prepare(street_world, tmp_path / "run", split, **(settings | {"jobs": 2}))
    assert _files(out) == _files(before)


@needs_real_data
def test_real_keyframe(tmp_path):
    data = DataConfig(root=REAL_DATA / "nuscenes", version="v1.0-mini")
    settings = CLUSTERS | {"num_clusters": 32, "image_size": (224, 400)}
    config = PrepareConfig(data=data, out=tmp_path / "run", **settings)
    prepare(config, progress=_silent)
    images = list(_images(config))
    assert len(images) == 6
    assert open_superpixels(config.out / "superpixels").manifest.settings["image_size"] == [
        224,
        400,
    ]
    for _, superpixels in images:
        assert superpixels.shape == (900, 1600)
        shares = np.bincount(superpixels.ravel()) / superpixels.size
        assert (shares > 0).sum() >= 8
        assert shares.max() < 0.5


# --- killed, and started again

KILLED_WRITING = """
import os, signal
from PIL import Image
save, count = Image.Image.save, 0
def save_or_die(image, stream, **options):
    global count
    count += 1
    if count == 9:
        stream.write(b"\\x89PNG half of a file")
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(image, stream, **options)
Image.Image.save = save_or_die
tell = lambda *done: None
"""

KILLED_WAITING = """
import os, signal, sys
from joblib.externals.loky import reusable_executor
def tell(done, total):
    workers = reusable_executor._executor._processes
    sys.stdout.write(" ".join(map(str, workers)))
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""

PREPARE = """
from pathlib import Path
from csc.prepare import prepare
from csc.prepare_config import PrepareConfig
from pc_data.datasets import DataConfig
prepare(
    PrepareConfig(
        data=DataConfig(root=Path({root!r}), split="all"), out=Path({out!r}), **{settings!r}
    ),
    progress=lambda what: tell,
)
"""


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_kill(jobs, street_world, slic_run, tmp_path):
    out = tmp_path / "run"
    settings = SLIC | {"jobs": jobs}
    words = PREPARE.format(root=str(street_world), out=str(out), settings=settings)
    script = (KILLED_WRITING if jobs == 1 else KILLED_WAITING) + words
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    limit = time.monotonic() + 30
    while any(map(_is_alive, done.stdout.split())) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not any(map(_is_alive, done.stdout.split()))
    assert not (out / "summary.json").exists()
    made = {path: path.stat().st_mtime_ns for path in _pngs(out)}
    for path in made:
        with Image.open(path) as image:
            image.load()
    if jobs == 1:
        assert len(made) == 8
        assert len(list(out.rglob(".*.png.*"))) == 1
    else:
        assert len(made) >= 6
    _prepare(street_world, out, "all", **SLIC)
    assert _files(out) == _files(slic_run)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    summaries = [json.loads((run / "summary.json").read_text()) for run in (out, slic_run)]
    assert all(summary.pop("seconds") >= 0 for summary in summaries)
    assert summaries[0] == summaries[1]


def test_kill_while_clusters_are_found(street_world, clusters_run, tmp_path, monkeypatch):
    def stop(*tensors, **options):
        raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("pc_2dteachers.segment_clusters.save_file", stop)
        with pytest.raises(KeyboardInterrupt):
            _prepare(street_world, out, **CLUSTERS)
    assert sorted(path.name for path in out.iterdir()) == [".lock", "config.yaml"]
    _prepare(street_world, out, **CLUSTERS)
    assert _files(out) == _files(clusters_run)


def test_finished_run_is_left_alone(street_world, slic_run, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in slic_run.rglob("*")}
    monkeypatch.setattr("csc.prepare.open_dataset", None)
    assert _prepare(street_world, slic_run, "all", **(SLIC | {"jobs": 5})) == slic_run
    assert {path: path.stat().st_mtime_ns for path in slic_run.rglob("*")} == before


def test_only_what_is_missing_or_damaged_is_made(street_world, slic_run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(slic_run, out)
    (out / "summary.json").unlink()
    gone, cut, wrong, *whole = _pngs(out)
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-20])
    content = bytearray(wrong.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(8)  # its ends are whole
    wrong.write_bytes(content)
    before = {path: path.stat().st_mtime_ns for path in whole}
    _prepare(street_world, out, "all", **SLIC)
    assert {path: path.stat().st_mtime_ns for path in whole} == before
    assert _files(out) == _files(slic_run)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_damaged_image(jobs, street_world, slic_run, tmp_path, capsys):
    world, out = tmp_path / "world", tmp_path / "run"
    shutil.copytree(street_world, world)
    scans = open_dataset(DataConfig(root=world, split="all"))
    image = scans[2].camera("CAM_BACK").image_file
    content = image.read_bytes()
    image.write_bytes(content[:300])
    settings = SLIC | {"jobs": jobs}
    with pytest.raises(DataError, match=rf"{re.escape(image.name)}: image does not decode"):
        _prepare(world, out, "all", **settings)
    _prepare(world, out, "all", on_error="skip", **settings)
    left = json.loads((out / "summary.json").read_text())["left_out"]
    assert len(left) == 1
    assert image.name in left[0]
    assert len(_pngs(out)) == 23
    assert "left out: " in capsys.readouterr().err
    image.write_bytes(content)  # brought back: the same command makes what is missing
    _prepare(world, out, "all", on_error="skip", **settings)
    assert _files(out) == _files(slic_run)
    assert json.loads((out / "summary.json").read_text())["left_out"] == []


def test_damaged_image_among_those_that_clusters_are_found_on(street_world, tmp_path):
    world, out = tmp_path / "world", tmp_path / "run"
    shutil.copytree(street_world, world)
    scan = open_dataset(DataConfig(root=world))[1]
    scan.camera("CAM_BACK").image_file.write_bytes(b"no picture")
    with pytest.raises(DataError, match="image does not decode"):
        _prepare(world, out, **CLUSTERS)
    _prepare(world, out, on_error="skip", **CLUSTERS)
    assert len(_pngs(out)) == 11


def test_nothing_to_be_used(street_world, tmp_path):
    world, out = tmp_path / "world", tmp_path / "run"
    shutil.copytree(street_world, world)
    for image in world.glob("samples/CAM_*/*"):
        image.write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of its images can be used"):
        _prepare(world, out, on_error="skip", **SLIC)
    assert not (out / "summary.json").exists()


# --- refusals, with nothing written


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "dinov2_linear_ade20k_vit"}, r"unknown network .*; nearest: dinov2_linear_ad"),
        ({"network": "slick"}, r"unknown network 'slick'; nearest: slic; use one of "),
        ({"num_clusters": 0}, "num_clusters must be positive, got 0"),
        ({"num_clusters": 70_000}, "num_clusters must be at most 65535"),
        ({"num_segments": 40_000}, "num_segments must be at most 32767"),
        ({"fit_scans": -1}, "fit_scans must be positive, got -1"),
        ({"compactness": 0.0}, "compactness must be positive, got 0"),
        ({"sigma": -1.0}, "sigma must be 0 or more, got -1"),
        ({"jobs": -1}, "jobs must be 0 or more, got -1"),
        ({"image_size": (224, 0)}, r"image_size must be positive, got \(224, 0\)"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        PrepareConfig(data=DataConfig(root=Path("world")), **settings)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, FileNotFoundError, "vitg14 needs the head of its authors as checkpoint"),
        (
            {"network": "offline_clusters", "checkpoint": Path("no.safetensors")},
            FileNotFoundError,
            r"no\.safetensors is no file",
        ),
        ({"network": "slic", "data": "no"}, FileNotFoundError, "no"),
    ],
)
def test_something_is_missing(settings, error, message, street_world, tmp_path):
    world = tmp_path / settings.pop("data", "") if "data" in settings else street_world
    with pytest.raises(error, match=message):
        _prepare(world, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("network", "package", "extra"),
    [("slic", "skimage", "superpixels"), ("mask2former_ade20k_swin_tiny", "transformers", "segm")],
)
def test_missing_extra(network, package, extra, street_world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'pc-2dteachers\[{extra}"):
        _prepare(street_world, tmp_path / "run", network=network)
    assert not (tmp_path / "run").exists()


def test_no_gpu(street_world, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    settings = CLUSTERS | {"accelerator": "gpu"}
    with pytest.raises(MachineError, match="accelerator is gpu, but torch finds none here"):
        _prepare(street_world, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_no_cameras(tmp_path):
    world = tmp_path / "world"
    make_world("street", world, layout="semanticposs", num_scenes=2, num_frames=1, seed=0)
    data = DataConfig(root=world, name="semanticposs")
    with pytest.raises(DataError, match=r"semanticposs, split train\) has no camera images"):
        prepare(PrepareConfig(data=data, out=tmp_path / "run", **SLIC), progress=_silent)
    assert not (tmp_path / "run").exists()


def test_folder_of_another_run(street_world, slic_run, tmp_path):
    with pytest.raises(ValueError, match=r"other settings \(num_segments 20 -> 21\)"):
        _prepare(street_world, slic_run, "all", **(SLIC | {"num_segments": 21}))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is no run of this command"):
        _prepare(street_world, tmp_path, **SLIC)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_weights_changed(street_world, clusters_run, tmp_path):
    """Clusters are another run's, and then others under the same name."""
    checkpoint, out = tmp_path / "clusters.safetensors", tmp_path / "run"
    shutil.copyfile(clusters_run / "clusters.safetensors", checkpoint)
    _prepare(street_world, out, checkpoint=checkpoint, **CLUSTERS)
    (out / "summary.json").unlink()
    other = _prepare(street_world, tmp_path / "other", **(CLUSTERS | {"seed": 7}))
    shutil.copyfile(other / "clusters.safetensors", checkpoint)
    with pytest.raises(DataError, match=r"holds superpixels made otherwise \(digest "):
        _prepare(street_world, out, checkpoint=checkpoint, **CLUSTERS)


def test_two_at_once(street_world, tmp_path):
    from pc_train.runs import lock_run

    out = tmp_path / "run"
    script = "import sys; from pathlib import Path; from pc_train.runs import lock_run\n"
    script += "with lock_run(Path(sys.argv[1])): print('has it', flush=True); input()"
    words = [sys.executable, "-c", script, str(out)]
    with lock_run(out):  # makes the folder
        (out / ".lock").unlink()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    _prepare(street_world, out, **SLIC)
    (out / "summary.json").unlink()
    with subprocess.Popen(words, **pipes) as other:
        assert other.stdout.readline() == "has it\n"
        with pytest.raises(ValueError, match="another process is"):
            _prepare(street_world, out, **SLIC)
        other.communicate("\n")
    _prepare(street_world, out, **SLIC)


def test_processes_are_dealt_to_devices(tmp_path):
    script = f"""
from pathlib import Path
from csc.superpixel_jobs import Job, _claim
job = Job(config=None, clusters=None, files=None, devices=("cuda:0", "cuda:1"),
          slots=Path({str(tmp_path)!r}), num_jobs=4, parent=0)
print(_claim(job), flush=True)
input()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    others = [subprocess.Popen([sys.executable, "-c", script], **pipes) for _ in range(4)]
    devices = [other.stdout.readline().strip() for other in others]
    for other in others:
        other.communicate("\n")
    assert Counter(devices) == {"cuda:0": 2, "cuda:1": 2}


@pytest.mark.parametrize("name", PREPARE_PRESETS)
def test_presets(name, capsys):
    preset = PREPARE_PRESETS[name]()
    seen = []

    def command(config: PrepareConfig) -> None:
        """Prepare.

        Args:
            config: The settings.
        """
        seen.append(config)

    words = ["prepare", "--preset", name, "--data.root", "w", "--image_size", "56,84", "--jobs=3"]
    presets = {"prepare": PREPARE_PRESETS}
    code = run({"prepare": command}, prog="csc", description="", presets=presets, argv=words)
    assert code == 0, capsys.readouterr().err
    assert seen[0].network == preset.network
    assert seen[0].num_segments == preset.num_segments
    assert seen[0].image_size == (56, 84)
    assert seen[0].data.root == Path("w")


def test_configuration_needs_no_torch():
    script = "import sys, csc.prepare_presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], env=os.environ).returncode == 0
