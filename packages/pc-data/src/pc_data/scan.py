"""One LiDAR or RGB-D scan as plain arrays, with the cameras that saw it."""

import dataclasses
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from pc_data.errors import DataError
from pc_data.files.image_files import opened_image


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A calibrated image of the scan; its pixels are decoded only on request.

    Attributes:
        name: The sensor's name in its dataset, e.g. `CAM_FRONT`.
        image_file: The JPEG or PNG, or the table that holds it among others.
        image_size: (width, height) in pixels.
        intrinsics: Camera matrix K, in pixels of an image of that size.
        from_scan: Camera-from-scan, metres; the camera looks along +z, x right, y down. Affine
            rather than rigid, so that it stays true when the scan is flipped or scaled.
        load_bytes: Fetches the JPEG or PNG out of a table; None where the file itself is one.
            Picklable, so that the camera can go to a worker.
    """

    name: str
    image_file: Path
    image_size: tuple[int, int]
    intrinsics: Float64[np.ndarray, "3 3"]
    from_scan: Float64[np.ndarray, "4 4"]
    load_bytes: Callable[[], bytes] | None = None

    def load_image(self, *, at_least: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """Decode the image as RGB.

        Args:
            at_least: (width, height) that will do. A JPEG is then decoded at 1/2, 1/4 or 1/8 of
                its size, each pixel the mean of those it replaces, if that divides both sides and
                stays as large: a pixel position scales with the size of what is returned.

        Raises:
            DataError: If the file is missing, does not decode, or has another size.
        """
        if not self.image_file.is_file():
            raise DataError(
                f"{self.image_file}: image file is missing; restore it or drop the scan"
            )
        encoded = self.image_file if self.load_bytes is None else io.BytesIO(self.load_bytes())
        try:
            with opened_image(encoded) as image:
                self._check_size(image.size)  # before its pixels take memory
                if at_least is not None:
                    image.draft("RGB", _reduced_size(image.size, at_least))
                return np.asarray(image.convert("RGB"))
        except DataError:
            raise
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.image_file}: image does not decode ({error}); fetch the file again"
            ) from error

    def _check_size(self, size: tuple[int, int]) -> None:
        if size != tuple(self.image_size):
            raise DataError(
                f"{self.image_file}: image is {size[0]}x{size[1]} pixels but its calibration is "
                f"for {self.image_size[0]}x{self.image_size[1]}; use the original image"
            )


def _reduced_size(size: tuple[int, int], at_least: tuple[int, int]) -> tuple[int, int]:
    """The smallest exact fraction of `size` that a JPEG decodes to and that is large enough."""
    for factor in (8, 4, 2):
        width, height = size[0] // factor, size[1] // factor
        exact = size[0] % factor == size[1] % factor == 0
        if exact and width >= at_least[0] and height >= at_least[1]:
            return width, height
    return size


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Objects of a scan as boxes that are turned about the vertical axis only.

    Attributes:
        cuboid: Centre x, y, z, then length (along the heading), width and height in metres, then
            the heading in radians, counter-clockwise from +x; all in the scan's frame. The order
            of `pc_geometry.boxes`.
        labels: Class of each box, an index into the reader's `box_class_names`, -1 = none of them.
        track: Name of the object that a box is of, the same in every scan that shows it; empty
            where the dataset does not say.
    """

    cuboid: Float64[np.ndarray, "k 7"]
    labels: Int64[np.ndarray, " k"]
    track: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.cuboid)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Points of one moment in one frame, and what is known of each.

    Attributes:
        name: Unique within its dataset, readable (e.g. the sample token or `08/000123`).
        xyz: Points in metres, in the sensor frame unless a reader says otherwise.
        intensity: Return strength, in the dataset's own unit.
        color: RGB in 0..1.
        normal: Unit surface normals.
        labels: Training class of each point, -1 = ignored.
        instance: Object of each point, 0 = none.
        time: Seconds before the scan's timestamp, where points of earlier sweeps are among them.
        boxes: The objects as boxes.
        cameras: The images taken with the scan.
        pose: World-from-scan.
        timestamp: Seconds.
    """

    name: str
    xyz: Float32[np.ndarray, "n 3"]
    intensity: Float32[np.ndarray, " n"] | None = None
    color: Float32[np.ndarray, "n 3"] | None = None
    normal: Float32[np.ndarray, "n 3"] | None = None
    labels: Int64[np.ndarray, " n"] | None = None
    instance: Int64[np.ndarray, " n"] | None = None
    time: Float32[np.ndarray, " n"] | None = None
    boxes: Boxes | None = None
    cameras: tuple[Camera, ...] = ()
    pose: Float64[np.ndarray, "4 4"] | None = None
    timestamp: float = 0.0

    def __len__(self) -> int:
        return len(self.xyz)

    def select(self, keep: Int64[np.ndarray, " m"] | Bool[np.ndarray, " n"]) -> "Scan":
        """Keep some points, given by index (in that order) or by mask; cameras and boxes stay."""
        per_point = ("xyz", "intensity", "color", "normal", "labels", "instance", "time")
        kept = {
            name: value[keep] for name in per_point if (value := getattr(self, name)) is not None
        }
        return dataclasses.replace(self, **kept)

    def camera(self, name: str) -> Camera:
        """Return the camera of that name.

        Raises:
            DataError: If the scan has no such camera.
        """
        for camera in self.cameras:
            if camera.name == name:
                return camera
        known = ", ".join(camera.name for camera in self.cameras) or "none"
        raise DataError(f"scan {self.name} has no camera {name!r}; it has: {known}")
