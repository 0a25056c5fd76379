"""Decoding with Pillow: depth that it would lose, and damage that is none."""
