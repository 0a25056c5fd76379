"""What a search found, in sentences: the best against the base, and which field matters."""

from __future__ import annotations

from collections.abc import Sequence

from colddiff.report.search.results import DrawnTrial, Importance, SearchResults

FEWEST_TRIALS = 10
"""Trials with a value at one rung below which nothing is said about importance."""
ROUGH = 20
"""Trials below which an importance is called rough."""
UNCONFIRMED = "Not confirmed on fresh seeds: with one seed a trial, a difference may be the seed's."


def verdict(results: SearchResults) -> str:
    """One or two sentences: the best trial against the base, at the last rung that both reached."""
    base, leader = results.base, results.leader
    stand = "" if results.complete else f"{_progress(results)} "
    if base is None or base.last is None:
        return f"{stand}The base has no value yet, so nothing can be compared."
    if leader is None:
        return f"{stand}No trial beside the base has a value yet: {_at(results, base, base.last)}."
    shared = sorted(base.values.keys() & leader.values.keys())
    if not shared:
        return f"{stand}No trial has reached a rung that the base has reached."
    rung = shared[-1]
    other, own = leader.values[rung], base.values[rung]
    change = f" ({100 * (other / own - 1):+.1f} %)" if own else ""
    point = f" ({results.point_text(leader)})" if leader.point else ""
    better = other < own if results.lower_is_better else other > own
    count = len(results.ranked)
    if better:
        return (
            f"{stand}Best of {count} trials on validation images: {leader.name}{point}, "
            f"{_at(results, leader, rung)}, against {results.text(own)} of the base{change}."
        )
    return (
        f"{stand}No trial of {count} is better than the base on validation images: "
        f"{_at(results, base, rung)}; next is {leader.name}{point} with "
        f"{results.text(other)}{change}."
    )


def importance_sentence(importance: Importance | None, num_trials: int) -> str:
    """Which field explains the metric's variance, with its spread; or that it cannot be said.

    ``num_trials`` have a value at the rung that most trials reached.
    """
    if importance is None and num_trials >= FEWEST_TRIALS:
        return "Importance of the fields: cannot be said, the trials' values do not vary."
    if importance is None:
        return (
            f"Importance of the fields: too few trials to say ({num_trials} with a value at the "
            f"same step, {FEWEST_TRIALS} needed)."
        )
    shares = sorted(importance.shares.items(), key=lambda item: (-item[1][0], item[0]))
    parts = [f"{name} {share:.2f} ({low:.2f} to {high:.2f})" for name, (share, low, high) in shares]
    rough = ": rough" if importance.num_trials < ROUGH else ""
    return (
        f"Importance, the share of the metric's variance ({importance.method}, "
        f"{importance.num_trials} trials at step {importance.step}{rough}; in brackets 5 % to 95 % "
        f"over {importance.num_resamples} resamples of the trials): {', '.join(parts)}."
    )


def verdict_sentences(
    results: SearchResults, confirmed: Sequence[str], failures: Sequence[str] = ()
) -> list[str]:
    """The verdict, then what the confirmation found, or that there was none."""
    told = [f"{text[:1].upper()}{text[1:]}." for text in (*confirmed, *failures)]
    if not confirmed and results.complete and results.leader is not None:
        told.append(UNCONFIRMED)
    return [verdict(results), *told]


def _at(results: SearchResults, trial: DrawnTrial, rung: int) -> str:
    return f"{results.metric_name} {results.text(trial.values[rung])} at step {rung}"


def _progress(results: SearchResults) -> str:
    done = sum(trial.finished for trial in results.trials)
    return (
        f"So far {len(results.trials)} of {results.num_trials} trials asked for, {done} finished."
    )
