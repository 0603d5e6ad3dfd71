"""What fuzzing found, each by itself; warnings are errors here as everywhere."""

import gzip
import re
import zipfile
import zlib
from importlib import import_module

import numpy as np
import pytest
from pc_data.commandline import UsageError
from pc_data.errors import DataError
from pc_data.readers.arrow import Table, read_feather
from PIL import Image

from tests import fuzz_readers, hostile_cases
from tests.mutations import read_zip, write_zip


def test_a_long_word_of_a_file_is_not_quoted_whole(tmp_path):
    file = tmp_path / "cloud.ply"
    name = "v" * 30_000 + "\x1b[31m"
    file.write_bytes(f"ply\nformat ascii 1.0\nelement {name} 0\nend_header\n".encode())
    with pytest.raises(DataError, match=re.escape(f"{file}: has no element")) as caught:
        fuzz_readers._read_cloud(tmp_path, file)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


def test_nan_that_signals_is_a_missing_return(tmp_path):
    points = fuzz_readers._points()
    points.view(np.uint32)[2, :3] = 0x7FA00001
    np.save(tmp_path / "cloud.npy", points)
    fuzz_readers._read_cloud(tmp_path, tmp_path / "cloud.npy")


def test_scale_of_a_las_file_may_be_huge(tmp_path):
    pytest.importorskip("laspy")
    fuzz_readers._write_las(tmp_path, suffix=".las")
    file = tmp_path / "cloud.las"
    content = bytearray(file.read_bytes())
    content[131:139] = np.float64(1.7e308).tobytes()
    file.write_bytes(content)
    with pytest.raises(DataError, match="NaN or infinite"):
        fuzz_readers._read_cloud(tmp_path, file)


@pytest.mark.parametrize("name", ["cloud.npy", "room.npy"])
def test_header_of_an_array_with_an_escape(tmp_path, name):
    file = tmp_path / name
    np.save(file, fuzz_readers._points())
    file.write_bytes(file.read_bytes().replace(b"'<f4'", b"'\\A4'"))
    read = hostile_cases._read_room if name == "room.npy" else fuzz_readers._read_cloud
    with pytest.raises(DataError, match=re.escape(f"{file}")):
        read(tmp_path, file)


def test_a_small_archive_does_not_unpack_to_much(tmp_path):
    file = tmp_path / "cloud.npz"
    np.savez_compressed(file, xyz=np.zeros((3_000_000, 3), np.float32))
    with pytest.raises(DataError, match=r"bytes unpack to .*numpy\.savez"):
        fuzz_readers._read_cloud(tmp_path, file)
    np.savez(file, xyz=np.zeros((3_000_000, 3), np.float32))
    fuzz_readers._read_cloud(tmp_path, file)
    table = tmp_path / "00.pkl.gz"
    table.write_bytes(gzip.compress(bytes(40 << 20)))
    with pytest.raises(DataError, match="unpacks to more than"):
        fuzz_readers._read_frame(tmp_path, table)


def test_an_image_of_another_size_is_not_decoded(tmp_path):
    """The pixels are damaged, too; were they looked at, the error would be another one."""
    fuzz_readers._write_image(tmp_path, suffix=".png")
    file = tmp_path / "image.png"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match="is 32x24 pixels but its calibration is for 64x48"):
        fuzz_readers._camera(file, size=(64, 48)).load_image()


def test_texts_of_a_table_of_less_than_no_length(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import feather

    places = pyarrow.py_buffer(np.array((0, 5, 2, 9), "<i4").tobytes())
    names = pyarrow.StringArray.from_buffers(3, places, pyarrow.py_buffer(b"x" * 9))
    table = pyarrow.table({"number": np.arange(3), "name": names, "box": np.arange(3)})
    file = tmp_path / "table.feather"
    feather.write_feather(table.slice(0, 3), file, compression="uncompressed")
    with pytest.raises(DataError, match=re.escape(f"{file}: not a Feather file")):
        fuzz_readers._read_arrow(tmp_path, file)


@pytest.mark.parametrize("kind", ["laughs", "laughs in a value", "itself"])
def test_aliases_of_a_yaml_do_not_unfold(tmp_path, kind):
    text = hostile_cases._yamls(tmp_path / "canary")[kind]
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(DataError, match="aliases unfold to more than"):
        fuzz_readers._read_schema(tmp_path, None)
    (tmp_path / "flags.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"flags\.yaml: .*aliases unfold to more than"):
        fuzz_readers._read_settings(tmp_path, tmp_path / "flags.yaml")


def test_aliases_as_people_use_them(tmp_path):
    (tmp_path / "dataset.yaml").write_text(
        "classes: {a: &ids [1, 2], b: 3}\nignore: [4]\nsplits: {train: &t [x.npy], val: [y.npy]}\n"
    )
    fuzz_readers._read_schema(tmp_path, None)


def test_settings_that_are_no_settings(tmp_path):
    from pc_train.run_folders import read_run

    file = tmp_path / "config.yaml"
    for text, message in (
        ("1: 2\nnull: 3\n", "is of a command that is not compared"),
        ("epochs: " + "9" * 5000 + "\n", r"config\.yaml is damaged"),
        (hostile_cases._laughs(), r"config\.yaml is damaged"),
        ("a: " + "[" * 3000, r"config\.yaml is damaged"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_run(tmp_path)


@pytest.mark.parametrize("cell", ["0.5x", "9" * 200_000])
def test_a_damaged_cell_of_a_curve(tmp_path, cell):
    from pc_train.callbacks import read_columns

    (tmp_path / "metrics.csv").write_text(f"step,loss,lr\n1,{cell},2\n")
    with pytest.raises(ValueError, match=r"metrics\.csv is damaged"):
        read_columns(tmp_path / "metrics.csv")


@pytest.mark.parametrize("name", ["checkpoint", "published", "labelled", "teacher"])
def test_checkpoint_that_is_compressed(tmp_path, name):
    import torch

    file = tmp_path / "last.ckpt"
    torch.save({"weight": torch.zeros(1000)}, file)
    file.write_bytes(write_zip(read_zip(file.read_bytes()), zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match=r"last\.ckpt.*its archive is compressed"):
        getattr(fuzz_readers, f"_read_{name}")(tmp_path, file)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["checkpoint", "published", "teacher"])
def test_a_class_with_a_name_too_long_to_search(tmp_path, name, legacy):
    import torch

    file = tmp_path / "last.ckpt"
    torch.save(
        {"weight": torch.nn.Parameter(torch.zeros(2))},
        file,
        _use_new_zipfile_serialization=not legacy,
    )
    content, long_name = file.read_bytes(), b"collections" + b"a" * 100_000
    if legacy:
        content = content.replace(b"collections", long_name)
    else:
        members = read_zip(content)
        (pickled,) = (name for name in members if name.endswith("data.pkl"))
        members[pickled] = members[pickled].replace(b"collections", long_name)
        content = write_zip(members)
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"last\.ckpt.*a class by more than 1000 characters"):
        getattr(fuzz_readers, f"_read_{name}")(tmp_path, file)


@pytest.mark.parametrize("name", ["checkpoint", "labelled"])
def test_no_advice_to_trust_a_file(tmp_path, name):
    prepare = hostile_cases._saved
    read = getattr(fuzz_readers, f"_read_{name}")
    _, attempt = prepare(tmp_path, tmp_path / "canary", payload="eval", legacy=False, read=read)
    with pytest.raises(ValueError, match=r"last\.ckpt .*it holds .*eval") as caught:
        attempt()
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("damaged", [b"\x80\x02t.", b"\x80\x02h\x09."])
def test_checkpoint_whose_pickle_is_damaged(tmp_path, damaged):
    """Torch's unpickler raises what it likes: here IndexError and KeyError."""
    import torch

    file = tmp_path / "last.ckpt"
    torch.save({"weight": torch.zeros(2)}, file)
    members = read_zip(file.read_bytes())
    (pickled,) = (name for name in members if name.endswith("data.pkl"))
    file.write_bytes(write_zip(members | {pickled: damaged}))
    with pytest.raises(ValueError, match=re.escape(f"{file}")):
        fuzz_readers._read_checkpoint(tmp_path, file)


@pytest.mark.parametrize("path", ["x" * 300, "samples/" + "ü" * 200, "a\0b"])
def test_a_name_that_no_file_can_have(tmp_path, path):
    _, read = hostile_cases._nuscenes(tmp_path, None, table="sample_data", path=path)
    with pytest.raises(DataError, match=r"sample_data\.json: .*names the file"):
        read()


def test_an_image_that_claims_many_pixels(tmp_path):
    file = tmp_path / "image.png"
    Image.new("L", (4, 4)).save(file)
    content = bytearray(file.read_bytes())
    content[16:24] = (10_000).to_bytes(4) * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"image\.png: .*could be decompression bomb"):
        fuzz_readers._read_image(tmp_path, file)


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_a_column_whose_name_is_no_text(tmp_path, kind):
    arrow = pytest.importorskip("pyarrow")
    file = tmp_path / f"table.{kind}"
    table = arrow.table({"intensity": [1.0], "other_column": [2.0]})
    if kind == "parquet":
        import_module("pyarrow.parquet").write_table(table, file, store_schema=False)
    else:
        import_module("pyarrow.feather").write_feather(table, file)
    file.write_bytes(file.read_bytes().replace(b"other_column", b"other\x9ecolumn"))
    with pytest.raises(DataError, match=re.escape(f"{file}: not a {kind.capitalize()} file")):
        Table(file) if kind == "parquet" else read_feather(file, ["intensity"])
