"""One module a dataset: its official layout as a sequence of scans."""
