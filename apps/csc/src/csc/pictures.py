"""What a run trained on: superpixels and superpoints, and what the features find alike."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from pc_data.colors import IGNORED, number_colors
from pc_data.superpixel_files import SuperpixelFiles
from pc_train.pretraining import first_scan, write_report
from pc_train.reports.first_batch import CloudPanel, ImagePanel, draw_batch, place_colors
from pc_train.reports.pictures import cloud_of_features, picture_of_correlation

from csc.config import Config
from csc.method import CSC
from csc.prepare_report import CAPTION, picture_of_superpixels
from csc.samples import SuperpixelBatch


def picture_of_batch(sample: SuperpixelBatch) -> Figure:
    """Draw images and cloud as the networks get them; a superpixel and its points share a colour.

    Without superpixels a pixel and its point do.
    """
    pixel, number = sample.pixel.numpy(), sample.pair_superpixel.numpy()
    images = sample.images.numpy()
    has_superpixels = bool((number >= 0).any())
    color = number_colors(number) if has_superpixels else place_colors(pixel, images.shape[2:])
    painted = np.tile(np.asarray(IGNORED), (len(sample.points.xyz), 1))
    painted[sample.pair_point.numpy()] = color
    panels = []
    for index, image in enumerate(images):
        here = sample.image_index.numpy() == index
        found = f", {len(np.unique(number[here]))} superpixels" if has_superpixels else ""
        title = f"image {index + 1}, {here.sum():,} points{found}"
        panels.append(ImagePanel(title, image, pixel[here], color[here]))
    cloud = CloudPanel("the cloud, augmented", sample.points.xyz.numpy(), painted)
    title = f"scan {sample.names[0]}: {len(pixel):,} pairs of points and pixels, other points grey"
    return draw_batch(title, [cloud], panels)


def report_pretraining(
    config: Config, files: Sequence[SuperpixelFiles], method: CSC, sample: SuperpixelBatch
) -> None:
    """Write `report.html`: the loss, the superpixels of a scan, a correlation map."""
    method.cpu().eval()
    sections = []
    if files:
        scan = first_scan(config)
        figure = picture_of_superpixels(scan, files[0], min_depth=config.min_depth)
        sections.append(("Superpixels and superpoints", figure, CAPTION.format(scan.name)))
    correlation = picture_of_correlation({"pre-trained": method.backbone}, sample.points, ())
    sections.append(
        (
            "What the features find alike",
            correlation,
            f"Similarity to the point at the cross, scan {sample.names[0]} augmented.",
        )
    )
    write_report(
        config.out,
        title="Superpixels and prototypes, pre-training",
        lead=f"{config.backbone}, contrast {config.contrast}, prototypes {config.prototypes}",
        loss="Contrast of superpoints with superpixels, and with prototypes of their classes once "
        "there are any: the loss rises there by their part."
        if config.prototypes != "none"
        else "Contrast of points with pixels.",
        sections=sections,
        cloud=cloud_of_features(method.backbone, sample.points),
    )
