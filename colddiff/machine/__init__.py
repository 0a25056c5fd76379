"""The machine this runs on: files that others made, and processes."""
