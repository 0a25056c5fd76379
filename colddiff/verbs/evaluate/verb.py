"""What `submit evaluate` is, for everybody who asks: the command line, resolution, the drivers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colddiff.jobs.verb import Talk, Verb

if TYPE_CHECKING:
    from colddiff.jobs.resolve import ResolvedJob
    from colddiff.verbs.evaluate.job import EvaluateJob


class Evaluate(Verb):
    """Measure a checkpoint on test images, or samples against a reference."""

    name = "evaluate"
    help = "Measure a checkpoint on test images, or samples against a reference."

    def spec(self) -> type[EvaluateJob]:
        from colddiff.verbs.evaluate.job import EvaluateJob

        return EvaluateJob

    def resolve(
        self, job: Any, storage: str, talk: Talk | None
    ) -> tuple[EvaluateJob, dict[str, str]]:
        from colddiff.verbs.evaluate.resolve import resolve_evaluation

        return resolve_evaluation(job, storage, talk)

    def run_here(self, resolved: ResolvedJob, attempt: int) -> int:
        from colddiff.verbs.evaluate.work import evaluate_here

        return evaluate_here(resolved, attempt)


VERB = Evaluate()
