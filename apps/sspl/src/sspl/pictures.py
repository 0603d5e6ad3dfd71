"""What a run trained on and learned: volumes and their crops; features as colours and by class."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Int64
from matplotlib.figure import Figure
from pc_data.augment.sampling import subsample
from pc_data.batch import PointBatch
from pc_data.colors import IGNORED, number_colors
from pc_data.loading import sample_rng
from pc_data.scan import Scan
from pc_geometry.volumes import crop_volumes, split_volumes
from pc_train.pretraining import first_scan, write_report
from pc_train.reports.figures import features_as_colors, plot_colors
from pc_train.reports.first_batch import CloudPanel, draw_batch
from pc_train.reports.pictures import cloud_of_features, picture_of_tsne
from torch import nn

from sspl.config import Config
from sspl.method import SSPL
from sspl.samples import VolumePair


def picture_of_volumes(scan: Scan, config: Config) -> Figure:
    """Draw the volumes of a scan, each with a colour, and their two crops; all else is grey."""
    rng = sample_rng(config.seed, 0, 0)
    scan = subsample(scan, rng, max_points=config.max_points) if config.max_points else scan
    volume = split_volumes(
        scan.xyz,
        size=config.volume_size,
        max_volumes=config.max_volumes,
        min_points=config.min_points,
        rng=rng,
    )
    crops = [
        np.where(crop_volumes(scan.xyz, volume, share=share, rng=rng), volume, -1)
        for share in (config.local_share, config.global_share)
    ]
    titles = ("volumes", "local crops", "global crops")
    shown = zip(titles, (volume, *crops), strict=True)
    return plot_colors(scan.xyz, {title: _paint(number) for title, number in shown})


def picture_of_batch(sample: VolumePair) -> Figure:
    """Draw the two views as the networks get them; a volume has one colour in both."""
    clouds = [
        CloudPanel(title, view.xyz.numpy(), _paint(volume.numpy()))
        for title, view, volume in (
            ("what the network sees", sample.local_view, sample.local_volume),
            ("what its momentum copy sees", sample.global_view, sample.global_volume),
        )
    ]
    title = f"scan {sample.names[0]}: {len(sample.volume_scan)} volumes, other points grey"
    return draw_batch(title, clouds)


@torch.inference_mode()
def picture_of_features(networks: Mapping[str, nn.Module], sample: PointBatch) -> Figure:
    """Draw the features of each network as colours, by their three main directions."""
    views = {
        title: features_as_colors(_features(network, sample)) for title, network in networks.items()
    }
    return plot_colors(sample.xyz.numpy(), views)


@torch.inference_mode()
def picture_of_classes_apart(
    networks: Mapping[str, nn.Module],
    sample: PointBatch,
    class_names: tuple[str, ...],
    *,
    num_classes: int = 6,
) -> Figure:
    """Draw each network's features of the commonest classes in the plane (figure 3)."""
    labels = sample.need("labels").numpy()
    count = np.bincount(labels[labels >= 0], minlength=len(class_names))
    rare = np.argsort(-count, kind="stable")[num_classes:]
    labels = np.where(np.isin(labels, rare), -1, labels)
    features = {title: _features(network, sample) for title, network in networks.items()}
    return picture_of_tsne(features, labels, class_names, max_points=1200)


def report_pretraining(config: Config, method: SSPL, sample: VolumePair) -> None:
    """Write `report.html`: the loss, the volumes of a scan, the features."""
    method.cpu().eval()
    sections = []
    if config.level == "volume":
        scan = first_scan(config)
        caption = f"Scan {scan.name}: its volumes, what the network sees, what its copy sees."
        sections.append(("Volumes", picture_of_volumes(scan, config), caption))
    features = picture_of_features({"pre-trained": method.backbone}, sample.global_view)
    caption = f"Three main directions of the features, as colours; scan {sample.names[0]}."
    sections.append(("Features", features, caption))
    write_report(
        config.out,
        title="SSPL, pre-training",
        lead=f"{config.backbone}, level {config.level}, local {config.local}, "
        f"across {config.across}",
        loss="Sum of the local and the global objective, and of what the clusters' head learns.",
        sections=sections,
        cloud=cloud_of_features(method.backbone, sample.global_view),
    )


def _features(network: nn.Module, sample: PointBatch) -> np.ndarray:
    return network(sample.xyz, sample.feat, sample.batch, neighbors=sample.neighbors).numpy()


def _paint(volume: Int64[np.ndarray, " n"]) -> np.ndarray:
    inside = (volume >= 0)[:, None]
    return np.where(inside, number_colors(np.maximum(volume, 0)), IGNORED)
