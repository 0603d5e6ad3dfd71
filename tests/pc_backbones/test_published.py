"""The authors' networks, run by the authors' code, against ours; and files in their layouts."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from pc_backbones import WaffleIron, batch_neighbors, load_published

from tests.real_data import FIXTURES, needs_fixtures


def _inputs(name):
    arrays = np.load(FIXTURES / f"{name}.npz")
    scans = [
        tuple(torch.from_numpy(arrays[f"{key}_{i}"]) for key in ("xyz", "intensity", "neighbors"))
        for i in range(2)
    ]
    xyz = torch.cat([scan[0] for scan in scans])
    intensity = torch.cat([scan[1] for scan in scans])
    feat = torch.cat([intensity, xyz, xyz.norm(dim=1, keepdim=True)], dim=1)
    first = len(scans[0][0])
    batch = (torch.arange(len(xyz)) >= first).long()
    neighbors = torch.cat([scans[0][2][:, 1:], scans[1][2][:, 1:] + first]).long()
    out = torch.from_numpy(np.concatenate([arrays["out_0"], arrays["out_1"]]))
    return xyz, feat, batch, neighbors, out


def _overrides(name):
    values = json.loads((FIXTURES / f"{name}.json").read_text())
    return {"grids": values["grids"], "fov": values["fov"]}


@needs_fixtures
@pytest.mark.parametrize("name", ["waffleiron_bn_tiny", "waffleiron_ln_tiny"])
@pytest.mark.parametrize("given", [True, False], ids=["their neighbours", "our neighbours"])
def test_fixture(name, given):
    xyz, feat, batch, neighbors, expected = _inputs(name)
    backbone, head = load_published(FIXTURES / f"{name}.pth", **_overrides(name))
    assert not backbone.training
    assert not head.training
    with torch.inference_mode():
        out = head(backbone(xyz, feat, batch, neighbors=neighbors if given else None))
    error = (out - expected).abs().max() / expected.abs().max()
    assert error < 1e-5


@needs_fixtures
def test_neighbors_of_fixture():
    xyz, _, batch, neighbors, _ = _inputs("waffleiron_bn_tiny")
    ours = batch_neighbors(xyz, batch, 16)

    def distance(index):
        return (xyz[index] - xyz[:, None]).norm(dim=-1)

    torch.testing.assert_close(distance(ours), distance(neighbors), atol=1e-5, rtol=1e-5)


_THEIR_NAMES = (  # ours, theirs, trailing axes of size 1 of their kernels
    ("embedding.norm", "embed.norm", 0),
    ("embedding.point", "embed.conv1", 1),
    ("embedding.neighbor", "embed.conv2", 2),
    ("embedding.merge", "embed.final", 1),
    ("layers.{d}.spatial_norm", "waffleiron.spatial_mix.{d}.norm", 0),
    ("layers.{d}.spread", "waffleiron.spatial_mix.{d}.ffn.0", 0),
    ("layers.{d}.gather", "waffleiron.spatial_mix.{d}.ffn.2", 0),
    ("layers.{d}.spatial_scale", "waffleiron.spatial_mix.{d}.scale.weight", 2),
    ("layers.{d}.channel_norm", "waffleiron.channel_mix.{d}.norm", 0),
    ("layers.{d}.expand", "waffleiron.channel_mix.{d}.mlp.0", 1),
    ("layers.{d}.contract", "waffleiron.channel_mix.{d}.mlp.2", 1),
    ("layers.{d}.channel_scale", "waffleiron.channel_mix.{d}.scale.weight", 2),
)


def their_tensors(backbone, head=None):
    """Name and shape the tensors of our modules as the published files do."""
    tensors = {}
    for name, value in backbone.state_dict().items():
        depth = name.split(".")[1] if name.startswith("layers.") else ""
        for ours, theirs, axes in _THEIR_NAMES:
            prefix = ours.format(d=depth)
            if name == prefix or name.startswith(f"{prefix}."):
                kernel = name == prefix or (value.ndim == 2 and name.endswith("weight"))
                shape = (*value.shape, *[1] * (axes * kernel))
                if theirs.endswith("scale.weight"):
                    shape = (*value.shape, 1, 1)
                new = theirs.format(d=depth) + name.removeprefix(prefix)
                tensors[new] = value.reshape(shape).clone()
    for name, value in ({} if head is None else head.state_dict()).items():
        tensors[f"classif.{name}"] = (value[..., None] if value.ndim == 2 else value).clone()
    return tensors


def network(**arguments):
    torch.manual_seed(0)
    backbone = WaffleIron(5, **({"channels": 8, "depth": 3} | arguments))
    for buffer in backbone.buffers():
        if buffer.shape == (8,):
            buffer.uniform_(0.5, 1.5)  # running statistics
    return backbone.eval()


def head_of(kind, channels=8):
    linear = torch.nn.Linear(channels, 6)
    if kind == "batch norm + linear":
        return torch.nn.Sequential(torch.nn.BatchNorm1d(channels), linear).eval()
    if kind == "two-layer":
        hidden = torch.nn.Linear(channels, 10)
        return torch.nn.Sequential(hidden, torch.nn.ReLU(), torch.nn.Linear(10, 6)).eval()
    return linear if kind == "linear" else None


def outputs(backbone, head=None):
    generator = torch.Generator().manual_seed(1)
    xyz = torch.rand(15, 3, generator=generator) * 6
    feat = torch.rand(15, 5, generator=generator)
    with torch.inference_mode():
        out = backbone(xyz, feat, torch.zeros(15, dtype=torch.long))
        return out if head is None else head(out)


WRAPPINGS = {
    "bare": lambda tensors: tensors,
    "net": lambda tensors: {"epoch": 3, "net": tensors, "optim": {"lr": 0.1}, "scaler": {}},
    "model_point": lambda tensors: {"epoch": 3, "model_point": tensors, "optim": {}},
    "model_points": lambda tensors: {"model_points": tensors},
    "state_dict": lambda tensors: {"state_dict": tensors},
    "module.": lambda tensors: {"net": {f"module.{key}": v for key, v in tensors.items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
def test_wrapping(tmp_path, wrapping, legacy):
    backbone, head = network(), head_of("linear")
    content = WRAPPINGS[wrapping](their_tensors(backbone, head))
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    loaded, loaded_head = load_published(tmp_path / "a.pth")
    assert torch.equal(outputs(loaded, loaded_head), outputs(backbone, head))


@pytest.mark.parametrize("name", ["ckpt_last.pth", "model.pth"])
def test_folder(tmp_path, name):
    backbone = network()
    torch.save({"net": their_tensors(backbone)}, tmp_path / name)
    for path in (tmp_path, str(tmp_path), tmp_path / name):
        loaded, head = load_published(path)
        assert head is None
        assert torch.equal(outputs(loaded), outputs(backbone))


@pytest.mark.parametrize("kind", [None, "linear", "batch norm + linear", "two-layer"])
@pytest.mark.parametrize("layer_norm", [False, True], ids=["batch norm", "layer norm"])
def test_head(tmp_path, kind, layer_norm):
    gelu = kind == "two-layer"  # ScaLR+
    backbone, head = network(layer_norm=layer_norm, gelu=gelu), head_of(kind)
    torch.save({"net": their_tensors(backbone, head)}, tmp_path / "a.pth")
    loaded, loaded_head = load_published(tmp_path / "a.pth")
    assert not loaded.training
    assert loaded.arguments == backbone.arguments
    assert type(loaded_head) is type(head)
    assert loaded_head is None or not loaded_head.training
    assert torch.equal(outputs(loaded, loaded_head), outputs(backbone, head))


def test_overrides(tmp_path):
    torch.save({"net": their_tensors(network(), head_of("two-layer"))}, tmp_path / "a.pth")
    grids, fov = ((9, 9), (9, 4), (9, 4)), ((-9, -9, -2), (9, 9, 4))
    loaded, _ = load_published(
        tmp_path / "a.pth", grids=grids, fov=fov, num_neighbors=3, drop_path=0.2, gelu=False
    )
    wanted = {"grids": grids, "fov": fov, "num_neighbors": 3, "drop_path": 0.2, "gelu": False}
    assert loaded.arguments | wanted == loaded.arguments


@pytest.mark.parametrize(("layer_norm", "count"), [(True, 695), (False, 983)])
def test_every_published_tensor(tmp_path, layer_norm, count):
    """Depth 48 with its head has as many tensors as the published files, of their shapes."""
    backbone, head = network(depth=48, layer_norm=layer_norm), head_of("linear")
    tensors = their_tensors(backbone, head)
    assert len(tensors) == count
    shapes = {
        "embed.norm.weight": (5,),
        "embed.conv1.weight": (8, 5, 1),
        "embed.conv2.0.num_batches_tracked": (),
        "embed.conv2.1.weight": (8, 5, 1, 1),
        "embed.conv2.4.weight": (8, 8, 1, 1),
        "embed.final.weight": (8, 16, 1),
        "waffleiron.channel_mix.47.mlp.2.weight": (8, 8, 1),
        "waffleiron.channel_mix.0.scale.weight": (8, 1, 1),
        "waffleiron.spatial_mix.47.ffn.2.weight": (8, 1, 3, 3),
        "waffleiron.spatial_mix.0.scale.weight": (8, 1, 1),
        "classif.weight": (6, 8, 1),
        "classif.bias": (6,),
    }
    assert {name: tuple(tensors[name].shape) for name in shapes} == shapes
    torch.save({"net": {f"module.{k}": v for k, v in tensors.items()}}, tmp_path / "ckpt_last.pth")
    loaded, loaded_head = load_published(tmp_path)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, backbone.state_dict()[name]), name
    assert torch.equal(outputs(loaded, loaded_head), outputs(backbone, head))


@needs_fixtures
@pytest.mark.parametrize("name", ["waffleiron_bn_tiny", "waffleiron_ln_tiny"])
def test_names_of_the_fixture(name):
    """The names and shapes that these tests write are those of the authors' own file."""
    theirs = torch.load(FIXTURES / f"{name}.pth", weights_only=True)
    while "net" in theirs or "model_point" in theirs:
        theirs = theirs.get("net", theirs.get("model_point"))
    theirs = {key.removeprefix("module."): tuple(value.shape) for key, value in theirs.items()}
    backbone, head = load_published(FIXTURES / f"{name}.pth", **_overrides(name))
    ours = {key: tuple(value.shape) for key, value in their_tensors(backbone, head).items()}
    assert ours == theirs


def drop(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            drop("waffleiron.spatial_mix.1.ffn.2.bias"),
            r"another network \(1 missing: layers\.1\.gather\.bias\)",
        ),
        (
            lambda tensors: tensors | {"waffleiron.extra.weight": torch.ones(3)},
            r"another network \(1 unexpected: waffleiron\.extra\.weight\)",
        ),
        (
            lambda tensors: tensors | {"embed.final.weight": torch.ones(8, 15, 1)},
            r"1 wrong shape: embedding\.merge\.weight \(8, 15, 1\) instead of \(8, 16\)",
        ),
        (
            lambda tensors: tensors | {"embed.final.weight": torch.ones(16, 8, 1)},
            r"wrong shape: embedding\.merge\.weight \(16, 8, 1\)",
        ),
        (
            lambda tensors: tensors | {"embed.conv1.weight": torch.ones(3)},
            r"not a WaffleIron checkpoint: embed\.conv1\.weight",
        ),
        (drop("embed.conv1.weight"), r"not a WaffleIron checkpoint: embed\.conv1\.weight"),
        (
            lambda tensors: {k: v for k, v in tensors.items() if "mix" not in k},
            r"not a WaffleIron checkpoint: .*it holds 21 tensors",
        ),
        (
            lambda tensors: tensors | {"classif.3.weight": torch.ones(3)},
            r"classif\.3\.weight is none of the published kinds",
        ),
        (lambda _: {"conv1.weight": torch.ones(3)}, r"it holds 1 tensors: conv1\.weight"),
        (lambda _: {"epoch": 3, "optim": 0.1}, "holds no weights .*its top level is: epoch, optim"),
        (lambda _: [torch.ones(3)], "holds no weights .*its top level is: .*list"),
        (lambda _: {}, "none of the known families: WaffleIron .*SparseUNet.*it holds no tensor"),
    ],
)
def test_another_checkpoint(tmp_path, change, message):
    torch.save(change(their_tensors(network())), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=rf"a\.pth.*{message}"):
        load_published(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("none.pth", r"none\.pth is not a checkpoint file; pass the unpacked"),
        (".", r"is not a folder with ckpt_last\.pth or model\.pth"),
    ],
)
def test_missing_file(tmp_path, file, message):
    with pytest.raises(FileNotFoundError, match=message):
        load_published(tmp_path / file)


class Bomb:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("layout", ["zip", "old format", "plain pickle"])
def test_code_is_refused_and_not_executed(tmp_path, layout):
    canary, file = tmp_path / "canary", tmp_path / "a.pth"
    content = {"net": their_tensors(network()), "optim": Bomb(canary)}
    if layout == "plain pickle":
        file.write_bytes(pickle.dumps(Bomb(canary), protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=layout == "zip")
    wanted = r"a\.pth cannot be read as plain tensors \(it holds posix\.system\).*code objects"
    with pytest.raises(ValueError, match=wanted):
        load_published(file)
    assert not canary.exists()
    pickle.loads(pickle.dumps(Bomb(canary)))  # noqa: S301 - the bomb is armed
    assert canary.exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
def test_truncated_and_damaged(tmp_path, legacy):
    """Whatever part is missing or wrong, the answer is one kind of error."""
    file = tmp_path / "a.pth"
    tensors = {"net": their_tensors(network(depth=1))}
    torch.save(tensors, file, _use_new_zipfile_serialization=not legacy)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    header = 3000 if legacy else 1500  # of names; a flipped bit of a weight cannot be noticed
    damaged = [whole[: int(len(whole) * share)] for share in (0, 0.001, 0.3, 0.6, 0.95)]
    for _ in range(30):
        content = bytearray(whole)
        content[rng.integers(10, header) : header] = rng.bytes(20)
        damaged.append(bytes(content))
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.pth"):
            load_published(file)
