"""SLidR's MinkUNet files against MinkowskiEngine's definitions in loops over dictionaries."""

import itertools

import numpy as np
import pytest
import torch
from pc_backbones import create_backbone, load_backbone, load_published, save_backbone

from tests.pc_backbones.published_tensors import minkunet_tensors

TINY = {"in_dim": 2, "stem": 3, "widths": (4, 5, 6, 7, 7, 5, 4, 3), "depths": (1,) * 8}
TINY |= {"out_dim": 6}


def save(path, tensors, **other):
    torch.save({"model_points": tensors, "epoch": 20, **other}, path / "a.pt")
    return path / "a.pt"


class Engine:
    """MinkowskiEngine as described; a map is {coordinate: feature}, its stride is passed along."""

    def __init__(self, tensors):
        self.tensors = {name: value.double().numpy() for name, value in tensors.items()}

    def offsets(self, name):
        """The first axis of space is fastest; odd kernels are centred, even ones begin at 0."""
        kernel = self.tensors[f"{name}.kernel"]
        size = round(len(kernel) ** (1 / 3))
        first = -(size // 2) if size % 2 else 0
        axis = range(first, first + size)
        return [(x, y, z) for z, y, x in itertools.product(axis, axis, axis)], kernel

    def conv(self, name, x, stride, *, down=False):
        offsets, kernel = self.offsets(name)
        wide = 2 * stride
        places = {tuple(c // wide * wide for c in u) for u in x} if down else set(x)
        out = {u: np.zeros(kernel.shape[2]) for u in places}
        for u in out:
            for offset, weight in zip(offsets, kernel, strict=True):
                near = tuple(c + o * stride for c, o in zip(u, offset, strict=True))
                if near in x:
                    out[u] += x[near] @ weight
        return out

    def conv_transposed(self, name, x, stride, places):
        """The pairs of the convolution from `places` to `x`, reversed."""
        offsets, kernel = self.offsets(name)
        out = {u: np.zeros(kernel.shape[2]) for u in places}
        for u in x:
            for offset, weight in zip(offsets, kernel, strict=True):
                near = tuple(c + o * stride for c, o in zip(u, offset, strict=True))
                if near in out:
                    out[near] += x[u] @ weight
        return out

    def norm(self, name, x):
        weight, bias, mean, variance = (
            self.tensors[f"{name}.bn.{key}"]
            for key in ("weight", "bias", "running_mean", "running_var")
        )
        return {u: (v - mean) / np.sqrt(variance + 1e-5) * weight + bias for u, v in x.items()}

    def blocks(self, name, x, stride):
        i = 0
        while f"{name}.{i}.conv1.kernel" in self.tensors:
            block, shortcut = f"{name}.{i}", x
            y = relu(self.norm(f"{block}.norm1", self.conv(f"{block}.conv1", x, stride)))
            y = self.norm(f"{block}.norm2", self.conv(f"{block}.conv2", y, stride))
            if f"{block}.downsample.0.kernel" in self.tensors:
                kernel = self.tensors[f"{block}.downsample.0.kernel"]
                shortcut = {u: v @ kernel for u, v in x.items()}
                shortcut = self.norm(f"{block}.downsample.1", shortcut)
            x = relu({u: y[u] + shortcut[u] for u in y})
            i += 1
        return x

    def network(self, x):
        skips = [relu(self.norm("bn0", self.conv("conv0p1s1", x, 1)))]
        x = skips[0]
        for s in range(4):
            x = self.conv(f"conv{s + 1}p{2**s}s2", x, 2**s, down=True)
            x = self.blocks(f"block{s + 1}", relu(self.norm(f"bn{s + 1}", x)), 2 ** (s + 1))
            skips.append(x)
        skips.pop()
        for s in (4, 5, 6, 7):
            stride = 2 ** (7 - s)
            skip = skips.pop()
            x = self.conv_transposed(f"convtr{s}p{2 * stride}s2", x, stride, skip)
            x = relu(self.norm(f"bntr{s}", x))
            x = {u: np.concatenate([x[u], skip[u]]) for u in x}
            x = self.blocks(f"block{s + 1}", x, stride)
        return x

    def final(self, x):
        kernel, bias = self.tensors["final.kernel"], self.tensors["final.bias"][0]
        return {u: v @ kernel + bias for u, v in x.items()}


def relu(x):
    return {u: np.maximum(v, 0) for u, v in x.items()}


def cells_of(xyz, size, *, cylindrical):
    if cylindrical:
        radius, angle = np.hypot(xyz[:, 0], xyz[:, 1]), np.arctan2(xyz[:, 1], xyz[:, 0])
        xyz = np.stack([radius / size, np.degrees(angle), xyz[:, 2] / size], axis=1)
    else:
        xyz = xyz / size
    return [tuple(cell) for cell in np.floor(xyz).astype(int).tolist()]


def scan(seed, *, num=90, size=1.0, center=(-3.0, 2.0, -9.0), extent=5):
    """Points well inside their voxels around a place with negative coordinates, some together."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, extent, (num, 3)) + np.array(center)
    xyz = (cells + rng.uniform(0.2, 0.8, (num, 3))) * size
    return xyz.astype(np.float32), rng.normal(size=(num, 2)).astype(np.float32)


def expected_output(engine, xyz, feat, size, *, cylindrical):
    cells = cells_of(xyz.astype(float), size, cylindrical=cylindrical)
    voxels = {}
    for cell, value in zip(cells, feat, strict=True):
        voxels.setdefault(cell, value.astype(float))  # the first point of a voxel is its input
    assert len(voxels) < len(cells)
    out = engine.network(voxels)
    final = engine.final(out)
    return np.stack([out[c] for c in cells]), np.stack([final[c] for c in cells])


@pytest.mark.parametrize("cylindrical", [False, True])
@pytest.mark.parametrize("kernel", [3, 5])
def test_whole_network(tmp_path, cylindrical, kernel):
    tensors = minkunet_tensors(**TINY, kernel=kernel)
    config = {"voxel_size": 0.5, "cylindrical_coordinates": cylindrical, "dataset": "nuscenes"}
    backbone, head = load_published(save(tmp_path, tensors, config=config))
    scans = [
        scan(0, size=0.5),
        scan(1, size=0.5, center=(-17, -33, 4)),
        scan(2, size=0.5, num=3, extent=1),
    ]
    wanted = [
        expected_output(Engine(tensors), *one, 0.5, cylindrical=cylindrical)
        for one in scans
        if not (cylindrical and len(one[0]) == 3)
    ]
    used = scans[: len(wanted)]
    xyz, feat = (torch.from_numpy(np.concatenate(part)) for part in zip(*used, strict=True))
    sizes = torch.tensor([len(one[0]) for one in used])
    batch = torch.repeat_interleave(torch.arange(len(used)), sizes)
    with torch.inference_mode():
        out = backbone(xyz, feat, batch)
        final = head(out)
    for ours, theirs in zip((out, final), zip(*wanted, strict=True), strict=True):
        theirs = torch.from_numpy(np.concatenate(theirs)).float()
        assert (ours - theirs).abs().max() / theirs.abs().max() < 1e-5


def test_kernel_order(tmp_path):
    """One voxel of a 4 x 4 x 4 grid, seen through a kernel whose taps are numbered from 0.

    MinkowskiEngine: out[u] = sum_i W_i x[u + offset_i]. The voxel is at (1, 2, 2), so that
    (0, 2, 2) sees it through the offset (1, 0, 0), which is tap 14: 13 is the centre, and the
    first axis is the fastest.
    """
    tensors = minkunet_tensors(**(TINY | {"in_dim": 1, "stem": 1}))
    tensors["conv0p1s1.kernel"] = torch.arange(27.0).reshape(27, 1, 1)
    tensors["conv1p1s2.kernel"] = torch.arange(8.0).reshape(8, 1, 1)
    backbone, _ = load_published(save(tmp_path, tensors))
    x = torch.zeros(1, 1, 4, 4, 4)
    x[0, 0, 1, 2, 2] = 1
    # A dense convolution also is out[u] = sum_k W[k] x[u + k], with k from -1 after padding.
    dense = backbone.stem.conv.weight.permute(0, 4, 1, 2, 3)
    out = torch.nn.functional.conv3d(x, dense, padding=1)[0, 0]
    assert out[1, 2, 2] == 13
    assert out[0, 2, 2] == 14
    assert out[2, 2, 2] == 12
    assert out[1, 1, 2] == 16
    assert out[1, 3, 2] == 10
    assert out[1, 2, 1] == 22
    assert out[0, 1, 1] == 26
    assert out[2, 3, 3] == 0
    # Two taps an axis: (1, 2, 2) is the tap (1, 0, 0) of the coarse voxel that begins at (0, 2, 2).
    dense = backbone.encoder[0].down.conv.weight.permute(0, 4, 1, 2, 3)
    out = torch.nn.functional.conv3d(x, dense, stride=2)[0, 0]
    assert out[0, 1, 1] == 1
    assert out.sum() == 1


NUSCENES = {"cylindrical_coordinates": True, "voxel_size": 0.1, "kernel_size": 3}


def test_published_size(tmp_path):
    """The published network: every tensor is used, and the architecture is minkunet34's."""
    tensors = minkunet_tensors()
    shapes = {
        "conv0p1s1.kernel": (27, 1, 32),
        "conv4p8s2.kernel": (8, 128, 128),
        "bn2.bn.running_var": (32,),
        "block1.1.conv2.kernel": (27, 32, 32),
        "block2.0.downsample.0.kernel": (32, 64),
        "block4.5.norm2.bn.bias": (256,),
        "block5.0.conv1.kernel": (27, 384, 256),
        "block6.0.downsample.0.kernel": (192, 128),
        "block8.0.downsample.1.bn.weight": (96,),
        "convtr4p16s2.kernel": (8, 256, 256),
        "convtr7p2s2.kernel": (8, 96, 96),
        "bntr5.bn.num_batches_tracked": (),
        "final.kernel": (96, 64),
        "final.bias": (1, 64),
    }
    assert {name: tuple(tensors[name].shape) for name in shapes} == shapes
    assert "block1.0.downsample.0.kernel" not in tensors
    images = {"encoder.conv1.weight": torch.ones(64, 3, 7, 7)}
    published = load_published(save(tmp_path, tensors, model_images=images, config=NUSCENES))
    assert published.name == "sparse_unet"
    assert published.left_over == published.missing == ()
    assert len(published.used) == len(tensors)
    assert tuple(published.head.weight.shape) == (64, 96)
    assert torch.equal(published.head.bias, tensors["final.bias"][0])
    ours = create_backbone("minkunet34_cylindrical", 1)
    assert published.backbone.arguments == ours.arguments


@pytest.mark.parametrize("prefix", ["module.", "model.", "model_points.", "module.trunk.2."])
def test_prefix(tmp_path, prefix):
    tensors = minkunet_tensors(**TINY)
    bare = load_published(save(tmp_path, tensors))
    named = {"predictor.weight": torch.ones(2)} | {prefix + k: v for k, v in tensors.items()}
    other = load_published(save(tmp_path, named))
    assert other.left_over == ("predictor.weight",)
    assert other.used == bare.used
    for name, value in bare.backbone.state_dict().items():
        assert torch.equal(other.backbone.state_dict()[name], value)


@pytest.mark.parametrize(
    ("config", "overrides", "size", "cylindrical"),
    [
        ({}, {}, 0.1, True),
        ({"voxel_size": 0.2, "cylindrical_coordinates": False}, {}, 0.2, False),
        (NUSCENES, {"voxel_size": 0.3, "cylindrical": False}, 0.3, False),
        ({"voxel_size": [0.1, 0.1, 0.2], "cylindrical_coordinates": 1}, {}, 0.1, True),
        ({"voxel_size": -1.0}, {}, 0.1, True),
        ({"voxel_size": float("nan")}, {}, 0.1, True),
        ({"voxel_size": float("inf")}, {}, 0.1, True),
        ({"voxel_size": True}, {}, 0.1, True),
        ({"voxel_size": "0.2"}, {}, 0.1, True),
        ([], {}, 0.1, True),
    ],
)
def test_config(tmp_path, config, overrides, size, cylindrical):
    file = save(tmp_path, minkunet_tensors(**TINY), config=config)
    arguments = load_published(file, **overrides).backbone.arguments
    assert arguments["voxel_size"] == size
    assert arguments["cylindrical"] is cylindrical
    assert arguments["pooling"] == "first"
    assert arguments["absolute_grid"] is True
    assert arguments["norm_eps"] == 1e-5


def test_1x1_kernels_with_an_axis_of_taps(tmp_path):
    tensors = minkunet_tensors(**TINY)
    other = {k: v[None] if v.ndim == 2 and "kernel" in k else v for k, v in tensors.items()}
    expected, head = load_published(save(tmp_path, tensors))
    loaded, other_head = load_published(save(tmp_path, other))
    assert torch.equal(head.weight, other_head.weight)
    assert torch.equal(
        expected.decoder[0].blocks[0].shortcut[0].weight,
        loaded.decoder[0].blocks[0].shortcut[0].weight,
    )


def test_saved_and_loaded(tmp_path):
    published = load_published(save(tmp_path, minkunet_tensors(**TINY), config=NUSCENES))
    file = tmp_path / "backbone.safetensors"
    arguments = published.backbone.arguments
    save_backbone(file, published.backbone, name=published.name, arguments=arguments, card={})
    xyz, feat = map(torch.from_numpy, scan(0, size=0.1))
    batch = torch.zeros(len(xyz), dtype=torch.long)
    with torch.inference_mode():
        expected = published.backbone(xyz, feat, batch)
        assert torch.equal(load_backbone(file)(xyz, feat, batch), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {k: v for k, v in t.items() if k != "bntr6.bn.weight"},
            r"1 missing: decoder\.2\.up\.norm\.weight",
        ),
        (
            lambda t: {k: v for k, v in t.items() if k != "conv0p1s1.kernel"},
            r"stem\.conv\.weight must have 5 axes, and is missing",
        ),
        (
            lambda t: t | {"convtr5p8s2.kernel": torch.ones(8, 5, 5)},
            r"1 wrong shape: decoder\.1\.up\.conv\.weight",
        ),
        (
            lambda t: t | {"block1.0.conv1.kernel": torch.ones(26, 3, 4)},
            r"encoder\.0\.blocks\.0\.conv1\.weight is \(26, 3, 4\) instead of \(taps, in, out\)",
        ),
        (
            lambda t: t | {"block1.0.conv1.kernel": torch.ones(3, 4)},
            r"is \(3, 4\) instead of \(taps, in, out\)",
        ),
        (
            lambda t: t | {"convtr4p16s2.kernel": torch.tensor(1.0)},
            r"is \(\) instead of \(taps, in, out\)",
        ),
        (
            lambda t: t | {"conv0p1s1.kernel": torch.ones(8, 2, 3)},
            r"the stem's kernel \(3, 2, 2, 2, 2\) is even",
        ),
        *(
            (
                lambda t, shape=shape: t | {"block5.0.downsample.0.kernel": torch.ones(shape)},
                r"1 wrong shape: decoder\.0\.blocks\.0\.shortcut\.0\.weight \(",
            )
            for shape in ((), (5,), (13, 9))
        ),
        (lambda t: t | {"final.kernel": torch.ones(6)}, r"the head has a weight \(6,\)"),
        (
            lambda t: t | {"block3.7.conv1.kernel": torch.ones(27, 6, 6)},
            r"1 unexpected: encoder\.2\.blocks\.7\.conv1\.weight",
        ),
        (
            lambda t: t | {"block9.0.conv1.kernel": torch.ones(27, 6, 6)},
            r"4 stages of encoder and 5 of decoder",
        ),
        (
            lambda t: t | {"block0.0.conv1.kernel": torch.ones(27, 6, 6)},
            r"1 unexpected: encoder\.-1\.",
        ),
        (
            lambda t: {k: v for k, v in t.items() if "tr" not in k and k[:6] < "block5"},
            "4 stages of encoder and 0 of decoder",
        ),
        (lambda t: t | {"final.kernel": torch.ones(4, 6)}, r"the head has a weight \(6, 4\)"),
        (lambda t: t | {"final.bias": torch.ones(1, 5)}, r"1 wrong shape: bias \(5,\)"),
        (
            lambda t: t | {f"teacher.{k}": v for k, v in t.items()},
            "holds 2 networks of one kind",
        ),
    ],
)
def test_another_checkpoint(tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"a\.pt.*{message}"):
        load_published(save(tmp_path, change(minkunet_tensors(**TINY))))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
def test_truncated_and_damaged(tmp_path, legacy):
    """Whatever part is missing or wrong, the answer is one kind of error."""
    file = tmp_path / "a.pt"
    content = {"model_points": minkunet_tensors(**TINY), "config": NUSCENES}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[: int(len(whole) * share)] for share in (0, 0.001, 0.3, 0.6, 0.95)]
    for _ in range(30):
        flipped = bytearray(whole)
        start = rng.integers(10, 3000)
        flipped[start : start + 20] = rng.bytes(20)
        damaged.append(bytes(flipped))
    for one in damaged:
        file.write_bytes(one)
        with pytest.raises(ValueError, match=r"a\.pt"):
            load_published(file)
