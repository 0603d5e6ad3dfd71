"""The pickled tables of one PandaSet frame: points, their classes, and cuboids."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pc_data.errors import DataError
from pc_data.files.frames import read_frame
from pc_data.readers.pandaset_classes import box_class

_FARTHEST = 1e6  # metres from the start of a drive


@dataclass(frozen=True, kw_only=True)
class Returns:
    """The points of a frame, of both sensors.

    Attributes:
        xyz: Metres in the world's frame.
        intensity: 0 to 255.
        time: Seconds.
        sensor: 0 = Pandar64, 1 = PandarGT.
    """

    xyz: Float64[np.ndarray, "n 3"]
    intensity: Float64[np.ndarray, " n"]
    time: Float64[np.ndarray, " n"]
    sensor: Int64[np.ndarray, " n"]


@dataclass(frozen=True, kw_only=True)
class Cuboids:
    """The boxes of a frame in the world's frame.

    A moving object that both sensors see has two of them, because they do not fire at the same
    time; each holds the points of its own sensor.

    Attributes:
        cuboid: x, y, z of the centre, length, width, height, and the heading counter-clockwise
            from +x.
        labels: Index into `BOX_CLASS_NAMES`, -1 = none of them.
        uuid: Name of the object.
        sensor: The sensor whose points the box holds: 0, 1, or -1 for both.
        twin: Row of the other sensor's box of the same object, -1 = none.
    """

    cuboid: Float64[np.ndarray, "k 7"]
    labels: Int64[np.ndarray, " k"]
    uuid: tuple[str, ...]
    sensor: Int64[np.ndarray, " k"]
    twin: Int64[np.ndarray, " k"]

    def of_sensors(self, sensors: tuple[int, ...]) -> Bool[np.ndarray, " k"]:
        """Which boxes hold points of these sensors."""
        return (self.sensor < 0) | np.isin(self.sensor, sensors)


def read_returns(file: Path) -> Returns:
    """Read the points of a frame.

    Raises:
        DataError: If the file is missing, damaged, empty, or holds values that no sensor gives.
    """
    table = read_frame(file)
    values = _numbers(file, table, ("x", "y", "z", "i", "t", "d"))
    if not len(values):
        raise DataError(f"{file}: scan holds no point; fetch it again or drop the scan")
    if np.abs(values[:, :3]).max() > _FARTHEST:
        raise DataError(f"{file}: a point lies beyond {_FARTHEST:g} m; fetch it again")
    sensor = values[:, 5]
    known = np.isin(sensor, (0, 1))
    if not known.all():
        row = int(np.argmin(known))
        raise DataError(
            f"{file}: column 'd' must be 0 (Pandar64) or 1 (PandarGT), row {row} has "
            f"{sensor[row]:g}; fetch it again"
        )
    return Returns(
        xyz=np.ascontiguousarray(values[:, :3]),
        intensity=values[:, 3],
        time=values[:, 4],
        sensor=sensor.astype(np.int64),
    )


def read_classes(file: Path, *, num_points: int) -> Int64[np.ndarray, " n"]:
    """Read the raw class of each point.

    Raises:
        DataError: If the file is missing, damaged, or of another length than the scan.
    """
    table = read_frame(file)
    if "class" not in table:
        raise DataError(f"{file}: has no column 'class'; fetch it again")
    values = table["class"]
    if values.shape != (num_points,):
        raise DataError(
            f"{file}: {values.size} labels for {num_points} points; fetch the labels that belong "
            "to this scan"
        )
    # The development kit's documentation speaks of ids as texts, the files hold numbers.
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values.tolist()):
        try:
            values = values.astype(np.int64)
        except (ValueError, OverflowError) as error:
            raise DataError(
                f"{file}: class ids are no whole numbers ({error}); fetch it again"
            ) from error
    if values.dtype.kind not in "iu" or (num_points and values.min() < 0):
        raise DataError(
            f"{file}: class ids must be whole numbers from 0, got {values.dtype} from "
            f"{values.tolist()[0]!r}; fetch it again"
        )
    return values.astype(np.int64)


def read_cuboids(file: Path) -> Cuboids:
    """Read the boxes of a frame.

    PandaSet gives the width along a box's own x and the length along its y, and turns it from
    where the length points along +y.

    Raises:
        DataError: If the file is missing or damaged, a number is not finite, a side not positive,
            or a label no class.
    """
    table = read_frame(file)
    place = [f"position.{axis}" for axis in "xyz"]
    size = [f"dimensions.{axis}" for axis in "yxz"]
    values = _numbers(file, table, (*place, *size, "yaw", "cuboids.sensor_id"))
    labels, uuid = (_texts(file, table, name, len(values)) for name in ("label", "uuid"))
    if len(values) and (values[:, 3:6].min() <= 0 or np.abs(values[:, :6]).max() > _FARTHEST):
        raise DataError(
            f"{file}: a cuboid has a side that is not above 0 m or lies beyond {_FARTHEST:g} m; "
            "fetch it again"
        )
    if not np.isin(values[:, 7], (-1, 0, 1)).all():
        raise DataError(f"{file}: cuboids.sensor_id must be -1, 0 or 1; fetch it again")
    try:
        classes = [box_class(name) for name in labels]
    except ValueError as error:
        raise DataError(f"{file}: {error}; fetch it again") from error
    cuboid = values[:, :7].copy()
    cuboid[:, 6] += np.pi / 2
    return Cuboids(
        cuboid=cuboid,
        labels=np.array(classes, dtype=np.int64),
        uuid=uuid,
        sensor=values[:, 7].astype(np.int64),
        twin=_twins(uuid, table.get("cuboids.sibling_id")),
    )


def _twins(uuid: tuple[str, ...], sibling: np.ndarray | None) -> Int64[np.ndarray, " k"]:
    """Row of the box that each one names as its sibling; most name none."""
    rows = {name: row for row, name in enumerate(uuid)}
    names = [] if sibling is None or sibling.shape != (len(uuid),) else sibling.tolist()
    twins = np.full(len(uuid), -1, dtype=np.int64)
    for row, name in enumerate(names):
        if isinstance(name, str):
            twins[row] = rows.get(name, -1)
    return twins


def _numbers(
    file: Path, table: Mapping[str, np.ndarray], names: tuple[str, ...]
) -> Float64[np.ndarray, "n c"]:
    """Some columns as float64, all finite."""
    missing = [name for name in names if name not in table]
    if missing:
        raise DataError(f"{file}: has no column {missing[0]!r}; fetch it again")
    odd = [name for name in names if table[name].dtype.kind not in "iufO" or table[name].ndim != 1]
    if odd:
        raise DataError(f"{file}: column {odd[0]!r} holds no numbers; fetch it again")
    try:
        values = np.stack([np.asarray(table[name], dtype=np.float64) for name in names], axis=1)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{file}: columns {', '.join(names)} are not numbers of one length "
            f"({error}); fetch it again"
        ) from error
    finite = np.isfinite(values)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise DataError(
            f"{file}: {np.count_nonzero(~finite.all(1))} of {len(values)} rows have NaN or "
            f"infinite values, the first is row {row} in column {names[column]!r}; fetch it again"
        )
    return values


def _texts(
    file: Path, table: Mapping[str, np.ndarray], name: str, num_rows: int
) -> tuple[str, ...]:
    column = table.get(name)
    values = () if column is None or column.ndim != 1 else tuple(column.tolist())
    if len(values) != num_rows or not all(isinstance(value, str) for value in values):
        raise DataError(f"{file}: column {name!r} must hold {num_rows} texts; fetch it again")
    return values
