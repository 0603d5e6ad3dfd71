"""Classes without labels or downloads: clusters of the offline teacher's features."""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from pc_2dteachers.catalog import OFFLINE_CLUSTERS, OFFLINE_TEACHER
from pc_2dteachers.segmenter import Segmenter, argmax_resized, pad_to_stride
from pc_2dteachers.spherical import spherical_kmeans
from pc_2dteachers.teacher import Teacher, check_image
from pc_2dteachers.zoo import create_teacher

_TENSORS = ("centroids", "mean")


class ClusterSegmentation(nn.Module):
    """Each pixel's class is the cluster whose centroid its feature points to.

    Features are taken from their mean over the dataset, or all would point much the same way.
    Similarities, not features, are brought to the image's size, bilinearly.

    Attributes:
        teacher: The offline teacher.
        centroids: Unit vectors.
        mean: Of the features that the clusters were fitted to.
    """

    centroids: Tensor
    mean: Tensor

    def __init__(
        self, teacher: Teacher, centroids: Float[Tensor, "k c"], mean: Float[Tensor, " c"]
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.register_buffer("centroids", centroids)
        self.register_buffer("mean", mean)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Int64[Tensor, "b h w"]:
        """Return the cluster of each pixel."""
        maps, (rows, columns), size = _dense_features(self.teacher, images)
        unit = functional.normalize(maps - self.mean[:, None, None], dim=1)
        similarity = torch.einsum("bcyx,kc->bkyx", unit, self.centroids)
        return argmax_resized(similarity, size)[:, rows, columns]


def fit_clusters(
    images: Iterable[Float[Tensor, "b 3 h w"]],
    *,
    num_clusters: int = 32,
    max_samples: int = 100_000,
    max_iterations: int = 100,
    seed: int = 0,
) -> Segmenter:
    """Cluster the offline teacher's features of a whole dataset, so that classes are the same.

    All cells of all images have the same chance to be among the samples, of which no more than
    some `max_samples` are ever held: memory does not grow with the dataset.

    Args:
        images: Batches in 0..1, of the size at which the segmenter will be used; read once. The
            teacher looks at them on the device they are on.
        num_clusters: How many classes.
        max_samples: Features that are clustered.
        max_iterations: See `spherical_kmeans`.
        seed: Of the samples and the clusters.

    Returns:
        A segmenter on the CPU, to be kept with `save_clusters`.

    Raises:
        ValueError: If images are of another type, range or shape, there are fewer cells than
            clusters, or a setting is out of range.
        FileNotFoundError: If the offline teacher is not installed.
    """
    if max_samples < num_clusters:
        raise ValueError(
            f"max_samples must be at least num_clusters ({num_clusters}), got {max_samples}"
        )
    teacher = create_teacher(OFFLINE_TEACHER)
    features = _sample_cells(teacher, images, max_samples, seed)
    mean = features.mean(dim=0)
    unit = functional.normalize(features - mean, dim=1)
    centroids = spherical_kmeans(unit, num_clusters, max_iterations=max_iterations, seed=seed)
    return _as_segmenter(teacher.cpu(), centroids, mean)


def save_clusters(segmenter: Segmenter, file: str | os.PathLike[str]) -> None:
    """Keep the clusters that `fit_clusters` found in a safetensors file, whole or not at all.

    File and folder are flushed to disk.

    Raises:
        ValueError: If the segmenter is another one.
    """
    network = segmenter.network
    if not isinstance(network, ClusterSegmentation):
        raise ValueError(f"only {OFFLINE_CLUSTERS} has clusters to be saved, got {segmenter.name}")
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    tensors = {"centroids": network.centroids.contiguous(), "mean": network.mean.contiguous()}
    try:
        save_file(tensors, temporary, metadata={"teacher": network.teacher.name})
        _flush(temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    _flush(file.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_clusters(file: str | os.PathLike[str] | None) -> Segmenter:
    """Read what `save_clusters` wrote.

    Raises:
        FileNotFoundError: If there is no such file, or the offline teacher is not installed.
        ValueError: If it holds something else; names the file and the tensor.
    """
    if file is None or not Path(file).is_file():
        where = "" if file is None else f"{file} is no file: "
        raise FileNotFoundError(
            f"{where}{OFFLINE_CLUSTERS} needs the clusters of a dataset as checkpoint; "
            "fit_clusters finds them and save_clusters keeps them"
        )
    try:
        with safe_open(file, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            by = (content.metadata() or {}).get("teacher")
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file}: is no whole safetensors file ({reason}); fit it anew") from error
    if sorted(tensors) != list(_TENSORS) or by != OFFLINE_TEACHER:
        raise ValueError(
            f"{file}: must hold {' and '.join(_TENSORS)} of {OFFLINE_TEACHER}, got "
            f"{', '.join(sorted(tensors)) or 'nothing'} of {by or 'no teacher'}; fit it anew"
        )
    teacher = create_teacher(OFFLINE_TEACHER)
    centroids, mean = (tensors[name].float() for name in _TENSORS)
    if centroids.ndim != 2 or centroids.shape[1] != teacher.out_dim or not len(centroids):
        raise ValueError(
            f"{file}: centroids must be [k, {teacher.out_dim}], got {list(centroids.shape)}; "
            "fit it anew"
        )
    if mean.shape != (teacher.out_dim,):
        raise ValueError(
            f"{file}: mean must be [{teacher.out_dim}], got {list(mean.shape)}; fit it anew"
        )
    return _as_segmenter(teacher, centroids, mean)


def _as_segmenter(teacher: Teacher, centroids: Tensor, mean: Tensor) -> Segmenter:
    names = [f"cluster {index}" for index in range(len(centroids))]
    network = ClusterSegmentation(teacher, centroids, mean)
    return Segmenter(network, name=OFFLINE_CLUSTERS, class_names=names)


def _dense_features(
    teacher: Teacher, images: Tensor
) -> tuple[Tensor, tuple[slice, slice], tuple[int, int]]:
    """The map of padded images, where the images lie in them, and the padded size."""
    padded, inside = pad_to_stride(teacher.normalize(images), teacher.stride)
    height, width = padded.shape[2:]
    return teacher.read(teacher.network, padded), inside, (height, width)


@torch.no_grad()
def _sample_cells(
    teacher: Teacher, images: Iterable[Tensor], max_samples: int, seed: int
) -> Tensor:
    """Features of cells drawn evenly from all: those with the smallest of random keys."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.zeros(0, teacher.out_dim)
    keys = torch.zeros(0, dtype=torch.float64)
    for batch in images:
        check_image(batch, name=OFFLINE_CLUSTERS, stride=1)
        maps, _, _ = _dense_features(teacher.to(batch.device), batch)
        cells = maps.permute(0, 2, 3, 1).flatten(0, 2).cpu()
        keys = torch.cat([keys, torch.rand(len(cells), generator=generator, dtype=torch.float64)])
        kept = torch.cat([kept, cells])
        if len(keys) > max_samples:
            keys, order = keys.topk(max_samples, largest=False)
            kept = kept[order]
    return kept
