"""The files that describe a packed set: a manifest in one file, or in pages for large sets."""
