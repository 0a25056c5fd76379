"""What people are told of a finished search of a checkpoint, from its ``result.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 12
"""Severities that are shown of a list; of longer ones the ends."""


def list_summary(result: Mapping[str, Any]) -> list[str]:
    """The best list of each budget, what the confirmation found, and where the table is."""
    metric, base = result["metric"], result["base"]
    lines = [
        f"best of {result['trials']} trials with at most {best['budget']} network calls: "
        f"{best['sampler']} {short(best['severities'])}, {metric} {best['value']:.5g}"
        for best in result["best"]
    ]
    lines.append(f"the base, {base['calls']} calls: {base['value']:.5g}, on the validation part")
    return [*lines, *result["confirmation"], f"leaderboard: {result['leaderboard']}"]


def list_next_steps(result: Mapping[str, Any]) -> list[str]:
    """Commands that use the best lists, and one that searches on."""
    variant = result["best"][0]["budget"] if len(result["best"]) > 1 else None
    chosen = f" --variant {variant_name(variant)}" if variant else ""
    return [
        f"colddiff submit evaluate {result['best_yaml']}{chosen}",
        f"colddiff submit generate {result['best_yaml']}{chosen}",
        "the same command with a larger num_trials searches on",
    ]


def list_score(result: Mapping[str, Any]) -> tuple[str, float]:
    """The metric and its value for the best list of the largest budget."""
    return result["metric"], result["best"][-1]["value"]


def variant_name(budget: int) -> str:
    """Name of a budget's variant in ``best.yaml``, as `--variant` takes it."""
    return f"calls-{budget}"


def short(severities: Sequence[int]) -> str:
    """A list for people: ``20 13 7 3 0``, of a long one its ends.

    >>> short(range(20, -1, -1))
    '20 19 18 17 16 ... 3 2 1 0'
    """
    texts = [str(severity) for severity in severities]
    if len(texts) > SHOWN:
        texts = [*texts[:5], "...", *texts[-4:]]
    return " ".join(texts)
