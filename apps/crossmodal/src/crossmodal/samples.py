"""The input: an augmented cloud or two, the images, and the units that join them."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from pc_data import augment
from pc_data.augment import Box
from pc_data.augment.pairs import PixelPairs, pair_pixels
from pc_data.augment.presets import crossmodal_view, run
from pc_data.batch import Movable, PointBatch, need, pack, to_batch
from pc_data.errors import DataError
from pc_data.features import point_features
from pc_data.images import resize_image, resize_pixels
from pc_data.scan import Scan
from pc_geometry import segment_ground
from pc_geometry.units import Units, contrastive_units
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Bags(Movable):
    """Weighted means over rows: of bag i those from `starts[i]` to that of the next.

    Attributes:
        rows: What is averaged.
        weight: Of each row; those of a bag sum to 1.
        starts: Where each bag begins.
    """

    rows: Int64[Tensor, " r"]
    weight: Float[Tensor, " r"]
    starts: Int64[Tensor, " b"]

    def mean(self, values: Float[Tensor, "n c"]) -> Float[Tensor, "b c"]:
        """Average the rows of each bag."""
        return torch.nn.functional.embedding_bag(
            self.rows,
            values,
            self.starts,
            mode="sum",
            per_sample_weights=self.weight.to(values.dtype),
        )

    @classmethod
    def join(cls, bags: Sequence["Bags"], num_rows: Sequence[int]) -> "Bags":
        """Lay bags end to end, over values laid end to end."""
        first_row = np.cumsum([0, *num_rows]).tolist()
        first = np.cumsum([0, *(len(bag.rows) for bag in bags)]).tolist()
        return cls(
            rows=torch.cat([bag.rows + row for bag, row in zip(bags, first_row, strict=False)]),
            weight=torch.cat([bag.weight for bag in bags]),
            starts=torch.cat([bag.starts + at for bag, at in zip(bags, first, strict=False)]),
        )


@dataclass(frozen=True, kw_only=True)
class UnitBatch(Movable):
    """Scans with their units, packed.

    Attributes:
        points: The augmented cloud of each scan.
        other: The same points, augmented by other draws; for contrast within the modality.
        images: Those of all cameras of all scans, in 0..1; None without images.
        pixel: (u, v) of each read of an image.
        image_index: Image of each read.
        point_bags: Points of each unit.
        pixel_bags: Reads of each unit: a mean over the cameras of a point, then over points.
        unit_scan: Scan of each unit.
    """

    points: PointBatch
    other: PointBatch | None
    images: Float[Tensor, "i 3 h w"] | None
    pixel: Float[Tensor, "p 2"]
    image_index: Int64[Tensor, " p"]
    point_bags: Bags
    pixel_bags: Bags
    unit_scan: Int64[Tensor, " b"]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each scan."""
        return self.points.names

    def __len__(self) -> int:
        return len(self.points)

    def need(self, field: str) -> Any:  # noqa: ANN401
        """Return `other` or `images`.

        Raises:
            ValueError: If the batch does not have it.
        """
        return need(self, field)

    @classmethod
    def pack(cls, samples: Sequence["UnitBatch"]) -> "UnitBatch":
        """Join samples end to end; everything that counts rows is shifted."""
        images = [sample.images for sample in samples if sample.images is not None]
        first_image = np.cumsum([0, *(len(part) for part in images)]).tolist()
        first_scan = np.cumsum([0, *(len(sample) for sample in samples)]).tolist()
        others = [sample.other for sample in samples if sample.other is not None]
        return cls(
            points=pack([sample.points for sample in samples]),
            other=pack(others) if others else None,
            images=torch.cat(images) if images else None,
            pixel=torch.cat([sample.pixel for sample in samples]),
            image_index=torch.cat(
                [sample.image_index + at for sample, at in zip(samples, first_image, strict=False)]
                if images
                else [sample.image_index for sample in samples]
            ),
            point_bags=Bags.join(
                [sample.point_bags for sample in samples],
                [len(sample.points.xyz) for sample in samples],
            ),
            pixel_bags=Bags.join(
                [sample.pixel_bags for sample in samples],
                [len(sample.pixel) for sample in samples],
            ),
            unit_scan=torch.cat(
                [sample.unit_scan + at for sample, at in zip(samples, first_scan, strict=False)]
            ),
        )


def make_units(
    scan: Scan,
    rng: np.random.Generator,
    *,
    features: Sequence[str],
    intensity_mean: float,
    intensity_std: float,
    box: Box | None,
    find_units: Callable[..., Units] = contrastive_units,
    sensor_height: float = 0.0,
    min_depth: float = 1.0,
    scale: tuple[float, float] = (0.8, 1.25),
    image_size: tuple[int, int] = (320, 480),
    with_images: bool = True,
    with_other: bool = False,
) -> UnitBatch:
    """Make a training sample of one scan.

    Args:
        scan: With cameras, in a frame with z up.
        rng: Draws the augmentation and the first unit.
        features: Input of the network.
        intensity_mean: Of the dataset.
        intensity_std: Of the dataset.
        box: Field of view of the network, which augmented points must lie in; None for any.
        find_units: `contrastive_units` with its values.
        sensor_height: Of the scan's origin above the ground, metres.
        min_depth: Metres in front of a camera from which on a point counts as seen.
        scale: Range of the factor of an augmented cloud.
        image_size: (height, width) in pixels that images are resized to.
        with_images: Decode the images.
        with_other: Augment the cloud a second time.

    Raises:
        DataError: If no point off the ground is seen by a camera within the box, or an image is
            damaged.

    Source: cross-modal contrastive units (Cai et al., 2024), Sec. II. Units are found on the scan
        as recorded; rotation, scaling and flips follow, and pixels stay those of their points.
    """
    pairs = pair_pixels(scan, min_depth=min_depth)
    ground = segment_ground(scan.xyz, sensor_height=sensor_height)
    steps = crossmodal_view(low=scale[0], high=scale[1])
    views = [run(steps, scan, rng) for _ in range(1 + with_other)]
    inside = np.ones(len(scan), bool)
    for view in views:
        inside &= augment.inside_box(view, box) if box is not None else True
    pairs = pairs.follow(inside)
    visible = np.zeros(int(inside.sum()), bool)
    visible[pairs.point] = True
    units = find_units(scan.xyz[inside], visible, ground=ground[inside], rng=rng)
    if not len(units):
        raise DataError(
            f"scan {scan.name}: no point off the ground is seen by a camera in the field of view; "
            "check the calibration, the units (metres) and sensor_height"
        )
    pairs = pairs.select(np.isin(pairs.point, units.indices))
    clouds = []
    for view in views:
        kept = dataclasses.replace(view.select(inside), labels=None)
        feat = point_features(
            kept, features, intensity_mean=intensity_mean, intensity_std=intensity_std
        )
        clouds.append(to_batch(kept, feat, num_neighbors=0))
    pixel, images = _read_images(scan, pairs, image_size, with_images=with_images)
    return UnitBatch(
        points=clouds[0],
        other=clouds[1] if with_other else None,
        images=images,
        pixel=pixel,
        image_index=torch.from_numpy(pairs.image_index),
        point_bags=_bags(units.indices, units.weight, units.splits),
        pixel_bags=_pixel_bags(units, pairs, len(visible)),
        unit_scan=torch.zeros(len(units), dtype=torch.long),
    )


def _read_images(
    scan: Scan, pairs: PixelPairs, size: tuple[int, int], *, with_images: bool
) -> tuple[Tensor, Tensor | None]:
    """Pixels in the resized images, and those images."""
    pixel = np.empty((len(pairs), 2), np.float32)
    images = []
    for index, camera in enumerate(scan.cameras):
        mine = pairs.image_index == index
        pixel[mine] = resize_pixels(pairs.pixel[mine], camera.image_size, size)
        if with_images:
            images.append(resize_image(camera.load_image(at_least=size[::-1]), size))
    return torch.from_numpy(pixel), torch.stack(images) if images else None


def _bags(rows: np.ndarray, weight: np.ndarray, splits: np.ndarray) -> Bags:
    return Bags(
        rows=torch.from_numpy(rows),
        weight=torch.from_numpy(weight.astype(np.float32)),
        starts=torch.from_numpy(splits[:-1].astype(np.int64)),
    )


def _pixel_bags(units: Units, pairs: PixelPairs, num_points: int) -> Bags:
    """The reads of each unit: every point's weight is shared by the cameras that see it."""
    order = np.argsort(pairs.point, kind="stable")
    num_reads = np.bincount(pairs.point, minlength=num_points)
    first = np.cumsum(num_reads) - num_reads
    reads = num_reads[units.indices]
    starts = np.cumsum(reads) - reads
    within = np.arange(reads.sum()) - np.repeat(starts, reads)
    rows = order[np.repeat(first[units.indices], reads) + within]
    weight = np.repeat(units.weight / reads, reads)
    splits = np.append(0, np.cumsum(reads))[units.splits]
    return _bags(rows, weight, splits)
