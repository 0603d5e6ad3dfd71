"""Settings of `pc-train predict`; plain data, without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pc_data.datasets import DatasetName
from pc_data.errors import OnError
from pc_data.limits import require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What predicts, how the clouds are to be read, and what is written.

    Attributes:
        checkpoint: Folder of a finished run, or a file of weights. A probe or finetune run gives
            classes and features, other weights features alone.
        out: Folder for the results; the same command continues there.
        name: Layout of a dataset's folder, e.g. nuscenes; told from its files by default.
        version: Form of the dataset, as for evaluate: of nuScenes the folder of its tables.
        split: Scans of the dataset to predict.
        align: Turn the rooms of ScanNet as for evaluate.
        columns: Names of the values in a row of .bin and plain .npy files, e.g. x,y,z,intensity;
            _ for one to skip.
        units: Unit of the coordinates in the files.
        up: Axis that points up in the files.
        intensity: Mean and standard deviation of the intensity where the network comes from, in the
            unit of the files; by default those of the dataset, else of each cloud itself.
        features: How features are saved: one row a point.
        precision: Of the saved features.
        ply: Write clouds coloured by class and by feature.
        max_points: A cloud with more points, counted after thinning to one a voxel, is cut into
            tiles of at most so many. Lower it where memory is short.
        tile_size: Longest side of a tile's core in metres, also for smaller clouds; 0 for as large
            as max_points allows.
        overlap: Metres around a core that the network sees with it; 64 voxels by default.
        on_error: What a damaged cloud among several does: raise ends the run, skip goes on.
        accelerator: auto takes a GPU if there is one.
        num_threads: Threads on a CPU; 0 leaves it to PyTorch.
    """

    checkpoint: Path
    out: Path
    name: DatasetName | None = None
    version: str = ""
    split: str = "all"
    align: bool = False
    columns: tuple[str, ...] = ()
    units: Literal["m", "cm", "mm", "km", "ft", "in"] = "m"
    up: Literal["z", "y"] = "z"
    intensity: tuple[float, float] | None = None
    features: Literal["npy", "safetensors", "none"] = "npy"
    precision: Literal["float32", "float16"] = "float32"
    ply: bool = True
    max_points: int = 200_000
    tile_size: float = 0.0
    overlap: float | None = None
    on_error: OnError = "raise"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    num_threads: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "max_points")
        require_not_negative(self, "tile_size", "num_threads")
        if self.overlap is not None:
            require_not_negative(self, "overlap")
        if self.intensity is not None and not self.intensity[1] > 0:
            raise ValueError(
                f"intensity must be a mean and a positive standard deviation, got {self.intensity}"
            )
