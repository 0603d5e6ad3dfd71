"""Objectives for self-supervised and supervised point-cloud training."""

from pc_losses.agreement import alignment_score as alignment_score
from pc_losses.agreement import contrastive_accuracy as contrastive_accuracy
from pc_losses.balanced import balanced_info_nce as balanced_info_nce
from pc_losses.contrast import hardest_contrastive as hardest_contrastive
from pc_losses.contrast import info_nce as info_nce
from pc_losses.contrast import point_info_nce as point_info_nce
from pc_losses.distillation import normalized_l2 as normalized_l2
from pc_losses.health import feature_spread as feature_spread
from pc_losses.health import negative_similarity as negative_similarity
from pc_losses.reconstruction import color_reconstruction as color_reconstruction
from pc_losses.reconstruction import normal_reconstruction as normal_reconstruction
from pc_losses.reduction import mean_over_processes as mean_over_processes
from pc_losses.segmentation import cross_entropy_lovasz as cross_entropy_lovasz
from pc_losses.segmentation import lovasz_softmax as lovasz_softmax
