"""What writers of all layouts share: recording streets."""

import numpy as np
from pc_data.synthetic.capture import record_streets


def test_finished_streets_keep_no_ground_raster(tmp_path):
    def make_frame(street, frame, root):
        street.scene.world(0.5 * frame)
        return "heights" in vars(street.scene)

    found = []
    record_streets(
        tmp_path / "out",
        make_frame,
        num_scenes=2,
        seed=0,
        frames_per_scene=2,
        period=0.5,
        val_fraction=0.5,
        finish=lambda _, frames: found.extend(frames),
        progress=None,
    )
    assert [(street.index, street.is_val, frame, made) for street, frame, made in found] == [
        (0, False, 0, True),
        (0, False, 1, True),
        (1, True, 0, True),
        (1, True, 1, True),
    ]
    assert not any("heights" in vars(street.scene) for street, _, _ in found)
    scene = found[0][0].scene
    pose = scene.ego_pose(0.5)  # makes it again
    assert "heights" in vars(scene)
    scene.release()
    np.testing.assert_array_equal(scene.ego_pose(0.5), pose)
