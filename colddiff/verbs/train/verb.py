"""The verb `submit train`, as the command line, resolution and the driver see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from colddiff.jobs.verb import DryRun, Verb, restore_lines

if TYPE_CHECKING:
    from colddiff.checkpoints.named import NamedCheckpoint
    from colddiff.data.resolve import Input
    from colddiff.features.spec import FeaturesSpec
    from colddiff.jobs.attempt import Attempt
    from colddiff.jobs.resolve import ResolvedJob
    from colddiff.jobs.runner import Capacity
    from colddiff.verbs.train.job import TrainJob


class Train(Verb):
    """Train a restorer to invert a degradation."""

    name = "train"
    help = "Train a restorer."
    extent = "num_steps"
    unit = "steps"
    all_at_once = True

    def spec(self) -> type[TrainJob]:
        from colddiff.verbs.train.job import TrainJob

        return TrainJob

    def resolve(self, job: Any, storage: str, *, pack: bool) -> tuple[TrainJob, dict[str, str]]:
        from colddiff.verbs.train.resolve import resolve_training

        return resolve_training(job, storage, pack=pack)

    def advice(self, job: Any, capacity: Callable[[], Capacity | None]) -> list[str]:
        from colddiff.jobs.recipes import untold_targets
        from colddiff.terminals.held import poor_evaluation
        from colddiff.verbs.train.estimates.cpu_days import cpu_advice

        targets = untold_targets(job.evaluation.features.metric)
        about = [*job.remarks(), *poor_evaluation(job), *targets]
        return [*about, *cpu_advice(job, capacity)]

    def prepare(self, attempt: Attempt) -> None:
        from colddiff.verbs.train.preflight import check_before_training

        check_before_training(attempt.resolved, attempt.folder)

    def run(self, attempt: Attempt, prepared: None, *, on_ray: bool) -> dict[str, Any]:
        from colddiff.verbs.train.work import fit_here, train

        if on_ray:
            from colddiff.verbs.train.on_ray import cores_held, fit_on_ray

            return train(attempt, fit_on_ray, cores_held)
        return train(attempt, fit_here)

    def outputs_exist(self, resolved: ResolvedJob) -> bool:
        from colddiff.verbs.train.resolve import trained_checkpoint_exists

        return trained_checkpoint_exists(resolved)

    def summary(self, result: Mapping[str, Any]) -> list[str]:
        from colddiff.report.tables import evaluation_lines

        best, lines = result.get("best"), []
        if result["metrics"]:
            # By a distance that does not fit only where `evaluation.best` names it.
            lines = [*_of_step(result), *evaluation_lines(result, best and best["metric"])]
        lines.append(f"checkpoint: {result['checkpoint']}")
        if best:
            lines.append(f"best: step {best['step']}, {best['metric']} {best['value']:.5g}")
        return lines

    def next_steps(self, job_id: str, result: Mapping[str, Any]) -> list[str]:
        best = f"{job_id}@best" if result.get("best") else job_id
        return [
            *restore_lines(best, result),
            f"colddiff submit evaluate checkpoint={best}",
            "the same command with a larger num_steps trains on from here",
        ]

    def score(self, result: Mapping[str, Any]) -> tuple[str, float] | None:
        best = result.get("best")
        return (best["metric"], best["value"]) if best else super().score(result)

    def features(self, job: Any) -> list[FeaturesSpec]:
        from colddiff.verbs.train.resolve import is_evaluated

        return [job.evaluation.features] if is_evaluated(job) else []

    def checkpoints(self, job: Any) -> list[NamedCheckpoint]:
        if job.start_from is None:
            return []
        from colddiff.checkpoints.named import NamedCheckpoint

        return [NamedCheckpoint("start_from", job.start_from, weights_alone=True)]

    def inputs(self, job: Any) -> list[Input]:
        from colddiff.verbs.train.resolve import inputs_of

        return inputs_of(job)

    def dry_run(self, job: Any, rate: str | None) -> DryRun:
        from colddiff.jobs.recipes import untold_targets
        from colddiff.stores.open import storage_at
        from colddiff.verbs.train.estimates.estimate import estimate
        from colddiff.verbs.train.resolve import (
            inputs_of,
            misfit_lines,
            scaled_up_lines,
            shared_lines,
        )

        found = estimate(job, rate)
        there = {one.field: one.manifest(storage_at(job.storage)) for one in inputs_of(job)[:2]}
        images = there.get("data")
        about = [
            *scaled_up_lines(job, images),
            *shared_lines(images, there.get("test_data"), str(job.test_data)),
            *untold_targets(job.evaluation.features.metric),
        ]
        lines = [*job.remarks(), *misfit_lines(job), *about]
        return DryRun(lines, {"estimate": found.to_dict()}, found.lines(), found.problems)


def _of_step(result: Mapping[str, Any]) -> list[str]:
    """A line above the table: of which step it is, and where the best is another."""
    best, step = result.get("best"), result.get("step")
    if step is None:
        return []
    if not best or best["step"] == step:
        return [f"evaluation at step {step}" + (", the best" if best else "")]
    reference = f"{result.get('id', 'JOB')}@best"
    return [
        f"evaluation at step {step}, the last; the best is step {best['step']}: "
        f"`colddiff report {reference} --out DIR`"
    ]


VERB = Train()
