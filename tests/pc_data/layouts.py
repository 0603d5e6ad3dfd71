"""A small synthetic world of every layout that is read, and where the real samples lie."""

from importlib import import_module
from pathlib import Path

_BARE = {"num_scenes": 2, "frames_per_scene": 2, "seed": 3}
_ROOM = {"num_scenes": 2, "seed": 3, "voxel_size": 0.06}
_STREET = _BARE | {"image_size": (96, 64)}

LAYOUTS = {
    "nuscenes": ("pc_data.synthetic.nuscenes:make_street_nuscenes", _STREET),
    "semantickitti": ("pc_data.synthetic.semantic_kitti:make_street_semantic_kitti", _STREET),
    "semanticposs": ("pc_data.synthetic.semantic_poss:make_street_semantic_poss", _BARE),
    "pandaset": ("pc_data.synthetic.pandaset:make_street_pandaset", _STREET),
    "waymo": (
        "pc_data.synthetic.waymo:make_street_waymo",
        _STREET | {"top_shape": (64, 400), "short_shape": (40, 60)},
    ),
    "folder": ("pc_data.synthetic.folder:make_street_folder", _BARE),
    "scannet": (
        "pc_data.synthetic.scannet:make_room_scannet",
        _ROOM | {"num_frames": 2, "image_size": (96, 64)},
    ),
    "pointcept": ("pc_data.synthetic.scannet:make_room_pointcept", _ROOM),
    "arkitscenes": (
        "pc_data.synthetic.arkitscenes:make_room_arkitscenes",
        _ROOM | {"num_frames": 4, "image_size": (96, 72)},
    ),
    "sunrgbd": (
        "pc_data.synthetic.sun_rgbd:make_room_sun_rgbd",
        {"num_scenes": 2, "seed": 3, "num_frames": 2, "image_size": (96, 72)},
    ),
    "once": ("pc_data.synthetic.once:make_street_once", _STREET),
    "argoverse2": ("pc_data.synthetic.argoverse2:make_street_argoverse2", _STREET),
}

REAL = {  # name -> folder, version
    "nuscenes": ("nuscenes", "v1.0-mini"),
    "semantickitti": ("semantickitti", ""),
    "pandaset": ("pandaset", ""),
    "argoverse2": ("argoverse2", ""),
    "scannet": ("scannet", ""),
    "sunrgbd": ("sunrgbd", ""),
}


def make_world(name: str, root: Path) -> Path:
    """Write the small world of a layout."""
    maker, settings = LAYOUTS[name]
    module, _, function = maker.partition(":")
    getattr(import_module(module), function)(root, **settings)
    return root
