"""What a model is worth on corrupted scans."""
