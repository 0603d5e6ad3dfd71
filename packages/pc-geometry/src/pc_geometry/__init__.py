"""Exact, fast point-cloud geometry on plain NumPy arrays."""

from pc_geometry.cameras import project_points as project_points
from pc_geometry.cameras import visible_points as visible_points
from pc_geometry.neighbors import knn as knn
from pc_geometry.rigid import invert_rigid as invert_rigid
from pc_geometry.rigid import make_transform as make_transform
from pc_geometry.rigid import quaternion_from_rotation as quaternion_from_rotation
from pc_geometry.rigid import rotation_from_quaternion as rotation_from_quaternion
from pc_geometry.rigid import rotation_z as rotation_z
from pc_geometry.rigid import transform_points as transform_points
from pc_geometry.voxels import voxel_coordinates as voxel_coordinates
from pc_geometry.voxels import voxel_subsample as voxel_subsample
