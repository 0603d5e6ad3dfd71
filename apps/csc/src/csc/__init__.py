"""Coherent semantic cues: scene-level consistency through class prototypes.

Chen et al., CVPR 2024; with its baselines SLidR (Sautier et al., CVPR 2022) and PPKT (Liu et al.,
2021).
"""
