"""Files made to harm: each would touch a canary, or end the machine, if something obeyed it."""

import gzip
import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pc_2dteachers.weights  # noqa: F401 - imported before the limits are set
import pc_train.limited  # noqa: F401
from pc_data.commandline import UsageError
from pc_data.errors import DataError

from tests import fuzz_readers
from tests.mutations import read_zip, write_zip

_BOMB = 256 << 20  # bytes unpacked, of a thousandth of that


class Case(NamedTuple):
    """A hostile file.

    Attributes:
        name: What it is.
        prepare: Given an empty folder and the canary's path, writes it; the path that an error
            must name and what reads it.
        error: The one class of error.
    """

    name: str
    prepare: Callable[[Path, Path], tuple[Path, Callable[[], object]]]
    error: type[Exception]


# --- pickles


class _Calls:
    """An object that a pickle makes by calling a function."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


def _global(name, argument):
    """A pickle by hand that calls what cannot be named from here."""
    module, _, attribute = name.rpartition(".")
    text = pickle.dumps(argument, protocol=0)[:-1]
    return b"c" + f"{module}\n{attribute}\n".encode() + b"(" + text + b"tR."


def _payloads(canary):
    """Pickles, and objects that pickle to them."""
    touch, code = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    nested = {"a": [1, {"b": (2, _Calls(os.system, touch))}]}
    return {
        "os.system": _Calls(os.system, touch),
        "open": _Calls(open, str(canary), "w"),
        "eval": _Calls(eval, code),
        "exec": _Calls(exec, code),
        "mkdir": _Calls(os.mkdir, str(canary)),
        "nested": nested,
        "touch": _Calls(Path.touch, canary),
        "getattr": _Calls(__import__("subprocess").call, ["touch", str(canary)]),
    }


PAYLOADS = ("os.system", "open", "eval", "exec", "mkdir", "nested", "touch", "getattr")


def _saved(folder, canary, *, payload, legacy, read):
    import torch

    file = folder / "last.ckpt"
    harm = _payloads(canary)[payload]
    content = {"state_dict": {"weight": torch.zeros(2), "more": harm}, "config": harm}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file, lambda: read(folder, file)


def _plain_pickle(folder, canary, *, payload, read):
    file = folder / "last.ckpt"
    file.write_bytes(pickle.dumps(_payloads(canary)[payload]))
    return file, lambda: read(folder, file)


def _frame(folder, canary, *, payload, protocol):
    file = folder / "00.pkl.gz"
    file.write_bytes(gzip.compress(pickle.dumps(_payloads(canary)[payload], protocol=protocol)))
    return file, lambda: fuzz_readers._read_frame(folder, file)


def _frame_by_hand(folder, canary, *, name):
    file = folder / "00.pkl.gz"
    file.write_bytes(gzip.compress(_global(name, f"touch {canary}")))
    return file, lambda: fuzz_readers._read_frame(folder, file)


def _objects(canary, payload):
    array = np.empty(3, dtype=object)
    array[:] = [_payloads(canary)[payload]] * 3
    return array


def _array(folder, canary, *, payload, name, read):
    file = folder / name
    save = np.savez if name.endswith(".npz") else np.save
    content = {"xyz": _objects(canary, payload)} if name.endswith(".npz") else None
    if content:
        save(file, **content)
    else:
        save(file, _objects(canary, payload), allow_pickle=True)
    return file, lambda: read(folder, file)


def _read_room(folder, file):
    from pc_data.readers.pointcept import _read_array

    _read_array(file)


def pickles():
    """Pickles in every container that is read."""
    readers = {
        "checkpoint": fuzz_readers._read_checkpoint,
        "published": fuzz_readers._read_published,
        "teacher": fuzz_readers._read_teacher,
        "labelled points": fuzz_readers._read_labelled,
    }
    for name, read in readers.items():
        for payload in PAYLOADS:
            for legacy in (False, True):
                prepare = partial(_saved, payload=payload, legacy=legacy, read=read)
                form = "tar" if legacy else "zip"
                yield Case(f"{payload} in the {form} of a {name}", prepare, ValueError)
        prepare = partial(_plain_pickle, payload="eval", read=read)
        yield Case(f"bare pickle as a {name}", prepare, ValueError)
    for payload in PAYLOADS:
        for protocol in (0, 4):
            prepare = partial(_frame, payload=payload, protocol=protocol)
            yield Case(f"{payload} in a table of PandaSet, protocol {protocol}", prepare, DataError)
    for name in ("posix.system", "numpy.testing.runstring", "pandas.eval", "builtins.getattr"):
        yield Case(f"{name} in a table", partial(_frame_by_hand, name=name), DataError)
    arrays = {
        "cloud.npy": fuzz_readers._read_cloud,
        "cloud.npz": fuzz_readers._read_cloud,
        "labels.npz": fuzz_readers._read_panoptic,
        "coord.npy": _read_room,
    }
    for name, read in arrays.items():
        for payload in ("os.system", "open", "eval"):
            prepare = partial(_array, payload=payload, name=name, read=read)
            yield Case(f"{payload} in {name}", prepare, DataError)


# --- YAML


def _laughs(levels=9):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, levels)]
    return "\n".join(lines) + "\n"


def _yamls(canary):
    return {
        "apply": f"up: !!python/object/apply:os.system ['touch {canary}']\n",
        "new": f"up: !!python/object/new:subprocess.Popen [['touch', '{canary}']]\n",
        "eval": f"up: !!python/object/apply:eval [\"open('{canary}', 'w')\"]\n",
        "name": "up: !!python/name:os.system\n",
        "module": "up: !!python/module:antigravity\n",
        "state": f"up: !!python/object:pathlib.Path {{a: '{canary}'}}\n",
        "laughs": _laughs(),
        "laughs in a value": _laughs() + "classes: *a8\nroot: *a8\nunit: *a8\n",
        "itself": "up: &a [*a, *a]\nclasses: &b {x: *b}\nroot: *a\n",
        "deep": "up: " + "[" * 20_000 + "]" * 20_000 + "\n",
        "keys": "".join(f"k{k}: 1\n" for k in range(20_000)),
    }


YAMLS = ("apply", "new", "eval", "name", "module", "state", "laughs", "laughs in a value", "itself",
         "deep", "keys")  # fmt: skip


def _yaml(folder, canary, *, kind, name, read):
    file = folder / name
    file.write_text(_yamls(canary)[kind])
    return file, lambda: read(folder, file)


def _resume(folder, file):
    from pc_train.runs import open_run

    open_run(folder, "up: y\nlr: 0.1\n")


def yamls():
    """YAML through every entry point."""
    readers = {
        "dataset.yaml": (fuzz_readers._read_schema, DataError),
        "flags.yaml": (fuzz_readers._read_settings, UsageError),
    }
    for name, (read, error) in readers.items():
        for kind in YAMLS:
            case = partial(_yaml, kind=kind, name=name, read=read)
            yield Case(f"{kind} in {name}", case, error)
    for kind in YAMLS:
        case = partial(_yaml, kind=kind, name="config.yaml", read=_resume)
        yield Case(f"{kind} in config.yaml", case, ValueError)


# --- archives and bombs


def _bomb(folder, canary, *, name, make, read):
    file = folder / name
    make(file)
    return file, lambda: read(folder, file)


def _npz_bomb(file):
    np.savez_compressed(file, xyz=np.zeros((_BOMB // 12, 3), np.float32))


def _panoptic_bomb(file):
    np.savez_compressed(file, data=np.zeros(_BOMB // 2, np.uint16))


def _frame_bomb(file):
    file.write_bytes(gzip.compress(pickle.dumps(bytes(_BOMB))))


def _quine_bomb(file):
    inner = gzip.compress(bytes(_BOMB), 9)
    file.write_bytes(gzip.compress(inner * 200, 9))


def _png_bomb(file, side=14_000):
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(1 + side)) for _ in range(side)) + rows.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _slips(folder, canary, *, target):
    stream = io.BytesIO()
    np.savez(stream, xyz=np.zeros((4, 3)))
    members = read_zip(stream.getvalue())
    name = target.replace("CANARY", str(canary))
    members = {f"{name}.npy": next(iter(members.values()))}
    file = folder / "cloud.npz"
    file.write_bytes(write_zip(members))
    return file, lambda: fuzz_readers._read_cloud(folder, file)


def _zip_link(folder, canary):
    file = folder / "cloud.npz"
    link = zipfile.ZipInfo("xyz.npy")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    return file, lambda: fuzz_readers._read_cloud(folder, file)


def _checkpoint_bomb(file):
    import torch

    torch.save({"state_dict": {"w": torch.zeros(2)}, "text": "x"}, file)
    members = read_zip(file.read_bytes())
    name = next(name for name in members if name.endswith("data/0"))
    members[name] = bytes(_BOMB)
    file.write_bytes(write_zip(members, zipfile.ZIP_DEFLATED))


def _stretched(file):
    """One number that claims to be a terabyte."""
    import torch

    torch.save({"state_dict": {"w": torch.zeros(1).expand(1 << 38)}}, file)


def archives():
    """Archives that unpack to too much or somewhere else."""
    make = [
        ("cloud.npz", _npz_bomb, fuzz_readers._read_cloud, DataError),
        ("labels.npz", _panoptic_bomb, fuzz_readers._read_panoptic, DataError),
        ("00.pkl.gz", _frame_bomb, fuzz_readers._read_frame, DataError),
        ("01.pkl.gz", _quine_bomb, fuzz_readers._read_frame, DataError),
        ("image.png", _png_bomb, fuzz_readers._read_image, DataError),
        ("last.ckpt", _checkpoint_bomb, fuzz_readers._read_published, ValueError),
        ("last.ckpt", _checkpoint_bomb, fuzz_readers._read_checkpoint, ValueError),
        ("last.ckpt", _stretched, fuzz_readers._read_published, ValueError),
    ]
    for name, write, read, error in make:
        case = partial(_bomb, name=name, make=write, read=read)
        yield Case(f"{write.__name__[1:]} {name}", case, error)
    for target in ("../../canary", "CANARY", "..\\canary", "/etc/xyz"):
        yield Case(f"npz with {target}", partial(_slips, target=target), DataError)
    yield Case("npz with a link", _zip_link, DataError)


# --- paths in tables

_PATHS = (
    *("../../canary", "/etc/passwd", "samples/../../canary", "a\0b", "x" * 5000, "/dev/zero", ""),
    *(
        "..\\..\\canary",
        "C:\\windows",
        "samples/pipe",
        "samples",
        "//host/share",
        "samples/../../../etc",
    ),
)


def _nuscenes(folder, canary, *, table, path):
    from tests.pc_data.tiny_worlds import edit_rows, write_nuscenes

    root = write_nuscenes(folder / "world")
    os.mkfifo(root / "samples/pipe")
    edit_rows(root / f"v1.0-trainval/{table}.json", filename=path)
    return root, lambda: _read_all(root, "nuscenes")


def _read_all(root, name):
    from pc_data.datasets import DataConfig, open_dataset

    dataset = open_dataset(DataConfig(root=root, name=name, split="all"))
    for index in range(len(dataset)):
        scan = dataset[index]
        for camera in scan.cameras:
            camera.load_image()


def _folder_of(folder, canary, *, schema, split="all"):
    from pc_data.datasets import DataConfig, open_dataset

    root = folder / "world"
    root.mkdir()
    np.save(root / "a.npy", np.zeros((4, 3), np.float32))
    np.save(folder / "secret.npy", np.zeros(4, np.int64))
    (folder / "list.txt").write_text("a.npy\n")
    os.mkfifo(root / "pipe.txt")
    (root / "dataset.yaml").write_text(schema.replace("CANARY", str(canary)))
    return root, lambda: open_dataset(DataConfig(root=root, name="folder", split=split))[0]


_LABELS = "classes: [a]\nlabels: {files: '%s'}\nsplits: {train: [a.npy]}\n"
_SPLITS = "classes: [a]\nsplits: {train: ['%s']}\n"
_SCHEMAS = {
    **{path: _LABELS % path for path in ("../{stem}.npy", "../secret{stem}.npy", "/etc/{stem}.npy",
       "{folder}/../../{stem}.npy", "x/../../{stem}.npy")},
    **{path: _SPLITS % path for path in ("../list.txt", "/etc/passwd.txt", "pipe.txt", "../*.npy",
       "/dev/zero", "a/../../list.txt")},
}  # fmt: skip


def _lists(folder, canary, *, layout, file, text):
    """A list of scenes beside a world of which nothing else is needed."""
    from pc_data.datasets import DataConfig, open_dataset

    root = folder / "world"
    for place in ("data", "scans", "ImageSets", "sunrgbd_trainval"):
        (root / place).mkdir(parents=True)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)
    return root, lambda: open_dataset(DataConfig(root=root, name=layout, split="train"))


_LISTS = {"once": "ImageSets/train.txt", "scannet": "scannetv2_train.txt",
          "sunrgbd": "sunrgbd_trainval/train_data_idx.txt"}  # fmt: skip


def _superpixels(folder, canary, *, scan):
    from dataclasses import replace

    from pc_data.scan import Scan
    from pc_data.superpixel_files import create_superpixels
    from pc_data.superpixel_manifest import SuperpixelManifest

    fuzz_readers._write_image(folder, suffix=".png")
    root = folder / "made"
    files = create_superpixels(root, SuperpixelManifest(network="slic", num_classes=4))
    odd = Scan(name=scan.replace("CANARY", str(canary)), xyz=np.zeros((1, 3), np.float32))
    camera = replace(fuzz_readers._camera(folder / "image.png"), name="canary")
    return root, lambda: files.write(odd, camera, np.zeros((24, 32), np.int64))


def paths():
    """Paths in tables that lead out of the dataset, or to what is no file."""
    for table in ("sample_data", "lidarseg"):
        for path in _PATHS:
            case = partial(_nuscenes, table=table, path=path)
            yield Case(f"{path[:30]!r} in {table}", case, DataError)
    for path, schema in _SCHEMAS.items():
        case = partial(_folder_of, schema=schema, split="train")
        yield Case(f"{path} in dataset.yaml", case, DataError)
    for layout, file in _LISTS.items():
        for text in ("../../canary\n", "/etc/passwd\n", "\0\n", "9" * 5000 + "\n"):
            case = partial(_lists, layout=layout, file=file, text=text)
            yield Case(f"{text[:20]!r} in a list of {layout}", case, DataError)
    for scan in ("..", "../..", "CANARY", "a/../..", "..\\x"):
        case = partial(_superpixels, scan=scan)
        yield Case(f"superpixels of scan {scan}", case, DataError)


CASES = [*pickles(), *yamls(), *archives(), *paths()]
