"""Clouds to predict, whatever they are in, and what is said of them."""

from pathlib import Path

import numpy as np
import pytest
from pc_data.files.ply import write_ply
from pc_train.prediction.config import PredictConfig
from pc_train.prediction.inputs import open_clouds

from tests.real_data import REAL_DATA, needs_real_data


def _config(**settings):
    return PredictConfig(checkpoint=Path("c"), out=Path("o"), **settings)


def _only(path, **settings):
    clouds = open_clouds(path, _config(**settings))
    assert len(clouds) == 1
    return clouds[0]


@pytest.fixture
def xyz():
    rng = np.random.default_rng(0)
    floor = rng.uniform(0, [5, 4, 0.01], (2000, 3))
    return np.concatenate([floor, rng.uniform(0, [5, 4, 2.5], (500, 3))]).astype(np.float32)


def _write(path, xyz):
    if path.suffix == ".ply":
        write_ply(path, {"vertex": dict(zip("xyz", xyz.T, strict=True))})
    elif path.suffix == ".npy":
        np.save(path, xyz)
    elif path.suffix == ".npz":
        np.savez(path, xyz=xyz)
    elif path.suffix == ".bin":
        xyz.tofile(path)
    elif path.suffix == ".pcd":
        head = "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
        head += f"WIDTH {len(xyz)}\nHEIGHT 1\nPOINTS {len(xyz)}\nDATA binary\n"
        path.write_bytes(head.encode() + xyz.tobytes())
    else:
        import laspy

        las = laspy.create()
        las.header.scales = [1e-4] * 3
        las.x, las.y, las.z = xyz.T
        las.write(path)


@pytest.mark.parametrize("suffix", [".ply", ".npy", ".npz", ".bin", ".pcd", ".las", ".laz"])
def test_any_file(tmp_path, xyz, suffix):
    file = tmp_path / f"room{suffix}"
    _write(file, xyz)
    columns = ("x", "y", "z") if suffix == ".bin" else ()
    cloud = _only(file, columns=columns)
    np.testing.assert_allclose(cloud.scan.xyz, xyz, atol=6e-5)
    assert cloud.scan.name == file.name
    assert cloud.notes == ()
    assert cloud.scan.labels is None


@pytest.mark.parametrize(("units", "metres"), [("mm", 0.001), ("cm", 0.01), ("ft", 0.3048)])
def test_units_and_axis_are_as_stated(tmp_path, xyz, units, metres):
    _write(tmp_path / "a.ply", np.stack([xyz[:, 0], xyz[:, 2], -xyz[:, 1]]).T / metres)
    cloud = _only(tmp_path / "a.ply", units=units, up="y")
    np.testing.assert_allclose(cloud.scan.xyz, xyz, atol=1e-5)
    assert cloud.notes == ()


def test_doubts(tmp_path, xyz):
    _write(tmp_path / "mm.ply", 10_000 * xyz)
    (said,) = _only(tmp_path / "mm.ply").notes
    assert "if its unit is not the metre, say so (--units mm)" in said
    _write(tmp_path / "y.ply", np.stack([xyz[:, 0], xyz[:, 2], -xyz[:, 1]]).T)
    (said,) = _only(tmp_path / "y.ply").notes
    assert "the up axis may be another than was stated; if so, pass --up y" in said
    _write(tmp_path / "z.ply", xyz)
    (said,) = _only(tmp_path / "z.ply", up="y").notes
    assert said.endswith("if so, pass --up z")


def test_points_without_coordinates_are_said(tmp_path, xyz):
    xyz[5] = np.nan
    _write(tmp_path / "a.ply", xyz)
    cloud = _only(tmp_path / "a.ply")
    assert len(cloud.scan) == len(xyz) - 1
    assert "1 of 2,500 points have no coordinates and get no row" in cloud.notes[0]


def test_intensity_is_measured_against_what_is_stated(tmp_path, xyz):
    rows = np.column_stack([xyz, np.linspace(0, 200, len(xyz), dtype=np.float32)])
    rows.tofile(tmp_path / "a.bin")
    columns = ("x", "y", "z", "intensity")
    own = _only(tmp_path / "a.bin", columns=columns)
    assert own.has_own_intensity
    assert own.intensity_mean == pytest.approx(100)
    assert own.intensity_std == pytest.approx(rows[:, 3].std(), rel=1e-4)
    stated = _only(tmp_path / "a.bin", columns=columns, intensity=(18.0, 22.0))
    assert not stated.has_own_intensity
    assert (stated.intensity_mean, stated.intensity_std) == (18, 22)
    rows[:, 3] = 7
    rows.tofile(tmp_path / "a.bin")
    assert _only(tmp_path / "a.bin", columns=columns).intensity_std == 1


def test_folder_of_files(tmp_path, xyz):
    for name in ("b/z.ply", "a.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        _write(tmp_path / name, 100 * xyz)
    clouds = open_clouds(tmp_path, _config(units="cm"))
    assert [clouds[k].scan.name for k in range(len(clouds))] == ["a.npy", "b/z.ply"]
    assert clouds.known_name(1) == "b/z.ply"
    np.testing.assert_allclose(clouds[1].scan.xyz, xyz, rtol=1e-6)


def test_folder_with_a_schema_is_read_by_it(tmp_path, xyz):
    _write(tmp_path / "a.ply", 1000 * xyz)
    (tmp_path / "dataset.yaml").write_text("unit: mm\nintensity: {mean: 3, std: 2}\n")
    cloud = _only(tmp_path)
    np.testing.assert_allclose(cloud.scan.xyz, xyz, rtol=1e-5)
    assert (cloud.intensity_mean, cloud.intensity_std) == (3, 2)
    with pytest.raises(ValueError, match=r"--units is not for .*: dataset.yaml says how to read"):
        open_clouds(tmp_path, _config(units="mm"))


def test_dataset_is_told_from_its_files(street_world, rooms):
    streets = open_clouds(street_world, _config(split="val"))
    assert len(streets) == 2
    assert streets.known_name(0) == ""
    assert streets[0].scan.labels is None
    assert streets[0].intensity_mean == streets.reader.intensity_mean > 0
    assert len(open_clouds(rooms, _config())) == 4
    with pytest.raises(ValueError, match="no dataset is called 'scanet'"):
        open_clouds(rooms, _config(name="scanet"))


def test_refusals(tmp_path, xyz):
    _write(tmp_path / "a.ply", xyz)
    (tmp_path / "notes.txt").write_text("hello")
    for path, settings, said in (
        (tmp_path / "none", {}, "none does not exist"),
        (tmp_path / "notes.txt", {}, r"notes.txt: not a point cloud of a known type"),
        (tmp_path / "a.ply", {"name": "nuscenes"}, "--name is not for .*: a file is no dataset"),
        (tmp_path, {"split": "val"}, "--split is not for .*: these are files without splits"),
        (tmp_path, {"name": "nuscenes"}, "nuScenes"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            open_clouds(path, _config(**settings))
    (tmp_path / "b.bin").write_bytes(bytes(48))
    with pytest.raises(ValueError, match="--columns x,y,z,intensity for SemanticKITTI"):
        open_clouds(tmp_path / "b.bin", _config())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_points": 0}, "max_points must be positive, got 0"),
        ({"tile_size": -1.0}, "tile_size must be 0 or more, got -1.0"),
        ({"overlap": -0.5}, "overlap must be 0 or more, got -0.5"),
        ({"intensity": (1.0, 0.0)}, "a mean and a positive standard deviation, got"),
    ],
)
def test_settings(settings, said):
    with pytest.raises(ValueError, match=said):
        _config(**settings)


@needs_real_data
def test_real_files_and_folders():
    kitti = REAL_DATA / "semantickitti"
    scans = open_clouds(kitti, _config())
    file = kitti / "dataset/sequences/08/velodyne/000000.bin"
    cloud = _only(file, columns=("x", "y", "z", "intensity"))
    same = next(scans[k] for k in range(len(scans)) if scans[k].scan.name == "08/000000")
    np.testing.assert_array_equal(cloud.scan.xyz, same.scan.xyz)
    np.testing.assert_array_equal(cloud.scan.intensity, same.scan.intensity)
    assert cloud.notes == ()
    survey = _only(next(REAL_DATA.glob("isprs_als_ground/samp31-utm.pcd")))
    assert len(survey.scan) == 28_862
    assert survey.notes == ()
