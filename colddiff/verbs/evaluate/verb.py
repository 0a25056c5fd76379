"""The verb `submit evaluate`, as the command line, resolution and the driver see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from colddiff.jobs.verb import DryRun, Verb, restore_lines

if TYPE_CHECKING:
    from colddiff.checkpoints.named import NamedCheckpoint
    from colddiff.data.resolve import Input
    from colddiff.features.spec import FeaturesSpec
    from colddiff.jobs.attempt import Attempt
    from colddiff.verbs.evaluate.job import EvaluateJob


class Evaluate(Verb):
    """A checkpoint on test images, or samples against a reference."""

    name = "evaluate"
    help = "Evaluate a checkpoint on test images, or samples against a reference set."
    unit = "images"

    def spec(self) -> type[EvaluateJob]:
        from colddiff.verbs.evaluate.job import EvaluateJob

        return EvaluateJob

    def resolve(self, job: Any, storage: str, *, pack: bool) -> tuple[EvaluateJob, dict[str, str]]:
        from colddiff.verbs.evaluate.resolve import resolve_evaluation

        return resolve_evaluation(job, storage, pack=pack)

    def prepare(self, attempt: Attempt) -> Any:
        from colddiff.verbs.evaluate.work import open_subject

        return open_subject(attempt.resolved)

    def run(self, attempt: Attempt, prepared: Any, *, on_ray: bool) -> dict[str, Any]:
        from colddiff.verbs.evaluate.work import SumBatches, evaluate, sum_in_process

        sum_batches: SumBatches = sum_in_process
        if on_ray:
            from colddiff.verbs.evaluate.on_ray import sum_on_ray

            sum_batches = sum_on_ray
        return evaluate(attempt, prepared, sum_batches)

    def summary(self, result: Mapping[str, Any]) -> list[str]:
        from colddiff.report.tables import evaluation_lines

        return evaluation_lines(result)

    def next_steps(self, job_id: str, result: Mapping[str, Any]) -> list[str]:
        checkpoint = result.get("checkpoint")
        if checkpoint is None:
            return []
        generate = f"colddiff submit generate checkpoint={checkpoint}"
        samples = result.get("terminal", True) and not result.get("poor_samples", False)
        way = "data=URI    # restores the images of a set"
        if samples:
            way = "num_samples=64    # new images, which take the longest training"
        return [*restore_lines(checkpoint, result), f"{generate} {way}"]

    def needs_checkpoint(self, job: Any) -> bool:
        return job.checkpoint is None and job.samples is None

    def features(self, job: Any) -> list[FeaturesSpec]:
        return [job.features]

    def checkpoints(self, job: Any) -> list[NamedCheckpoint]:
        from colddiff.verbs.evaluate.estimate import checkpoints_of

        return checkpoints_of(job)

    def inputs(self, job: Any) -> list[Input]:
        from colddiff.verbs.evaluate.estimate import inputs_of

        return inputs_of(job)

    def dry_run(self, job: Any, rate: str | None) -> DryRun:
        super().dry_run(job, rate)
        from colddiff.verbs.evaluate.estimate import dry_run

        return dry_run(job)


VERB = Evaluate()
