"""Choosing points of a scan, and images that are not what they should be."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from pc_data import Camera, DataError, Scan
from PIL import Image

FIELDS = ("xyz", "intensity", "color", "normal", "labels", "instance", "time")


def full_scan(n=6):
    rng = np.random.default_rng(0)
    return Scan(
        name="a/1",
        xyz=rng.random((n, 3), np.float32),
        intensity=rng.random(n, np.float32),
        color=rng.random((n, 3), np.float32),
        normal=rng.random((n, 3), np.float32),
        labels=rng.integers(-1, 5, n),
        instance=rng.integers(0, 5, n),
        time=rng.random(n, np.float32),
        cameras=(camera(), dataclasses.replace(camera(), name="BACK")),
        pose=np.eye(4),
        timestamp=1.5,
    )


def camera(file="image.png", size=(6, 4)):
    return Camera(
        name="FRONT",
        image_file=Path(file),
        image_size=size,
        intrinsics=np.eye(3),
        from_scan=np.eye(4),
    )


@pytest.mark.parametrize(
    "keep",
    [
        np.array([4, 0, 0]),
        np.array([2]),
        np.array([], np.int64),
        np.array([True, False, False, True, True, False]),
        np.zeros(6, bool),
    ],
    ids=str,
)
def test_select(keep):
    scan = full_scan()
    chosen = scan.select(keep)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(chosen, field), getattr(scan, field)[keep])
    assert len(chosen) == len(scan.xyz[keep])
    for field in ("name", "cameras", "pose", "timestamp"):
        assert getattr(chosen, field) is getattr(scan, field)
    assert len(scan) == 6


def test_select_of_points_alone():
    chosen = Scan(name="a", xyz=np.zeros((3, 3), np.float32)).select(np.array([1]))
    assert len(chosen) == 1
    assert all(getattr(chosen, field) is None for field in FIELDS[1:])


def test_select_copies():
    """Whoever changes the choice does not change the scan."""
    scan = full_scan()
    before = scan.xyz.copy()
    scan.select(np.arange(6)).xyz[:] = 0
    np.testing.assert_array_equal(scan.xyz, before)


def test_scan_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        full_scan().name = "other"


def test_camera_by_name():
    assert full_scan().camera("BACK").name == "BACK"
    with pytest.raises(DataError, match="scan a/1 has no camera 'LEFT'; it has: FRONT, BACK"):
        full_scan().camera("LEFT")
    with pytest.raises(DataError, match="has no camera 'LEFT'; it has: none"):
        Scan(name="a", xyz=np.zeros((1, 3), np.float32)).camera("LEFT")


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_load_image(tmp_path, mode):
    """Whatever the file's colours, RGB comes out, and the right way round."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 5] = 255
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.png")
    loaded = camera(tmp_path / "a.png").load_image()
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, pixels)


def test_missing_image(tmp_path):
    for file in (tmp_path / "a.png", tmp_path):
        with pytest.raises(DataError, match="image file is missing; restore it or drop the scan"):
            camera(file).load_image()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("share", [0, 0.2, 0.7])
def test_truncated_image(tmp_path, suffix, share):
    file = tmp_path / f"a.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=rf"a\.{suffix}: image does not decode .*fetch the file"):
        camera(file, (60, 40)).load_image()


def test_not_an_image(tmp_path):
    (tmp_path / "a.png").write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"a\.png: image does not decode"):
        camera(tmp_path / "a.png").load_image()


def test_image_of_another_size(tmp_path):
    Image.new("RGB", (4, 6)).save(tmp_path / "a.png")
    with pytest.raises(
        DataError, match="4x6 pixels but its calibration is for 6x4; use the original"
    ):
        camera(tmp_path / "a.png").load_image()
