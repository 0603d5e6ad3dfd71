"""Features and classes of clouds without labels."""
