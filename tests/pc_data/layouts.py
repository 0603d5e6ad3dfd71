"""A small synthetic world of every layout that is read, and where the real samples lie."""

from importlib import import_module
from pathlib import Path

_STREET = {"num_scenes": 2, "frames_per_scene": 2, "seed": 3, "image_size": (96, 64)}

LAYOUTS = {
    "nuscenes": ("pc_data.synthetic.nuscenes:make_street_nuscenes", _STREET),
    "semantickitti": ("pc_data.synthetic.semantic_kitti:make_street_semantic_kitti", _STREET),
}

REAL = {  # name -> folder, version
    "nuscenes": ("nuscenes", "v1.0-mini"),
    "semantickitti": ("semantickitti", ""),
}


def make_world(name: str, root: Path) -> Path:
    """Write the small world of a layout."""
    maker, settings = LAYOUTS[name]
    module, _, function = maker.partition(":")
    getattr(import_module(module), function)(root, **settings)
    return root
