"""The authors' SparseUNet against ours, and files in the layouts that the authors wrote."""

import pickle
import re
import sys
import types

import numpy as np
import pytest
import torch
from pc_backbones import load_backbone, load_published, save_backbone

from tests.pc_backbones.published_tensors import spunet_tensors
from tests.real_data import FIXTURES, needs_fixtures

SPUNET34 = {"stem": 32, "widths": (32, 64, 128, 256, 256, 128, 96, 96)} | {
    "depths": (2, 3, 4, 6, 2, 2, 2, 2)
}


def _scans(indices):
    arrays = np.load(FIXTURES / "spunet_tiny.npz")
    xyz, feat, out = (
        torch.from_numpy(np.concatenate([arrays[f"{key}_{i}"] for i in indices])).float()
        for key in ("coord", "feat", "out")
    )
    sizes = torch.tensor([len(arrays[f"coord_{i}"]) for i in indices])
    batch = torch.repeat_interleave(torch.arange(len(indices)), sizes)
    return xyz, feat, batch, out


@needs_fixtures
@pytest.mark.parametrize("indices", [(0, 1), (0,), (1,), (1, 0, 1)])
def test_fixture(indices):
    xyz, feat, batch, expected = _scans(indices)
    published = load_published(FIXTURES / "spunet_tiny.pth", voxel_size=0.1)
    assert published.head is None
    assert published.left_over == published.missing == ()
    assert not published.backbone.training
    with torch.inference_mode():
        out = published.backbone(xyz, feat, batch)
    error = (out - expected).abs().max() / expected.abs().max()
    assert error < 1e-5


@needs_fixtures
def test_names_of_the_fixture():
    """The names and shapes that these tests write are those of the authors' own file."""
    theirs = torch.load(FIXTURES / "spunet_tiny.pth", weights_only=True)["state_dict"]
    ours = {f"module.backbone.{k}": tuple(v.shape) for k, v in spunet_tensors().items()}
    assert ours == {key: tuple(value.shape) for key, value in theirs.items()}


def points(in_dim=6, num=60, seed=1):
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(num, 3, generator=generator) * 0.4 - 0.2
    feat = torch.rand(num, in_dim, generator=generator)
    return xyz, feat, (torch.arange(num) > num // 3).long()


def outputs(published, in_dim=6):
    with torch.inference_mode():
        out = published.backbone(*points(in_dim))
        return out if published.head is None else published.head(out)


def save(path, content):
    torch.save(content, path / "a.pth")
    return path / "a.pth"


def weights(published):
    return published.backbone.state_dict() | {
        f"head.{k}": v for k, v in (published.head or torch.nn.Module()).state_dict().items()
    }


WRAPPINGS = {
    "bare": lambda tensors: tensors,
    "module.backbone.": lambda tensors: {
        "epoch": 600,
        "state_dict": {f"module.backbone.{key}": value for key, value in tensors.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "scaler": None,
        "best_metric_value": -float("inf"),
    },
    "backbone.": lambda tensors: {"state_dict": {f"backbone.{k}": v for k, v in tensors.items()}},
    "model.": lambda tensors: {"state_dict": {f"model.{k}": v for k, v in tensors.items()}},
    "a head first": lambda tensors: {
        "state_dict": {"module.mask_token": torch.ones(1, 6)}
        | {f"module.backbone.{key}": value for key, value in tensors.items()}
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("num_classes", [0, 7], ids=["bare", "classifier"])
def test_wrapping(tmp_path, wrapping, num_classes):
    tensors = spunet_tensors(num_classes=num_classes)
    bare = load_published(save(tmp_path, tensors))
    wrapped = load_published(save(tmp_path, WRAPPINGS[wrapping](tensors)))
    assert wrapped.name == "sparse_unet"
    assert wrapped.left_over == (("mask_token",) if wrapping == "a head first" else ())
    assert wrapped.used == bare.used
    assert len(wrapped.used) == len(tensors)
    assert torch.equal(outputs(bare), outputs(wrapped))


def test_classifier_is_read_as_memory(tmp_path):
    """Of a 1x1 kernel, spconv multiplies by the memory seen as (in, out)."""
    tensors = spunet_tensors(num_classes=7)
    backbone, head = load_published(save(tmp_path, tensors))
    with torch.inference_mode():
        feat = backbone(*points())
        expected = feat @ tensors["final.weight"].reshape(8, 7) + tensors["final.bias"]
        torch.testing.assert_close(head(feat), expected)
    shortcut = backbone.decoder[0].blocks[0].shortcut[0].weight
    assert torch.equal(shortcut.T, tensors["dec.3.block0.proj.0.weight"].reshape(32, 16))
    shortcut = backbone.decoder[3].blocks[0].shortcut[0].weight
    assert torch.equal(shortcut.T, tensors["dec.0.block0.proj.0.weight"].reshape(16, 8))


def _taps_first(weight, axes):
    """The same layer as an older spconv stores it: of 1x1 kernels, only the shape differs."""
    if weight.ndim != 5:
        return weight
    old = weight.permute(*axes)
    return weight.reshape(old.shape) if weight.shape[1] == 1 else old.contiguous()


LAYOUTS = {
    "k k k out in": lambda name, weight: _taps_first(weight, (1, 2, 3, 0, 4)),  # noqa: ARG005
    "k k k in out": lambda name, weight: _taps_first(weight, (1, 2, 3, 4, 0)),  # noqa: ARG005
    "stem alone": lambda name, weight: (
        _taps_first(weight, (1, 2, 3, 0, 4)) if name == "conv_input.0.weight" else weight
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("in_dim", [6, 8], ids=["stem tells", "stem does not tell"])
def test_old_layouts(tmp_path, layout, in_dim):
    tensors = spunet_tensors(in_dim=in_dim, num_classes=7)
    old = {name: LAYOUTS[layout](name, value) for name, value in tensors.items()}
    assert old["conv_input.0.weight"].shape[:3] == (5, 5, 5)
    expected = load_published(save(tmp_path, tensors))
    loaded = load_published(save(tmp_path, old))
    assert loaded.backbone.arguments == expected.backbone.arguments
    for name, value in weights(expected).items():
        assert torch.equal(weights(loaded)[name], value), name
    assert torch.equal(outputs(loaded, in_dim), outputs(expected, in_dim))


def test_layouts_of_two_versions(tmp_path):
    tensors = spunet_tensors()
    for name, axes in (
        ("conv_input.0.weight", (1, 2, 3, 0, 4)),
        ("down.2.0.weight", (1, 2, 3, 4, 0)),
    ):
        tensors[name] = tensors[name].permute(axes)
    with pytest.raises(ValueError, match=r"a\.pth: some kernels are .*stem\.conv\.weight"):
        load_published(save(tmp_path, tensors))


HEADS = {
    "msc": {"mask_token": (1, 6), "color_head.weight": (3, 8), "color_head.bias": (3,)}
    | {"normal_head.weight": (3, 8), "normal_head.bias": (3,)},
    "pointgroup": {"bias_head.0.weight": (8, 8), "bias_head.0.bias": (8,)}
    | {"bias_head.1.running_mean": (8,), "bias_head.3.weight": (3, 8), "bias_head.3.bias": (3,)}
    | {"seg_head.weight": (5, 8), "seg_head.bias": (5,)},
}


@pytest.mark.parametrize("kind", HEADS)
def test_left_over(tmp_path, kind):
    backbone = {f"module.backbone.{k}": v for k, v in spunet_tensors().items()}
    others = {f"module.{k}": torch.rand(shape) for k, shape in HEADS[kind].items()}
    published = load_published(save(tmp_path, {"state_dict": others | backbone}))
    taken = [name for name in HEADS[kind] if name.startswith("seg_head.")]
    assert published.left_over == tuple(name for name in HEADS[kind] if name not in taken)
    assert published.missing == ()
    assert len(published.used) == len(backbone) + len(taken)
    if kind == "pointgroup":
        assert published.used[-2:] == ("head.weight", "head.bias")
        assert torch.equal(published.head.weight, others["module.seg_head.weight"])
    else:
        assert published.head is None


def test_classifier_goes_before_seg_head(tmp_path):
    tensors = {f"backbone.{k}": v for k, v in spunet_tensors(num_classes=7).items()}
    published = load_published(save(tmp_path, tensors | {"seg_head.weight": torch.ones(5, 8)}))
    assert published.head.out_features == 7
    assert published.left_over == ("seg_head.weight",)


def test_missing_counters(tmp_path):
    tensors = spunet_tensors()
    short = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    published = load_published(save(tmp_path, short))
    assert len(published.missing) == len(tensors) - len(short)
    assert all(name.endswith("num_batches_tracked") for name in published.missing)
    assert len(published.used) == len(short)


def test_published_size(tmp_path):
    """SpUNet34 with 20 classes: 354 + 2 tensors, and 39,157,844 parameters."""
    tensors = spunet_tensors(**SPUNET34, num_classes=20)
    assert len(tensors) == 356
    published = load_published(save(tmp_path, {"state_dict": tensors}))
    assert published.left_over == published.missing == ()
    assert len(published.used) == 356
    count = sum(p.numel() for module in published for p in module.parameters())
    assert count == 39_157_844
    arguments = published.backbone.arguments
    assert arguments["encoder_depths"] == (2, 3, 4, 6)
    assert arguments["down_widths"] == arguments["encoder_widths"] == (32, 64, 128, 256)
    assert arguments["decoder_widths"] == (256, 128, 96, 96)
    assert arguments["voxel_size"] == 0.02
    assert published.backbone.out_dim == 96


def test_overrides(tmp_path):
    file = save(tmp_path, spunet_tensors())
    assert load_published(file).backbone.arguments["voxel_size"] == 0.02
    backbone, _ = load_published(file, voxel_size=0.05, pooling="first")
    assert backbone.arguments["voxel_size"] == 0.05
    assert backbone.arguments["pooling"] == "first"
    with pytest.raises(ValueError, match=r"no argument 'voxelsize'; the nearest are: voxel_size"):
        load_published(file, voxelsize=0.1)
    with pytest.raises(ValueError, match=r"another network \(1 wrong shape: stem\.conv\.weight"):
        load_published(file, stem_kernel=3)


def test_saved_and_loaded(tmp_path):
    published = load_published(save(tmp_path, spunet_tensors()), voxel_size=0.1)
    file = tmp_path / "backbone.safetensors"
    arguments = published.backbone.arguments
    save_backbone(file, published.backbone, name=published.name, arguments=arguments, card={})
    with torch.inference_mode():
        assert torch.equal(load_backbone(file)(*points()), outputs(published))


class _Scheduler:
    """As old versions saved their schedulers: with a bound method, and so with the optimiser."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.anneal = self._annealing

    def _annealing(self):
        return 0.0


def test_optimizer_and_scheduler_are_ignored(tmp_path, monkeypatch):
    names = ("pointcept", "pointcept.utils", "pointcept.utils.scheduler")
    modules = {name: types.ModuleType(name) for name in names}
    scheduler = type("OneCycleLR", (_Scheduler,), {"__module__": names[-1]})
    modules[names[-1]].OneCycleLR = scheduler
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    with monkeypatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, modules[name])
        content = {
            "state_dict": spunet_tensors(),
            "optimizer": optimizer.state_dict(),
            "scheduler": vars(scheduler(optimizer)),
            "best_metric_value": np.float64(0.7),
            "history": np.ones(3),
        }
        file = save(tmp_path, content)
    with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):
        torch.load(file, weights_only=True)
    assert len(load_published(file).used) == len(content["state_dict"])


def drop(pattern):
    return lambda tensors: {k: v for k, v in tensors.items() if not re.search(pattern, k)}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop(r"enc\.1\.block0\.conv2"), r"1 missing: encoder\.1\.blocks\.0\.conv2\.weight"),
        (drop(r"dec\.0\.block0\.bn2\.bias"), r"1 missing: decoder\.3\.blocks\.0\.norm2\.bias"),
        (drop(r"conv_input\.0"), r"stem\.conv\.weight must have 5 axes, and is missing"),
        (drop(r"down\.1\.1\.weight"), r"encoder\.1\.down\.norm\.weight must have 1 axes, and"),
        (drop("^(dec|up)"), "4 stages of encoder and 0 of decoder"),
        (drop(r"enc\.2|down\.2"), "2 stages of encoder and 4 of decoder"),
        (
            lambda tensors: tensors | {"enc.0.block2.conv1.weight": torch.ones(8, 3, 3, 3, 8)},
            r"1 unexpected: encoder\.0\.blocks\.2\.conv1\.weight",
        ),
        (
            lambda tensors: tensors | {"enc.0.block999999999.conv1.weight": torch.ones(8)},
            r"1 unexpected: encoder\.0\.blocks\.999999999",
        ),
        (
            lambda tensors: tensors | {"dec.9.block0.conv1.weight": torch.ones(8)},
            r"1 unexpected: decoder\.9\.blocks\.0\.conv1\.weight",
        ),
        (
            lambda tensors: tensors | {"enc.1.block0.conv2.weight": torch.ones(8, 3, 3, 3, 9)},
            r"wrong shape: encoder\.1\.blocks\.0\.conv2\.weight .* instead of \(8, 3, 3, 3, 8\)",
        ),
        (
            lambda tensors: tensors | {"dec.0.block0.proj.0.weight": torch.ones(3, 5)},
            r"wrong shape: decoder\.3\.blocks\.0\.shortcut\.0\.weight",
        ),
        (
            lambda tensors: tensors | {"enc.3.block0.bn1.weight": torch.ones(2_000_000)},
            r"wrong shape: .*instead of \(2000000",
        ),
        (
            lambda tensors: tensors | {"final.weight": torch.ones(7, 1, 1, 1, 9)},
            r"the head has a weight \(7, 9\), for a backbone of 8 features",
        ),
        (lambda tensors: tensors | {"final.bias": torch.ones(7)}, "the head has no weight"),
        (
            lambda tensors: tensors | {"seg_head.weight": torch.ones(7, 9)},
            r"the head has a weight \(7, 9\)",
        ),
        (
            lambda tensors: tensors | {f"teacher.{k}": v for k, v in tensors.items()},
            "holds 2 networks of one kind, under '', 'teacher.'",
        ),
        (
            lambda tensors: tensors | {"module.conv_input.1.bias": torch.ones(8)},
            "both with and without module",
        ),
        (
            lambda tensors: (
                tensors | {"conv_input.0.weight": torch.ones(1).expand(9999, 5, 5, 5, 9999)}
            ),
            r"1 tensors are not dense arrays of numbers, conv_input\.0\.weight first",
        ),
        (
            lambda tensors: tensors | {"conv_input.1.bias": torch.ones(8).to_sparse()},
            "not dense arrays",
        ),
        (
            lambda tensors: tensors | {"conv_input.1.bias": torch.ones(0)},
            "not dense arrays",
        ),
    ],
)
def test_another_checkpoint(tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"a\.pth.*{message}"):
        load_published(save(tmp_path, {"state_dict": change(spunet_tensors())}))


def test_content_within_itself(tmp_path):
    content = {}
    content["state_dict"] = content
    with pytest.raises(ValueError, match="holds no weights"):
        load_published(save(tmp_path, content))
