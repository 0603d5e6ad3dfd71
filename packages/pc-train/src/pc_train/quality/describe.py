"""What a backbone's features are like, told without training on labels."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from pc_data.augment import inside_box
from pc_data.augment.basic import Transform
from pc_data.augment.presets import MSC_VIEW, SLIDR_CLOUD, run
from pc_data.augment.views import make_view
from pc_data.batch import PointBatch
from pc_data.commandline import to_yaml
from pc_data.datasets import open_dataset
from pc_data.loading import epoch_order, sample_rng
from pc_data.progress import progress_line
from pc_data.scan import Scan
from pc_losses import alignment_score, feature_spread
from pc_losses.health import effective_rank
from pc_losses.uniformity import uniformity_score
from torch import Tensor

from pc_train.configs import FeaturesConfig
from pc_train.fitting import pick_device
from pc_train.limited import labelled_scans
from pc_train.networks import NamedBackbone, open_backbone, weights_file
from pc_train.notices import notice
from pc_train.quality.nearest_classes import nearest_classes
from pc_train.runs import open_run, write_json
from pc_train.samples import Augmented, first_of_voxels, to_input
from pc_train.scores import input_arguments, resolve_voxel_size, sample_to_score

VIEWS: dict[str, Transform] = {
    "cloud": partial(run, SLIDR_CLOUD),
    "rooms": partial(run, MSC_VIEW),
}
"""How a view is made, by the name that settings give it."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What features are like; a measure is None where there is nothing to measure it on.

    Attributes:
        alignment: Mean squared distance of the unit features of a point in two views; 0 is best.
        uniformity: `pc_losses.uniformity.uniformity_score`; lower leaves more room, about -4 is
            even, 0 is collapse.
        effective_rank: Directions that the features use.
        out_dim: Directions that there are.
        spread: `pc_losses.feature_spread` times the square root of `out_dim`: 1 is even, 0 is
            collapse.
        knn_accuracy: Share of the points whose class their neighbours in the other split tell.
        knn_class_accuracy: The same, as a mean over the classes.
        knn_by_class: The same for each class that was drawn.
        num_points: Points drawn.
        num_scans: Scans that they are of.
    """

    alignment: float | None
    uniformity: float | None
    effective_rank: float | None
    out_dim: int
    spread: float | None
    knn_accuracy: float | None
    knn_class_accuracy: float | None
    knn_by_class: dict[str, float]
    num_points: int
    num_scans: int


class Drawn(NamedTuple):
    """Features of points drawn from scans, and their classes, -1 = none."""

    feat: Tensor
    labels: Tensor


def describe_features(config: FeaturesConfig) -> Quality:
    """Measure features, and write quality.json and report.html; a finished folder is only read.

    Raises:
        DataError: If a scan is damaged or lacks what the network takes.
        MachineError: If a GPU is asked for where there is none.
        ValueError: If the backbone does not fit, or the folder is of something else.
    """
    from pc_train.quality.report import report_quality

    seed = config.seed if config.random_weights else None
    backbone = open_backbone(config.backbone, random_seed=seed)
    val = _labelled_if_any(open_dataset(config.data, split=config.val_split))
    train = _labelled_if_any(open_dataset(config.data))
    sample_to_score(val[0], val, backbone, voxel_size=config.voxel_size)  # damage shows at once
    open_run(config.out, to_yaml(config), inputs={"backbone": weights_file(config.backbone)})
    finished = config.out / "quality.json"
    if finished.is_file():
        notice(f"finished earlier; read from {finished}")
        return Quality(**json.loads(finished.read_text(encoding="utf-8")))
    device = pick_device(config.accelerator)
    backbone.network.to(device).eval()
    drawn = draw_features(config, val, backbone, device=device)
    known = draw_features(config, train, backbone, device=device, title="features to compare with")
    quality = _measure(config, drawn, known, val, backbone, device=device)
    backbone.network.cpu()
    report_quality(config, quality, drawn, val, backbone)
    write_json(finished, dataclasses.asdict(quality))
    return quality


def in_words(quality: Quality) -> str:
    """The measures in one line."""
    words = [
        f"{name.replace('_', ' ')} {value:.3g}"
        for name in ("alignment", "uniformity", "effective_rank", "spread")
        if (value := getattr(quality, name)) is not None
    ]
    if quality.knn_accuracy is not None:
        words.append(f"kNN accuracy {100 * quality.knn_accuracy:.1f}%")
    return ", ".join(words)


def draw_features(
    config: FeaturesConfig,
    dataset: Any,  # noqa: ANN401 - a sequence of scans with class_names
    backbone: NamedBackbone,
    *,
    device: torch.device,
    title: str = "features",
) -> Drawn:
    """Draw points of scans, labelled ones where there are labels, and compute their features.

    What is drawn follows from the seed; features are those that an evaluation sees.
    """

    def of_scan(scan: Scan, rng: np.random.Generator) -> Drawn:
        sample = sample_to_score(scan, dataset, backbone, voxel_size=config.voxel_size)
        labels = torch.full((len(sample.xyz),), -1) if sample.labels is None else sample.labels
        candidates = (labels >= 0).nonzero().flatten()
        if not len(candidates):
            candidates = torch.arange(len(labels))
        chosen = candidates[_draw(len(candidates), config.points_per_scan, rng)]
        return Drawn(_features(backbone, sample, device)[chosen], labels[chosen])

    parts = list(_each_scan(config, dataset, of_scan, title=title))
    return Drawn(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _measure(
    config: FeaturesConfig,
    drawn: Drawn,
    known: Drawn,
    val: Any,  # noqa: ANN401
    backbone: NamedBackbone,
    *,
    device: torch.device,
) -> Quality:
    def of_scan(scan: Scan, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        return _paired_features(config, scan, rng, val, backbone, device=device)

    pairs = list(_each_scan(config, val, of_scan, title="features of two views"))
    query, key = (torch.cat(column) for column in zip(*pairs, strict=True))
    hits = _knn_hits(config, drawn, known, val.num_classes, device=device)
    by_class = {
        name: float(hits[drawn.labels == label].float().mean())
        for label, name in enumerate(val.class_names)
        if len(hits) and (drawn.labels == label).any()
    }
    dim = drawn.feat.shape[1]
    return Quality(
        alignment=_number(2 - 2 * alignment_score(query, key)),
        uniformity=_number(uniformity_score(drawn.feat.to(device))),
        effective_rank=_number(effective_rank(drawn.feat)),
        out_dim=dim,
        spread=_number(feature_spread(drawn.feat) * math.sqrt(dim)),
        knn_accuracy=_number(hits[drawn.labels >= 0].float().mean()) if by_class else None,
        knn_class_accuracy=sum(by_class.values()) / len(by_class) if by_class else None,
        knn_by_class=by_class,
        num_points=len(drawn.feat),
        num_scans=len(pairs),
    )


def _knn_hits(
    config: FeaturesConfig, drawn: Drawn, known: Drawn, num_classes: int, *, device: torch.device
) -> Tensor:
    """Whether each point's class is found; nothing if one side has no labels."""
    labelled = known.labels >= 0
    if not labelled.any() or not (drawn.labels >= 0).any():
        return torch.zeros(0, dtype=torch.bool)
    found = nearest_classes(
        drawn.feat.to(device),
        known.feat[labelled].to(device),
        known.labels[labelled].to(device),
        num_classes=num_classes,
        num_neighbors=config.num_neighbors,
    )
    return found.cpu() == drawn.labels


def _paired_features(
    config: FeaturesConfig,
    scan: Scan,
    rng: np.random.Generator,
    dataset: Any,  # noqa: ANN401
    backbone: NamedBackbone,
    *,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Features of the same points in two views."""
    network = backbone.network
    size = resolve_voxel_size(config.voxel_size, backbone)
    thinned = scan.select(first_of_voxels(scan, size, from_origin=network.voxel_size is not None))
    thinned = dataclasses.replace(thinned, boxes=None, cameras=())
    arguments = input_arguments(dataset, backbone)
    box = arguments.pop("box")
    feats, indices = [], []
    for _ in range(2):
        view = make_view(thinned, rng, VIEWS[config.augmentation])
        inside = np.ones(len(view), bool) if box is None else inside_box(view.scan, box)
        seen = view.scan.select(inside)
        indices.append(view.index[inside])
        sample = to_input(Augmented(seen=seen, felt=seen), **arguments, box=None)
        feats.append(_features(backbone, sample, device))
    _, *places = np.intersect1d(*indices, assume_unique=True, return_indices=True)
    chosen = _draw(len(places[0]), config.points_per_scan, rng)
    query, key = (
        feat[torch.from_numpy(place[chosen])] for feat, place in zip(feats, places, strict=True)
    )
    return query, key


def _each_scan(
    config: FeaturesConfig,
    dataset: Any,  # noqa: ANN401
    work: Callable[[Scan, np.random.Generator], Any],
    *,
    title: str,
) -> Iterator[Any]:
    """Do something with each scan that is drawn, with random numbers of its own."""
    report = progress_line(title)
    chosen = epoch_order(config.seed, 0, len(dataset))[: config.num_scans].tolist()
    for done, index in enumerate(chosen, start=1):
        yield work(dataset[index], sample_rng(config.seed, 0, index))
        report(done, len(chosen))


@torch.inference_mode()
def _features(backbone: NamedBackbone, sample: PointBatch, device: torch.device) -> Tensor:
    batch = sample.to(device)
    feat = backbone.network(batch.xyz, batch.feat, batch.batch, neighbors=batch.neighbors)
    return feat.float().cpu()


def _draw(num: int, at_most: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.permutation(num)[:at_most])


def _labelled_if_any(dataset: Any) -> Any:  # noqa: ANN401
    """The scans with labels where a dataset says which these are and has some."""
    knows = getattr(dataset, "labelled", None)
    return labelled_scans(dataset) if knows is not None and len(knows()) else dataset


def _number(value: Tensor) -> float | None:
    """A plain number that JSON can hold."""
    return float(value) if value.isfinite() else None
