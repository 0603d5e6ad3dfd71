"""What is fuzzed: every parser of one file, and every layout of a dataset as a whole."""

import json
from functools import partial

import numpy as np
from pc_data.commandline import UsageError
from pc_data.errors import DataError

from tests.fuzz import Reader

COLUMNS = ("x", "y", "z", "intensity")
LAYOUT = (
    *("nuscenes", "semantickitti", "semanticposs", "pandaset", "waymo", "folder", "scannet"),
    *("pointcept", "arkitscenes", "sunrgbd", "once", "argoverse2"),
)
_SMALL = {  # one scan of few points, made in seconds and read in milliseconds
    "waymo": {"top_shape": (64, 120), "short_shape": (12, 30)},
    "sunrgbd": {"num_frames": 1},
    "arkitscenes": {"num_frames": 2},
    "scannet": {"num_frames": 1},
}


def _points(num=30):
    rng = np.random.default_rng(0)
    return rng.uniform(-9, 9, (num, 4)).astype(np.float32)


# --- clouds


def _write_ply(root, *, form):
    points = _points()
    lines = [
        "ply",
        f"format {form} 1.0",
        "element vertex 30",
        *(f"property float {c}" for c in "xyz"),
    ]
    lines += ["property uchar label", "element face 2", "property list uchar int vertex_indices"]
    head = ("\n".join([*lines, "end_header"]) + "\n").encode()
    order = ">" if "big" in form else "<"
    if form == "ascii":
        rows = [f"{x:.4f} {y:.4f} {z:.4f} 3" for x, y, z, _ in points]
        body = ("\n".join([*rows, "3 0 1 2", "3 1 2 3"]) + "\n").encode()
    else:
        table = np.zeros(30, [("xyz", f"{order}f4", 3), ("label", "u1")])
        table["xyz"] = points[:, :3]
        faces = np.array([(3, (0, 1, 2)), (3, (1, 2, 3))], [("n", "u1"), ("v", f"{order}i4", 3)])
        body = table.tobytes() + faces.tobytes()
    (root / "cloud.ply").write_bytes(head + body)


def _write_pcd(root, *, form):
    points = _points()
    head = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n"
        f"WIDTH 30\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 30\nDATA {form}\n"
    ).encode()
    if form == "ascii":
        body = "\n".join(" ".join(f"{v:.4f}" for v in row) for row in points).encode() + b"\n"
    elif form == "binary":
        body = points.tobytes()
    else:
        plain = np.ascontiguousarray(points.T).tobytes()
        pieces = [plain[k : k + 32] for k in range(0, len(plain) - 32, 32)]
        packed = b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)
        packed += bytes([31]) + plain[len(pieces) * 32 :]
        body = np.array([len(packed), len(plain)], "<u4").tobytes() + packed
    (root / "cloud.pcd").write_bytes(head + body)


def _write_las(root, *, suffix):
    import laspy

    points = _points(300).astype(np.float64)
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales = np.full(3, 0.001)
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = points[:, 0], points[:, 1], points[:, 2]
    cloud.write(root / f"cloud{suffix}")


def _write_npz(root, *, save):
    points = _points()
    save(root / "cloud.npz", xyz=points[:, :3], label=np.arange(30) % 3)


def _write_parts(root):
    points = _points()
    np.save(root / "coord.npy", points[:, :3])
    np.save(root / "color.npy", (points[:, :3] > 0).astype(np.uint8) * 255)
    np.save(root / "segment.npy", np.arange(30))


def _write_structured(root):
    table = np.zeros(30, [("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("class", "<i4")])
    table["x"] = np.arange(30)
    np.save(root / "cloud.npy", table)


def _read_cloud(root, file):
    from pc_data.files.clouds import read_cloud

    read_cloud(file if file.stem != "color" else root / "coord.npy", columns=COLUMNS)


def _cloud(make, name):
    return Reader(make, lambda root: [root / name], _read_cloud, DataError)


# --- tables and pictures


def _write_frame(root):
    import pandas

    table = pandas.DataFrame({"x": _points()[:, 0], "d": np.arange(30), "label": ["Car"] * 30})
    table.to_pickle(root / "00.pkl.gz", protocol=4)


def _read_frame(root, file):
    from pc_data.files.frames import read_frame

    read_frame(file)


def _write_arrow(root, *, feather):
    import pyarrow
    import pyarrow.feather
    import pyarrow.parquet

    table = pyarrow.table(
        {
            "number": np.arange(60),
            "name": [f"row{k % 5}" for k in range(60)],
            "box": pyarrow.FixedSizeListArray.from_arrays(np.arange(180.0), 3),
        }
    )
    if feather:
        pyarrow.feather.write_feather(table, root / "table.feather")
    else:
        pyarrow.parquet.write_table(table, root / "table.parquet", row_group_size=20)


def _read_arrow(root, file):
    from pc_data.readers.arrow import column_array, column_text, open_table, read_feather

    names = ("number", "name", "box")
    if file.suffix == ".feather":
        table = read_feather(file, names)
    else:
        parquet = open_table(file)
        table = parquet.read(names)
        parquet.read(names[:1], np.array([3, 25]))
        list(parquet.iter_rows(names))
    column_array(table, "number", file, dtype="int64")
    column_array(table, "box", file, dtype="float64", width=3)
    column_text(table, "name", file)


def _write_json(root):
    content = [{"token": f"{k:032x}", "translation": [1.5, -2e-3, k], "q": None} for k in range(20)]
    (root / "table.json").write_text(json.dumps(content, indent=0))


def _read_json(root, file):
    from pc_data.files.json_files import read_json
    from pc_data.readers.nuscenes_rows import iter_rows

    read_json(file, missing="missing")
    list(iter_rows(file, ("token", "translation")))


def _write_image(root, *, suffix):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / f"image{suffix}")


def _camera(file, size=(32, 24)):
    from pc_data.scan import Camera

    eye = np.eye(4)
    return Camera(
        name="front", image_file=file, image_size=size, intrinsics=eye[:3, :3], from_scan=eye
    )


def _read_image(root, file):
    from pc_data.files.image_files import read_image_size

    read_image_size(file)
    _camera(file).load_image()


def _write_superpixels(root):
    from pc_data.scan import Scan
    from pc_data.superpixel_files import create_superpixels
    from pc_data.superpixel_manifest import SuperpixelManifest

    _write_image(root, suffix=".png")
    manifest = SuperpixelManifest(network="slic", num_classes=40, settings={"size": [24, 32]})
    files = create_superpixels(root / "made", manifest)
    cells = np.arange(24 * 32).reshape(24, 32) // 20
    files.write(Scan(name="one", xyz=_points()[:, :3]), _camera(root / "image.png"), cells)


def _read_superpixels(root, file):
    from pc_data.scan import Scan
    from pc_data.superpixel_files import open_superpixels

    files = open_superpixels(root / "made")
    scan, camera = Scan(name="one", xyz=_points()[:, :3]), _camera(root / "image.png")
    files.is_made(scan, camera)
    files.read(scan, camera)


def _superpixel_files(root):
    return [root / "made/manifest.json", root / "made/one/front.png"]


def _read_panoptic(root, file):
    from pc_data.readers.nuscenes_panoptic import read_panoptic

    read_panoptic(file, num_points=30)


def _write_panoptic(root):
    np.savez_compressed(root / "labels.npz", data=np.arange(30, dtype=np.uint16))


def _write_schema(root):
    (root / "dataset.yaml").write_text(
        "unit: mm\nup: y\ncolumns: [x, y, z, intensity, _]\nclasses:\n  ground: [40, 44]\n"
        "  car: 10\nignore: [0, 1]\n"
        "labels: {files: '{stem}.label', dtype: uint32, class_bits: 16}\n"
        "splits:\n  train: ['a/*.bin']\n  val: [b/000.bin, '**/c.ply']\n"
    )


def _read_schema(root, file):
    from pc_data.readers.folder_schema import read_schema

    read_schema(root)


# --- networks and runs


def _write_checkpoint(root, *, legacy=False):
    import torch

    content = {
        "state_dict": {"net.weight": torch.randn(4, 3), "net.bias": torch.zeros(4)},
        "epoch": 3,
        "loops": {"fit": {"total": 7}},
        "hyper_parameters": {"lr": 0.1, "name": "a"},
    }
    if legacy:
        content = {"net": content["state_dict"]}
    torch.save(content, root / "last.ckpt", _use_new_zipfile_serialization=not legacy)


def _read_checkpoint(root, file):
    from pc_train.checkpoints import read_checkpoint

    read_checkpoint(file)
    read_checkpoint(file, mmap=True)


def _read_published(root, file):
    from pc_backbones.published_files import read_checkpoint

    read_checkpoint(file)


def _write_teacher(root, *, legacy=False):
    import torch

    state = {"patch_embed.proj.weight": torch.randn(4, 3, 2, 2), "pos_embed": torch.zeros(1, 5, 4)}
    torch.save(
        {"state_dict": state, "arch": "vit"},
        root / "vit.pth",
        _use_new_zipfile_serialization=not legacy,
    )


def _read_teacher(root, file):
    from pc_2dteachers.weights import read_tensors

    read_tensors(file)


def _write_labelled(root):
    import torch

    torch.save({"scene0": torch.arange(5), "scene1": np.arange(4)}, root / "points.pth")


def _read_labelled(root, file):
    from pc_train.limited import read_points

    read_points(file)


def _write_model(root):
    from pc_train.networks import HEADS, new_backbone, save_model

    backbone = new_backbone("pointnet2", 1, **_TINY_NETWORK)
    head = HEADS["linear"](backbone.network.out_dim, 3)
    card = {"class_names": ["a", "b", "c"], "head": "linear", "features": ["height"]}
    save_model(root, backbone, card=card, head=head)


_TINY_NETWORK = {}


def _read_model(root, file):
    from pc_train.networks import load_model

    load_model(root)


def _model_files(root):
    return [root / "backbone.safetensors", root / "head.safetensors"]


def _write_run(root):
    from pc_train.runs import open_run

    open_run(root, "data:\n  root: /data\n  name: nuscenes\nepochs: 3\nlr: 0.002\nbatch_size: 4\n"
             "start_from: null\nviews: [1.0, 2.5]\n")  # fmt: skip


def _read_run(root, file):
    from pc_train.run_folders import read_run
    from pc_train.runs import flatten

    flatten(dict(read_run(root).settings))


def _write_curve(root):
    rows = "".join(f"{k},{0.5 / (k + 1)},0.001,{k}.5\n" for k in range(20))
    (root / "metrics.csv").write_text("step,loss,lr,rank\n" + rows)


def _read_curve(root, file):
    from pc_train.callbacks import read_columns

    read_columns(file)


def _write_settings(root):
    (root / "flags.yaml").write_text("root: /data\nname: nuscenes\nsplit: train\nversion: ''\n")


def _read_settings(root, file):
    """As a command reads `--config`."""
    from pc_data.commandline import _bind
    from pc_data.datasets import DataConfig

    def command(config: DataConfig) -> int:
        """Take settings."""
        return 0

    _bind(command, ["--config", str(file)], prog="try", presets={})


# --- datasets as a whole


def _make_world(root, *, name):
    from importlib import import_module

    from tests.pc_data.layouts import LAYOUTS

    module, function = LAYOUTS[name][0].split(":")
    known = LAYOUTS[name][1] | {"num_scenes": 1} | _SMALL.get(name, {})
    if "frames_per_scene" in known:
        known["frames_per_scene"] = 1
    getattr(import_module(module), function)(root / "world", **known)


def _kinds_of_files(root):
    from tests.pc_data.test_damage import kinds_of_files

    return kinds_of_files(root / "world")


def _read_world(root, file, *, name):
    from pc_data.datasets import DataConfig, open_dataset

    dataset = open_dataset(DataConfig(root=root / "world", name=name, split="all"))
    scan = dataset[0]
    dataset.load_boxes(0)
    for camera in scan.cameras:
        if camera.image_file == file:
            camera.load_image()


# A teacher is read by timm, where damage can cost memory: only tests/test_hostile.py has it.
PARSERS = {
    **{
        f"ply {form}": _cloud(partial(_write_ply, form=form), "cloud.ply")
        for form in ("ascii", "binary_little_endian", "binary_big_endian")
    },
    **{
        f"pcd {form}": _cloud(partial(_write_pcd, form=form), "cloud.pcd")
        for form in ("ascii", "binary", "binary_compressed")
    },
    "las": _cloud(partial(_write_las, suffix=".las"), "cloud.las"),
    "laz": _cloud(partial(_write_las, suffix=".laz"), "cloud.laz"),
    "npy": _cloud(lambda root: np.save(root / "cloud.npy", _points()), "cloud.npy"),
    "npy structured": _cloud(_write_structured, "cloud.npy"),
    "npy parts": Reader(
        _write_parts, lambda root: [root / "coord.npy", root / "color.npy"], _read_cloud, DataError
    ),
    "npz": _cloud(partial(_write_npz, save=np.savez), "cloud.npz"),
    "npz compressed": _cloud(partial(_write_npz, save=np.savez_compressed), "cloud.npz"),
    "bin": _cloud(lambda root: _points().tofile(root / "cloud.bin"), "cloud.bin"),
    "pandas pickle": Reader(_write_frame, lambda r: [r / "00.pkl.gz"], _read_frame, DataError),
    "parquet": Reader(
        partial(_write_arrow, feather=False),
        lambda r: [r / "table.parquet"],
        _read_arrow,
        DataError,
    ),
    "feather": Reader(
        partial(_write_arrow, feather=True), lambda r: [r / "table.feather"], _read_arrow, DataError
    ),
    "json": Reader(_write_json, lambda r: [r / "table.json"], _read_json, DataError),
    "png": Reader(
        partial(_write_image, suffix=".png"), lambda r: [r / "image.png"], _read_image, DataError
    ),
    "jpeg": Reader(
        partial(_write_image, suffix=".jpg"), lambda r: [r / "image.jpg"], _read_image, DataError
    ),
    "superpixels": Reader(_write_superpixels, _superpixel_files, _read_superpixels, DataError),
    "panoptic npz": Reader(
        _write_panoptic, lambda r: [r / "labels.npz"], _read_panoptic, DataError
    ),
    "dataset.yaml": Reader(_write_schema, lambda r: [r / "dataset.yaml"], _read_schema, DataError),
    "checkpoint": Reader(
        _write_checkpoint, lambda r: [r / "last.ckpt"], _read_checkpoint, ValueError
    ),
    "published zip": Reader(
        _write_checkpoint, lambda r: [r / "last.ckpt"], _read_published, ValueError
    ),
    "published tar": Reader(
        partial(_write_checkpoint, legacy=True),
        lambda r: [r / "last.ckpt"],
        _read_published,
        ValueError,
    ),
    "teacher zip": Reader(_write_teacher, lambda r: [r / "vit.pth"], _read_teacher, ValueError),
    "teacher tar": Reader(
        partial(_write_teacher, legacy=True), lambda r: [r / "vit.pth"], _read_teacher, ValueError
    ),
    "labelled points": Reader(
        _write_labelled, lambda r: [r / "points.pth"], _read_labelled, ValueError
    ),
    "model": Reader(_write_model, _model_files, _read_model, ValueError),
    "config.yaml": Reader(_write_run, lambda r: [r / "config.yaml"], _read_run, ValueError),
    "metrics.csv": Reader(_write_curve, lambda r: [r / "metrics.csv"], _read_curve, ValueError),
    "--config": Reader(_write_settings, lambda r: [r / "flags.yaml"], _read_settings, UsageError),
}

DATASETS = {
    name: Reader(
        partial(_make_world, name=name), _kinds_of_files, partial(_read_world, name=name), DataError
    )
    for name in LAYOUT
}

READERS = PARSERS | DATASETS
