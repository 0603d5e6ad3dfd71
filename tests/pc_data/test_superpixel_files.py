import dataclasses
import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_data.errors import DataError
from pc_data.readers.nuscenes import NuScenes
from pc_data.superpixel_files import (
    create_superpixels,
    image_mark,
    open_csc_superpixels,
    open_superpixels,
    read_camera_tokens,
)
from pc_data.superpixel_manifest import MANIFEST, SuperpixelManifest
from PIL import Image

from tests.pc_data import scans


def camera(name="FRONT", *, image_file=Path(__file__), **options):
    """A camera whose image is a file that is there; which one does not matter."""
    return dataclasses.replace(scans.camera(name, **options), image_file=image_file)


SCAN = scans.scan_of(4, cameras=(camera(), camera("BACK")))
CAMERA = SCAN.cameras[0]  # 64x48


def manifest(**changes):
    fields = {
        "network": "offline_clusters",
        "num_classes": 20,
        "class_names": tuple(f"cluster {index}" for index in range(20)),
        "settings": {"height": 224, "width": 416},
        "digest": "ab12",
    }
    if "num_classes" in changes:
        fields["class_names"] = ()
    return SuperpixelManifest(**(fields | changes))


def random_map(num_classes=20, size=(64, 48), seed=0):
    return np.random.default_rng(seed).integers(-1, num_classes, size[::-1]).astype(np.int32)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([1, 2, 254, 255, 256, 65535]),
    st.tuples(st.integers(1, 40), st.integers(1, 30)),
    st.integers(0, 2**16),
)
def test_what_was_written_is_read(tmp_path_factory, num_classes, size, seed):
    files = create_superpixels(
        tmp_path_factory.mktemp("s") / "new", manifest(num_classes=num_classes)
    )
    one = camera(size=size)
    want = random_map(num_classes, size, seed)
    want.flat[0], want.flat[-1] = -1, num_classes - 1
    file = files.write(SCAN, one, want)
    got = files.read(SCAN, one)
    assert got.dtype == np.int32
    assert np.array_equal(got, want)
    stored = np.asarray(Image.open(file))
    assert stored.dtype == (np.uint8 if num_classes <= 255 else np.uint16)
    assert np.array_equal(stored, want + 1)


def test_files_are_named_by_scan_and_camera(tmp_path):
    files = create_superpixels(tmp_path / "s", manifest())
    for one in SCAN.cameras:
        files.write(SCAN, one, random_map(seed=len(one.name)))
    found = sorted(str(path.relative_to(tmp_path / "s")) for path in tmp_path.rglob("*.*"))
    assert found == ["manifest.json", "test/0/BACK.png", "test/0/FRONT.png"]
    again = open_superpixels(tmp_path / "s")
    assert again.manifest == manifest()
    assert np.array_equal(again.read(SCAN, SCAN.cameras[1]), random_map(seed=4))
    for name in ("../x", "/x", "//x", "a/../../x", "..\\x"):
        outside = dataclasses.replace(SCAN, name=name)
        with pytest.raises(DataError, match=r"x/FRONT' leads out of"):
            files.file(outside, CAMERA)


def test_other_names_and_workers(tmp_path):
    files = create_superpixels(tmp_path / "s", manifest(), name_image=_by_camera)
    assert files.write(SCAN, CAMERA, random_map()) == tmp_path / "s/FRONT.png"
    copy = pickle.loads(pickle.dumps(files))  # noqa: S301
    assert np.array_equal(copy.read(SCAN, CAMERA), random_map())


def _by_camera(scan, one):
    return one.name


def test_only_whole_files_of_the_images_size_count_as_made(tmp_path):
    files = create_superpixels(tmp_path / "s", manifest())
    assert not files.is_made(SCAN, CAMERA)
    file = files.write(SCAN, CAMERA, random_map())
    assert files.is_made(SCAN, CAMERA)
    assert not files.is_made(SCAN, camera("FRONT", size=(64, 47)))
    data = file.read_bytes()
    for size in (0, 4, 30, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:size])
        assert not files.is_made(SCAN, CAMERA)
        with pytest.raises(DataError, match=r"FRONT\.png: superpixels do not decode"):
            files.read(SCAN, CAMERA)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    files = create_superpixels(tmp_path / "s", manifest())

    def half(image, stream, **_):
        stream.write(b"\x89PNG\r\n\x1a\n half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Image.Image, "save", half)
        with pytest.raises(KeyboardInterrupt):
            files.write(SCAN, CAMERA, random_map())
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [MANIFEST]
    with pytest.raises(DataError, match=r"superpixels of .*_files\.py are missing; prepare"):
        files.read(SCAN, CAMERA)


def test_a_folder_belongs_to_one_network_and_its_settings(tmp_path):
    root = tmp_path / "s"
    create_superpixels(root, manifest()).write(SCAN, CAMERA, random_map())
    assert create_superpixels(root, manifest()).is_made(SCAN, CAMERA)  # goes on
    for changes, text in (
        ({"network": "slic"}, r"network 'offline_clusters' -> 'slic'"),
        ({"digest": "cd"}, r"digest 'ab12' -> 'cd'"),
        ({"settings": {"height": 112, "width": 416}}, r"settings\.height 224 -> 112"),
        ({"settings": {"height": 224}}, r"settings\.width 416 -> None"),
        ({"num_classes": 21}, r"class_names .*, num_classes 20 -> 21"),
    ):
        with pytest.raises(DataError, match=rf"superpixels made otherwise \({text}\); choose") as e:
            create_superpixels(root, manifest(**changes))
        assert "\n" not in str(e.value)
    assert manifest().hash() != manifest(digest="cd").hash()


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"exists and holds no manifest\.json; choose an empty"):
        create_superpixels(tmp_path, manifest())
    with pytest.raises(DataError, match=r"manifest\.json: no manifest of superpixels; prepare"):
        open_superpixels(tmp_path)
    with pytest.raises(DataError, match=r"exists and holds no manifest"):
        create_superpixels(tmp_path / "notes.txt", manifest())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": 1}, "its format is 1, not 2"),
        ({"network": "other"}, "its hash is not that of its fields"),
        ({"num_classes": 0}, r"num_classes must be in \[1, 65535\]"),
        ({"num_classes": "many"}, "invalid literal"),
        ({"settings": None}, "is damaged"),
        ({"hash": None}, "its hash"),
    ],
)
def test_damaged_manifests_are_refused(tmp_path, change, text):
    create_superpixels(tmp_path, manifest())
    file = tmp_path / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DataError, match=text):
        open_superpixels(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '"text"'])
def test_manifests_of_anything_else_are_refused(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json: (not JSON|manifest is damaged)"):
        open_superpixels(tmp_path)


def test_wrong_superpixels_are_not_written(tmp_path):
    files = create_superpixels(tmp_path / "s", manifest())
    with pytest.raises(
        ValueError, match=r"must be \[48, 64\] \(the image's size\), got \[47, 64\]"
    ):
        files.write(SCAN, CAMERA, random_map()[:-1])
    for wrong in (-2, 20):
        superpixels = random_map()
        superpixels[3, 4] = wrong
        with pytest.raises(ValueError, match=rf"in \[-1, 20\) \(num_classes\), got .*{wrong}"):
            files.write(SCAN, CAMERA, superpixels)
    assert not list(tmp_path.rglob("*.png"))


def test_foreign_pictures_are_not_read(tmp_path):
    files = create_superpixels(tmp_path / "s", manifest())
    file = files.write(SCAN, CAMERA, random_map())
    for picture, text in (
        (Image.new("RGB", (64, 48)), "picture of mode RGB"),
        (Image.new("P", (64, 48)), "picture of mode P"),
        (Image.new("1", (64, 48)), "picture of mode 1"),
        (Image.new("L", (64, 47)), "64x47 pixels but the image is 64x48"),
        (Image.new("L", (64, 48), 21), "holds superpixel 20, but offline_clusters has only 20"),
    ):
        picture.save(file)
        with pytest.raises(DataError, match=text):
            files.read(SCAN, CAMERA)
    Image.new("L", (64, 48)).save(file, format="BMP")
    with pytest.raises(DataError, match="do not decode"):
        files.read(SCAN, CAMERA)


def test_cscs_own_layout(tmp_path, street_world):
    tokens = read_camera_tokens(street_world / "v1.0-trainval")
    scans = NuScenes(street_world, split="all", labels=False)
    assert len(tokens) == 6 * len(scans)
    root = tmp_path / "superpixels_dinov2_ade20k"
    root.mkdir()
    with pytest.raises(DataError, match=r"holds no <camera token>\.png; unpack"):
        open_csc_superpixels(root, tokens)
    scan = scans[1]
    rows = json.loads((street_world / "v1.0-trainval/sample_data.json").read_text())
    for number, one in enumerate(scan.cameras):
        token = next(row["token"] for row in rows if one.image_file.match(row["filename"]))
        Image.fromarray(np.full(one.image_size[::-1], 25 * number, np.uint8)).save(
            root / f"{token}.png"
        )
    files = open_csc_superpixels(root, tokens)
    assert files.manifest.num_classes == len(files.manifest.class_names) == 150
    for number, one in enumerate(scan.cameras):
        assert (pickle.loads(pickle.dumps(files)).read(scan, one) == 25 * number - 1).all()  # noqa: S301
    with pytest.raises(
        DataError, match=r"_files\.py of scan test/0 has no row in sample_data\.json"
    ):
        files.read(SCAN, CAMERA)
    with pytest.raises(DataError, match=r"superpixels of .* are missing"):
        files.read(scans[0], scans[0].cameras[0])


def test_manifests_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"class_names must be 3 \(num_classes\) or none, got 2"):
        manifest(num_classes=3, class_names=("a", "b"))
    with pytest.raises(ValueError, match=r"num_classes must be in \[1, 65535\] .* got 65536"):
        manifest(num_classes=65536)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int64, np.uint64])
def test_superpixels_of_any_type(tmp_path, dtype):
    files = create_superpixels(tmp_path / "s", manifest(num_classes=300))
    most = min(np.iinfo(dtype).max, 299)
    superpixels = np.zeros((48, 64), dtype)
    superpixels[5:] = most
    files.write(SCAN, CAMERA, superpixels)
    assert np.array_equal(files.read(SCAN, CAMERA), superpixels.astype(int))


def test_superpixels_of_pictures_that_were_replaced(tmp_path):
    """Another world under the same names and sizes."""
    pixels = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), np.uint8)
    files = create_superpixels(tmp_path / "s", manifest())
    for suffix in ("png", "jpg"):
        file, copy = tmp_path / f"image.{suffix}", tmp_path / f"copy.{suffix}"
        one = camera(suffix, image_file=file)
        Image.fromarray(pixels[0]).save(file)
        written = files.write(SCAN, one, random_map())
        copy.write_bytes(file.read_bytes())
        elsewhere = dataclasses.replace(one, image_file=copy)
        assert files.is_made(SCAN, elsewhere)
        assert np.array_equal(files.read(SCAN, elsewhere), random_map())

        data = bytearray(file.read_bytes())
        data[-20] ^= 1  # of the same length
        Image.fromarray(pixels[1]).save(copy)
        for other in (bytes(data), copy.read_bytes()):
            file.write_bytes(other)
            assert not files.is_made(SCAN, one)
            with pytest.raises(DataError, match=rf"of another .*image\.{suffix} than is there"):
                files.read(SCAN, one)
        files.write(SCAN, one, random_map(seed=1))
        assert files.is_made(SCAN, one)
        assert np.array_equal(files.read(SCAN, one), random_map(seed=1))

        file.unlink()
        assert not files.is_made(SCAN, one)
        for work in (files.read, lambda *of: files.write(*of, random_map())):
            with pytest.raises(DataError, match=rf"image\.{suffix}: image does not open \(No such"):
                work(SCAN, one)
        assert written.is_file()


def test_mark_of_an_image(tmp_path):
    file = tmp_path / "image"
    for content in (b"", b"x", bytes(range(256)) * 40):
        file.write_bytes(content)
        want = f"{len(content)} bytes, crc32 {zlib.crc32(content[-4096:]):08x}"
        assert image_mark(camera(image_file=file)) == want


def test_a_kill_while_the_manifest_was_written_locks_nothing(tmp_path):
    (tmp_path / f".{MANIFEST}.x7f_2").write_text("{")
    assert create_superpixels(tmp_path, manifest()).manifest == manifest()
    other = tmp_path / "other"
    other.mkdir()
    (other / ".mine").touch()
    with pytest.raises(DataError, match=r"exists and holds no manifest\.json; choose an empty"):
        create_superpixels(other, manifest())


def test_settings_are_what_json_gives_back(tmp_path):
    tuples = manifest(settings={"size": (224, 416), "scales": ((1, 2), (3,))})
    assert tuples.settings == {"size": [224, 416], "scales": [[1, 2], [3]]}
    create_superpixels(tmp_path, tuples)
    assert create_superpixels(tmp_path, tuples).manifest == tuples
    for value in (np.float32(1), float("nan"), Path("x")):
        with pytest.raises(ValueError, match=r"settings must be plain values that JSON holds, got"):
            manifest(settings={"value": value})
