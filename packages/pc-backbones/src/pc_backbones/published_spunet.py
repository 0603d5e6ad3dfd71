"""Tensor names and kernel layouts of Pointcept's SparseUNet (SpUNet-v1m1) files.

Source: spconv's kernels are stored (out, k, k, k, in) since version 2.2; before, layers of many
    taps were (k, k, k, out, in), and in version 1 all were (k, k, k, in, out). Whatever a 1x1
    kernel's shape, spconv multiplies by its memory read as (in, out).
"""

import re
from pathlib import Path

from torch import Tensor

from pc_backbones.published_files import CheckpointFile
from pc_backbones.published_parts import Parts, linear_head, network_prefix
from pc_backbones.published_unet import count_stages, unet_arguments

_FAMILY = re.compile(
    r"((?:.*\.)?)(?:conv_input\.\d|(?:down|up)\.\d+\.\d|(?:enc|dec)\.\d+\.block\d+)\."
)
_RENAMES = (
    (r"conv_input\.0\.", "stem.conv."),
    (r"conv_input\.1\.", "stem.norm."),
    (r"down\.(\d+)\.0\.", r"encoder.\1.down.conv."),
    (r"down\.(\d+)\.1\.", r"encoder.\1.down.norm."),
    (r"up\.(\d+)\.0\.", r"decoder.\1.up.conv."),
    (r"up\.(\d+)\.1\.", r"decoder.\1.up.norm."),
    (r"enc\.(\d+)\.block(\d+)\.", r"encoder.\1.blocks.\2."),
    (r"dec\.(\d+)\.block(\d+)\.", r"decoder.\1.blocks.\2."),
)
_IN_BLOCK = ((".bn1.", ".norm1."), (".bn2.", ".norm2."), (".proj.", ".shortcut."))
_CONVOLUTION = re.compile(r"(.*)(\.conv|\.conv[12])\.weight")


def find_spunet(checkpoint: CheckpointFile) -> Parts | None:
    """SparseUNet, with the classifier on top if there is one; None if not named like one.

    Raises:
        ValueError: If a kernel's layout cannot be told, or the head does not fit.
    """
    prefix = network_prefix(checkpoint, _FAMILY)
    if prefix is None:
        return None
    tensors, final, seg_head, others = {}, {}, {}, []
    for name, value in checkpoint.tensors.items():
        inner = name.removeprefix(prefix)
        if name.startswith(prefix) and inner.startswith("final."):
            final[inner.removeprefix("final.")] = value
        elif name.startswith(prefix) and _FAMILY.match(inner):
            tensors[_rename(inner)] = value
        elif name.startswith("seg_head."):
            seg_head[name.removeprefix("seg_head.")] = value
        else:
            others.append(name)
    tensors = _from_coarse_to_fine(tensors)
    _reorder_kernels(tensors, checkpoint.path)
    arguments = unet_arguments(tensors, checkpoint.path)
    if final:
        others += [f"seg_head.{name}" for name in seg_head]
    head_tensors = _read_as_in_out(final) if final else seg_head
    out_dim = arguments["decoder_widths"][-1]
    return Parts(
        name="sparse_unet",
        arguments={**arguments, "norm_eps": 1e-3, "norm_momentum": 0.01},
        backbone=tensors,
        head=linear_head(head_tensors, out_dim, checkpoint.path) if head_tensors else None,
        head_tensors=head_tensors,
        left_over=tuple(others),
    )


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            break
    for theirs, ours in _IN_BLOCK:
        name = name.replace(theirs, ours)
    return name


def _from_coarse_to_fine(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our decoder counts from the coarsest stage, theirs from the finest."""
    stages = count_stages(tensors, "decoder")

    def reverse(found: re.Match[str]) -> str:
        stage = int(found[1])
        return f"decoder.{stages - 1 - stage if stage < stages else stage}."

    return {re.sub(r"^decoder\.(\d+)\.", reverse, name): tensors[name] for name in tensors}


def _reorder_kernels(tensors: dict[str, Tensor], file: Path) -> None:
    """Bring every kernel to (out, k, k, k, in), and the 1x1 ones to (out, in), in place.

    Whether a kernel begins with its taps shows in its own shape. Whether (k, k, k, ...) goes on
    with (in, out) or (out, in) is one choice for the file, told by the kernels that change the
    width, as the stem's.
    """
    taps_first: dict[str, int] = {}  # name and width
    for name in list(tensors):
        if found := _CONVOLUTION.fullmatch(name):
            norm = f"{found[1]}{found[2].replace('conv', 'norm')}.weight"
            if tensors[name].ndim == 5 and norm in tensors:
                width = tensors[norm].numel()
                out, *taps, _ = tensors[name].shape
                if out != width or len(set(taps)) > 1:
                    taps_first[name] = width
        elif name.endswith("shortcut.0.weight"):
            bias = tensors.get(name.replace("shortcut.0.weight", "shortcut.1.bias"))
            branch = {"weight": tensors[name]} | ({} if bias is None else {"bias": bias})
            tensors[name] = _read_as_in_out(branch)["weight"]
    orders = {
        "in, out" if tensors[name].shape[-1] == width else "out, in"
        for name, width in taps_first.items()
        if (tensors[name].shape[-1] == width) != (tensors[name].shape[-2] == width)
    }
    if len(orders) > 1:
        raise ValueError(
            f"{file}: some kernels are (k, k, k, in, out) and some (k, k, k, out, in), as "
            f"{next(iter(taps_first))}; no version of spconv writes both, the file is damaged"
        )
    axes = (4, 0, 1, 2, 3) if orders == {"in, out"} else (3, 0, 1, 2, 4)
    for name in taps_first:
        tensors[name] = tensors[name].permute(*axes).contiguous()


def _read_as_in_out(layer: dict[str, Tensor]) -> dict[str, Tensor]:
    """A 1x1 kernel as a linear weight (out, in): its memory is (in, out), see the module's source.

    Args:
        layer: `weight`, and a `bias` as long as the layer is wide.
    """
    if "weight" not in layer:
        return layer
    weight = layer["weight"]
    width = layer["bias"].numel() if "bias" in layer else weight.shape[0]
    if weight.numel() % width:
        return layer
    return {**layer, "weight": weight.reshape(-1, width).T.contiguous()}
