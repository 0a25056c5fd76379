"""Trackers: one contract, MLflow while it answers, and MLflow while it does not."""
