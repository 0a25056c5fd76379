"""What a study will take, before it starts: trainings, steps, FLOPs, hours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from colddiff.evaluation.generated import FIELD
from colddiff.jobs.recipes import TARGETS, untold_targets
from colddiff.jobs.status import hours_text
from colddiff.jobs.verb import BESIDES, NO_RATE, VERBS, DryRun
from colddiff.machine.wording import counted
from colddiff.report.differences import differences_text, differing_fields
from colddiff.spec import parse
from colddiff.verbs.study.job import StudyJob
from colddiff.verbs.study.members import operation_fields
from colddiff.verbs.study.written import (
    field_of,
    submitted_entry,
    without_effect,
    written_trainings,
)

if TYPE_CHECKING:
    from colddiff.jobs.runner import Capacity


MEASURED = "auto"
"""The value of `--rate` that has a rate measured."""


def dry_run(job: StudyJob, rate: str | None) -> DryRun:
    """Trainings and the estimate of each; contacts nothing.

    ``rate``: value of `--rate`, of all workers of one training. Raises SpecError.
    """
    written = written_trainings(job)
    differs = _differences(written)
    members: list[dict[str, Any]] = []
    said: dict[str, list[str]] = {}
    costs: list[str] = []
    problems: list[tuple[str, str]] = []
    asked = rate
    for number, ((slug, train), text) in enumerate(zip(written, differs, strict=True)):
        with submitted_entry(job, number):
            training = VERBS["train"].dry_run(train, rate)
        problems += [(field_of(job, number, path), what) for path, what in training.problems]
        if rate == MEASURED:
            # Measured once: other networks reach about as many FLOP/s.
            found = training.data["estimate"]
            flops = found["images_per_s"] * found["training_flops_per_image"]
            rate = f"{flops / 1e12}TFLOP/s"
        seeds = list(job.seeds or (train.seed,))
        name = " ".join(filter(None, (slug, text)))
        for line in training.lines:
            said.setdefault(line, []).append(name)
        costs += [f"{name}, seed {', '.join(map(str, seeds))}: {train.num_steps:,} steps each"]
        costs += [f"  {line}" for line in training.estimate if line != NO_RATE]
        found = {"name": slug, "differs": text, "num_steps": train.num_steps}
        members += [{**found, "seed": seed, **training.data} for seed in seeds]
    totals = _totals(members)
    costs += [_sum(job, totals), *([NO_RATE] if asked is None else [])]
    told = [
        line if _is_of_recipe(line) else f"{', '.join(of)}: {line}" for line, of in said.items()
    ]
    data = {"members": members, "total": totals}
    return DryRun([*without_effect(job), *told], data, costs, problems)


def advice(job: StudyJob, capacity: Callable[[], Capacity | None]) -> list[str]:
    """What `submit train` says of all trainings of one name, with the steps of all in a row."""
    train, lines = VERBS["train"], without_effect(job)
    for slug in dict.fromkeys(one.slug for one in job.trainings):
        all_of = [one.train for one in job.trainings if one.slug == slug]
        first: Any = parse(train.spec(), all_of[0], slug)
        steps = sum(int(one["num_steps"]) for one in all_of)
        whole = first.model_copy(update={"num_steps": steps})
        of = f"{len(all_of)} trainings of {slug}, one after the other"
        # What is remarkable about one training is not so of all of them in a row.
        said = [line for line in train.advice(whole, capacity) if line not in whole.remarks()]
        said = [line for line in said if not _is_of_recipe(line)]
        of_one = [line for line in said if line.startswith(FIELD)]
        lines += [f"{of}: {line}" for line in said if line not in of_one]
        lines += [f"{slug}: {line}" for line in (*first.remarks(), *of_one)]
    return [*lines, *_untold_targets(job)]


def _untold_targets(job: StudyJob) -> list[str]:
    """What is said of the targets of the recipes that the entries name, each once."""
    seeds, found = len(job.seeds or (0,)), dict[str, None]()
    for number, training in zip(range(len(job.jobs)), job.trainings[::seeds], strict=False):
        first: Any = parse(VERBS["train"].spec(), training.train)
        with submitted_entry(job, number):
            found |= dict.fromkeys(untold_targets(first.evaluation.features.metric))
    return list(found)


def _is_of_recipe(line: str) -> bool:
    """Whether a line names the recipe that it is of, and so need not name the trainings."""
    return line.startswith(TARGETS)


def _differences(written: Sequence[tuple[str, Any]]) -> list[str]:
    """For each entry, in which fields it differs from others of its name."""
    texts = [""] * len(written)
    for slug in {slug for slug, _ in written}:
        numbers = [number for number, (other, _) in enumerate(written) if other == slug]
        jobs = [written[number][1].to_dict() for number in numbers]
        fields = differing_fields(jobs, operation_fields())
        for number, found in zip(numbers, fields, strict=True):
            texts[number] = differences_text(found)
    return texts


def _totals(members: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums over all trainings; None where one of them is not known."""
    totals: dict[str, Any] = {
        "jobs": len(members),
        "steps": sum(member["num_steps"] for member in members),
    }
    totals["evaluations"] = sum(member["estimate"]["evaluations"] for member in members)
    for name in ("flops", "images", "hours", "gpu_hours", "evaluation_flops", "evaluation_hours"):
        values = [member["estimate"][name] for member in members]
        totals[name] = None if None in values else sum(values)
    return totals


def _sum(job: StudyJob, totals: dict[str, Any]) -> str:
    seeds = len(job.seeds or (0,))
    of = f" ({len(job.jobs)} x {seeds} seeds)" if seeds > 1 else ""
    line = f"{counted(totals['jobs'], 'job')}{of}, {totals['steps']:,} steps and "
    line += f"{totals['flops'] / 1e12:,.3g} TFLOP in all"
    if totals["hours"] is not None:
        line += f": {hours_text(totals['hours'])} one after the other"
        line += f", {totals['gpu_hours']:,.3g} GPU hours" if totals["gpu_hours"] else ""
    count, flops, hours = (totals[f"evaluation{of}"] for of in ("s", "_flops", "_hours"))
    if not count:
        return line
    line += f"; {BESIDES}{counted(count, 'evaluation')}"
    line += "" if flops is None else f" of {flops / 1e12:,.3g} TFLOP"
    return line if hours is None else f"{line}: {hours_text(hours)} of one worker each"
