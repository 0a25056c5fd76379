"""Checkpoints: their format, who writes them, how one is named, exported and imported."""
