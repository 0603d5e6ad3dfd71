"""What weather and failing sensors do to a LiDAR scan: pure functions `(scan, rng) -> scan`."""
