"""Exact, fast point-cloud geometry on plain NumPy arrays.

What is used most is here; `boxes`, `cameras`, `pillars`, `rigid` and `voxels` hold more.
"""

from pc_geometry.cameras import project_points as project_points
from pc_geometry.clusters import cluster_radius as cluster_radius
from pc_geometry.clusters import filter_clusters as filter_clusters
from pc_geometry.ground import segment_ground as segment_ground
from pc_geometry.ground_zones import segment_ground_zones as segment_ground_zones
from pc_geometry.neighbors import knn as knn
from pc_geometry.neighbors import match_radius as match_radius
from pc_geometry.neighbors import radius_neighbors as radius_neighbors
from pc_geometry.normals import estimate_normals as estimate_normals
from pc_geometry.range_view import range_image as range_image
from pc_geometry.rigid import transform_points as transform_points
from pc_geometry.sampling import farthest_point_sample as farthest_point_sample
from pc_geometry.voxels import occupied_volumes as occupied_volumes
from pc_geometry.voxels import voxel_coordinates as voxel_coordinates
from pc_geometry.voxels import voxel_subsample as voxel_subsample
