"""What a run trained on: units, and what the features find alike."""

import numpy as np
from matplotlib.figure import Figure
from pc_data.augment.pairs import pair_pixels
from pc_data.datasets import open_dataset
from pc_data.scan import Scan
from pc_data.show_units import show_units
from pc_geometry import segment_ground
from pc_geometry.units import cluster_objects, main_cluster, merge_units, sample_units
from pc_train.pictures import picture_of_correlation
from pc_train.pretraining import write_report

from crossmodal.config import Config
from crossmodal.method import CrossModal
from crossmodal.samples import UnitBatch


def picture_of_units(scan: Scan, config: Config) -> Figure:
    """Draw the units of a scan before and after merging, and the clusters (figures 3 and 4)."""
    visible = np.zeros(len(scan), bool)
    visible[pair_pixels(scan, min_depth=config.min_depth).point] = True
    ground = segment_ground(scan.xyz, sensor_height=config.sensor_height)
    cluster = cluster_objects(
        scan.xyz, ground, radius=config.cluster_radius, min_points=config.min_cluster_points
    )
    before = sample_units(scan.xyz, visible & ~ground, config.num_units)
    after = merge_units(before, main_cluster(before, cluster))
    return show_units(scan, ground=ground, cluster=cluster, before=before, after=after)


def report_pretraining(config: Config, method: CrossModal, sample: UnitBatch) -> None:
    """Write `report.html`: the loss, the units of a scan, a correlation map."""
    method.cpu().eval()
    scan = open_dataset(config.data, labels=False)[0]
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
    )
