import io
import zipfile

import numpy as np
import pytest
from pc_data.errors import DataError
from pc_data.readers.nuscenes import CLASS_NAMES, NuScenes

from tests.pc_data.tiny_nuscenes import PANOPTIC, add_panoptic, panoptic_file
from tests.pc_data.tiny_worlds import NUM_POINTS, edit_rows, write_json, write_nuscenes


@pytest.fixture
def world(tmp_path):
    return add_panoptic(write_nuscenes(tmp_path / "nuscenes"))


@pytest.fixture
def unsegmented(tmp_path):
    return add_panoptic(write_nuscenes(tmp_path / "nuscenes", lidarseg=False))


def test_objects_come_with_the_labels_of_lidarseg(world):
    scan = NuScenes(world)[0]
    assert scan.instance.tolist() == [17001, 17002, 0, 0, 0] * (NUM_POINTS // 5)
    assert scan.instance.dtype == np.int64
    bare = NuScenes(write_nuscenes(world.parent / "bare"))[0]
    np.testing.assert_array_equal(scan.labels, bare.labels)


def test_panoptic_labels_serve_where_lidarseg_does_not(unsegmented):
    dataset = NuScenes(unsegmented)
    car, road, plants = map(CLASS_NAMES.index, ("car", "driveable_surface", "vegetation"))
    expected = [car, car, road, -1, plants] * (NUM_POINTS // 5)
    assert dataset[0].labels.tolist() == dataset.load_labels(0).tolist() == expected
    assert dataset[0].labels.dtype == np.int64
    assert dataset[0].instance.max() == 17002


def test_panoptic_classes_on_their_own(world):
    labels, instance = NuScenes(world).load_panoptic(0)
    assert labels[3] == -1
    np.testing.assert_array_equal(instance, NuScenes(world)[0].instance)


def test_neither_without_labels(world):
    dataset = NuScenes(world, labels=False)
    scan = dataset[0]
    assert scan.labels is None
    assert scan.instance is None
    assert dataset.load_panoptic(0) is None


def test_keyframe_that_panoptic_does_not_list(unsegmented):
    write_json(unsegmented / "v1.0-trainval/panoptic.json", [])
    dataset = NuScenes(unsegmented)
    assert dataset.panoptic_file(0) is None
    assert dataset[0].labels is None
    assert dataset[0].instance is None


# --- damage


def damage_cut(file):
    file.write_bytes(file.read_bytes()[:-40])


def damage_middle(file):
    content = bytearray(file.read_bytes())
    content[60:70] = bytes(10)
    file.write_bytes(content)


def damage_claim(file):
    """A header that claims a trillion labels, over the bytes of 50."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<u2", "fortran_order": False, "shape": (10**12,)}
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.npy", stream.getvalue() + PANOPTIC.tobytes())


def damage_header(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.npy", b"\x93NUMPY\x01\x00\x10\x00__import__('os') ")


def damage_version(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.npy", b"\x93NUMPY\x09\x00" + bytes(100))


def damage_bomb(file):
    np.savez_compressed(file, data=np.zeros(10**6, np.uint16))


def damage_syntax(file):
    """Text that NumPy's own reading of old headers stumbles over."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.npy", b"\x93NUMPY\x01\x00\x08\x00[[[[    ")


def damage_lzma(file):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("data.npy", bytes(range(200)))
    content = bytearray(file.read_bytes())
    content[50:60] = b"\xff" * 10
    file.write_bytes(content)


def save(**arrays):
    return lambda file: np.savez_compressed(file, **arrays)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda file: file.unlink(), "label file is missing; restore it"),
        (lambda file: file.write_bytes(b""), "not an archive with an array 'data'"),
        (lambda file: file.write_bytes(b"no archive"), "not an archive with an array 'data'"),
        (damage_cut, "not an archive with an array 'data'"),
        (damage_middle, "not an archive with an array 'data'"),
        (damage_header, "data.npy: not an array that can be read"),
        (damage_version, "data.npy: not an array that can be read"),
        (damage_syntax, "data.npy: not an array that can be read"),
        (damage_lzma, "not an archive with an array 'data'"),
        (damage_bomb, "it claims 2000128 bytes, at most 65636 are due"),
        (save(labels=PANOPTIC), "not an archive with an array 'data'"),
        (damage_claim, r"shape \(1000000000000,\) of uint16 takes \d+ bytes, but 100 follow"),
        (
            save(data=PANOPTIC[:-1]),
            r"uint16 labels of shape \(49,\), expected 50 of uint16; fetch",
        ),
        (save(data=PANOPTIC.astype(np.int32)), r"int32 labels of shape \(50,\)"),
        (save(data=PANOPTIC.astype(">u2")), r">u2 labels of shape \(50,\)"),
        (save(data=PANOPTIC.reshape(5, 10)), r"labels of shape \(5, 10\)"),
        (save(data=np.array([print] * 50)), "it holds Python objects, which are not read"),
        (save(data=np.full(NUM_POINTS, 63001, np.uint16)), "no class .* index 0 is 63"),
    ],
    ids=range(18),
)
def test_damaged_file(world, damage, match):
    damage(panoptic_file(world))
    with pytest.raises(DataError, match=rf"_panoptic\.npz: .*{match}"):
        NuScenes(world)[0]
    assert NuScenes(world)[1].instance is not None


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "", "..\\x"])
def test_file_outside_the_root(world, name):
    edit_rows(world / "v1.0-trainval/panoptic.json", filename=name)
    with pytest.raises(DataError, match=r"panoptic\.json: file .* lies outside"):
        NuScenes(world)
    assert NuScenes(world, on_defect=lambda _: None)[0].instance is None


def test_damaged_table(world):
    (world / "v1.0-trainval/panoptic.json").write_text("[{")
    with pytest.raises(DataError, match=r"panoptic\.json: not a JSON list"):
        NuScenes(world)
