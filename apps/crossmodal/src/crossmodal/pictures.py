"""What a run trained on: units, and what the features find alike."""

from functools import partial

import numpy as np
from matplotlib.figure import Figure
from pc_data.augment.pairs import pair_pixels
from pc_data.colors import IGNORED, number_colors
from pc_data.loading import sample_rng
from pc_data.scan import Scan
from pc_data.show_units import show_units
from pc_geometry import segment_ground
from pc_train.pretraining import first_scan, write_report
from pc_train.reports.first_batch import CloudPanel, ImagePanel, draw_batch
from pc_train.reports.pictures import cloud_of_features, picture_of_correlation

from crossmodal.config import Config
from crossmodal.method import CrossModal
from crossmodal.samples import Bags, UnitBatch
from crossmodal.units import no_objects, object_finder, unit_finder


def picture_of_units(scan: Scan, config: Config) -> Figure:
    """Draw the units of a scan before and after merging, and the clusters (figures 3 and 4)."""
    visible = np.zeros(len(scan), bool)
    visible[pair_pixels(scan, min_depth=config.min_depth).point] = True
    ground = segment_ground(scan.xyz, sensor_height=config.sensor_height)
    find = partial(unit_finder(config), ground=ground)
    # The same draws twice, so that the same units are sampled.
    before = find(scan.xyz, visible, objects=no_objects, rng=sample_rng(config.seed, 0, 0))
    after = find(scan.xyz, visible, rng=sample_rng(config.seed, 0, 0))
    cluster = object_finder(config)(scan.xyz, ground)
    return show_units(scan, ground=ground, cluster=cluster, before=before, after=after)


def picture_of_batch(sample: UnitBatch) -> Figure:
    """Draw the clouds and images as the networks get them, each unit in a colour of its own."""
    color = number_colors(np.arange(len(sample.unit_scan)))
    bags, reads = sample.point_bags, sample.pixel_bags
    painted = np.tile(np.asarray(IGNORED), (len(sample.points.xyz), 1))
    painted[bags.rows.numpy()] = color[_bag_of_row(bags)]
    clouds = [CloudPanel("the cloud, augmented", sample.points.xyz.numpy(), painted)]
    if sample.other is not None:
        clouds.append(CloudPanel("and by other draws", sample.other.xyz.numpy(), painted))
    images = []
    for index, image in enumerate(() if sample.images is None else sample.images.numpy()):
        here = sample.image_index.numpy()[reads.rows.numpy()] == index
        pixel = sample.pixel.numpy()[reads.rows.numpy()[here]]
        title = f"image {index + 1}, {len(pixel):,} points of units"
        images.append(ImagePanel(title, image, pixel, color[_bag_of_row(reads)[here]]))
    title = f"scan {sample.names[0]}: {len(color)} units, other points grey"
    return draw_batch(title, clouds, images)


def _bag_of_row(bags: Bags) -> np.ndarray:
    ends = np.append(bags.starts.numpy()[1:], len(bags.rows))
    return np.repeat(np.arange(len(ends)), ends - bags.starts.numpy())


def report_pretraining(config: Config, method: CrossModal, sample: UnitBatch) -> None:
    """Write `report.html`: the loss, the units of a scan, a correlation map."""
    method.cpu().eval()
    scan = first_scan(config)
    write_report(
        config.out,
        title="Cross-modal contrastive units, pre-training",
        lead=f"{config.backbone}, modality {config.modality}",
        loss="Contrast of units.",
        sections=[
            (
                "Units",
                picture_of_units(scan, config),
                f"Scan {scan.name}: units as sampled, clusters, and units after merging.",
            ),
            (
                "What the features find alike",
                picture_of_correlation({"pre-trained": method.backbone}, sample.points, ()),
                f"Similarity to the point at the cross, scan {sample.names[0]} augmented.",
            ),
        ],
        cloud=cloud_of_features(method.backbone, sample.points),
    )
