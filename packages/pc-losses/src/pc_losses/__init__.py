"""Objectives for self-supervised and supervised point-cloud training."""

from pc_losses.distillation import normalized_l2 as normalized_l2
from pc_losses.segmentation import cross_entropy_lovasz as cross_entropy_lovasz
from pc_losses.segmentation import lovasz_softmax as lovasz_softmax
