"""All backbones by name."""

import difflib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from pc_backbones.centerpoint_pillar import CenterPointPillar
from pc_backbones.contract import Backbone
from pc_backbones.inputs import InputFeatures
from pc_backbones.pointnet2 import PointNet2
from pc_backbones.waffleiron import WaffleIron

_WAFFLEIRON: dict[str, dict[str, Any]] = {
    "waffleiron": {},
    "waffleiron_48_768": {"depth": 48, "channels": 768, "layer_norm": True},
    "waffleiron_48_384": {"depth": 48, "channels": 384, "layer_norm": False},
    "waffleiron_48_256": {"depth": 48, "channels": 256, "layer_norm": False},
    "waffleiron_48_96": {"depth": 48, "channels": 96, "layer_norm": False},
    "waffleiron_6_64": {"depth": 6, "channels": 64, "layer_norm": True},
}
_SMALL = {
    "stem_width": 16,
    "stem_kernel": 3,
    "encoder_widths": (16, 32, 48, 64),
    "encoder_depths": (1, 1, 1, 1),
    "decoder_widths": (64, 48, 32, 32),
    "decoder_depths": (1, 1, 1, 1),
    "norm_momentum": 0.1,  # running statistics keep up with runs of some hundred steps
}
# SLidR (Sautier et al., CVPR 2022) on LiDAR; initialised as MinkowskiEngine does, but for the
# transposed convolutions, whose bound MinkowskiEngine takes from the channels that come out.
_MINKUNET34 = {
    "voxel_size": 0.1,
    "stem_kernel": 3,
    "down_widths": (32, 32, 64, 128),
    "norm_eps": 1e-5,
    "norm_momentum": 0.05,
    "block_norm_momentum": 0.1,
    "init_std": None,
    "pooling": "first",
    "absolute_grid": True,
}
# After the segmentation network of JS3C-Net (Yan et al., AAAI 2021): 7 levels of 16, 32, ..., 112
# channels, one block a level and side. Where it has pre-activation blocks of one convolution, this
# has residual blocks of two; its finest level has the stem alone on the way down.
_JS3C = {
    "voxel_size": 0.1,
    "stem_width": 16,
    "stem_kernel": 3,
    "encoder_widths": (32, 48, 64, 80, 96, 112),
    "encoder_depths": (1, 1, 1, 1, 1, 1),
    "decoder_widths": (96, 80, 64, 48, 32, 16),
    "decoder_depths": (1, 1, 1, 1, 1, 1),
    "norm_eps": 1e-4,
    "norm_momentum": 0.1,
    "init_std": None,
    "pooling": "mean",
}
_SPARSE_UNET: dict[str, dict[str, Any]] = {
    "sparse_unet": {},
    "spunet34": {},
    "spunet34_paper": {"decoder_widths": (256, 128, 64, 64)},
    "spunet14_small": _SMALL,
    "minkunet34": _MINKUNET34,
    "minkunet34_cylindrical": {**_MINKUNET34, "cylindrical": True},
    "minkunet14_small": {**_MINKUNET34, **_SMALL, "down_widths": (16, 16, 32, 48)},
    "spunet_js3c": _JS3C,
}
# PointNet++ as in VoteNet (Qi et al., ICCV 2019) and, wider on the way up, in DepthContrast (Zhang
# et al., ICCV 2021). The small one has half of the centres, farther apart: its balls are wider.
_POINTNET2: dict[str, dict[str, Any]] = {
    "pointnet2": {},
    "pointnet2_votenet": {},
    "pointnet2_depthcontrast": {"up_widths": ((512, 512), (512, 512))},
    "pointnet2_small": {
        "num_centers": (1024, 512, 256, 128),
        "radii": (0.3, 0.6, 1.2, 1.8),
        "ball_sizes": (32, 16, 16, 16),
        "widths": ((32, 32, 64), (64, 64, 128), (64, 64, 128), (64, 64, 128)),
        "up_widths": ((128, 128), (128, 128)),
    },
}
_SMALL_MAP = {
    "fov": ((-25.6, -25.6, -4.0), (25.6, 25.6, 4.0)),
    "widths": (32, 64),
    "depths": (1, 2),
    "strides": (1, 2),
    "up_widths": (32, 32),
    "up_strides": (1, 2),
    "norm_momentum": 0.1,
}
# CenterPoint (Yin et al., CVPR 2021) as configured for each dataset; its defaults are Waymo's.
CENTERPOINT_PILLAR: dict[str, dict[str, Any]] = {
    "centerpoint_pillar": {},
    "centerpoint_pillar_waymo": {},
    "centerpoint_pillar_nuscenes": {
        "fov": ((-51.2, -51.2, -5.0), (51.2, 51.2, 3.0)),
        "pillar_size": 0.2,
        "strides": (2, 2, 2),
        "up_strides": (0.5, 1, 2),
    },
    # Nobody published one: Waymo's pillars, so that its weights fit, between ONCE's heights.
    "centerpoint_pillar_once": {"fov": ((-74.88, -74.88, -5.0), (74.88, 74.88, 3.0))},
    "centerpoint_pillar_small": {**_SMALL_MAP, "pillar_size": 0.4, "pillar_widths": (32, 32)},
}
CENTERPOINT_VOXEL: dict[str, dict[str, Any]] = {
    "centerpoint_voxel": {},
    "centerpoint_voxel_waymo": {},
    "centerpoint_voxel_nuscenes": {
        "fov": ((-54.0, -54.0, -5.0), (54.0, 54.0, 3.0)),
        "cell_size": (0.075, 0.075, 0.2),
    },
    "centerpoint_voxel_nuscenes_01": {
        "fov": ((-51.2, -51.2, -5.0), (51.2, 51.2, 3.0)),
        "cell_size": (0.1, 0.1, 0.2),
    },
    "centerpoint_voxel_once": {
        "fov": ((-75.2, -75.2, -5.0), (75.2, 75.2, 3.0)),
        "cell_size": (0.1, 0.1, 0.2),
    },
    "centerpoint_voxel_small": {
        **_SMALL_MAP,
        "cell_size": (0.2, 0.2, 0.2),
        "encoder_widths": (8, 16, 32, 32),
    },
}
# As SLidR (Sautier et al., CVPR 2022) and CSC (Chen et al., CVPR 2024) pre-train it.
_VOXELNET: dict[str, dict[str, Any]] = {
    "voxelnet": {},
    "voxelnet_small": {
        "fov": ((-25.6, -25.6, -4.0), (25.6, 25.6, 4.0)),
        "cell_size": (0.2, 0.2, 0.2),
        "encoder_widths": (8, 16, 32, 32),
        "flat_width": 64,
        "top_layer": True,  # nobody's weights ask for the uppermost voxels to be lost
        "norm_momentum": 0.1,
    },
}
# Cylinder3D (Zhu et al., CVPR 2021), and with the inputs and widths that CSC pre-trains.
_CYLINDER3D: dict[str, dict[str, Any]] = {
    "cylinder3d": {},
    "cylinder3d_csc": {"offsets": False, "point_widths": (64, 128, 256, 128)},
    "cylinder3d_small": {
        "grid_shape": (240, 180, 16),
        "point_widths": (32, 64, 64),
        "base_width": 8,
        "strides": ((2, 2, 2), (2, 2, 2), (2, 2, 1)),
    },
}
_NAMES = (
    *("inputs", *_WAFFLEIRON, *_POINTNET2, *_SPARSE_UNET),
    *(*CENTERPOINT_PILLAR, *CENTERPOINT_VOXEL, *_VOXELNET, *_CYLINDER3D),
)


def list_backbones() -> list[str]:
    """Names that `create_backbone` knows."""
    return sorted(_NAMES)


def create_backbone(
    name: str,
    in_dim: int,
    **overrides: Any,  # noqa: ANN401 - keyword arguments of the network of that name
) -> Backbone:
    """Build a backbone with random weights.

    Every backbone answers `forward(xyz, feat, batch, *, neighbors=None) -> [n out_dim]` over packed
    batches and has the attributes of `Backbone`.

    Args:
        name: One of `list_backbones()`.
        in_dim: Number of input features of a point.
        overrides: Constructor arguments to change, e.g. `depth=12`.

    Raises:
        ValueError: If the name is unknown, or an override is none of the network's arguments.
    """
    if name not in _NAMES:
        nearest = difflib.get_close_matches(name, _NAMES, n=3, cutoff=0.3) or list_backbones()
        raise ValueError(f"no backbone is called {name!r}; the nearest are: {', '.join(nearest)}")
    network = _network(name)
    known = [key for key in inspect.signature(network).parameters if key != "in_dim"]
    for key in overrides:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=3) or known
            raise ValueError(
                f"backbone {name} has no argument {key!r}; the nearest are: {', '.join(nearest)}"
            )
    return network(in_dim, **overrides)


def _network(name: str) -> Callable[..., Backbone]:
    if name == "inputs":
        return InputFeatures
    if name in _WAFFLEIRON:
        return partial(WaffleIron, **_WAFFLEIRON[name])
    if name in _POINTNET2:
        return partial(PointNet2, **_POINTNET2[name])
    if name in CENTERPOINT_PILLAR:
        return partial(CenterPointPillar, **CENTERPOINT_PILLAR[name])
    # The others take seconds: they import spconv.
    if name in CENTERPOINT_VOXEL:
        from pc_backbones.centerpoint_voxel import CenterPointVoxel

        return partial(CenterPointVoxel, **CENTERPOINT_VOXEL[name])
    if name in _VOXELNET:
        from pc_backbones.voxelnet import VoxelNet

        return partial(VoxelNet, **_VOXELNET[name])
    if name in _CYLINDER3D:
        from pc_backbones.cylinder3d import Cylinder3D

        return partial(Cylinder3D, **_CYLINDER3D[name])
    from pc_backbones.sparse_unet import SparseUNet

    return partial(SparseUNet, **_SPARSE_UNET[name])
