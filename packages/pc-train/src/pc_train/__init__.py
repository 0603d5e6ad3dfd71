"""Training around a point-cloud backbone: probing, fine-tuning, checkpoints, reports.

The modules load torch and lightning; this file does not, so that commands answer at once.
"""
