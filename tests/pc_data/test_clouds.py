import builtins
import io
import struct
import warnings
import zipfile

import laspy
import numpy as np
import pytest
from pc_data.errors import DataError
from pc_data.files.cloud_files import SUFFIXES, read_columns
from pc_data.files.clouds import find_column, read_cloud, to_scan, warn_of_unit
from pc_data.files.ply import write_ply

from tests.real_data import REAL_DATA, needs_real_data

NUM_POINTS = 200


@pytest.fixture(scope="module")
def cloud():
    rng = np.random.default_rng(0)
    xyz = rng.normal(size=(NUM_POINTS, 3)).astype(np.float32)
    normal = rng.normal(size=(NUM_POINTS, 3)).astype(np.float32)
    return {
        **dict(zip("xyz", xyz.T, strict=True)),
        "intensity": rng.random(NUM_POINTS, np.float32),
        **dict(zip(("red", "green", "blue"), rng.integers(0, 256, (3, NUM_POINTS)), strict=True)),
        **dict(zip(("nx", "ny", "nz"), normal.T, strict=True)),
        "label": rng.integers(0, 9, NUM_POINTS),
        "instance": rng.integers(0, 50, NUM_POINTS),
    }


def typed(cloud):
    types = {"red": "u1", "green": "u1", "blue": "u1", "label": "u1", "instance": "u2"}
    return {name: values.astype(types.get(name, "f4")) for name, values in cloud.items()}


def as_rows(columns):
    rows = np.zeros(NUM_POINTS, dtype=[(name, v.dtype) for name, v in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    return rows


def write_pcd(file, columns):
    kinds = {"f": "F", "u": "U", "i": "I"}
    types = [values.dtype for values in columns.values()]
    file.write_bytes(
        f"VERSION 0.7\nFIELDS {' '.join(columns)}\n"
        f"SIZE {' '.join(str(t.itemsize) for t in types)}\n"
        f"TYPE {' '.join(kinds[t.kind] for t in types)}\nWIDTH {NUM_POINTS}\nHEIGHT 1\n"
        f"DATA binary\n".encode()
        + as_rows(columns).tobytes()
    )


def write_las(file, columns, *, point_format=3, version="1.2"):
    las = laspy.create(point_format=point_format, file_version=version)
    las.header.scales, las.header.offsets = [1e-6] * 3, [0.0] * 3
    las.x, las.y, las.z = (columns[axis] for axis in "xyz")
    las.intensity = np.round(columns["intensity"] * 65535)
    for name in ("red", "green", "blue"):
        las[name] = columns[name].astype(np.uint16) * 257
    las.classification = columns["label"]
    for name in ("nx", "ny", "nz", "instance"):
        las.add_extra_dim(laspy.ExtraBytesParams(name, columns[name].dtype))
        las[name] = columns[name]
    las.write(file)


def write(file, columns):
    suffix = file.suffix
    if suffix == ".ply":
        write_ply(file, {"vertex": columns})
    elif suffix == ".pcd":
        write_pcd(file, columns)
    elif suffix in (".las", ".laz"):
        write_las(file, columns)
    elif suffix == ".npy":
        np.save(file, as_rows(columns))
    elif suffix == ".npz":
        np.savez_compressed(file, **columns)
    else:
        np.column_stack(list(columns.values())).astype("<f4").tofile(file)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_scan(tmp_path, cloud, suffix):
    file = tmp_path / f"room{suffix}"
    write(file, typed(cloud))
    scan = read_cloud(file, columns=list(cloud) if suffix == ".bin" else ())
    assert scan.name == file.name
    xyz = np.column_stack([cloud[axis] for axis in "xyz"])
    np.testing.assert_allclose(scan.xyz, xyz, atol=1e-6)
    scale = 65535 if suffix in (".las", ".laz") else 1
    np.testing.assert_allclose(scan.intensity / scale, cloud["intensity"], atol=1e-5)
    color = np.column_stack([cloud[name] for name in ("red", "green", "blue")])
    np.testing.assert_allclose(scan.color, color / 255, atol=1e-6)
    normal = np.column_stack([cloud[name] for name in ("nx", "ny", "nz")])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    np.testing.assert_allclose(scan.normal, normal, atol=1e-6)
    np.testing.assert_array_equal(scan.labels, cloud["label"])
    np.testing.assert_array_equal(scan.instance, cloud["instance"])
    assert scan.pose is None
    types = [scan.xyz.dtype, scan.intensity.dtype, scan.color.dtype, scan.normal.dtype]
    assert types == [np.float32] * 4
    assert scan.labels.dtype == scan.instance.dtype == np.int64


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_new_point_formats(tmp_path, cloud, suffix):
    write_las(tmp_path / f"a{suffix}", typed(cloud), point_format=7, version="1.4")
    scan = read_cloud(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(scan.labels, cloud["label"])
    np.testing.assert_allclose(scan.xyz[:, 2], cloud["z"], atol=1e-6)


def test_arrays_of_three_columns_and_of_four(tmp_path):
    rows = np.arange(12, dtype=np.float64).reshape(3, 4)
    np.save(tmp_path / "a.npy", np.asfortranarray(rows))
    scan = read_cloud(tmp_path / "a.npy")
    np.testing.assert_array_equal(scan.xyz, rows[:, :3])
    np.testing.assert_array_equal(scan.intensity, rows[:, 3])
    np.save(tmp_path / "b.npy", rows[:, :3].astype(">i2"))
    np.testing.assert_array_equal(read_cloud(tmp_path / "b.npy").xyz, rows[:, :3])


def test_skipped_columns(tmp_path):
    rows = np.arange(10, dtype="<f4").reshape(2, 5)
    rows.tofile(tmp_path / "a.pcd.bin")
    scan = read_cloud(tmp_path / "a.pcd.bin", columns=["_", "x", "y", "z", "_"])
    np.testing.assert_array_equal(scan.xyz, rows[:, 1:4])
    assert scan.intensity is None


def test_archive_of_whole_arrays(tmp_path):
    rng = np.random.default_rng(0)
    xyz, color = rng.normal(size=(2, 9, 3))
    np.savez(tmp_path / "a.npz", coord=xyz, color=np.abs(color), segment=np.arange(9)[:, None], k=4)
    scan = read_cloud(tmp_path / "a.npz")
    np.testing.assert_allclose(scan.xyz, xyz, rtol=1e-6)
    np.testing.assert_allclose(scan.color, np.abs(color) / 255, rtol=1e-6)
    assert scan.labels.tolist() == list(range(9))
    np.savez(tmp_path / "b.npz", data=np.c_[xyz, xyz[:, 0] * 0 + 3])
    assert read_cloud(tmp_path / "b.npz").intensity.tolist() == [3] * 9


def test_names_do_not_depend_on_case_and_prefix():
    columns = dict.fromkeys(["X", "Y", "Z", "scalar_Intensity", "R", "G", "B"], np.ones(2))
    columns |= {"Classification": np.float32([3, np.nan]), "scalar_class": np.float64([1, 2])}
    scan = to_scan(columns, "a.ply")
    assert scan.intensity.tolist() == [1, 1]
    assert scan.color.tolist() == [[1, 1, 1]] * 2
    assert scan.labels.tolist() == [1, 2]  # `class` comes before `classification`
    assert find_column(columns, "label") == "scalar_class"
    assert find_column(columns, "instance") == ""
    named = to_scan(columns, "a.ply", names={"label": "Classification", "intensity": ""})
    assert named.labels.tolist() == [3, -1]
    assert named.intensity is None


def xyz_columns(xyz, **more):
    return dict(zip("xyz", np.asarray(xyz, dtype=np.float64).T, strict=True)) | more


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.uint8([0, 1, 255]), [0, 1 / 255, 1]),
        (np.uint16([0, 65535, 13107]), [0, 1, 0.2]),
        (np.int32([0, 1, 1]), [0, 1 / 255, 1 / 255]),  # integers are never judged by value
        (np.float64([0, 0.5, 1]), [0, 0.5, 1]),
        (np.float64([0, 0.5, 1.0000002]), [0, 0.5, 1]),  # rounding does not make bytes of them
        (np.float32([0, 51, 255]), [0, 0.2, 1]),
    ],
)
def test_brightness_is_judged_by_type(values, expected):
    color = dict.fromkeys(("red", "green", "blue"), values)
    scan = to_scan(xyz_columns(np.eye(3), **color), "a.ply")
    np.testing.assert_allclose(scan.color[:, 1], expected, rtol=1e-6)


def test_stated_brightness_and_a_warning():
    values = np.uint16([0, 51, 255])
    columns = xyz_columns(np.eye(3), **dict.fromkeys(("red", "green", "blue"), values))
    with pytest.warns(UserWarning, match=r"a.las: colours have 16 bits but none exceeds 255"):
        dark = to_scan(columns, "a.las").color
    assert dark.max() < 0.004
    color = to_scan(columns, "a.las", color_max=255.0).color
    np.testing.assert_allclose(color[:, 0], [0, 0.2, 1])


def test_far_coordinates_keep_their_millimetres():
    rng = np.random.default_rng(0)
    local = rng.uniform(-50, 50, (100, 3))
    world = local + np.array([448_123.4, 5_411_987.6, 312.0])
    scan = to_scan(xyz_columns(world), "a.las")
    offset = scan.pose[:3, 3]
    assert offset[2] == 0
    assert (offset == np.round(offset)).all()
    np.testing.assert_array_equal(scan.pose[:3, :3], np.eye(3))
    np.testing.assert_allclose(scan.xyz.astype(np.float64) + offset, world, atol=2e-5)
    middle = 0.5 * (world.min(0) + world.max(0))
    np.testing.assert_allclose(offset[:2], middle[:2], atol=0.5)


def test_near_coordinates_are_not_moved():
    xyz = np.array([[9999.0, 0, 0], [-9999.5, 1, 2]])
    scan = to_scan(xyz_columns(xyz), "a.ply")
    assert scan.pose is None
    np.testing.assert_array_equal(scan.xyz, xyz.astype(np.float32))


def test_unit_and_up_axis():
    columns = xyz_columns([[1000, 2000, 3000]], nx=[0.0], ny=[2.0], nz=[0.0])
    columns = {name: np.asarray(values) for name, values in columns.items()}
    scan = to_scan(columns, "a.ply", metres=0.001, up="y")
    np.testing.assert_allclose(scan.xyz, [[1, -3, 2]])
    np.testing.assert_allclose(scan.normal, [[0, 0, 1]])
    far = to_scan(xyz_columns([[0, 2e7, 0]]), "a.ply", metres=0.001, up="y")
    assert far.pose[:3, 3].tolist() == [0, 0, 20_000]  # metres of the scan's axes


def test_missing_returns_are_left_out():
    nan = np.nan
    xyz = [[0, 0, 1], [nan, nan, nan], [0, 0, 3]]
    scan = to_scan(xyz_columns(xyz, i=np.float32([1, nan, 3]), label=np.arange(3)), "a.pcd")
    assert scan.xyz[:, 2].tolist() == [1, 3]
    assert scan.intensity.tolist() == [1, 3]
    assert scan.labels.tolist() == [0, 2]


def test_normals_get_unit_length_and_no_instance_is_zero():
    normals = {"normal_x": np.float32([3, 0]), "normal_y": np.float32([4, 0])}
    columns = xyz_columns(np.eye(3)[:2], **normals, normal_z=np.float32([0, 0]))
    scan = to_scan(columns | {"instance_id": np.float32([np.nan, 7])}, "a.ply")
    np.testing.assert_allclose(scan.normal, [[0.6, 0.8, 0], [0, 0, 0]])
    assert scan.instance.tolist() == [0, 8]
    for raw, expected in (([0, 7], [0, 7]), ([-1, 0], [0, 1]), ([-5, -1], [0, 0])):
        scan = to_scan(xyz_columns(np.eye(3)[:2], instance=np.array(raw)), "a.ply")
        assert scan.instance.tolist() == expected


def test_millimetres_are_suspected():
    rng = np.random.default_rng(0)
    room = rng.uniform(0, (5, 4, 2.5), (5000, 3))
    street = rng.uniform(-80, 80, (5000, 3)) * (1, 1, 0.05)
    tile = rng.uniform(0, 1000, (20_000, 3)) * (1, 1, 0.3)
    for xyz in (room, street, tile):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not warn_of_unit(xyz.astype(np.float32), "a.ply")
    for xyz in (room, street):
        with pytest.warns(UserWarning, match=r"m long and .* m high; if its unit is not the metre"):
            assert warn_of_unit((1000 * xyz).astype(np.float32), "a.ply")
    assert not warn_of_unit(np.zeros((1, 3), np.float32), "a.ply")


# --- other people's files


@needs_real_data
def test_real_survey_is_moved_to_its_middle():
    scan = read_cloud(REAL_DATA / "isprs_als_ground/samp11-utm.pcd")
    assert len(scan) == 38010
    assert scan.pose[:3, 3].tolist() == [512768, 5403699, 0]
    assert np.abs(scan.xyz[:, :2]).max() < 160
    archive = REAL_DATA / "isprs_als_ground/samp11.npz"
    same = read_cloud(archive, names={"label": "is_ground"})
    assert np.bincount(same.labels).tolist() == [16217, 21793]
    np.testing.assert_allclose(np.ptp(same.xyz, axis=0), np.ptp(scan.xyz, axis=0), atol=1e-3)


@needs_real_data
def test_real_lidar_scans():
    pcd = read_cloud(REAL_DATA / "lidar_scans_unlabelled/koide3_outdoor_pair/251370668.pcd")
    assert (len(pcd), pcd.intensity.max()) == (69088, 215)
    kitti = next((REAL_DATA / "kitti").rglob("000001.bin"))
    scan = read_cloud(kitti, columns=["x", "y", "z", "reflectance"])
    assert len(scan) == 120_268
    assert 0 <= scan.intensity.min() < scan.intensity.max() <= 1
    lidar = next((REAL_DATA / "nuscenes/samples/LIDAR_TOP").glob("*.pcd.bin"))
    scan = read_cloud(lidar, columns=["x", "y", "z", "intensity", "_"])
    assert (len(scan), scan.intensity.max()) == (34_688, 255)


@needs_real_data
def test_real_rooms():
    folder = REAL_DATA / "scannet/scans/scene0470_00"
    mesh = read_cloud(folder / "scene0470_00_vh_clean_2.ply")
    assert mesh.color.shape == (67_465, 3)
    assert mesh.labels is None
    labelled = read_cloud(folder / "scene0470_00_vh_clean_2.labels.ply")
    counts = np.bincount(labelled.labels)
    assert (counts[1], counts[5], counts[2]) == (24353, 15712, 14939)  # wall, chair, floor
    np.testing.assert_array_equal(mesh.xyz, labelled.xyz)
    archive = REAL_DATA / "sunrgbd/sunrgbd_trainval/lidar/000001.npz"
    frame = read_cloud(archive, columns=["x", "y", "z", "r", "g", "b"])
    assert len(frame) == 50_000
    assert frame.color.max() <= 1


# --- damage


def small_las(suffix="las"):
    stream = io.BytesIO()
    las = laspy.create(point_format=3, file_version="1.2")
    las.header.scales = [0.001] * 3
    las.x = las.y = las.z = np.arange(500) % 7 * 1.0
    las.write(stream, do_compress=suffix == "laz")
    return stream.getvalue()


def edited(data, at, layout, *values):
    return data[:at] + struct.pack(layout, *values) + data[at + struct.calcsize(layout) :]


def npy(array, **header):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    data = stream.getvalue()
    for old, new in header.items():
        key, value = getattr(array, old), new
        data = data.replace(repr(key).encode(), repr(value).ljust(len(repr(key))).encode(), 1)
    return data


def npz(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def absurd_npy():
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 100000000000000), }".ljust(117)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.encode() + b"\n" + bytes(24)


LAS, LAZ = small_las(), small_las("laz")
POINTS_AT = struct.unpack_from("<I", LAZ, 96)[0]
TABLE_AT = struct.unpack_from("<q", LAZ, POINTS_AT)[0]
ITEMS_AT = LAZ.index(b"laszip encoded") + 16 + 2 + 2 + 32 + 32
XYZ = np.arange(12.0).reshape(4, 3)
BAD_ZIP = npz(xyz=npy(XYZ))

DAMAGE = {
    "unknown type": ("a.xyz", b"1 2 3", "not a point cloud of a known type"),
    "las: empty": ("a.las", b"", "does not start as a LAS file"),
    "las: no LAS": ("a.las", b"LASX" + LAS[4:], "does not start as a LAS file"),
    "las: cut off": ("a.las", LAS[:-1], "500 points do not fit into the 16999 bytes"),
    "las: no points": ("a.las", edited(LAS, 107, "<I", 0), "holds no points"),
    "las: absurd points": ("a.las", edited(LAS, 107, "<I", 2**32 - 1), "4294967295 points do not"),
    "las: absurd records": ("a.las", edited(LAS, 100, "<I", 2**32 - 1), "4294967295 records end"),
    "las: far points": ("a.las", edited(LAS, 96, "<I", 2**31), "points begin at byte 2147483648"),
    "las: wrong row": ("a.las", edited(LAS, 105, "<H", 20), "not a LAS file that can be read"),
    "las: no format": ("a.las", edited(LAS, 104, "<B", 63), "not a LAS file that can be read"),
    "las: scale": ("a.las", edited(LAS, 131, "<d", np.nan), "scale or offset is not finite"),
    "laz: cut off": ("a.laz", LAZ[:-4], "not a LAS file that can be read"),
    "laz: half": ("a.laz", LAZ[: len(LAZ) // 2], "table of chunks would be at byte"),
    "laz: absurd chunks": (
        "a.laz",
        edited(LAZ, TABLE_AT + 4, "<I", 2**32 - 1),
        "4294967295 chunks of points do not fit",
    ),
    "laz: table outside": ("a.laz", edited(LAZ, POINTS_AT, "<q", 2**60), "would be at byte"),
    "laz: absurd points": ("a.laz", edited(LAZ, 107, "<I", 2**32 - 1), "not a LAS file that can"),
    "laz: no items": ("a.laz", edited(LAZ, ITEMS_AT, "<H", 0), "not a LAS file that can be read"),
    "npy: empty": ("a.npy", b"", "not an array that can be read"),
    "npy: no array": ("a.npy", b"\x89PNG" * 99, "not an array that can be read"),
    "npy: header": ("a.npy", npy(XYZ).replace(b"}", b"{"), "not an array that can be read"),
    "npy: cut off": ("a.npy", npy(XYZ)[:-8], "takes 96 bytes, but 88 follow"),
    "npy: grown": ("a.npy", npy(XYZ) + b"\0", "takes 96 bytes, but 97 follow"),
    "npy: absurd shape": ("a.npy", absurd_npy(), "takes 2400000000000000 bytes, but 24 follow"),
    "npy: objects": ("a.npy", npy(np.array([[1, {}, 2]], object)), "Python objects"),
    "npy: one row": ("a.npy", npy(np.arange(3.0)), r"array is \[3\] of float64"),
    "npy: no names": ("a.npy", npy(np.ones((4, 6))), "6 values, of which no names are given"),
    "npy: no rows": ("a.npy", npy(np.ones((0, 3))), "holds no points"),
    "npy: texts": ("a.npy", npy(np.full((2, 3), "a")), r"column 'x' is \[2\] of <U1"),
    "npy: complex": ("a.npy", npy(XYZ.astype(complex)), "of complex128, not one number"),
    "npz: no archive": ("a.npz", b"PK" + bytes(99), "not a NumPy archive"),
    "npz: cut off": ("a.npz", BAD_ZIP[:-30], "not a NumPy archive"),
    "npz: checksum": ("a.npz", BAD_ZIP.replace(BAD_ZIP[60:64], b"abcd", 1), "not a NumPy archive"),
    "npz: absurd shape": ("a.npz", npz(xyz=absurd_npy()), "xyz.npy: not an array .* but 24 follow"),
    "npz: no points": ("a.npz", npz(a=npy(XYZ), b=npy(XYZ)), r"no array xyz \[n 3\], only a, b"),
    "npz: objects": ("a.npz", npz(xyz=npy(np.array([[{}]], object))), "Python objects"),
    "bin: no names": ("a.bin", bytes(48), "does not say what its columns are"),
    "ply: no vertex": (
        "a.ply",
        b"ply\nformat ascii 1.0\nelement face 1\nproperty int a\nend_header\n3\n",
        "has no element 'vertex', only face",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage(tmp_path, kind):
    name, data, message = DAMAGE[kind]
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_cloud(file)
    assert str(file) in str(caught.value)


def test_an_archive_that_claims_too_much(tmp_path):
    """The directory of the archive says that a few bytes unpack to 4 GB."""
    data = bytearray(BAD_ZIP)
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 2**32 - 2)
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(DataError, match=r"a.npz: says that its .* bytes unpack to 4294967294"):
        read_columns(tmp_path / "a.npz")


@pytest.mark.parametrize("count", [0, 1, 7])
def test_rows_cut_off(tmp_path, count):
    (tmp_path / "a.bin").write_bytes(bytes(count))
    with pytest.raises(DataError, match="not a positive multiple of 16"):
        read_cloud(tmp_path / "a.bin", columns=["x", "y", "z", "i"])


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="is missing; restore it"):
        read_cloud(tmp_path / "a.npy")


def broken(**columns):
    return xyz_columns(np.eye(3)) | {k: v for k, v in columns.items() if v is not None}


GRAY = dict.fromkeys(("red", "green", "blue"), np.float32([0, 1, 300]))
FAULTS = {
    "no z": (
        {"x": np.ones(2), "y": np.ones(2)},
        "coordinates without 'z'; it has: x, y",
    ),
    "nothing": ({"a": np.ones(2)}, "no columns x, y, z; it has: a"),
    "infinite": (broken(x=np.array([0, np.inf, 0])), "1 of 3 points have coordinates .* index 1"),
    "half missing": (broken(y=np.array([0, 0, np.nan])), "1 of 3 points have coordinates"),
    "all missing": (xyz_columns(np.full((2, 3), np.nan)), "no points with coordinates"),
    "beyond float32": (broken(z=np.array([0, 1e300, 0])), "points have coordinates that are"),
    "intensity": (broken(i=np.float32([0, np.nan, 1])), "points have intensities that are NaN"),
    "strong": (broken(i=np.array([0, 1e300, 1])), "points have intensities that are NaN or inf"),
    "no blue": (broken(r=np.ones(3), g=np.ones(3)), "colours without 'blue'"),
    "too bright": (broken(**GRAY), r"colours are 0..300, which is more than 0..255"),
    "dark": (broken(**dict.fromkeys("rgb", np.float32([0, -1, 0]))), r"colours are -1..0"),
    "color": (broken(**dict.fromkeys("rgb", np.float32([0, np.nan, 0]))), "have colours that are"),
    "normal": (broken(**dict.fromkeys(("nx", "ny", "nz"), [np.inf] * 3)), "have normals that are"),
    "half a label": (broken(label=np.float32([0, 1.5, 2])), "labels must be whole .* 1 is 1.5"),
    "huge label": (broken(label=np.array([0, 1e17, 2])), "labels must be whole numbers"),
    "many labels": (broken(label=np.ones((3, 2))), r"column 'label' is \[3, 2\] of float64"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_columns_that_make_no_scan(kind):
    columns, message = FAULTS[kind]
    columns = {name: np.asarray(values) for name, values in columns.items()}
    with pytest.raises(DataError, match=message):
        to_scan(columns, "a.ply")


def test_a_named_column_that_is_not_there():
    columns = xyz_columns(np.eye(3), my_class=np.arange(3))
    with pytest.raises(DataError, match=r"no column 'myclass'; .* did you mean 'my_class'\?"):
        to_scan(columns, "a.ply", names={"label": "myclass"})


def test_laspy_is_an_extra(tmp_path, monkeypatch):
    (tmp_path / "a.laz").write_bytes(LAZ)
    imported = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "laspy":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"install the extra pc-data\[las\]"):
        read_cloud(tmp_path / "a.laz")
