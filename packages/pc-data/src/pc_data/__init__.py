"""Datasets of 3D scans as plain arrays: readers, cameras, augmentation, batches, synthetic worlds.

What needs torch (`PointBatch`, `StepLoader` and the like) lies in `pc_data.batch` and
`pc_data.loading`, so that reading a dataset does not import it.
"""

from pc_data.check import check_dataset as check_dataset
from pc_data.datasets import DataConfig as DataConfig
from pc_data.datasets import open_dataset as open_dataset
from pc_data.errors import DataError as DataError
from pc_data.readers.nuscenes import NuScenes as NuScenes
from pc_data.readers.semantic_kitti import SemanticKITTI as SemanticKITTI
from pc_data.scan import Boxes as Boxes
from pc_data.scan import Camera as Camera
from pc_data.scan import Scan as Scan
from pc_data.show import show_scan as show_scan
