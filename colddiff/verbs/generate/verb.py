"""The verb `submit generate`, as the command line, resolution and the driver see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from colddiff.jobs.verb import DryRun, Verb

if TYPE_CHECKING:
    from colddiff.checkpoints.named import NamedCheckpoint
    from colddiff.data.resolve import Input
    from colddiff.features.spec import FeaturesSpec
    from colddiff.jobs.attempt import Attempt
    from colddiff.jobs.folder import JobFolder
    from colddiff.jobs.job import Job
    from colddiff.jobs.resolve import ResolvedJob
    from colddiff.jobs.runner import Capacity
    from colddiff.verbs.generate.job import GenerateJob


class Generate(Verb):
    """Generate images from a checkpoint."""

    name = "generate"
    help = "Generate images from a checkpoint, each exactly once, into tars on S3 or a path."
    extent = "num_samples"
    unit = "images"

    def spec(self) -> type[GenerateJob]:
        from colddiff.verbs.generate.job import GenerateJob

        return GenerateJob

    def resolve(self, job: Any, storage: str, *, pack: bool) -> tuple[GenerateJob, dict[str, str]]:
        from colddiff.verbs.generate.resolve import resolve_generation

        return resolve_generation(job, storage, pack=pack)

    def prepare(self, attempt: Attempt) -> Any:
        from colddiff.verbs.generate.work import prepare

        return prepare(attempt)

    def run(self, attempt: Attempt, prepared: Any, *, on_ray: bool) -> dict[str, Any]:
        from colddiff.verbs.generate.work import OpenWorkers, generate, open_local_workers

        open_workers: OpenWorkers = open_local_workers
        if on_ray:
            from colddiff.verbs.generate.on_ray import open_ray_workers

            open_workers = open_ray_workers
        return generate(attempt, prepared, open_workers)

    def check(self, job: Any, storage: str, job_id: str, content: Mapping[str, str]) -> None:
        from colddiff.verbs.generate.resolve import check_generation

        check_generation(job, storage, job_id, content)

    def advice(self, job: Any, capacity: Callable[[], Capacity | None]) -> list[str]:
        from colddiff.verbs.generate.held import held_lines

        return held_lines(job)

    def requested_extent(self, job: Job) -> int:
        return int(getattr(job, self.extent) or 0)

    def summary(self, result: Mapping[str, Any]) -> list[str]:
        return [
            f"{result['num_samples']} images in {result['samples']}",
            *super().summary(result),
            *result.get("remarks", ()),
        ]

    def next_steps(self, job_id: str, result: Mapping[str, Any]) -> list[str]:
        samples = result["samples"]
        return [
            f"colddiff submit evaluate samples={samples} reference=URI",
            "the same command with a larger num_samples makes more",
        ]

    def outputs_exist(self, resolved: ResolvedJob) -> bool:
        from colddiff.verbs.generate.job import GenerateJob
        from colddiff.verbs.generate.resolve import samples_exist

        return samples_exist(resolved.job_as(GenerateJob), resolved.storage, resolved.id)

    def needs_checkpoint(self, job: Any) -> bool:
        return job.checkpoint is None

    def outputs(self, job: Any) -> Mapping[str, str]:
        return {} if job.out is None else {"out": job.out}

    def left_behind(self, folder: JobFolder) -> str | None:
        from colddiff.stores.open import open_store

        # As `place_of`, whose module loads torch, and which an older record may not parse for.
        out = (folder.job().get("spec") or {}).get("out")
        place = str(out or f"{folder.store.uri}/samples/{folder.job_id}")
        return None if next(iter(open_store(place).list()), None) is None else place

    def features(self, job: Any) -> list[FeaturesSpec]:
        return list(job.statistics)

    def checkpoints(self, job: Any) -> list[NamedCheckpoint]:
        from colddiff.verbs.generate.estimate import checkpoint_of

        return [checkpoint_of(job)]

    def inputs(self, job: Any) -> list[Input]:
        from colddiff.verbs.generate.estimate import inputs_of

        return inputs_of(job)

    def dry_run(self, job: Any, rate: str | None) -> DryRun:
        super().dry_run(job, rate)
        from colddiff.verbs.generate.estimate import dry_run

        return dry_run(job)


VERB = Generate()
