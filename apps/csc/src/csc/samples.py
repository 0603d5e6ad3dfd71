"""The input: a cloud, crops of its images, and the superpixels that join points and pixels."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from pc_data import augment
from pc_data.augment import Box
from pc_data.augment.image_crops import ImageCrop, crop_image, crop_map, whole_image
from pc_data.augment.pairs import PixelPairs, pair_pixels, resize_paired
from pc_data.augment.views import PairedView, slidr_view
from pc_data.batch import Movable, PointBatch, pack, to_batch
from pc_data.errors import DataError
from pc_data.features import point_features
from pc_data.images import resize_image
from pc_data.scan import Camera, Scan
from torch import Tensor

ReadSuperpixels = Callable[[Scan, Camera], Int32[np.ndarray, "h w"]]
"""Superpixel of each pixel of an image, -1 = none."""


@dataclass(frozen=True, kw_only=True)
class SuperpixelBatch(Movable):
    """Scans with their images, and the superpixels that points fall on.

    Superpixels are numbered through the whole batch, image by image; each has a point at least.
    Without superpixels there are pairs alone.

    Attributes:
        points: The clouds.
        images: Of all cameras of all scans, in 0..1.
        superpixel: Of each pixel, -1 = none or one without a point.
        pair_point: Point of each pair of a point and a pixel.
        pair_superpixel: Superpixel of each pair; -1 without superpixels.
        pixel: (u, v) of each pair.
        image_index: Image of each pair.
        superpixel_class: Class of each superpixel, -1 = none is known.
    """

    points: PointBatch
    images: Float[Tensor, "i 3 h w"]
    superpixel: Int32[Tensor, "i h w"]
    pair_point: Int64[Tensor, " p"]
    pair_superpixel: Int64[Tensor, " p"]
    pixel: Float[Tensor, "p 2"]
    image_index: Int64[Tensor, " p"]
    superpixel_class: Int64[Tensor, " s"]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each scan."""
        return self.points.names

    def __len__(self) -> int:
        return len(self.points)

    @classmethod
    def pack(cls, samples: Sequence["SuperpixelBatch"]) -> "SuperpixelBatch":
        """Join samples end to end; points, images and superpixels are renumbered."""
        points = _starts(len(sample.points.xyz) for sample in samples)
        images = _starts(len(sample.images) for sample in samples)
        superpixels = _starts(len(sample.superpixel_class) for sample in samples)

        def join(field: str, shifts: Sequence[int] | None = None) -> Tensor:
            parts = [getattr(sample, field) for sample in samples]
            if shifts is not None:  # -1 stays
                parts = [
                    torch.where(part < 0, part, part + shift)
                    for part, shift in zip(parts, shifts, strict=True)
                ]
            return torch.cat(parts)

        return cls(
            points=pack([sample.points for sample in samples]),
            images=join("images"),
            superpixel=join("superpixel", superpixels),
            pair_point=join("pair_point", points),
            pair_superpixel=join("pair_superpixel", superpixels),
            pixel=join("pixel"),
            image_index=join("image_index", images),
            superpixel_class=join("superpixel_class"),
        )


def make_pairs(
    scan: Scan,
    rng: np.random.Generator,
    *,
    features: Sequence[str],
    intensity_mean: float,
    intensity_std: float,
    read_superpixels: ReadSuperpixels | None,
    has_classes: bool = True,
    box: Box | None = None,
    num_neighbors: int = 0,
    image_size: tuple[int, int] = (224, 416),
    min_depth: float = 1.0,
    augmented: bool = True,
) -> SuperpixelBatch:
    """Make a sample of one scan.

    Args:
        scan: With cameras.
        rng: Draws the augmentations.
        features: Input of the network.
        intensity_mean: Of the dataset.
        intensity_std: Of the dataset.
        read_superpixels: Gives those of an image; None for pairs alone.
        has_classes: Whether a superpixel's number means the same in every image: its class.
        box: Field of view of the network, which augmented points must lie in; None for any.
        num_neighbors: For the network.
        image_size: (height, width) in pixels of the crops.
        min_depth: Metres in front of a camera from which on a point counts as seen.
        augmented: Turn and mirror the cloud, drop a cuboid, crop and mirror the images; else whole
            images are resized, as for prototypes.

    Raises:
        DataError: If no point falls on a superpixel, or an image or its superpixels are damaged.

    Source: SLidR (Sautier et al., CVPR 2022) and CSC (Chen et al., CVPR 2024), released code: pairs
        without a superpixel go before anything else.
    """
    pairs = pair_pixels(scan, min_depth=min_depth)
    maps = [read_superpixels(scan, camera) for camera in scan.cameras] if read_superpixels else None
    if maps is not None:
        pairs = pairs.select(_read_maps(maps, pairs) >= 0)
    view = _view(scan, pairs, rng, image_size, box, augmented=augmented)
    what = "is seen by a camera" if maps is None else "falls on a superpixel"
    _require_pairs(view.pairs, scan, what)
    images = torch.stack(
        [
            resize_image(crop_image(camera.load_image(), crop), image_size)
            for camera, crop in zip(scan.cameras, view.crops, strict=True)
        ]
    )
    if maps is None:
        number = np.full((len(images), *image_size), -1)
        pairs, of_pair, classes = view.pairs, np.full(len(view.pairs), -1), np.empty(0, np.int64)
    else:
        cropped = [
            crop_map(one, crop, image_size) for one, crop in zip(maps, view.crops, strict=True)
        ]
        number, pairs, of_pair, classes = number_superpixels(np.stack(cropped), view.pairs)
    _require_pairs(pairs, scan, what)  # small superpixels may have got lost in the crops
    kept = dataclasses.replace(view.scan, labels=None)
    feat = point_features(
        kept, features, intensity_mean=intensity_mean, intensity_std=intensity_std
    )
    return SuperpixelBatch(
        points=to_batch(kept, feat, num_neighbors=num_neighbors),
        images=images,
        superpixel=torch.from_numpy(number.astype(np.int32)),
        pair_point=torch.from_numpy(pairs.point),
        pair_superpixel=torch.from_numpy(of_pair.astype(np.int64)),
        pixel=torch.from_numpy(pairs.pixel),
        image_index=torch.from_numpy(pairs.image_index),
        superpixel_class=torch.from_numpy(classes if has_classes else np.full_like(classes, -1)),
    )


def number_superpixels(
    maps: Int32[np.ndarray, "i h w"], pairs: PixelPairs
) -> tuple[
    Int64[np.ndarray, "i h w"], PixelPairs, Int64[np.ndarray, " p"], Int64[np.ndarray, " s"]
]:
    """Number the superpixels that have a point, through all images.

    Args:
        maps: Superpixel of each pixel of the crops, -1 = none.
        pairs: Points and pixels of the crops.

    Returns:
        The maps renumbered, -1 where there is none or it has no point; the pairs that are on a
        superpixel, the number of theirs; and what each number was called in its image.
    """
    own = _read_maps(maps, pairs)
    pairs, own = pairs.select(own >= 0), own[own >= 0]
    width = int(maps.max(initial=-1)) + 1
    found, of_pair = np.unique(pairs.image_index * width + own, return_inverse=True)
    number = np.full(len(maps) * width + 1, -1)  # the last one is for none
    number[found] = np.arange(len(found))
    row = np.arange(len(maps))[:, None, None] * width + maps
    return number[np.where(maps < 0, -1, row)], pairs, of_pair, found % max(width, 1)


def _view(
    scan: Scan,
    pairs: PixelPairs,
    rng: np.random.Generator,
    size: tuple[int, int],
    box: Box | None,
    *,
    augmented: bool,
) -> PairedView:
    """The cloud and the crops, without the points that the network does not see."""
    if augmented:
        view = slidr_view(scan, pairs, rng, size=size)
    else:
        sizes = [camera.image_size for camera in scan.cameras]
        crops: tuple[ImageCrop, ...] = tuple(whole_image(one) for one in sizes)
        view = PairedView(scan=scan, pairs=resize_paired(pairs, sizes, size=size), crops=crops)
    if box is None:
        return view
    inside = augment.inside_box(view.scan, box)
    return dataclasses.replace(view, scan=view.scan.select(inside), pairs=view.pairs.follow(inside))


def _require_pairs(pairs: PixelPairs, scan: Scan, what: str) -> None:
    if not len(pairs):
        raise DataError(
            f"scan {scan.name}: no point {what} in the field of view; check the calibration, the "
            "units (metres) and the images"
        )


def _read_maps(maps: Sequence[np.ndarray] | np.ndarray, pairs: PixelPairs) -> np.ndarray:
    """What maps say at the pixels of pairs, rounded."""
    value = np.full(len(pairs), -1)
    for index, one in enumerate(maps):
        mine = np.flatnonzero(pairs.image_index == index)
        column, row = np.round(pairs.pixel[mine]).astype(np.int64).T
        value[mine] = one[row.clip(0, one.shape[0] - 1), column.clip(0, one.shape[1] - 1)]
    return value


def _starts(lengths: Any) -> list[int]:  # noqa: ANN401
    return np.cumsum([0, *lengths])[:-1].tolist()
