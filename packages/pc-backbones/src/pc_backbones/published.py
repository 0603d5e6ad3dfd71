"""Weights as their authors publish them: outdoor and indoor networks, told by their tensors."""

from pathlib import Path
from typing import Any

from pc_backbones.published_centerpoint import find_centerpoint
from pc_backbones.published_files import FILE_NAMES as FILE_NAMES
from pc_backbones.published_files import find_file, read_checkpoint
from pc_backbones.published_minkunet import find_minkunet
from pc_backbones.published_parts import Published as Published
from pc_backbones.published_parts import assemble
from pc_backbones.published_spunet import find_spunet
from pc_backbones.published_votenet import find_votenet
from pc_backbones.published_voxelnet import find_voxelnet
from pc_backbones.published_waffleiron import find_waffleiron

# CenterPoint's voxels before VoxelNet and SpUNet: some of their names are the same. PointNet++
# before all: DepthContrast trains it beside networks that it leaves over.
_FAMILIES = (
    *(find_votenet, find_waffleiron, find_centerpoint),
    *(find_voxelnet, find_spunet, find_minkunet),
)


def load_published(
    path: str | Path,
    **overrides: Any,  # noqa: ANN401 - keyword arguments of the network in the file
) -> Published:
    """Rebuild a published network and its head, both in eval mode.

    The family is told by the tensors' names, with or without `module.`, `backbone.` or `model.`
    before them; widths, depths, kernels and the head by their shapes. No code in the file is run.

    - WaffleIron, ScaLR, ScaLR+ (under `net`, `model_point` or `model_points`): `WaffleIron`. The
      head is a linear layer (distillation or segmentation), batch norm and a linear layer (ScaLR's
      downstream files), or an MLP (ScaLR+).
    - Pointcept's SpUNet-v1m1, alone, pre-trained by Masked Scene Contrast or PointContrast, or
      fine-tuned (under `state_dict`): `SparseUNet`. The head is the classifier, if there is one.
      Kernels in any of spconv's layouts.
    - SLidR's MinkUNet (under `model_points`): `SparseUNet` with cylindrical voxels, or as the
      `config` in the file says. The head is its `final` layer; SLidR L2-normalises its output,
      which is left to the caller.
    - CenterPoint on pillars or voxels, of det3d (under `state_dict`) or OpenPCDet (`model_state`):
      `CenterPointPillar` or `CenterPointVoxel`. Detection heads are left over. Kernels in any of
      spconv's layouts.
    - SLidR's and CSC's VoxelNet (under `model_points`): `VoxelNet`, its projection included. They
      L2-normalise each cell of its map, which is left to the caller. Kernels in any of spconv's
      layouts.
    - PointNet++ of VoteNet (under `model_state_dict`) or DepthContrast (`model`): `PointNet2`, with
      `skip_origin` as they were trained. DepthContrast's query network is taken, and the head is
      its projection, which it applies to the maximum over a scan's seeds; VoteNet's voting and
      proposals are left over.

    Args:
        path: The checkpoint file, or the folder that holds it as `ckpt_last.pth` or `model.pth`.
        overrides: Arguments of the network that no tensor tells. WaffleIron: `grids` and `fov`
            (default: those of ScaLR's pre-training), `num_neighbors`, `drop_path`. SparseUNet:
            `voxel_size` in metres (default 0.02, MinkUNet: 0.1 or as `config` says), `pooling`,
            `cylindrical`. CenterPoint: `fov` and `pillar_size` or `cell_size` (default: Waymo's,
            of pillars with a coarser map and voxels with six heads nuScenes' 0.2 m and 0.075 m, of
            voxels with four inputs ONCE's), `strides` (the first is guessed), `slots` (20 for
            det3d, whose pillars are arrays of 20 points; 0 for OpenPCDet). VoxelNet: `fov` and
            `cell_size` (default: nuScenes', 0.1 m wide and 0.2 m high). PointNet++:
            `num_centers`, `radii` and `ball_sizes` (default: VoteNet's), `skip_origin`.

    Returns:
        The backbone, and its head or None; iterates as these two. Also says which tensors were
        used, missing (batch norm's step counters at most) and left over.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is none of these: names the keys and shapes at odds.
    """
    file = find_file(Path(path))
    checkpoint = read_checkpoint(file)
    for find in _FAMILIES:
        parts = find(checkpoint)
        if parts is not None:
            return assemble(parts, overrides, file)
    names = list(checkpoint.tensors)
    first = f"{len(names)} tensors: {', '.join(names[:6])}, ..." if names else "no tensor"
    raise ValueError(
        f"{file} is of none of the known families: WaffleIron (tensors embed.*, waffleiron.*), "
        "Pointcept's SparseUNet (conv_input.*, enc.*, dec.*), SLidR's MinkUNet (conv0p1s1.*, "
        "block1.*), CenterPoint (neck.blocks.* or backbone_2d.blocks.*), VoxelNet "
        "(conv_input.*, conv2.0.0.*), PointNet++ "
        f"(sa1.mlp_module.*); it holds {first}"
    )
