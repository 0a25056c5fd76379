"""What a run that goes on logs again: the values that are left out, and a param's second value."""

from __future__ import annotations

from collections.abc import Collection

RESULTS = "eval/"


def is_repeat(key: str, value: str, earlier: Collection[str]) -> bool:
    """Whether a metric's ``value`` at a step is left out, given those of earlier sessions there.

    A step that was logged is left as it is, so that a run resumed from a checkpoint logs no step
    twice. Results (``eval/...``) can be measured anew: they are left out only where they are equal.
    """
    return value in earlier if key.startswith(RESULTS) else bool(earlier)


def second_value_tag(param: str) -> str:
    """The tag for a param whose value changed: MLflow refuses a second value of a param."""
    return f"param.{param}"
