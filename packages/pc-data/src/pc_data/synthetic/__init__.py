"""A synthetic street world, ray-cast and written in the official layouts of real datasets."""

from pc_data.synthetic.nuscenes import make_street_nuscenes as make_street_nuscenes
from pc_data.synthetic.semantic_kitti import (
    make_street_semantic_kitti as make_street_semantic_kitti,
)
