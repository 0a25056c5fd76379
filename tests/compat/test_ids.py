"""Every recipe's job has the id it always had, and is written out as it always was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compat import catalogue

Recorded = Callable[[str], Any]


@pytest.fixture(scope="module")
def ids(recorded: Recorded) -> Any:
    return recorded("job_ids.json")


def among(recorded: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What is there now under the recorded names; recipes that came later are left out."""
    return {name: now.get(name) for name in recorded}


def test_job_ids_of_all_recipes_and_variants(ids: Any, root: Path) -> None:
    assert among(ids["recipes"], catalogue.recipe_ids(root)) == ids["recipes"]


def test_job_ids_of_jobs_with_other_fields(ids: Any, root: Path) -> None:
    others = catalogue.other_ids(root)
    assert others == ids["others"]
    assert others["train operation"] == others["train defaults"]
    assert others["generate more"] == others["generate defaults"]


def test_job_id_of_a_job_with_a_plugin(ids: Any, root: Path) -> None:
    assert catalogue.plugin_id(root) == ids["plugin"]


def test_dry_runs_of_all_recipes_and_variants(recorded: Recorded, root: Path) -> None:
    kept = recorded("dry_runs.json")
    assert among(kept, catalogue.dry_runs()) == kept
