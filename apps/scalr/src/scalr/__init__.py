"""ScaLR: distil image features into a LiDAR backbone (Puy et al., CVPR 2024, arXiv:2310.17504)."""
