"""What the tracker holds of the one search in a storage: the parent's run and its children."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from colddiff.tracking.mlflow_service import client
from tests.unit.search.tiny_search import folder_of


def nested_runs(storage: Path, uri: str | None = None) -> tuple[Any, list[Any]]:
    """The run of the search and those that MLflow finds below it, by trial."""
    api = client(uri or f"sqlite:///{storage}/mlflow.db")
    experiment = api.get_experiment_by_name("colddiff")
    assert experiment is not None
    tag = f"tags.`colddiff.job_id` = '{folder_of(storage).job_id}'"
    (parent,) = api.search_runs([experiment.experiment_id], tag)
    below = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    children = list(api.search_runs([experiment.experiment_id], below))
    return parent, sorted(children, key=lambda run: int(run.data.tags["colddiff.trial"]))


def history(storage: Path, run: Any, key: str) -> list[tuple[int, float]]:
    """(step, value) of a metric of a run, in order."""
    api = client(f"sqlite:///{storage}/mlflow.db")
    return sorted((row.step, row.value) for row in api.get_metric_history(run.info.run_id, key))
