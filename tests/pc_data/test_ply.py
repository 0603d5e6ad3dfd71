import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pc_data.errors import DataError
from pc_data.files.ply import read_ply, write_ply

from tests.real_data import REAL_DATA, needs_real_data

_HEAD = """ply
format {form} 1.0
comment made by hand
obj_info whatever 3
element vertex 3
property float x
property uchar red
element face 2
property list uchar int vertex_indices
property short part
end_header
"""
_ROWS = "0.5 7\n-1e3 255\nnan 0\n3 0 1 2 -4\n3 2 1 0 5\n"


def _binary(order):
    vertex = np.array(
        [(0.5, 7), (-1e3, 255), (np.nan, 0)], dtype=[("x", order + "f4"), ("r", "u1")]
    )
    face = np.array(
        [(3, (0, 1, 2), -4), (3, (2, 1, 0), 5)],
        dtype=[("n", "u1"), ("i", order + "i4", 3), ("p", order + "i2")],
    )
    return vertex.tobytes() + face.tobytes()


@pytest.fixture(params=["ascii", "binary_little_endian", "binary_big_endian"])
def example(request, tmp_path):
    body = {
        "ascii": _ROWS.encode(),
        "binary_little_endian": _binary("<"),
        "binary_big_endian": _binary(">"),
    }[request.param]
    file = tmp_path / "example.ply"
    file.write_bytes(_HEAD.format(form=request.param).encode() + body)
    return file


def _check_example(elements):
    assert list(elements) == ["vertex", "face"]
    assert list(elements["vertex"]) == ["x", "red"]
    np.testing.assert_array_equal(elements["vertex"]["x"], np.float32([0.5, -1e3, np.nan]))
    assert elements["vertex"]["x"].dtype == np.float32
    np.testing.assert_array_equal(elements["vertex"]["red"], np.uint8([7, 255, 0]))
    np.testing.assert_array_equal(elements["face"]["vertex_indices"], [[0, 1, 2], [2, 1, 0]])
    assert elements["face"]["vertex_indices"].dtype == np.int32
    assert elements["face"]["part"].tolist() == [-4, 5]


def test_three_forms_of_one_file(example):
    elements = read_ply(example)
    _check_example(elements)
    for properties in elements.values():
        for values in properties.values():
            assert values.flags.c_contiguous
            assert values.flags.owndata
            assert values.dtype.isnative


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_other_line_ends(tmp_path, end):
    file = tmp_path / "windows.ply"
    head = _HEAD.format(form="binary_little_endian").replace("\n", end).encode()
    file.write_bytes(head + _binary("<"))
    _check_example(read_ply(file))
    file.write_bytes((_HEAD.format(form="ascii") + _ROWS).replace("\n", end).encode())
    _check_example(read_ply(file))


def test_text_without_a_last_line_end(tmp_path):
    file = tmp_path / "text.ply"
    file.write_text("ply\nformat ascii 1.0\nelement vertex 2\nproperty int x\nend_header\n1\n2")
    assert read_ply(file)["vertex"]["x"].tolist() == [1, 2]


def test_sized_type_names(tmp_path):
    file = tmp_path / "sized.ply"
    kinds = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
    lines = "".join(f"property {kind} {kind}\n" for kind in kinds)
    file.write_text(f"ply\nformat ascii 1.0\nelement a 1\n{lines}end_header\n{'1 ' * 8}\n")
    read = read_ply(file)["a"]
    assert {name: str(values.dtype) for name, values in read.items()} == {k: k for k in kinds}


def test_no_rows_and_no_properties(tmp_path):
    file = tmp_path / "empty.ply"
    rows = {"x": np.zeros(0, np.float32), "faces": np.zeros((0, 3), np.int32)}
    write_ply(file, {"vertex": rows})
    read = read_ply(file)["vertex"]
    assert read["x"].shape == (0,)
    assert read["faces"].reshape(-1, 3).shape == (0, 3)
    file.write_text("ply\nformat ascii 1.0\nelement nothing 5\nend_header\n")
    assert read_ply(file) == {"nothing": {}}


_NUMBERS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_is_written_is_read(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("ply") / "any.ply"
    elements = {}
    for name in data.draw(st.lists(st.sampled_from("abc"), unique=True)):
        rows = data.draw(st.integers(1, 4))
        shapes = st.sampled_from([(rows,), (rows, 1), (rows, 3)])
        kinds = st.sampled_from(_NUMBERS)
        elements[name] = {
            f"p{k}": data.draw(arrays(data.draw(kinds), data.draw(shapes)))
            for k in range(data.draw(st.integers(1, 3)))
        }
    write_ply(file, elements)
    read = read_ply(file)
    assert list(read) == list(elements)
    for name, properties in elements.items():
        assert list(read[name]) == list(properties)
        for key, values in properties.items():
            np.testing.assert_array_equal(read[name][key], values)
            assert read[name][key].dtype == values.dtype


def test_long_lists_and_big_endian_input(tmp_path):
    values = np.arange(600, dtype=">i4").reshape(2, 300)
    write_ply(tmp_path / "long.ply", {"strip": {"indices": values}})
    np.testing.assert_array_equal(read_ply(tmp_path / "long.ply")["strip"]["indices"], values)


def test_writing_replaces_and_leaves_nothing_else(tmp_path):
    file = tmp_path / "a.ply"
    for k in range(2):
        write_ply(file, {"vertex": {"x": np.full(3, k, np.float32)}})
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]
    assert read_ply(file)["vertex"]["x"].tolist() == [1, 1, 1]
    with pytest.raises(FileNotFoundError):
        write_ply(tmp_path / "no" / "a.ply", {"vertex": {"x": np.zeros(1, np.float32)}})


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        (
            {"a": {"x": np.zeros(1, np.uint8), "y": np.zeros(2, np.uint8)}},
            r"one length, got \[1, 2\]",
        ),
        ({"a b": {"x": np.zeros(1, np.float32)}}, "one ASCII word, got 'a b'"),
        ({"a": {"x\n": np.zeros(1, np.float32)}}, "one ASCII word"),
        ({"a": {"x": np.zeros(1, np.int64)}}, r"'x' must be \[n\] or \[n k\] .* got int64 \[1\]"),
        ({"a": {"x": np.zeros(1, bool)}}, "got bool"),
        ({"a": {"x": np.zeros((1, 1, 1), np.uint8)}}, r"got uint8 \[1, 1, 1\]"),
        (
            {"a": {"x": np.zeros(1, np.uint8), "y": np.zeros(2, np.uint8)}},
            r"one length, got \[1, 2",
        ),
        ({"a": {}}, r"one length, got \[\]"),
    ],
)
def test_what_cannot_be_written(tmp_path, elements, reason):
    with pytest.raises(ValueError, match=reason):
        write_ply(tmp_path / "a.ply", elements)
    assert not list(tmp_path.iterdir())


# --- damage


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.ply: PLY file is missing"):
        read_ply(tmp_path / "none.ply")
    with pytest.raises(DataError, match="PLY file is missing"):
        read_ply(tmp_path)


def test_every_truncation_is_an_error(example):
    whole = example.read_bytes()
    last = len(whole) - (1 if b"ascii" in whole[:20] else 0)  # the last line end may be missing
    for size in range(last):
        if whole[:size].endswith((b"\n3 2 1 0 ", b"\n3 2 1 0 5")):
            continue
        example.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"example\.ply: "):
            read_ply(example)


def test_what_follows_the_end_is_an_error(example):
    example.write_bytes(example.read_bytes() + b"1 ")
    with pytest.raises(DataError, match=r"(2 bytes|1 numbers) follow what its header promises"):
        read_ply(example)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("ply\n", "plx\n", "does not start as a PLY file"),
        ("end_header", "end_heade", "no end_header in its first"),
        ("1.0", "1.1", "line 'format .* 1.1' is not PLY 1.0"),
        ("format", "fromat", "line 'fromat .* is not PLY"),
        ("comment", "commend", "line 'commend made by hand' is not PLY"),
        ("vertex 3", "vertex -3", "'element vertex -3' gives no number of rows"),
        ("vertex 3", "vertex 3.0", "gives no number of rows"),
        ("vertex 3", "vertex", "gives no number of rows"),
        ("vertex 3", "vertex " + "9" * 5000, "gives no number of rows"),
        ("vertex 3", "vertex 1000000000000000000", "promises 1000000000000000000 x vertex"),
        ("vertex 3", "vertex 20000000", r"promises 20000000 x vertex.* or more, but \d\d "),
        (
            "vertex 3",
            "vertex 4",
            "cut off|does not hold|not all numbers|differ in length|no uchar",
        ),
        ("face 2", "face 1", "follow what its header promises"),
        ("face 2", "vertex 2", "two elements 'vertex'"),
        ("red", "x", "two properties 'x' of vertex"),
        ("float x", "half x", "'property half x' is no property of a known type"),
        ("list uchar", "list float", "no property of a known type"),
        ("uchar red", "red", "no property of a known type"),
        ("list uchar int", "list int", "no property of a known type"),
        (
            "property short part",
            "property short part\nelement end 1000000000000000\nproperty int x",
            "promises .*1000000000000000 x end",
        ),
    ],
)
def test_damaged_header(example, old, new, reason):
    example.write_bytes(example.read_bytes().replace(old.encode(), new.encode(), 1))
    with pytest.raises(DataError, match=reason):
        read_ply(example)


def test_property_before_any_element(tmp_path):
    file = tmp_path / "a.ply"
    file.write_text("ply\nformat ascii 1.0\nproperty int x\nend_header\n")
    with pytest.raises(DataError, match="'property int x' is not PLY"):
        read_ply(file)
    file.write_text("ply\ncomment no format\nend_header\n")
    with pytest.raises(DataError, match="header names no format"):
        read_ply(file)


def test_a_huge_claim_allocates_nothing(tmp_path):
    import tracemalloc

    file = tmp_path / "claim.ply"
    for form in ("ascii", "binary_little_endian", "binary_big_endian"):
        head = f"ply\nformat {form} 1.0\nelement vertex 25000000\nproperty float x\nend_header\n"
        file.write_bytes(head.encode() + b"1 " * 500)
        tracemalloc.start()
        with pytest.raises(DataError, match="promises 25000000 x vertex"):
            read_ply(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


@pytest.mark.parametrize(("kind", "length"), [("uint", 0xFFFFFFFF), ("int", -1), ("uchar", 200)])
def test_a_list_that_the_file_does_not_hold(tmp_path, kind, length):
    file = tmp_path / "list.ply"
    head = "ply\nformat {} 1.0\nelement face 1\nproperty list {} int i\nend_header\n"
    size = {"uint": 4, "int": 4, "uchar": 1}[kind]
    count = length.to_bytes(size, "little", signed=length < 0)
    file.write_bytes(head.format("binary_little_endian", kind).encode() + count + bytes(12))
    with pytest.raises(DataError, match=rf"a list 'i' of {length} values, which the file does not"):
        read_ply(file)
    file.write_text(head.format("ascii", kind) + f"{length} 1 2 3\n")
    with pytest.raises(DataError, match=r"'i' of .* values, which the file does not hold"):
        read_ply(file)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
def test_lists_of_several_lengths(tmp_path, form):
    file = tmp_path / "ragged.ply"
    head = f"ply\nformat {form} 1.0\nelement face 2\nproperty list uchar uchar i\nend_header\n"
    for rows in ([2, 1, 2, 1, 0, 0], [2, 1, 2, 3, 1, 2, 3], [3, 1, 2, 3, 2, 1, 2]):
        body = " ".join(map(str, rows)).encode() if form == "ascii" else bytes(rows)
        file.write_bytes(head.encode() + body)
        with pytest.raises(DataError, match="differ in length"):
            read_ply(file)


@pytest.mark.parametrize("value", ["256", "-1", "0.5", "nan", "inf", "1e300", "red", "0x1"])
def test_text_that_is_no_such_number(tmp_path, value):
    file = tmp_path / "text.ply"
    head = "ply\nformat ascii 1.0\nelement a 1\nproperty uchar red\nend_header\n"
    file.write_text(f"{head}{value}\n")
    with pytest.raises(DataError, match=r"which is no uchar|not all numbers"):
        read_ply(file)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_is_a_data_error_or_a_table(tmp_path_factory, data):
    form, body = data.draw(
        st.sampled_from([("ascii", _ROWS.encode()), ("binary_little_endian", _binary("<"))])
    )
    content = bytearray(_HEAD.format(form=form).encode() + body)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("fuzz") / "a.ply"
    file.write_bytes(content)
    try:
        elements = read_ply(file)
    except DataError:
        return
    assert sum(v.nbytes for p in elements.values() for v in p.values()) < 4 * len(content)


# --- a real file


@needs_real_data
def test_real_mesh():
    folder = REAL_DATA / "scannet/scans/scene0470_00"
    mesh = read_ply(folder / "scene0470_00_vh_clean_2.ply")
    assert {name: len(next(iter(rows.values()))) for name, rows in mesh.items()} == {
        "vertex": 67465,
        "face": 127003,
    }
    assert list(mesh["vertex"]) == ["x", "y", "z", "red", "green", "blue", "alpha"]
    assert mesh["face"]["vertex_indices"].shape == (127003, 3)
    labelled = read_ply(folder / "scene0470_00_vh_clean_2.labels.ply")
    assert labelled["vertex"]["label"].dtype == np.uint16
    for axis in "xyz":
        np.testing.assert_array_equal(labelled["vertex"][axis], mesh["vertex"][axis])
