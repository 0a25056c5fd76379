"""Rules for what a resumed run logs again: repeated metrics, and changed params."""

from __future__ import annotations

from collections.abc import Collection

RESULTS = "eval/"
DESCRIPTION = "mlflow.note.content"
"""The tag that MLflow's UI shows as a run's description, and lets people edit."""


def is_repeat(key: str, value: str, earlier: Collection[str]) -> bool:
    """Whether to skip a metric's ``value`` at a step, given the ``earlier`` sessions' values there.

    A step that was logged is not changed, so that a run resumed from a checkpoint logs no step
    twice. Results (``eval/...``) can be computed again: they are skipped only if they are equal.
    """
    return value in earlier if key.startswith(RESULTS) else bool(earlier)


def is_kept(tag: str, tags: Collection[str]) -> bool:
    """Whether a run that has ``tags`` keeps its value of ``tag``: its user may have changed it."""
    return tag == DESCRIPTION and tag in tags


def second_value_tag(param: str) -> str:
    """The tag for a param whose value changed: MLflow rejects a second value of a param."""
    return f"param.{param}"
