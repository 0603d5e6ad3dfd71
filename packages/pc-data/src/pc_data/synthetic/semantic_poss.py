"""Write the street world in the layout of SemanticPOSS.

Source: SemanticPOSS (Pan et al., IV 2020, arXiv:2002.09147) and its published tools: points lie row
    by row of the range image, whose filled cells `tag/` marks. The beams are those of the Pandora's
    user manual. Differs from a recording: frames are half a second apart, one sequence strings
    several streets together (their poses lie half a kilometre apart), x points ahead.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from pc_data.synthetic.capture import Street, record_streets, scan_street
from pc_data.synthetic.categories import Category
from pc_data.synthetic.output import check_request
from pc_data.synthetic.rig import pose_matrix, yaw_rotation
from pc_data.synthetic.sensors import LidarModel

PANDORA = LidarModel(
    elevation=np.array(
        (
            *(-15.444, -14.543, -13.63, -12.705, -11.772, -10.826, -9.871, -8.908, -7.934, -6.957),
            *(-5.974, -5.647, -5.311, -4.986, -4.657, -4.321, -3.996, -3.663, -3.327, -3.0),
            *(-2.667, -2.331, -2.001, -1.667, -1.334, -1.001, -0.667, -0.334, 0.0, 0.333),
            *(0.667, 1.001, 1.333, 1.667, 2.001, 2.999, 3.996, 4.988, 5.976, 6.96),
        )
    ),
    num_azimuths=1800,
    far=100.0,
    noise=0.02,
    gain=118.0,
    gamma=1.0,
    ceiling=255.0,
)

_PERIOD = 0.5  # seconds between frames
_TRAIN_SEQUENCES = ("00", "01", "02", "04", "05")
_VAL_SEQUENCE = "03"
_LIDAR = (0.8, 0.0, 1.85)  # in the ego frame, metres
_INSTANCES = 800  # instance numbers kept apart for each scene of a sequence

_RAW_ID = {
    Category.NONE: 0,
    Category.ROAD: 22,
    Category.MARKING: 22,
    Category.PARKING: 22,
    Category.SIDEWALK: 22,
    Category.OTHER_GROUND: 22,
    Category.TERRAIN: 22,
    Category.BUILDING: 15,
    Category.FENCE: 17,
    Category.STRUCTURE: 0,
    Category.POLE: 13,
    Category.SIGN: 10,
    Category.VEGETATION: 9,
    Category.TRUNK: 8,
    Category.CAR: 7,
    Category.TRUCK: 7,
    Category.BUS: 7,
    Category.TRAILER: 7,
    Category.CONSTRUCTION: 7,
    Category.MOTORCYCLE: 21,
    Category.BICYCLE: 21,
    Category.MOTORCYCLIST: 6,
    Category.BICYCLIST: 6,
    Category.ADULT: 4,
    Category.CHILD: 4,
    Category.CONE: 16,
    Category.BARRIER: 17,
    Category.PUSHABLE: 14,
    Category.EGO: 0,
}
RAW_ID: Int64[np.ndarray, " categories"] = np.array([_RAW_ID[k] for k in Category], dtype=np.int64)
"""Raw class by category; campus classes know neither lorries nor kinds of ground."""


def make_street_semantic_poss(
    out: Path,
    *,
    num_scenes: int,
    seed: int,
    frames_per_scene: int = 4,
    val_fraction: float = 0.25,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make synthetic street scenes as a SemanticPOSS folder.

    The same arguments give the same bytes. Training scenes fill the sequences 00, 01, 02, 04, 05
    in turn; validation scenes follow each other in 03 and show layouts that no training scene has.

    Args:
        out: Folder to make; it appears only when everything is in it.
        num_scenes: Number of scenes, the first ones for training.
        seed: Of everything.
        frames_per_scene: Scans of each scene, half a second apart.
        val_fraction: Share of validation scenes, at least one of two or more.
        progress: Called with (done, total) after each frame.

    Raises:
        ValueError: If `out` is in use or an argument is out of range.
    """
    num_val = check_request(
        num_scenes=num_scenes, frames_per_scene=frames_per_scene, val_fraction=val_fraction
    )
    num_train, limit = num_scenes - num_val, 0xFFFF // _INSTANCES
    if num_train > len(_TRAIN_SEQUENCES) * limit or num_val > limit:
        raise ValueError(
            f"num_scenes must leave at most {len(_TRAIN_SEQUENCES) * limit} training and {limit} "
            f"validation scenes (16-bit instances), got {num_train} and {num_val}"
        )
    record_streets(
        out,
        partial(_make_frame, seed=seed, num_frames=frames_per_scene, num_train=num_train),
        num_scenes=num_scenes,
        seed=seed,
        frames_per_scene=frames_per_scene,
        period=_PERIOD,
        val_fraction=val_fraction,
        finish=_write_sequences,
        progress=progress,
    )


def _make_frame(
    street: Street, frame: int, root: Path, *, seed: int, num_frames: int, num_train: int
) -> tuple[str, Float64[np.ndarray, "4 4"]]:
    """Write one frame's files and return its sequence and world-from-scan."""
    turn, place = divmod(street.index, len(_TRAIN_SEQUENCES))
    sequence = _TRAIN_SEQUENCES[place]
    if street.is_val:
        turn, sequence = street.index - num_train, _VAL_SEQUENCE
    pose = street.scene.ego_pose(frame * _PERIOD) @ pose_matrix(np.eye(3), np.array(_LIDAR))
    # Clockwise like the sensor, starting behind.
    returns = scan_street(
        street.scene,
        PANDORA,
        time=frame * _PERIOD,
        pose=pose,
        seed=(seed, street.index, frame, 29),
        start=np.pi,
        turn=-2 * np.pi,
    )
    shape = (len(PANDORA.elevation), PANDORA.num_azimuths)
    row = shape[0] - 1 - returns.ring  # the top ring first
    cell = row * shape[1] + (returns.phase * shape[1]).astype(np.int64)
    order = np.argsort(cell, kind="stable")
    points = np.column_stack([returns.xyz, np.round(returns.intensity)]).astype("<f4")
    instance = returns.instance + np.where(returns.instance > 0, turn * _INSTANCES, 0)
    labels = (RAW_ID[returns.category] | instance << 16).astype("<u4")
    tag = np.zeros(shape[0] * shape[1], dtype=bool)
    tag[cell] = True
    name = f"{turn * num_frames + frame:06d}"
    files = (("velodyne", "bin", points[order]), ("labels", "label", labels[order]))
    for folder, suffix, content in (*files, ("tag", "tag", tag)):
        path = root / "dataset" / "sequences" / sequence / folder / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.tobytes())
    rng = np.random.default_rng((seed, street.index, 31))
    shift = np.array([500.0 * turn, 0.0, 0.0])
    return sequence, pose_matrix(yaw_rotation(rng.uniform(-np.pi, np.pi)), shift) @ pose


def _write_sequences(
    root: Path, frames: list[tuple[Street, int, tuple[str, Float64[np.ndarray, "4 4"]]]]
) -> None:
    """Write poses relative to the first frame, times, and a calibration that changes nothing."""
    poses: dict[str, list[np.ndarray]] = {}
    for _, _, (sequence, pose) in frames:
        poses.setdefault(sequence, []).append(pose)
    for sequence, placed in poses.items():
        folder = root / "dataset" / "sequences" / sequence
        first = np.linalg.inv(placed[0])
        rows = [" ".join(f"{x:.10g}" for x in (first @ pose)[:3].ravel()) for pose in placed]
        (folder / "poses.txt").write_text("".join(f"{row}\n" for row in rows))
        times = [f"{_PERIOD * k:.6e}\n" for k in range(len(placed))]
        (folder / "times.txt").write_text("".join(times))
        (folder / "calib.txt").write_text("Tr: 1 0 0 0 0 1 0 0 0 0 1 0\n")
