"""What people look at: pages, curves, views of clouds, runs side by side."""
