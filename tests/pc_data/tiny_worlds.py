"""Minimal valid datasets, written by hand, for tests that then damage them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

CHANNELS = ("LIDAR_TOP", "CAM_FRONT", "CAM_BACK", "RADAR_FRONT")
SCENES = ("scene-0061", "scene-0103")  # in train and mini_train, in val and mini_val
IMAGE_SIZE = (64, 48)
NUM_POINTS = 50


def write_nuscenes(root: Path, *, version: str = "v1.0-trainval", lidarseg: bool = True) -> Path:
    """Two scenes of two keyframes each, one sweep and one radar row, two cameras.

    The vehicle drives along x; the cameras fire 50 ms after the LiDAR, 0.5 m further on, the sweep
    50 ms before it, 0.5 m behind.
    """
    rng = np.random.default_rng(0)
    tables: dict[str, list[dict]] = {name: [] for name in _TABLES}
    for channel in CHANNELS:
        tables["sensor"].append({"token": f"sensor-{channel}", "channel": channel})
        tables["calibrated_sensor"].append(_mounting(channel))
    time = 1_500_000_000_000_000
    for scene in SCENES:
        tables["scene"].append({"token": f"token-{scene}", "name": scene})
        for frame in reversed(range(2)):  # out of order in the tables
            sample = f"{scene}-{frame}"
            start = time + frame * 500_000
            tables["sample"].append(
                {"token": sample, "scene_token": f"token-{scene}", "timestamp": start}
            )
            for channel in CHANNELS:
                _add_data(tables, root, sample, channel, start, rng)
            if lidarseg:
                _add_labels(tables, root, version, sample, rng)
    if not lidarseg:
        del tables["lidarseg"]
    for name, rows in tables.items():
        write_json(root / version / f"{name}.json", rows)
    return root


_TABLES = (
    *("attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map"),
    *("sample", "sample_annotation", "sample_data", "scene", "sensor", "visibility", "lidarseg"),
)


def _mounting(channel: str) -> dict:
    forward = (0.5, -0.5, 0.5, -0.5)  # camera: z forward, x right, y down
    backward = (0.5, -0.5, -0.5, 0.5)
    rotation = {"CAM_FRONT": forward, "CAM_BACK": backward}.get(channel, (1.0, 0.0, 0.0, 0.0))
    width, height = IMAGE_SIZE
    matrix = [[40.0, 0.0, width / 2], [0.0, 40.0, height / 2], [0.0, 0.0, 1.0]]
    return {
        "token": f"calibrated-{channel}",
        "sensor_token": f"sensor-{channel}",
        "translation": [1.0 if channel == "LIDAR_TOP" else 1.5, 0.0, 1.8],
        "rotation": list(rotation),
        "camera_intrinsic": matrix if channel.startswith("CAM") else [],
    }


def _add_data(
    tables: dict[str, list[dict]],
    root: Path,
    sample: str,
    channel: str,
    start: int,
    rng: np.random.Generator,
) -> None:
    camera = channel.startswith("CAM")
    for keyframe in (True, False) if channel == "LIDAR_TOP" else (True,):
        token = f"data-{sample}-{channel}-{keyframe}"
        shift = 1 if camera else 0 if keyframe else -1
        folder = "samples" if keyframe else "sweeps"
        name = f"{folder}/{channel}/{token}" + (".png" if camera else ".pcd.bin")
        tables["sample_data"].append(
            {
                "token": token,
                "sample_token": sample,
                "ego_pose_token": token,
                "calibrated_sensor_token": f"calibrated-{channel}",
                "timestamp": start + 50_000 * shift,
                "is_key_frame": keyframe,
                "filename": name,
                "width": IMAGE_SIZE[0] if camera else 0,
                "height": IMAGE_SIZE[1] if camera else 0,
                "prev": _before(sample, keyframe) if channel == "LIDAR_TOP" else "",
            }
        )
        tables["ego_pose"].append(
            {
                "token": token,
                "translation": [100.0 + 0.5 * shift, 200.0, 0.0],
                "rotation": [1.0, 0.0, 0.0, 0.0],
            }
        )
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if camera:
            write_image(file, IMAGE_SIZE, rng)
        elif channel == "LIDAR_TOP":
            write_scan(file, columns=5, rng=rng, intensity=255)


def _before(sample: str, keyframe: bool) -> str:
    """The LiDAR scan before a keyframe is its sweep, that before the sweep the last keyframe."""
    if keyframe:
        return f"data-{sample}-LIDAR_TOP-False"
    scene, _, frame = sample.rpartition("-")
    return f"data-{scene}-{int(frame) - 1}-LIDAR_TOP-True" if int(frame) else ""


def _add_labels(
    tables: dict[str, list[dict]], root: Path, version: str, sample: str, rng: np.random.Generator
) -> None:
    token = f"data-{sample}-LIDAR_TOP-True"
    name = f"lidarseg/{version}/{token}_lidarseg.bin"
    tables["lidarseg"].append({"token": token, "sample_data_token": token, "filename": name})
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    rng.integers(0, 32, NUM_POINTS, dtype=np.uint8).tofile(root / name)


def write_semantic_kitti(root: Path, *, sequences: tuple[str, ...] = ("00", "08")) -> Path:
    """Two scans a sequence, of which the first has an image; pure translation between them."""
    rng = np.random.default_rng(0)
    width, height = IMAGE_SIZE
    for name in sequences:
        folder = root / "dataset" / "sequences" / name
        for child in ("velodyne", "labels", "image_2"):
            (folder / child).mkdir(parents=True)
        write_image(folder / "image_2/000000.png", IMAGE_SIZE, rng)
        for frame in range(2):
            write_scan(folder / f"velodyne/{frame:06d}.bin", columns=4, rng=rng, intensity=1)
            classes = rng.choice([0, 10, 40, 70, 252], NUM_POINTS).astype(np.uint32)
            instance = rng.integers(0, 5, NUM_POINTS, dtype=np.uint32)
            (classes | instance << 16).astype("<u4").tofile(folder / f"labels/{frame:06d}.label")
        p2 = f"P2: 40 0 {width / 2} 4 0 40 {height / 2} 0 0 0 1 0"
        # Velodyne (x forward, y left, z up) to camera (x right, y down, z forward).
        tr = "Tr: 0 -1 0 0  0 0 -1 -0.1  1 0 0 -0.3"
        (folder / "calib.txt").write_text(f"P0: {'0 ' * 12}\n{p2}\n{tr}\n")
        (folder / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 0 0 1 0 0 0 0 1 2\n")
        (folder / "times.txt").write_text("0\n0.1\n")
    return root


def write_scan(file: Path, *, columns: int, rng: np.random.Generator, intensity: float) -> None:
    rows = rng.uniform(-20, 20, (NUM_POINTS, columns)).astype("<f4")
    rows[:, 3] = rng.uniform(0, intensity, NUM_POINTS)
    rows.tofile(file)


def write_image(file: Path, size: tuple[int, int], rng: np.random.Generator) -> None:
    width, height = size
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file)


def write_json(file: Path, rows: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows, indent=0))


def edit_rows(table: Path, **changes: object) -> None:
    """Set fields of every row of a table."""
    rows = json.loads(table.read_text())
    write_json(table, [row | changes for row in rows])
