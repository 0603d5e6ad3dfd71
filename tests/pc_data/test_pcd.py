import struct
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_data.errors import DataError
from pc_data.files.pcd import _decompress, read_pcd

from tests.real_data import REAL_DATA, needs_real_data

_CODE = {"F": "f", "I": "i", "U": "u"}


def header(fields, num_points, form, **changes):
    """`fields` is a list of (name, size, type, count)."""
    names, sizes, kinds, counts = zip(*fields, strict=True)
    lines = {
        "VERSION": "0.7",
        "FIELDS": " ".join(names),
        "SIZE": " ".join(map(str, sizes)),
        "TYPE": " ".join(kinds),
        "COUNT": " ".join(map(str, counts)),
        "WIDTH": num_points,
        "HEIGHT": 1,
        "VIEWPOINT": "0 0 0 1 0 0 0",
        "POINTS": num_points,
        "DATA": form,
    } | changes
    text = "".join(f"{key} {value}\n" for key, value in lines.items() if value is not None)
    return ("# .PCD v0.7 - Point Cloud Data file format\n" + text).encode()


def lzf(data):
    """Compress greedily: the longest piece seen before that starts with the same three bytes."""
    out, literal, last, at = bytearray(), bytearray(), {}, 0

    def flush():
        for start in range(0, len(literal), 32):
            run = literal[start : start + 32]
            out.extend([len(run) - 1, *run])
        literal.clear()

    while at < len(data):
        key = data[at : at + 3]
        start = last.get(key, -1) if len(key) == 3 else -1
        last[key] = at
        length = 0
        if start >= 0 and at - start <= 8192:
            limit = min(264, len(data) - at)
            while length < limit and data[start + length] == data[at + length]:
                length += 1
        if length < 3:
            literal.append(data[at])
            at += 1
            continue
        flush()
        back = at - start - 1
        if length - 2 < 7:
            out.extend([(length - 2) << 5 | back >> 8, back & 255])
        else:
            out.extend([7 << 5 | back >> 8, length - 2 - 7, back & 255])
        at += length
    flush()
    return bytes(out)


def body(fields, columns, form):
    if form == "ascii":
        rows = zip(*(np.atleast_2d(c.T).T.tolist() for c in columns.values()), strict=True)
        return "\n".join(" ".join(repr(v) for part in row for v in part) for row in rows).encode()
    if form == "binary":
        n = len(next(iter(columns.values())))
        return b"".join(
            b"".join(np.atleast_1d(column[k]).tobytes() for column in columns.values())
            for k in range(n)
        )
    blocks = b"".join(np.ascontiguousarray(c).tobytes() for c in columns.values())
    packed = lzf(blocks)
    return struct.pack("<II", len(packed), len(blocks)) + packed


def columns_of(fields, num_points, seed=0):
    rng = np.random.default_rng(seed)
    columns = {}
    for name, size, kind, count in fields:
        shape = (num_points,) if count == 1 else (num_points, count)
        values = rng.integers(0, 100, shape) if kind != "F" else rng.normal(0, 9, shape)
        columns[name] = values.astype(f"{_CODE[kind]}{size}")
    return columns


FIELDS = [
    ("x", 4, "F", 1),
    ("y", 4, "F", 1),
    ("z", 8, "F", 1),
    ("ring", 2, "U", 1),
    ("fpfh", 4, "F", 5),
    ("label", 4, "I", 1),
    ("flag", 1, "U", 1),
]


@pytest.mark.parametrize("form", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("num_points", [1, 2, 700])
def test_each_form_gives_what_was_written(tmp_path, form, num_points):
    columns = columns_of(FIELDS, num_points)
    file = tmp_path / "a.pcd"
    file.write_bytes(header(FIELDS, num_points, form) + body(FIELDS, columns, form))
    found = read_pcd(file)
    assert list(found) == list(columns)
    for name, values in columns.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)
        assert found[name].flags.c_contiguous


@pytest.mark.parametrize("form", ["ascii", "binary"])
def test_padding_is_left_out(tmp_path, form):
    fields = [("x", 4, "F", 1), ("_", 1, "U", 3), ("y", 4, "F", 1), ("_", 1, "U", 1)]
    columns = {str(k): v for k, v in enumerate(columns_of(fields, 5).values())}
    columns = {"x": np.float32([1, 2]), "p": np.uint8([[1, 2, 3]] * 2)}
    columns |= {"y": np.float32([3, 4]), "q": np.uint8([9, 9])}
    file = tmp_path / "a.pcd"
    file.write_bytes(header(fields, 2, form) + body(fields, columns, form))
    found = read_pcd(file)
    assert {name: values.tolist() for name, values in found.items()} == {"x": [1, 2], "y": [3, 4]}


def test_padding_is_not_stored_in_a_compressed_file(tmp_path):
    fields = [("x", 4, "F", 1), ("_", 1, "U", 4)]
    file = tmp_path / "a.pcd"
    stored = body(fields, {"x": np.float32([1, 2])}, "binary_compressed")
    file.write_bytes(header(fields, 2, "binary_compressed") + stored)
    assert read_pcd(file)["x"].tolist() == [1, 2]


@pytest.mark.parametrize("kind", ["F", "U"])
@pytest.mark.parametrize("name", ["rgb", "rgba"])
def test_packed_colors(tmp_path, kind, name):
    packed = np.uint32([0xFF102030, 0x00FFFEFD])
    fields = [("x", 4, "F", 1), (name, 4, kind, 1)]
    columns = {"x": np.float32([0, 1]), name: packed.view("f4" if kind == "F" else "u4")}
    file = tmp_path / "a.pcd"
    file.write_bytes(header(fields, 2, "binary") + body(fields, columns, "binary"))
    found = read_pcd(file)
    expected = {"r": [16, 255], "g": [32, 254], "b": [48, 253]}
    expected |= {"a": [255, 0]} if name == "rgba" else {}
    assert {key: found[key].tolist() for key in found if key != "x"} == expected
    assert all(found[key].dtype == np.uint8 for key in expected)


def test_packed_color_as_the_text_of_a_float(tmp_path):
    value = np.uint32([0x00405060]).view("f4")[0]
    file = tmp_path / "a.pcd"
    fields = [("x", 4, "F", 1), ("rgb", 4, "F", 1)]
    file.write_bytes(header(fields, 1, "ascii") + f"nan {value!s}\n".encode())
    found = read_pcd(file)
    assert [found[key].tolist() for key in "rgb"] == [[64], [80], [96]]
    assert np.isnan(found["x"]).all()


def test_old_and_loose_headers(tmp_path):
    """COLUMNS as in 0.5, no COUNT, VIEWPOINT or POINTS, an ordered cloud, Windows' line ends."""
    file = tmp_path / "a.pcd"
    text = "VERSION .5\r\nCOLUMNS x y\r\nSIZE 4 4\r\nTYPE F F\r\nWIDTH 2\r\nHEIGHT 2\r\n"
    file.write_bytes((text + "DATA ascii\r\n1 2\r\n3 4\r\nnan nan\r\n5 6\r\n").encode())
    assert read_pcd(file)["x"].tolist()[::3] == [1, 5]


@given(st.lists(st.sampled_from(b"abcab\0\xff"), max_size=400), st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_decompression_undoes_compression(values, run):
    data = bytes(values) + b"z" * run
    out = np.zeros(len(data), np.uint8)
    assert _decompress(np.frombuffer(lzf(data), np.uint8), out) == len(data)
    assert out.tobytes() == data


@given(st.binary(max_size=60), st.integers(0, 80))
@settings(max_examples=200, deadline=None)
def test_any_bytes_stay_within_bounds(packed, size):
    guarded = np.full(size + 16, 7, np.uint8)
    end = _decompress(np.frombuffer(packed, np.uint8), guarded[8 : 8 + size])
    assert -1 <= end <= size
    assert (guarded[:8] == 7).all()
    assert (guarded[8 + size :] == 7).all()


def test_a_piece_may_overlap_itself():
    out = np.zeros(265, np.uint8)
    packed = np.frombuffer(b"\x00A" + b"\xe0\xff\x00", np.uint8)  # one A, then 264 more
    assert _decompress(packed, out) == 265
    assert (out == ord("A")).all()


# --- other writers


@needs_real_data
def test_real_compressed_files():
    folder = REAL_DATA / "isprs_als_ground"
    for number, count in ((11, 38010), (31, 28862), (42, 42470)):
        found = read_pcd(folder / f"samp{number}-utm.pcd")
        xyz = np.column_stack([found[axis] for axis in "xyz"])
        assert xyz.shape == (count, 3)
        with np.load(folder / f"samp{number}.npz") as archive:
            np.testing.assert_allclose(xyz - archive["origin_utm32"], archive["xyz"], atol=1e-3)


@needs_real_data
def test_real_binary_files():
    """The elevations are those of an HDL-32E."""
    for name, count in (("251370668", 69088), ("251371071", 69792)):
        found = read_pcd(REAL_DATA / f"lidar_scans_unlabelled/koide3_outdoor_pair/{name}.pcd")
        assert list(found) == ["x", "y", "z", "intensity"]
        assert len(found["x"]) == count
        far = np.hypot(found["x"], found["y"]) > 3
        angle = np.degrees(np.arctan2(found["z"], np.hypot(found["x"], found["y"])))[far]
        assert -30.8 < angle.min() < -29
        assert 10 < angle.max() < 10.9
        assert found["intensity"].max() == {"251370668": 215, "251371071": 187}[name]


@pytest.mark.parametrize("options", [{"write_ascii": True}, {}, {"compressed": True}])
def test_files_of_open3d(tmp_path, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        o3d = pytest.importorskip("open3d")
    rng = np.random.default_rng(1)
    cloud = o3d.geometry.PointCloud()
    xyz, normal, color = rng.normal(size=(3, 500, 3))
    cloud.points = o3d.utility.Vector3dVector(np.round(xyz, 1))
    cloud.normals = o3d.utility.Vector3dVector(normal)
    color = rng.integers(0, 256, (500, 3))
    cloud.colors = o3d.utility.Vector3dVector(color / 255)
    file = tmp_path / "a.pcd"
    assert o3d.io.write_point_cloud(str(file), cloud, **options)
    found = read_pcd(file)
    back = np.column_stack([found[axis] for axis in "xyz"])
    np.testing.assert_allclose(back, np.round(xyz, 1), atol=1e-6)
    back = np.column_stack([found[f"normal_{axis}"] for axis in "xyz"])
    np.testing.assert_allclose(back, normal, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.column_stack([found[part] for part in "rgb"]), color, atol=1)


# --- damage

XYZ = [("x", 4, "F", 1), ("y", 4, "F", 1), ("z", 4, "F", 1)]
GOOD = columns_of(XYZ, 10)
BLOCKS = body(XYZ, GOOD, "binary_compressed")


def whole(form, count=10, stored=None, **changes):
    return header(XYZ, count, form, **changes) + (stored or body(XYZ, GOOD, form))


DAMAGE = {
    "empty": (b"", "no line DATA in its first 0 bytes"),
    "no PCD": (b"\x89PNG\r\n" + b"\0" * 99, "is not of the format"),
    "header cut off": (whole("binary")[:60], "no line DATA"),
    "unknown line": (b"FILEDS x y z\n" + whole("binary"), "'FILEDS' is not of the format"),
    "line twice": (b"WIDTH 1\n" + whole("binary"), "'WIDTH' comes twice"),
    "unknown form": (whole("binary", DATA="zip"), "DATA must be ascii, binary or binary_comp"),
    "no fields": (whole("binary", FIELDS=None), "no line FIELDS"),
    "fewer types": (whole("binary", TYPE="F F"), "must be of one length, got 3, 3, 2, 3"),
    "no type": (whole("binary", TYPE="F F X"), "field 'z' is 1 values of SIZE 4 and TYPE X"),
    "no size": (whole("binary", SIZE="4 4 3"), "field 'z' is 1 values of SIZE 3"),
    "count of zero": (whole("binary", COUNT="1 0 1"), "field 'y' is 0 values"),
    "name twice": (whole("binary", FIELDS="x y x"), "two fields 'x'"),
    "no points": (whole("binary", count=0), "holds no points"),
    "negative count": (whole("binary", WIDTH="-10"), "WIDTH must be one count, got '-10'"),
    "area": (whole("binary", HEIGHT="2"), "WIDTH x HEIGHT is 20 but POINTS is 10"),
    "absurd count": (whole("binary", count=10**17), "take 1200000000000000000 bytes, but 120"),
    "absurd text": (whole("ascii", count=10**17), "bytes of text or more"),
    "absurd field": (whole("binary", COUNT=f"1 1 {10**15}"), "bytes, but 120 bytes follow"),
    "digits": (whole("binary", POINTS="1" * 4000), "POINTS must be one count"),
    "rows cut off": (whole("binary")[:-1], "take 120 bytes, but 119 bytes follow"),
    "rows grown": (whole("binary") + b"\0", "take 120 bytes, but 121 bytes follow"),
    "text cut off": (whole("ascii")[:-60], "holds [0-9] rows but|not 3 values"),
    "text of words": (whole("ascii", stored=b"1 2 zwei\n" * 10), "not 3 values of the types"),
    "text with more": (whole("ascii", stored=b"1 2 3 4\n" * 10), "not 3 values of the types"),
    "block cut off": (whole("binary_compressed")[:-4], "the file was cut off or is damaged"),
    "no block": (header(XYZ, 10, "binary_compressed") + b"\0" * 7, "take a compressed block"),
    "absurd block": (whole("binary_compressed", count=10**8), "unpacks to 120 bytes, but"),
    "unpacked size lies": (
        whole("binary_compressed", 10**8, struct.pack("<II", len(BLOCKS) - 8, 1200000000)),
        "bytes unpack to 1200000000, but 0 follow",
    ),
    "sizes lie together": (
        whole("binary_compressed", 10**7, struct.pack("<II", 100, 120000000) + b"\0" * 100),
        "100 bytes unpack to 120000000",
    ),
    "packed size lies": (
        whole("binary_compressed", 10, struct.pack("<II", 2**31, 120) + BLOCKS[8:]),
        "2147483648 bytes unpack to 120",
    ),
    "block ends early": (
        whole("binary_compressed", 10, struct.pack("<II", 20, 120) + b"\x01\x02\x03" * 7),
        "compressed block is damaged",
    ),
    "piece before the start": (
        whole("binary_compressed", 10, struct.pack("<II", 6, 120) + b"\x20\x00" * 3),
        "compressed block is damaged",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage(tmp_path, kind):
    data, message = DAMAGE[kind]
    file = tmp_path / "a.pcd"
    file.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_pcd(file)
    assert str(file) in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="is missing; restore it"):
        read_pcd(tmp_path / "a.pcd")


def test_color_both_packed_and_not(tmp_path):
    fields = [("r", 4, "F", 1), ("rgb", 4, "F", 1)]
    file = tmp_path / "a.pcd"
    file.write_bytes(header(fields, 1, "binary") + bytes(8))
    with pytest.raises(DataError, match="both 'rgb' and 'r'"):
        read_pcd(file)
