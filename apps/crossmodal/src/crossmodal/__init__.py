"""Cross-modal self-supervised learning with effective contrastive units.

Cai et al., 2024, arXiv:2409.06827.
"""
