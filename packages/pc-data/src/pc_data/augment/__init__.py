"""Augmentations and views: pure functions `(scan, rng) -> scan`; here those that ScaLR needs."""

from pc_data.augment.basic import Box as Box
from pc_data.augment.basic import Transform as Transform
from pc_data.augment.basic import crop_nearest as crop_nearest
from pc_data.augment.basic import flip as flip
from pc_data.augment.basic import inside_box as inside_box
from pc_data.augment.basic import move as move
from pc_data.augment.basic import pixels_of as pixels_of
from pc_data.augment.basic import rotate_z as rotate_z
from pc_data.augment.basic import scale as scale
from pc_data.augment.basic import see_one_camera as see_one_camera
from pc_data.augment.basic import thin as thin
