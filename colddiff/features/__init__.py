"""Feature networks for Frechet distances, one per file; ``open.py`` loads one by its spec."""
