"""Files named and laid out as det3d and OpenPCDet write them, and what these would compute."""

import itertools
import re

import pytest
import torch
from pc_backbones import load_backbone, load_published, save_backbone
from pc_backbones.published import read_checkpoint
from torch.nn import functional

from tests.pc_backbones.published_tensors import random_norm, random_weight, spunet_tensors

FOV = ((-4.0, -8.0, -1.0), (4.0, 8.0, 2.0))  # 16 x 32 cells of 0.5 m
PILLAR = {"fov": FOV, "pillar_size": 0.5}
VOXEL = {"fov": FOV, "cell_size": (0.5, 0.5, 0.25)}  # 12 cells high
# Where each layout keeps what.
NAMES = {
    "det3d": ("reader", "backbone", "neck", "bbox_head.tasks.0.hm.3.bias"),
    "OpenPCDet": ("vfe", "backbone_3d", "backbone_2d", "dense_head.heads_list.0.hm.1.bias"),
}
WAYMO = ((1, 2, 2), (1, 2, 4))
NUSCENES = ((2, 2, 2), (0.5, 1, 2))


def map_tensors(layout, in_dim, widths, depths, up_widths, up_strides, g, one_by_one=None):
    """The 2D convolutions; `one_by_one` says whether those of size 1 are "conv" or "deconv"."""
    tensors, name = {}, NAMES[layout][2]
    one_by_one = one_by_one or ("conv" if layout == "det3d" else "deconv")
    for b, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for layer in range(depth + 1):
            shape = (width, in_dim, 3, 3)
            tensors[f"{name}.blocks.{b}.{3 * layer + 1}.weight"] = random_weight(
                shape, 9 * in_dim, g
            )
            tensors |= random_norm(f"{name}.blocks.{b}.{3 * layer + 2}", width, g)
            in_dim = width
    for b, (width, up, stride) in enumerate(zip(widths, up_widths, up_strides, strict=True)):
        size = int(max(stride, 1 / stride))
        is_conv = stride < 1 or (stride == 1 and one_by_one == "conv")
        shape = (up, width, size, size) if is_conv else (width, up, size, size)
        tensors[f"{name}.deblocks.{b}.0.weight"] = random_weight(shape, width, g)
        tensors |= random_norm(f"{name}.deblocks.{b}.1", up, g)
    return tensors


def pillar_tensors(
    layout, *, in_dim=4, own=(6, 7), widths=(4, 6, 8), up_widths=(5, 3, 4), strides=WAYMO, **kind
):
    g = torch.Generator().manual_seed(0)
    tensors, columns = {}, in_dim + (5 if layout == "det3d" else 6)
    for i, width in enumerate(own):
        name = f"{NAMES[layout][0]}.pfn_layers.{i}"
        tensors[f"{name}.linear.weight"] = random_weight((width, columns), columns, g)
        tensors |= random_norm(f"{name}.norm", width, g)
        columns = 2 * width
    return tensors | map_tensors(
        layout, own[-1], widths, (1, 2, 0), up_widths, strides[1], g, **kind
    )


KERNELS = {  # from (out, z, y, x, in), by version of spconv
    "2.2": (0, 1, 2, 3, 4),
    "2.1": (1, 2, 3, 0, 4),
    "1": (1, 2, 3, 4, 0),
}


def voxel_tensors(layout, *, in_dim=5, widths=(3, 4, 6), version="2.2", map_widths=(4, 6)):
    g = torch.Generator().manual_seed(0)
    tensors, name = {}, NAMES[layout][1]

    def conv(weight, norm, in_, out, taps=(3, 3, 3), bias=False):
        kernel = random_weight((out, *taps, in_), in_ * 27, g)
        tensors[f"{name}.{weight}.weight"] = kernel.permute(KERNELS[version]).contiguous()
        tensors.update(random_norm(f"{name}.{norm}", out, g))
        if bias:
            tensors[f"{name}.{weight}.bias"] = torch.randn(out, generator=g) * 0.3

    conv("conv_input.0", "conv_input.1", in_dim, widths[0])
    for stage, width in enumerate(widths, start=1):
        first = 0 if stage == 1 else 3 if layout == "det3d" else 1
        if stage > 1:
            inner = "" if layout == "det3d" else "0."
            conv(f"conv{stage}.{inner}0", f"conv{stage}.{inner}1", widths[stage - 2], width)
        for block in range(first, first + 2):
            for i in (1, 2):
                conv(f"conv{stage}.{block}.conv{i}", f"conv{stage}.{block}.bn{i}",
                     width, width, bias=True)  # fmt: skip
    last = "extra_conv" if layout == "det3d" else "conv_out"
    conv(f"{last}.0", f"{last}.1", widths[-1], widths[-1], (3, 1, 1))
    return tensors | map_tensors(layout, widths[-1], map_widths, (1, 0), (5, 3), (1, 2), g)


def heads(layout, num=1):
    if layout == "det3d":
        names = ["bbox_head.shared_conv.0.weight"]
        names += [
            f"bbox_head.tasks.{t}.{part}.0.weight" for t in range(num) for part in ("reg", "hm")
        ]
    else:
        names = ["global_step", "dense_head.shared_conv.0.weight"]
        names += [f"dense_head.heads_list.{t}.hm.0.0.weight" for t in range(num)]
    return {name: torch.ones(2, 3) for name in names}


def write(path, tensors, layout):
    if layout == "det3d":
        content = {"meta": {"epoch": 20, "iter": 7, "time": "now"}, "state_dict": tensors}
        content["optimizer"] = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    else:
        content = {"epoch": 30, "it": 9, "model_state": tensors, "optimizer_state": None}
        content["version"] = "pcdet+0.6.0"
    torch.save(content, path / "a.pth")
    return path / "a.pth"


def points(*sizes, in_dim=4):
    g = torch.Generator().manual_seed(3)
    low, high = torch.tensor(FOV[0]), torch.tensor(FOV[1])
    xyz = low + torch.rand(sum(sizes), 3, generator=g) * (high - low) * 0.999
    feat = torch.cat([xyz, torch.rand(sum(sizes), in_dim - 3, generator=g)], dim=1)
    return xyz, feat, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


class Theirs:
    """What the tensors' own names mean: a network of dense arrays, in evaluation."""

    def __init__(self, tensors, layout):
        self.w, self.layout = tensors, layout
        self.reader, self.sparse, self.map, _ = NAMES[layout]

    def norm(self, x, name):
        w = [self.w[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *w, eps=1e-3)

    def on_map(self, x, strides, up_strides, one_by_one):
        found = []
        for b, (stride, up) in enumerate(zip(strides, up_strides, strict=True)):
            for layer in itertools.count():
                name = f"{self.map}.blocks.{b}"
                if f"{name}.{3 * layer + 1}.weight" not in self.w:
                    break
                x = functional.pad(x, (1, 1, 1, 1))
                kernel = self.w[f"{name}.{3 * layer + 1}.weight"]
                x = functional.conv2d(x, kernel, None, 1 if layer else stride)
                x = self.norm(x, f"{name}.{3 * layer + 2}").relu()
            name = f"{self.map}.deblocks.{b}"
            kernel, size = self.w[f"{name}.0.weight"], int(max(up, 1 / up))
            is_conv = up < 1 or (up == 1 and one_by_one == "conv")
            convolve = functional.conv2d if is_conv else functional.conv_transpose2d
            found.append(self.norm(convolve(x, kernel, None, size), f"{name}.1").relu())
        return torch.cat(found, dim=1)

    def pillars(self, xyz, feat, batch, slots):
        """[scan channel y x]; slots of a pillar past its points hold zeros."""
        members = {}
        for i, (scan, x, y) in enumerate(zip(batch, xyz[:, 0], xyz[:, 1], strict=True)):
            key = (int(scan), int((y + 8) // 0.5), int((x + 4) // 0.5))
            members.setdefault(key, []).append(i)
        canvas = None
        for (scan, row, column), rows in members.items():
            mine = xyz[rows]
            middle = torch.tensor([-4 + 0.5 * (column + 0.5), -8 + 0.5 * (row + 0.5), 0.5])
            center = mine - middle
            center = center[:, :2] if self.layout == "det3d" else center
            x = torch.cat([feat[rows], mine - mine.mean(0), center], dim=1)
            x = functional.pad(x, (0, 0, 0, max(slots - len(rows), 0)))
            for layer in range(2):
                name = f"{self.reader}.pfn_layers.{layer}"
                x = self.norm(x @ self.w[f"{name}.linear.weight"].T, f"{name}.norm").relu()
                top = x.amax(0)
                x = torch.cat([x, top.expand_as(x)], dim=1)
            canvas = (
                xyz.new_zeros(int(batch.max()) + 1, len(top), 32, 16) if canvas is None else canvas
            )
            canvas[scan, :, row, column] = top
        return canvas

    def sparse_conv(self, x, occupied, name, stride=1, padding=1, submanifold=True):
        kernel = self.w[f"{self.sparse}.{name}.weight"].permute(0, 4, 1, 2, 3)
        bias = self.w.get(f"{self.sparse}.{name}.bias")
        x = functional.conv3d(x, kernel, bias, stride, padding)
        if not submanifold:
            ones = torch.ones_like(kernel[:1, :1])
            occupied = (functional.conv3d(occupied, ones, None, stride, padding) > 0.5).float()
        return x * occupied, occupied

    def voxels(self, xyz, feat, batch, num_stages=3):
        """[scan channel z y x] down to [scan channel y x]."""
        x, y, z = ((xyz - torch.tensor(FOV[0])) / torch.tensor([0.5, 0.5, 0.25])).long().T
        total = xyz.new_zeros(int(batch.max()) + 1, 13, 32, 16, feat.shape[1] + 1)
        with_one = torch.cat([feat, torch.ones_like(feat[:, :1])], dim=1)
        total.index_put_((batch, z, y, x), with_one, accumulate=True)
        total = total.permute(0, 4, 1, 2, 3)
        occupied = (total[:, -1:] > 0).float()
        x = total[:, :-1] / total[:, -1:].clamp(min=1)

        def layer(x, occupied, conv, norm, *arguments, shortcut=0, **options):
            x, occupied = self.sparse_conv(x, occupied, conv, *arguments, **options)
            x = self.norm(x, f"{self.sparse}.{norm}") * occupied + shortcut
            return x.relu(), occupied

        x, occupied = layer(x, occupied, "conv_input.0", "conv_input.1")
        for stage in range(1, num_stages + 1):
            first = 0 if stage == 1 else 3 if self.layout == "det3d" else 1
            if stage > 1:
                padding = (0 if stage == num_stages else 1, 1, 1)
                inner = f"conv{stage}." + ("" if self.layout == "det3d" else "0.")
                x, occupied = layer(
                    x, occupied, f"{inner}0", f"{inner}1", 2, padding, submanifold=False
                )
            for block in range(first, first + 2):
                name, before = f"conv{stage}.{block}", x
                x, _ = layer(x, occupied, f"{name}.conv1", f"{name}.bn1")
                x, _ = layer(x, occupied, f"{name}.conv2", f"{name}.bn2", shortcut=before)
        last = "extra_conv" if self.layout == "det3d" else "conv_out"
        x, _ = layer(x, occupied, f"{last}.0", f"{last}.1", (2, 1, 1), 0, submanifold=False)
        scans, channels, depth, rows, columns = x.shape
        return x.view(scans, channels * depth, rows, columns)


def agree(ours, theirs):
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", NAMES)
@pytest.mark.parametrize("strides", [WAYMO, NUSCENES], ids=["Waymo", "nuScenes"])
@pytest.mark.parametrize("one_by_one", ["conv", "deconv"])
def test_pillars(tmp_path, layout, strides, one_by_one):
    tensors = pillar_tensors(layout, strides=strides, one_by_one=one_by_one)
    file = write(tmp_path, tensors | heads(layout), layout)
    published = load_published(file, **PILLAR)
    assert (published.name, published.head, published.missing) == ("centerpoint_pillar", None, ())
    assert published.left_over == tuple(heads(layout))
    assert len(published.used) == len(tensors)
    backbone = published.backbone
    assert not backbone.training
    assert (backbone.in_dim, backbone.out_dim) == (4, 12)
    assert backbone.arguments["strides"] == strides[0]
    assert backbone.arguments["up_strides"] == strides[1]
    assert backbone.arguments["depths"] == (1, 2, 0)
    slots = 20 if layout == "det3d" else 0
    assert backbone.arguments["slots"] == slots
    xyz, feat, batch = points(150, 80)
    theirs = Theirs(tensors, layout)
    canvas = theirs.pillars(xyz, feat, batch, slots)
    with torch.inference_mode():
        agree(
            backbone.forward_map(xyz, feat, batch),
            theirs.on_map(canvas, *strides, one_by_one),
        )


@pytest.mark.parametrize("layout", NAMES)
@pytest.mark.parametrize("version", KERNELS)
def test_voxels(tmp_path, layout, version):
    tensors = voxel_tensors(layout, version=version)
    file = write(tmp_path, tensors | heads(layout), layout)
    published = load_published(file, **VOXEL)
    assert (published.name, published.head, published.missing) == ("centerpoint_voxel", None, ())
    assert published.left_over == tuple(heads(layout))
    assert len(published.used) == len(tensors)
    backbone = published.backbone
    assert (backbone.in_dim, backbone.out_dim) == (5, 8)
    assert backbone.arguments["encoder_widths"] == (3, 4, 6)
    xyz, feat, batch = points(150, 80, in_dim=5)
    theirs = Theirs(voxel_tensors(layout), layout)
    one_by_one = "conv" if layout == "det3d" else "deconv"
    with torch.inference_mode():
        expected = theirs.on_map(theirs.voxels(xyz, feat, batch), (1, 2), (1, 2), one_by_one)
        agree(backbone.forward_map(xyz, feat, batch), expected)


@pytest.mark.parametrize("layout", NAMES)
@pytest.mark.parametrize("kind", ["pillar", "voxel"])
@pytest.mark.parametrize("dataset", ["waymo", "nuscenes", "once"])
def test_published_sizes(tmp_path, layout, kind, dataset):
    """All tensors of the published widths find their place, and the dataset its box."""
    in_dim = 4 if dataset == "once" else 5
    if kind == "pillar":
        tensors = pillar_tensors(
            layout,
            in_dim=in_dim,
            own=(32, 64),
            widths=(64, 128, 256),
            up_widths=(128, 128, 128),
            strides=NUSCENES if dataset == "nuscenes" else WAYMO,
        )
    else:
        tensors = voxel_tensors(layout, in_dim=in_dim, widths=(16, 32, 64, 128)) | map_tensors(
            layout, 256, (128, 256), (5, 5), (256, 256), (1, 2), torch.Generator()
        )
    num_heads = 6 if dataset == "nuscenes" else 1
    published = load_published(write(tmp_path, tensors | heads(layout, num_heads), layout))
    assert published.left_over == tuple(heads(layout, num_heads))
    assert published.missing == ()
    backbone = published.backbone
    assert backbone.out_dim == (384 if kind == "pillar" else 512)
    high = {"waymo": (75.2, 4), "nuscenes": (54, 3), "once": (75.2, 3)}[dataset]
    if kind == "pillar":  # nothing tells ONCE from Waymo
        high = {"waymo": (74.88, 4), "nuscenes": (51.2, 3), "once": (74.88, 4)}[dataset]
        shapes = [tuple(layer.linear.weight.shape) for layer in backbone.pillar_layers]
        assert shapes == [(32, in_dim + (5 if layout == "det3d" else 6)), (64, 64)]
    assert backbone.arguments["fov"][1] == (high[0], high[0], high[1])


@pytest.mark.parametrize("layout", NAMES)
def test_square_1x1_convolutions(tmp_path, layout):
    """nuScenes' only 1x1 is 128 to 128: what it is, the layout says."""
    sizes = {"widths": (4, 6, 8), "up_widths": (6, 6, 6), "strides": NUSCENES}
    tensors = pillar_tensors(layout, **sizes)
    backbone, _ = load_published(write(tmp_path, tensors, layout), **PILLAR)
    given = tensors[f"{NAMES[layout][2]}.deblocks.1.0.weight"]
    ours = backbone.rpn.ups[1].conv.weight
    assert torch.equal(ours, given if layout == "det3d" else given.transpose(0, 1))


@pytest.mark.parametrize("layout", NAMES)
def test_square_kernels(tmp_path, layout):
    """Of 2x2 kernels as wide as long, the one before the 1x1 makes the map coarser."""
    sizes = {"widths": (6, 6, 6), "up_widths": (6, 6, 6), "strides": NUSCENES}
    file = write(tmp_path, pillar_tensors(layout, **sizes), layout)
    assert load_published(file, **PILLAR).backbone.arguments["up_strides"] == (0.5, 1, 2)
    sizes["strides"] = WAYMO
    file = write(tmp_path, pillar_tensors(layout, **sizes), layout)
    assert load_published(file, **PILLAR).backbone.arguments["up_strides"] == (1, 2, 4)


def test_overrides(tmp_path):
    file = write(tmp_path, pillar_tensors("det3d"), "det3d")
    backbone, _ = load_published(file, **PILLAR, strides=(2, 2, 2), slots=0)
    assert backbone.map_cell == (1.0, 1.0)
    assert backbone.arguments["slots"] == 0
    with pytest.raises(ValueError, match="no argument 'voxel_size'"):
        load_published(file, voxel_size=0.1)


@pytest.mark.parametrize("kind", ["pillar", "voxel"])
def test_saved_and_loaded(tmp_path, kind):
    tensors, box = (pillar_tensors, PILLAR) if kind == "pillar" else (voxel_tensors, VOXEL)
    published = load_published(write(tmp_path, tensors("det3d"), "det3d"), **box)
    file, backbone = tmp_path / "b.safetensors", published.backbone
    save_backbone(file, backbone, name=published.name, arguments=backbone.arguments, card={})
    inputs = points(50, in_dim=backbone.in_dim)
    with torch.inference_mode():
        assert torch.equal(load_backbone(file)(*inputs), backbone(*inputs))


@pytest.mark.parametrize("prefix", ["module.", "module.model."])
def test_prefix(tmp_path, prefix):
    tensors = {f"{prefix}{k}": v for k, v in (voxel_tensors("det3d") | heads("det3d")).items()}
    published = load_published(write(tmp_path, tensors, "det3d"), **VOXEL)
    inner = prefix.removeprefix("module.")
    assert published.left_over == tuple(inner + name for name in heads("det3d"))


def test_other_families_stay_what_they_are(tmp_path):
    torch.save({"state_dict": spunet_tensors()}, tmp_path / "a.pth")
    assert load_published(tmp_path / "a.pth").name == "sparse_unet"
    assert read_checkpoint(write(tmp_path, heads("OpenPCDet"), "OpenPCDet")).tensors


def drop(pattern):
    return lambda tensors: {k: v for k, v in tensors.items() if not re.search(pattern, k)}


def set_to(name, *shape):
    return lambda tensors: tensors | {name: torch.ones(shape)}


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("pillar", drop(r"neck\.blocks\."), "the first block of 2D convolutions .* is missing"),
        (
            "pillar",
            drop(r"neck\.deblocks\.1\.0"),
            r"rpn\.ups\.1\.conv\.weight must have 4 axes, and",
        ),
        ("pillar", drop(r"neck\.blocks\.1\.4\.w"), r"1 missing: rpn\.blocks\.1\.1\.conv\.weight"),
        ("pillar", drop(r"pfn_layers\.0\.norm\.b"), r"1 missing: pillar_layers\.0\.norm\.bias"),
        (
            "pillar",
            drop(r"pfn_layers\.0\.linear"),
            r"linear\.weight must have 2 axes, and is missing",
        ),
        (
            "pillar",
            set_to("reader.pfn_layers.0.linear.weight", 6, 5),
            "takes 5 inputs, not more than the offsets",
        ),
        ("pillar", set_to("reader.embed.weight", 3, 3), r"1 unexpected: reader\.embed\.weight"),
        ("pillar", set_to("neck.blocks.0.0.weight", 3), r"1 unexpected: rpn\.blocks\.0\.-1\.relu"),
        (
            "pillar",
            set_to("neck.blocks.999999999.1.weight", 3),
            r"1 unexpected: rpn\.blocks\.999999999",
        ),
        (
            "pillar",
            set_to("neck.deblocks.1.0.weight", 6, 3, 3, 3),
            "made finer by 1, 3, 4 do not meet",
        ),
        (
            "pillar",
            set_to("neck.deblocks.2.0.weight", 8, 4, 1, 1),
            "made finer by 1, 2, 1 do not meet",
        ),
        (
            "pillar",
            drop(r"pfn_layers\.0"),
            r"pillar_layers\.0\.linear\.weight must have 2 axes, and is missing",
        ),
        (
            "pillar",
            set_to("neck.deblocks.1.0.weight", 9, 9, 2, 2),
            r"wrong shape: rpn\.ups\.1\.conv",
        ),
        (
            "voxel",
            drop(r"conv_input\.1\.weight"),
            r"stem\.norm\.weight must have 1 axes, and is missing",
        ),
        ("voxel", drop(r"conv2\.0"), r"1 missing: stages\.1\.down\.conv\.weight"),
        ("voxel", drop(r"extra_conv\.0"), r"1 missing: flatten\.conv\.weight"),
        ("voxel", drop(r"conv3\.4\.conv2\.bias"), r"missing: stages\.2\.blocks\.1\.conv2\.bias"),
        (
            "voxel",
            set_to("backbone.conv3.5.conv1.bias", 6),
            r"unexpected: stages\.2\.blocks\.2\.conv1",
        ),
        (
            "voxel",
            set_to("backbone.conv2.0.weight", 4, 3, 3, 5, 3),
            "the kernels of the sparse encoder",
        ),
        (
            "voxel",
            set_to("backbone.conv2.0.weight", 4, 3),
            r"stages\.1\.down\.conv\.weight must have 5 axes",
        ),
        (
            "voxel",
            set_to("backbone.conv2.1.weight", 2_000_000),
            "the kernels of the sparse encoder",
        ),
        (
            "voxel",
            lambda tensors: tensors | {f"ema.{k}": v for k, v in tensors.items()},
            "holds 2 networks of one kind, under '', 'ema.'",
        ),
    ],
)
def test_another_checkpoint(tmp_path, kind, change, message):
    tensors, box = (pillar_tensors, PILLAR) if kind == "pillar" else (voxel_tensors, VOXEL)
    file = write(tmp_path, change(tensors("det3d")), "det3d")
    with pytest.raises(ValueError, match=rf"a\.pth.*(?:{message})"):
        load_published(file, **box)
