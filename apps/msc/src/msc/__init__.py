"""Masked Scene Contrast (Wu et al., CVPR 2023, arXiv:2303.14191)."""
