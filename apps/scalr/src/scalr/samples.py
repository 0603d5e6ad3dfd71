"""ScaLR's input: the points that one random camera sees, and that camera's image."""

import numpy as np
from pc_data import augment
from pc_data.augment import Box
from pc_data.batch import PointBatch, to_batch
from pc_data.errors import DataError
from pc_data.features import point_features
from pc_data.images import resize_image, resize_pixels
from pc_data.scan import Scan

_DRAWS = 10
"""How often a camera is drawn until it sees a point in the field of view."""


def make_pair(
    scan: Scan,
    rng: np.random.Generator,
    *,
    intensity_mean: float,
    intensity_std: float,
    min_depth: float,
    min_x: float,
    box: Box,
    image_size: tuple[int, int] = (224, 448),
    antialias: bool = False,
    voxel_size: float = 0.1,
    max_points: int = 20_000,
    num_neighbors: int = 16,
) -> PointBatch:
    """Make a training sample of one scan.

    Args:
        scan: With cameras.
        rng: Draws the camera and the augmentation.
        intensity_mean: Of the dataset.
        intensity_std: Of the dataset.
        min_depth: Metres in front of a camera from which on a point counts as seen.
        min_x: Metres along the scan's x axis from which on a point counts as seen.
        box: Field of view: lower and upper corner in metres.
        image_size: (height, width) in pixels.
        antialias: Low-pass the image before resizing.
        voxel_size: Metres; one random point of each voxel stays.
        max_points: The nearest to a random point stay.
        num_neighbors: For the backbone.

    Raises:
        DataError: If no camera sees a point in the box, or the image is damaged.

    Source: ScaLR (Puy et al., CVPR 2024), Sec. 4.1, in the order of its released code; that code
        scales the coordinates in pre-training too, which the paper does not say.
    """
    scan = augment.thin(scan, rng, voxel_size=voxel_size)
    for _ in range(_DRAWS):
        view = augment.see_one_camera(scan, rng, min_depth=min_depth, min_x=min_x)
        view = augment.crop_nearest(view, rng, max_points=max_points)
        (camera,) = view.cameras
        pixel = augment.pixels_of(view, camera)  # before rounding can move a point off the image
        for move in (augment.rotate_z, augment.flip, augment.scale):
            view = move(view, rng)
        inside = augment.inside_box(view, box)
        if inside.any():
            break
    else:
        raise DataError(
            f"scan {scan.name}: in {_DRAWS} draws no camera saw a point in the field of view "
            f"{box[0]} to {box[1]} m; check the units (metres), or widen fov"
        )
    view = view.select(inside)
    height, width = image_size
    image = camera.load_image(at_least=(width, height))
    return to_batch(
        view,
        point_features(view, intensity_mean=intensity_mean, intensity_std=intensity_std),
        num_neighbors=num_neighbors,
        image=resize_image(image, image_size, antialias=antialias),
        pixel=resize_pixels(pixel[inside], camera.image_size, image_size),
    )
