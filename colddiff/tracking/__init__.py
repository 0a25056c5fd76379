"""Experiment tracking: a job's one run in MLflow, spooled while MLflow is down."""
