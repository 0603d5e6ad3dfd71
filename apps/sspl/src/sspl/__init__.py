"""SSPL: self-supervised pre-training on the volumes of scans (Zhang et al., NeurIPS 2022)."""
