"""Segmenters by name."""

import difflib
import os

from pc_2dteachers.catalog import DINOV2_LINEAR, OFFLINE_CLUSTERS, list_segmenters
from pc_2dteachers.segmenter import Segmenter


def create_segmenter(
    name: str,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    backbone: str | os.PathLike[str] | None = None,
) -> Segmenter:
    """Create a frozen semantic segmenter by name.

    Args:
        name: One of `list_segmenters()`.
        checkpoint: For DINOv2 the file of its head; for Mask2Former and OneFormer a folder with a
            copy of their repository (the default fetches it); for `offline_clusters` the file that
            `save_clusters` wrote.
        backbone: For DINOv2 its own weight file (the default fetches it).

    Raises:
        ValueError: If the name is unknown, or a file holds something else.
        FileNotFoundError: If a file is missing, or weights cannot be downloaded.
        ImportError: If a package that only an extra installs is missing.

    Source: CSC (Chen et al., CVPR 2024), Sec. 3.1: superpixels by DINOv2 or OneFormer for ADE20K.
        The authors put a Mask2Former head on DINOv2 ViT-g, whose file needs packages that are no
        longer maintained; the linear heads of DINOv2's authors stand in for it.
    """
    if name not in list_segmenters():
        near = difflib.get_close_matches(name, list_segmenters(), n=3)
        nearest = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(
            f"unknown segmenter {name!r}{nearest}; use one of {', '.join(list_segmenters())}"
        )
    if name in DINOV2_LINEAR:
        from pc_2dteachers.segment_dinov2 import create_dinov2_linear

        return create_dinov2_linear(name, checkpoint=checkpoint, backbone=backbone)
    if backbone is not None:
        raise ValueError(
            f"{name} takes no weight file for a backbone, got {backbone}; leave it out"
        )
    if name == OFFLINE_CLUSTERS:
        from pc_2dteachers.segment_clusters import load_clusters

        return load_clusters(checkpoint)
    from pc_2dteachers.segment_transformers import create_mask_transformer

    return create_mask_transformer(name, checkpoint=checkpoint)
