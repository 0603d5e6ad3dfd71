"""One module a kind of file: read, checked, and never executed."""
