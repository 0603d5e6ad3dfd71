import dataclasses
import io

import numpy as np
import pytest
from pc_data.errors import DataError
from pc_data.readers.nuscenes import NuScenes
from pc_data.readers.semantic_kitti import SemanticKITTI
from pc_data.scan import Scan
from pc_data.show_units import show_units
from pc_geometry.units import contrastive_units, merge_units, sample_units
from PIL import Image

from tests.pc_data.tiny_worlds import write_nuscenes, write_semantic_kitti
from tests.real_data import REAL_DATA, needs_real_data


def render(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return np.asarray(Image.open(buffer).convert("RGB"))


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(lambda x: hasattr(x, "get_text")))


def halves(scan, *, num_units=12):
    """Units of a scan of which the left half is one cluster and the lowest points are ground."""
    ground = scan.xyz[:, 2] < np.quantile(scan.xyz[:, 2], 0.3)
    cluster = np.where((scan.xyz[:, 1] > np.median(scan.xyz[:, 1])) & ~ground, 0, -1)
    before = sample_units(scan.xyz, ~ground, num_units)
    after = merge_units(before, cluster[before.center])
    return {"ground": ground, "cluster": cluster, "before": before, "after": after}


@pytest.fixture
def scan(tmp_path):
    return NuScenes(write_nuscenes(tmp_path))[0]


def test_titles_count_units_and_clusters_and_name_the_camera(scan):
    units = halves(scan)
    figure = show_units(scan, **units, camera="CAM_BACK")
    written = texts(figure)
    assert f"{len(units['before'])} units, sampled from above" in written
    assert "1 clusters that look like objects" in written
    assert f"{len(units['after'])} units, 1 of them merged" in written
    assert "CAM_BACK, units as merged" in written
    assert scan.name in written
    assert len(figure.axes) == 5


def test_the_camera_that_sees_most_units_of_clusters_is_drawn(scan):
    from pc_geometry import project_points
    from pc_geometry.cameras import visible_points

    camera = scan.camera("CAM_BACK")
    pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
    seen = visible_points(pixel, depth, camera.image_size)
    assert seen.sum() > 3
    before = sample_units(scan.xyz, seen, 12)
    cluster = np.where(seen, 0, -1)
    after = merge_units(before, cluster[before.center])
    nothing = np.zeros(len(scan), bool)
    figure = show_units(scan, ground=nothing, cluster=cluster, before=before, after=after)
    assert "CAM_BACK, units as sampled" in texts(figure)


def test_a_merged_unit_has_one_colour_and_one_ring(scan):
    units = halves(scan)
    figure = show_units(scan, **units)
    rings = [axes.collections[-1] for axes in (figure.axes[0], figure.axes[2])]
    assert len(rings[0].get_offsets()) == len(units["before"])
    assert len(rings[1].get_offsets()) == 1
    drawn = figure.axes[2].collections[2]
    of_cluster = units["after"].cluster[units["after"].unit] == 0
    assert len(np.unique(drawn.get_facecolor()[of_cluster], axis=0)) == 1
    assert len(np.unique(drawn.get_facecolor(), axis=0)) == len(units["after"])


def test_a_wide_image(tmp_path):
    scan = SemanticKITTI(write_semantic_kitti(tmp_path))[0]
    picture = render(show_units(scan, **halves(scan)))
    assert picture.std() > 10


@pytest.mark.parametrize("n", [0, 1, 2])
def test_tiny_scans_without_cameras(n):
    scan = Scan(name="tiny", xyz=np.zeros((n, 3), np.float32))
    nothing = np.zeros(n, bool)
    before = sample_units(scan.xyz, ~nothing, 4)
    after = contrastive_units(scan.xyz, ~nothing, ground=nothing, num_units=4)
    figure = show_units(scan, ground=nothing, cluster=np.full(n, -1), before=before, after=after)
    assert len(figure.axes) == 3
    assert f"{n} units, 0 of them merged" in texts(figure)
    render(figure)


def test_wrong_units(scan):
    units = halves(scan)
    with pytest.raises(ValueError, match="before, which has 3 units, but was from 12; give the"):
        show_units(scan, **{**units, "before": sample_units(scan.xyz, ~units["ground"], 3)})
    with pytest.raises(DataError, match="has no camera 'CAM_SIDE'; it has: CAM_"):
        show_units(scan, **units, camera="CAM_SIDE")
    blind = dataclasses.replace(scan, cameras=())
    assert len(show_units(blind, **units).axes) == 3


@needs_real_data
def test_real_scan():
    from pc_geometry import segment_ground
    from pc_geometry.units import cluster_objects

    scan = SemanticKITTI(REAL_DATA / "semantickitti", split="val")[0]
    ground = segment_ground(scan.xyz, sensor_height=1.73)
    cluster = cluster_objects(scan.xyz, ground)
    before = sample_units(scan.xyz, ~ground & (scan.xyz[:, 0] > 5), 256)
    after = merge_units(before, cluster[before.center])
    figure = show_units(scan, ground=ground, cluster=cluster, before=before, after=after)
    assert "image_2, units as merged" in texts(figure)
    picture = render(figure)
    saturated = (np.ptp(picture.astype(int), axis=2) > 150).mean()
    assert saturated > 0.005
