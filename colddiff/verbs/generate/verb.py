"""What `submit generate` is, for everybody who asks: the command line, resolution, the drivers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from colddiff.jobs.verb import Talk, Verb

if TYPE_CHECKING:
    from colddiff.jobs.resolve import ResolvedJob
    from colddiff.verbs.generate.job import GenerateJob


class Generate(Verb):
    """Make images from a checkpoint, each exactly once, into tars on S3 or a path."""

    name = "generate"
    help = "Make images from a checkpoint, each exactly once, into tars on S3 or a path."

    def spec(self) -> type[GenerateJob]:
        from colddiff.verbs.generate.job import GenerateJob

        return GenerateJob

    def resolve(
        self, job: Any, storage: str, talk: Talk | None
    ) -> tuple[GenerateJob, dict[str, str]]:
        from colddiff.verbs.generate.resolve import resolve_generation

        return resolve_generation(job, storage, talk)

    def check(self, job: Any, storage: str, job_id: str, content: Mapping[str, str]) -> None:
        from colddiff.verbs.generate.resolve import check_generation

        check_generation(job, storage, job_id, content)

    def still_there(self, resolved: ResolvedJob) -> bool:
        from colddiff.verbs.generate.job import GenerateJob
        from colddiff.verbs.generate.resolve import samples_are_there

        return samples_are_there(resolved.job_as(GenerateJob), resolved.storage, resolved.id)

    def run_here(self, resolved: ResolvedJob, attempt: int) -> int:
        from colddiff.verbs.generate.work import generate_here

        return generate_here(resolved, attempt)


VERB = Generate()
