"""What `submit study` is, for everybody who asks: the command line, resolution, the driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from colddiff.jobs.verb import DryRun, Verb

if TYPE_CHECKING:
    from colddiff.checkpoints.named import NamedCheckpoint
    from colddiff.data.resolve import Input
    from colddiff.features.spec import FeaturesSpec
    from colddiff.jobs.attempt import Attempt
    from colddiff.jobs.folder import JobFolder
    from colddiff.jobs.job import Job
    from colddiff.jobs.recipes import Recipe
    from colddiff.jobs.runner import Capacity
    from colddiff.jobs.verb import Settle
    from colddiff.verbs.study.job import StudyJob


class Study(Verb):
    """Several training jobs over several seeds, submitted, resumed and reported as one."""

    name = "study"
    help = "Train several jobs, each with several seeds, as one."
    unit = "jobs"
    waits_for_machines = False

    def spec(self) -> type[StudyJob]:
        from colddiff.verbs.study.job import StudyJob

        return StudyJob

    def resolve(self, job: Any, storage: str, *, pack: bool) -> tuple[StudyJob, dict[str, str]]:
        from colddiff.verbs.study.resolve import resolve_study

        return resolve_study(job, storage, pack=pack)

    def completed(self, job: Any, recipe: Recipe) -> StudyJob:
        from colddiff.verbs.study.written import with_train_of

        return with_train_of(job, recipe)

    def check_capacity(self, job: Any, capacity: Callable[[], Capacity | None]) -> None:
        from colddiff.verbs.study.room import refuse_no_room

        if (found := capacity()) is not None:
            refuse_no_room(job, found)

    def with_resources(self, job: Any, settle: Settle) -> StudyJob:
        from colddiff.jobs.device import settled_fields

        trainings = tuple(
            one.model_copy(update={"train": settled_fields(one.train, settle)})
            for one in job.trainings
        )
        return cast("StudyJob", job.model_copy(update={"trainings": trainings}))

    def advice(self, job: Any, capacity: Callable[[], Capacity | None]) -> list[str]:
        from colddiff.verbs.study.estimate import advice

        return advice(job, capacity)

    def prepare(self, attempt: Attempt) -> Any:
        from colddiff.verbs.study.work import prepare

        return prepare(attempt)

    def run(self, attempt: Attempt, prepared: Any, *, on_ray: bool) -> dict[str, Any]:
        from colddiff.jobs.segments.here import RunSegments, run_segments_here
        from colddiff.verbs.study.work import study

        run_segments: RunSegments = run_segments_here
        if on_ray:
            from colddiff.verbs.study.on_ray import run_trainings_on_ray

            run_segments = run_trainings_on_ray
        return study(attempt, prepared, run_segments)

    def requested_extent(self, job: Job) -> int:
        return int(getattr(job, "num_trainings", 0))

    def outputs_exist(self, resolved: Any) -> bool:
        from colddiff.verbs.study.members import all_done

        return all_done(resolved)

    def members(self, folder: JobFolder) -> list[str]:
        from colddiff.verbs.study.members import read_members

        return [str(member["id"]) for member in read_members(folder).get("members", ())]

    def page_notes(self, folder: JobFolder) -> list[str]:
        from colddiff.verbs.study.members import read_members
        from colddiff.verbs.study.table import NEEDED, averaged_apart

        records = read_members(folder).get("members", ())
        # Of an earlier version, or damaged: a page does without.
        return averaged_apart([one for one in records if one.keys() >= NEEDED])

    def summary(self, result: Mapping[str, Any]) -> list[str]:
        from colddiff.verbs.study.table import table_lines

        return [*table_lines(result["members"]), f"table: {result['table']}"]

    def next_steps(self, job_id: str, result: Mapping[str, Any]) -> list[str]:
        first = result["jobs"][0]
        return [
            f"colddiff status {first}    # likewise for each of its jobs",
            f"colddiff submit evaluate checkpoint={first}",
            "the same command with overrides.num_steps=N, or more steps in its jobs, goes on",
        ]

    def score(self, result: Mapping[str, Any]) -> tuple[str, float] | None:
        from colddiff.verbs.study.table import best_mean

        return best_mean(result["over_seeds"])

    def features(self, job: Any) -> list[FeaturesSpec]:
        from colddiff.jobs.verb import VERBS
        from colddiff.verbs.study.written import written_trainings

        found = [VERBS["train"].features(train) for _, train in written_trainings(job)]
        return [spec for specs in found for spec in specs]

    def checkpoints(self, job: Any) -> list[NamedCheckpoint]:
        from colddiff.verbs.study.written import checkpoints_of

        return checkpoints_of(job)

    def inputs(self, job: Any) -> list[Input]:
        from colddiff.verbs.study.written import inputs_of

        return inputs_of(job)

    def dry_run(self, job: Any, rate: str | None) -> DryRun:
        from colddiff.verbs.study.estimate import dry_run

        return dry_run(job, rate)


VERB = Study()
