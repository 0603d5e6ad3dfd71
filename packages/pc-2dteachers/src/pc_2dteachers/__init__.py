"""Frozen 2D networks as dense feature maps, read at pixels, and as superpixels.

The names below load on first use, so that importing this package, and listing the teachers, costs
neither torch nor timm.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pc_2dteachers.catalog import list_segmenters as list_segmenters
    from pc_2dteachers.catalog import list_teachers as list_teachers
    from pc_2dteachers.levels import TeacherLevels as TeacherLevels
    from pc_2dteachers.levels import resize_levels as resize_levels
    from pc_2dteachers.levels import sample_levels as sample_levels
    from pc_2dteachers.pooling import pool_superpixels as pool_superpixels
    from pc_2dteachers.sampling import sample_pixels as sample_pixels
    from pc_2dteachers.segment_clusters import fit_clusters as fit_clusters
    from pc_2dteachers.segmenter import Segmenter as Segmenter
    from pc_2dteachers.segmenter import segment_image as segment_image
    from pc_2dteachers.segmenters import create_segmenter as create_segmenter
    from pc_2dteachers.superpixels import slic_superpixels as slic_superpixels
    from pc_2dteachers.teacher import Teacher as Teacher
    from pc_2dteachers.teacher import TeacherConcat as TeacherConcat
    from pc_2dteachers.zoo import create_teacher as create_teacher

_MODULES = {
    "Segmenter": "segmenter",
    "Teacher": "teacher",
    "TeacherConcat": "teacher",
    "TeacherLevels": "levels",
    "create_segmenter": "segmenters",
    "create_teacher": "zoo",
    "fit_clusters": "segment_clusters",
    "list_segmenters": "catalog",
    "list_teachers": "catalog",
    "pool_superpixels": "pooling",
    "resize_levels": "levels",
    "sample_levels": "levels",
    "sample_pixels": "sampling",
    "segment_image": "segmenter",
    "slic_superpixels": "superpixels",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_MODULES)
