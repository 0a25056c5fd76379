"""Searches of a trained checkpoint: lists of severities and samplers, without training."""
