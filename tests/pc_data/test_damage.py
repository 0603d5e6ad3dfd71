"""Every kind of file of every layout, damaged in many ways: a clear error or the next scan.

Whatever happens to a file, a reader says so in one sentence that names it, or returns what it
returned before (the file is not needed); it raises nothing else and reads nothing else.
"""

import json
import re
import shutil
import tracemalloc
import warnings

import numpy as np
import pytest
from pc_data import DataError
from pc_data.batch import to_batch
from pc_data.datasets import DataConfig, open_dataset
from pc_data.loading import Samples

from tests.pc_data.layouts import LAYOUTS, make_world

MOST_MEMORY = 100 << 20  # bytes, far above what these worlds need


def cut(content):
    return content[: len(content) // 2]


def one_short(content):
    return content[:-1]


def one_more(content):
    return content + b"\x07"


def noise(content):
    return np.random.default_rng(len(content)).bytes(len(content))


def turned_bits(content):
    head = np.frombuffer(content[:64], np.uint8) ^ 0x55
    return head.tobytes() + content[64:]


def not_numbers(content):
    values = np.frombuffer(content[: len(content) // 4 * 4], "<f4").copy()
    values[:: max(len(values) // 7, 1)] = np.nan
    return values.tobytes()


def infinite(content):
    values = np.frombuffer(content[: len(content) // 4 * 4], "<f4").copy()
    values[len(values) // 2 :] = np.inf
    return values.tobytes()


def huge_counts(content):
    """Every number of two digits or more in the text of the head becomes absurd."""
    head, rest = content[:2000], content[2000:]
    return re.sub(rb"(?<![.\d])\d{2,9}(?![.\d])", b"987654321987", head) + rest


def wrong_types(content):
    return re.sub(rb'"[0-9a-f]{16,}"', b"17", content)


def dangling(content):
    return re.sub(rb'"[0-9a-f]{32}"', b'"' + b"0" * 32 + b'"', content, count=3)


def outside(content):
    return re.sub(rb'"(samples|sweeps|lidarseg|panoptic)/', rb'"../../\1/', content)


def absolute(content):
    return re.sub(rb'"(samples|sweeps|lidarseg|panoptic)/', rb'"/etc/\1/', content)


def short_rows(content):
    return b"\n".join(line.rsplit(b" ", 1)[0] for line in content.splitlines())


DAMAGE = {
    "empty": lambda _: b"",
    "text": lambda _: b"hello\n",
    "zeros": lambda c: bytes(len(c)),
    "json list": lambda _: b"[]",
    "json object": lambda _: b"{}",
    "null": lambda _: b"null",
    "nested": lambda _: b"[" * 100_000,
    "byte": lambda _: b"\x00",
    "utf": lambda _: b"\xff\xfe\x00",
    **{
        change.__name__: change
        for change in (cut, one_short, one_more, noise, turned_bits, not_numbers, infinite)
    },
    **{
        change.__name__: change
        for change in (huge_counts, wrong_types, dangling, outside, absolute, short_rows)
    },
}


QUICK = ("nuscenes", "semantickitti")
UNUSED = {
    "semanticposs": ("calib.txt",),
    "sunrgbd": ("000001.txt",),
    "folder": ("dataset.yaml",),
    "once": ("1616000000000.bin",),
}
"""Files that may be empty (no transform then means no pose, no objects no boxes, no schema no
labels), and scans whose number of points nothing else tells."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in LAYOUTS
    ],
)
def world(request, tmp_path_factory):
    root = make_world(request.param, tmp_path_factory.mktemp("damage") / "world")
    return DataConfig(root=root, name=request.param, split="all")


def kinds_of_files(root):
    """The first file of each kind: of the same folder but for digits and names of scenes."""
    kinds = {}
    for file in sorted(root.rglob("*")):
        if file.is_file():
            relative = file.relative_to(root)
            folder = re.sub(r"[0-9a-f-]*\d[0-9a-f-]*", "#", str(relative.parent))
            name = file.name if file.suffix in (".json", ".txt") else "*"
            kinds.setdefault((folder, re.sub(r"\d+", "#", name), file.suffix), file)
    return list(kinds.values())


def read_everything(config):
    """All arrays and images of the first scans of a dataset, to compare."""
    dataset = open_dataset(config)
    content = [len(dataset), dataset.scene_names]
    for index in range(min(len(dataset), 2)):
        scan = dataset[index]
        arrays = (scan.xyz, scan.intensity, scan.color, scan.labels, scan.instance, scan.pose)
        content += [None if values is None else values.tobytes() for values in arrays]
        content += [camera.load_image().tobytes() for camera in scan.cameras]
        boxes = dataset.load_boxes(index)
        content.append(None if boxes is None else boxes.cuboid.tobytes())
    return content


OPTIONAL = ("missing", "folder", "json list")
"""Without its image a scan has no camera, and without its row in a table of labels none."""
UNSEEN = ("noise", "turned_bits", "infinite", "zeros", "not_numbers", "one_more", "huge_counts")
"""Other values of the same size can be as good as the right ones."""
TEXTUAL = ("huge_counts", "wrong_types", "dangling", "outside", "absolute", "short_rows")
"""What only makes sense in tables."""


@pytest.mark.parametrize("damage", [*DAMAGE, "missing", "folder"])
def test_damage_is_named(world, damage):
    before = read_everything(world)
    outcomes = {}
    for file in kinds_of_files(world.root):
        if damage in TEXTUAL and file.suffix in (".jpg", ".png", ".bin", ".npz"):
            continue
        content = file.read_bytes()
        file.unlink()
        if damage == "folder":
            file.mkdir()
        elif damage != "missing":
            file.write_bytes(DAMAGE[damage](content))
        try:
            outcomes[file] = outcome(world, before)
        finally:
            if damage == "folder":
                shutil.rmtree(file)
            file.write_bytes(content)
    for file, (message, peak) in outcomes.items():
        assert peak < MOST_MEMORY, f"{file}: {peak >> 20} MB for {damage}"
        if message == "changed":
            unused = file.name in UNUSED.get(world.name, ())
            assert unused or damage in (*OPTIONAL, *UNSEEN), f"{file}: {damage} was not noticed"
        elif message:
            assert "\n" not in message
            assert str(world.root) in message, f"{file}: {message}"
            assert 40 < len(message) < 600, message
    if damage in ("empty", "text", "byte"):
        assert sum(bool(message) for message, _ in outcomes.values()) >= len(outcomes) / 3


def outcome(config, before):
    """The error's text, `changed` or nothing; and the bytes that reading took at most."""
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return "" if read_everything(config) == before else "changed", peak_memory()
    except DataError as error:
        return str(error), peak_memory()
    finally:
        tracemalloc.stop()


def peak_memory():
    return tracemalloc.get_traced_memory()[1]


def test_damage_can_be_skipped(world):
    dataset = open_dataset(world)
    file = dataset.scan_file(0)
    content = file.read_bytes()

    def sample(scan, rng):
        return to_batch(scan, scan.xyz, num_neighbors=1)

    file.write_bytes(content[: len(content) // 2 + 1])
    try:
        samples = Samples(
            [(open_dataset(world), sample)], seed=0, on_error="skip", max_bad_samples=9
        )
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            (name,) = samples[0, 0].names
    finally:
        file.write_bytes(content)
    assert dataset.scan_file([scan.name for scan in dataset].index(name)) != file
    assert len(said) > 0
    assert "scan left out: " in str(said[0].message)
    assert file.name in str(said[0].message)


def test_json_is_what_it_was(world):
    """Damage done above is undone."""
    for file in world.root.rglob("*.json"):
        json.loads(file.read_text())
