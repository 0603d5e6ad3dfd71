"""Sparse convolutions against conv3d on the whole grid."""

import contextlib
import subprocess
import sys

import pytest
import torch
from pc_backbones import sparse_conv
from pc_backbones.sparse_conv import (
    DoublingConv,
    HalvingConv,
    StridedConv,
    SubmanifoldConv,
    halving_rules,
    strided_rules,
    submanifold_rules,
    without_bfloat16,
)
from pc_backbones.voxels import find_voxels
from spconv.core import ConvAlgo
from torch.nn import functional


def full():
    cells = torch.cartesian_prod(torch.arange(6), torch.arange(4), torch.arange(5))
    return find_voxels(cells.repeat(2, 1), torch.arange(2).repeat_interleave(120))[0]


def scattered(*sizes):
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, 7, (sum(sizes), 3), generator=generator) * torch.tensor([1, 1, 2])
    return find_voxels(cells, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)))[0]


GRIDS = {
    "full": full(),
    "scattered": scattered(90, 0, 60),
    "one voxel": scattered(1),
    "two voxels": scattered(1, 1),
}


@pytest.fixture(params=GRIDS)
def grid(request):
    return GRIDS[request.param]


def to_dense(feat, grid):
    """[v c] -> [scans c x y z], every size even."""
    shape = [size + size % 2 for size in grid.shape]
    dense = feat.new_zeros(grid.num_scans, *shape, feat.shape[1])
    return dense.index_put(tuple(grid.indices.long().T), feat).permute(0, 4, 1, 2, 3)


def at_voxels(dense, grid):
    return dense.permute(0, 2, 3, 4, 1)[tuple(grid.indices.long().T)]


def same_with_gradients(ours, dense, inputs):
    torch.testing.assert_close(ours, dense, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(dense)
    mine = torch.autograd.grad((ours * weight).sum(), inputs)
    theirs = torch.autograd.grad((dense * weight).sum(), inputs)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def tokens(grid, width):
    return torch.randn(len(grid.indices), width, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_submanifold(grid, kernel_size):
    conv = SubmanifoldConv(3, 4, kernel_size).double()
    feat = tokens(grid, 3)
    ours = conv(feat, submanifold_rules(grid, kernel_size))
    kernel = conv.weight.permute(0, 4, 1, 2, 3)
    dense = functional.conv3d(to_dense(feat, grid), kernel, padding=kernel_size // 2)
    same_with_gradients(ours, at_voxels(dense, grid), [feat, conv.weight])


def test_halving(grid):
    conv = HalvingConv(3, 4).double()
    feat, rules = tokens(grid, 3), halving_rules(grid)
    ours = conv(feat, rules)
    dense = functional.conv3d(to_dense(feat, grid), conv.weight.permute(0, 4, 1, 2, 3), stride=2)
    same_with_gradients(ours, at_voxels(dense, rules.target), [feat, conv.weight])
    occupied = to_dense(torch.ones(len(grid.indices), 1), grid)
    assert len(rules.target.indices) == (functional.max_pool3d(occupied, 2) > 0).sum()


def test_doubling(grid):
    conv, rules = DoublingConv(3, 4).double(), halving_rules(grid)
    coarse = rules.target._replace(shape=tuple(-(-size // 2) for size in grid.shape))
    feat = tokens(coarse, 3)
    ours = conv(feat, rules)
    kernel = conv.weight.permute(4, 0, 1, 2, 3)
    values = feat.new_zeros(grid.num_scans, *coarse.shape, 3)
    values = values.index_put(tuple(coarse.indices.long().T), feat).permute(0, 4, 1, 2, 3)
    dense = functional.conv_transpose3d(values, kernel, stride=2)
    same_with_gradients(ours, at_voxels(dense, grid), [feat, conv.weight])


STRIDES = {  # kernel, stride, padding: those of CenterPoint, and odd ones
    "halve": ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    "halve the last time": ((3, 3, 3), (2, 2, 2), (1, 1, 0)),
    "flatten": ((1, 1, 3), (1, 1, 2), (0, 0, 0)),
    "every axis its own": ((2, 3, 1), (3, 1, 2), (0, 2, 1)),
    "widen": ((3, 3, 3), (1, 1, 1), (2, 2, 2)),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("case", STRIDES)
def test_strided(grid, case, bias):
    kernel_size, stride, padding = STRIDES[case]
    grid = grid._replace(shape=(7, 8, 13))
    conv = StridedConv(3, 4, kernel_size, bias=bias).double()
    feat = tokens(grid, 3)
    rules = strided_rules(grid, kernel_size=kernel_size, stride=stride, padding=padding)
    ours = conv(feat, rules)
    values = feat.new_zeros(grid.num_scans, *grid.shape, 4)
    with_one = torch.cat([feat, torch.ones_like(feat[:, :1])], dim=1)
    values = values.index_put(tuple(grid.indices.long().T), with_one).permute(0, 4, 1, 2, 3)
    kernel = conv.weight.permute(0, 4, 1, 2, 3)
    dense = functional.conv3d(values[:, :3], kernel, conv.bias, stride, padding)
    found = functional.conv3d(values[:, 3:], torch.ones_like(kernel[:1, :1]), None, stride, padding)
    assert rules.target.shape == dense.shape[2:]
    assert rules.target.num_scans == grid.num_scans
    assert torch.equal(rules.target.indices.long(), (found[:, 0] > 0.5).nonzero())
    leaves = [feat, conv.weight, *([conv.bias] if bias else [])]
    same_with_gradients(ours, at_voxels(dense, rules.target), leaves)


def test_strided_on_a_street_wider_than_32_bits():
    above = GRIDS["scattered"].indices + torch.tensor([0, 0, 0, 2], dtype=torch.int32)
    near = GRIDS["scattered"]._replace(indices=above, shape=(8, 8, 20))
    move = torch.tensor([0, 2**20, 2**20, 2**10], dtype=torch.int32)
    far = near._replace(indices=near.indices + move, shape=(2**21, 2**21, 2**11))
    feat, conv = torch.randn(len(near.indices), 3), StridedConv(3, 4, (1, 1, 3))
    sizes = {"kernel_size": (1, 1, 3), "stride": (1, 1, 2)}
    torch.testing.assert_close(
        conv(feat, strided_rules(far, **sizes)), conv(feat, strided_rules(near, **sizes))
    )


def test_strided_kernel_larger_than_the_grid():
    grid = GRIDS["one voxel"]._replace(shape=(9, 9, 2))
    with pytest.raises(
        ValueError, match=r"a grid of \(9, 9, 2\) voxels is smaller than a kernel of"
    ):
        strided_rules(grid, kernel_size=(1, 1, 3), stride=(1, 1, 2))


def test_description():
    assert repr(SubmanifoldConv(3, 4, 5)) == "SubmanifoldConv(3, 4, kernel_size=5)"
    described = "StridedConv(3, 4, kernel_size=(1, 1, 3), bias)"
    assert repr(StridedConv(3, 4, (1, 1, 3), bias=True)) == described


def test_rules_serve_several_layers(grid):
    rules = submanifold_rules(grid, 3)
    before = [table.clone() for table in rules.tables]
    feat = torch.randn(len(grid.indices), 5)
    for width in (5, 2):
        conv = SubmanifoldConv(5, width, 3)
        torch.testing.assert_close(conv(feat, rules), conv(feat, submanifold_rules(grid, 3)))
    assert all(map(torch.equal, before, rules.tables))


def test_streets_wider_than_32_bits():
    """spconv's own tables for a CPU take distant voxels of such grids for neighbours."""
    near = GRIDS["scattered"]
    move = torch.tensor([0, 2**20, 2**20, 2**10], dtype=torch.int32)
    far = near._replace(indices=near.indices + move, shape=(2**21, 2**21, 2**11))
    feat = torch.randn(len(near.indices), 3)
    for conv, rules in (
        (SubmanifoldConv(3, 4, 3), lambda grid: submanifold_rules(grid, 3)),
        (HalvingConv(3, 4), halving_rules),
    ):
        torch.testing.assert_close(conv(feat, rules(far)), conv(feat, rules(near)))


def test_tables_agree_with_spconv_on_a_small_grid():
    grid = GRIDS["scattered"]
    ours, count = submanifold_rules(grid, 3).tables
    _, theirs, their_count = sparse_conv.spconv_ops.get_indice_pairs(
        grid.indices, 3, list(grid.shape), ConvAlgo.Native,
        [3] * 3, [1] * 3, [1] * 3, [1] * 3, [0] * 3, True,
    )  # fmt: skip
    assert torch.equal(count[:13], their_count[:13])
    for tap in range(27):
        n = count[min(tap, 26 - tap)]
        mine, other = ours[:, tap, :n].T.tolist(), theirs[:, tap, :n].T.tolist()
        assert sorted(mine) == sorted(other)


def test_even_submanifold_kernel():
    with pytest.raises(ValueError, match="its size is odd, got 2"):
        submanifold_rules(GRIDS["full"], 2)


def test_bfloat16_is_refused():
    conv, grid = SubmanifoldConv(3, 4, 3).bfloat16(), GRIDS["full"]
    feat = torch.randn(len(grid.indices), 3).bfloat16()
    with pytest.raises(ValueError, match="does not know bfloat16; pass float32"):
        conv(feat, submanifold_rules(grid, 3))


def test_autocast_is_left_on_for_half_precision_on_a_gpu_alone():
    gpu = torch.device("cuda")
    before = torch.get_autocast_dtype("cuda")
    try:  # as torch.autocast would, which refuses without a GPU
        torch.set_autocast_dtype("cuda", torch.float16)
        assert isinstance(without_bfloat16(gpu), contextlib.nullcontext)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        assert isinstance(without_bfloat16(gpu), torch.autocast)
    finally:
        torch.set_autocast_dtype("cuda", before)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype), without_bfloat16(torch.device("cpu")):
            assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("is_cuda", "num_taps", "algorithm"),
    [
        (False, 27, ConvAlgo.Native),
        (False, 125, ConvAlgo.Native),
        (True, 8, ConvAlgo.MaskImplicitGemm),
        (True, 27, ConvAlgo.MaskImplicitGemm),
        (True, 125, ConvAlgo.Native),
    ],
)
def test_algorithm_follows_the_device(is_cuda, num_taps, algorithm):
    assert sparse_conv._algorithm(is_cuda, num_taps) == algorithm


def test_what_is_asked_of_spconv_on_a_gpu(monkeypatch):
    """The way down and the way up share tables, with forward and backward exchanged."""
    grid, asked, computed = GRIDS["scattered"], [], []
    coarse = halving_rules(grid).target

    def find(indices, num_scans, shape, algorithm, **arguments):
        asked.append((num_scans, shape, arguments))
        out = indices if arguments["subm"] else coarse.indices
        return (out, "per tap", "fwd", "bwd", "mask fwd", "mask bwd", "sort fwd", "sort bwd", "m")

    def compute(feat, weight, *arguments):
        computed.append(arguments)
        return feat

    monkeypatch.setattr(sparse_conv, "_algorithm", lambda *_: ConvAlgo.MaskImplicitGemm)
    monkeypatch.setattr(sparse_conv.spconv_ops, "get_indice_pairs_implicit_gemm", find)
    monkeypatch.setattr(sparse_conv.spconv_functional, "implicit_gemm", compute)
    around, halving = submanifold_rules(grid, 3), halving_rules(grid)
    assert halving.target.shape == coarse.shape
    for size, even in zip(grid.shape, asked[1][1], strict=True):
        assert even == size + size % 2
    assert [arguments["subm"] for _, _, arguments in asked] == [True, False]
    assert [arguments["stride"] for _, _, arguments in asked] == [[1, 1, 1], [2, 2, 2]]
    strided = strided_rules(grid, kernel_size=(1, 1, 3), stride=(1, 1, 2), padding=(0, 0, 1))
    assert asked[2][1] == list(grid.shape)
    wanted = {"ksize": [1, 1, 3], "stride": [1, 1, 2], "padding": [0, 0, 1], "subm": False}
    assert asked[2][2].items() >= wanted.items()
    x_size, y_size, z_size = grid.shape
    assert strided.target.shape == (x_size, y_size, (z_size - 1) // 2 + 1)
    feat = torch.randn(3, 2)
    SubmanifoldConv(2, 2, 3)(feat, around)
    HalvingConv(2, 2)(feat, halving)
    DoublingConv(2, 2)(feat, halving)
    forward = ("fwd", "bwd", "mask fwd", "mask bwd", "sort fwd", "sort bwd")
    backward = ("bwd", "fwd", "mask bwd", "mask fwd", "sort bwd", "sort fwd")
    fine, rough = len(grid.indices), len(coarse.indices)
    assert computed == [
        (*forward, fine, "m", True, True),
        (*forward, rough, "m", True, False),
        (*backward, fine, "m", True, False),
    ]


SILENT = """
import sys, torch
from pc_backbones import create_backbone
create_backbone("waffleiron_6_64", 3)
assert not any(name.split(".")[0] in ("spconv", "cumm") for name in sys.modules)
network = create_backbone("spunet14_small", 3, voxel_size=0.2)
xyz = torch.rand(200, 3)
network(xyz, xyz, torch.zeros(200, dtype=torch.long)).sum().backward()
assert "spconv" in sys.modules
"""


def test_import_and_use_are_silent():
    done = subprocess.run([sys.executable, "-W", "error", "-c", SILENT], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
