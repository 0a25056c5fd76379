"""What `submit train` is, for everybody who asks: the command line, resolution, the drivers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colddiff.jobs.verb import Talk, Verb

if TYPE_CHECKING:
    from colddiff.jobs.resolve import ResolvedJob
    from colddiff.verbs.train.job import TrainJob


class Train(Verb):
    """Train a restorer."""

    name = "train"
    help = "Train a restorer."

    def spec(self) -> type[TrainJob]:
        from colddiff.verbs.train.job import TrainJob

        return TrainJob

    def resolve(self, job: Any, storage: str, talk: Talk | None) -> tuple[TrainJob, dict[str, str]]:
        from colddiff.verbs.train.resolve import resolve_training

        return resolve_training(job, storage, talk)

    def run_here(self, resolved: ResolvedJob, attempt: int) -> int:
        from colddiff.verbs.train.work import train_here

        return train_here(resolved, attempt)


VERB = Train()
