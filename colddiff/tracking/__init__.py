"""Experiment tracking: a job's one run in MLflow, delivered late where MLflow is away."""
