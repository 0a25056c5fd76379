"""What `submit search` is, for everybody who asks: the command line, resolution, the driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from colddiff.jobs.verb import VERBS, DryRun, Verb

if TYPE_CHECKING:
    from colddiff.checkpoints.named import NamedCheckpoint
    from colddiff.data.resolve import Input
    from colddiff.features.spec import FeaturesSpec
    from colddiff.jobs.attempt import Attempt
    from colddiff.jobs.recipes import Recipe
    from colddiff.jobs.resolve import ResolvedJob
    from colddiff.jobs.runner import Capacity
    from colddiff.jobs.verb import Settle
    from colddiff.verbs.search.job import SearchJob


class Search(Verb):
    """The schedule of a degradation, or the severities that a checkpoint is sampled at."""

    name = "search"
    help = "Search a degradation's schedule by training, or a checkpoint's severities by sampling."
    extent = "num_trials"
    unit = "trials"
    waits_for_machines = False

    def spec(self) -> type[SearchJob]:
        from colddiff.verbs.search.job import SearchJob

        return SearchJob

    def resolve(self, job: Any, storage: str, *, pack: bool) -> tuple[SearchJob, dict[str, str]]:
        if job.samples_only:
            from colddiff.verbs.search.severities.resolve import resolve_lists

            return resolve_lists(job, storage, pack=pack)
        from colddiff.verbs.search.resolve import resolve_search

        return resolve_search(job, storage, pack=pack)

    def completed(self, job: Any, recipe: Recipe) -> SearchJob:
        from colddiff.verbs.search.settings import with_base_of

        return with_base_of(job, recipe)

    def check_capacity(self, job: Any, capacity: Callable[[], Capacity | None]) -> None:
        from colddiff.verbs.search.room import needs_of, refuse_no_room

        if (found := capacity()) is not None:
            refuse_no_room(needs_of(job), found)

    def with_resources(self, job: Any, settle: Settle) -> SearchJob:
        from colddiff.jobs.device import settled_fields

        base = settled_fields(job.base, settle) if isinstance(job.base, Mapping) else job.base
        found = job.resources
        if found is not None:
            # A base that is only named is one of a dry run: `check_capacity` reads it.
            written = isinstance(base, Mapping) and not job.samples_only
            workers = base.get("workers", 1) if written else 1
            found = settle(found, tuple(workers) if isinstance(workers, list) else workers)
        job = job.model_copy(update={"base": base, "resources": found})
        return cast("SearchJob", job)

    def advice(self, job: Any, capacity: Callable[[], Capacity | None]) -> list[str]:
        if job.samples_only:
            return []
        from colddiff.verbs.search.estimate import advice

        return advice(job, capacity)

    def prepare(self, attempt: Attempt) -> Any:
        if attempt.resolved.job_as(self.spec()).samples_only:
            from colddiff.verbs.search.severities.work import prepare_lists

            return prepare_lists(attempt)
        from colddiff.verbs.search.work import prepare

        return prepare(attempt)

    def run(self, attempt: Attempt, prepared: Any, *, on_ray: bool) -> dict[str, Any]:
        from colddiff.jobs.segments.here import RunSegments, run_segments_here
        from colddiff.verbs.search.work import search

        run_segments: RunSegments = run_segments_here
        if on_ray:
            from colddiff.verbs.search.on_ray import run_trials_on_ray

            run_segments = run_trials_on_ray
        if attempt.resolved.job_as(self.spec()).samples_only:
            from colddiff.verbs.search.severities.work import search_lists

            return search_lists(attempt, prepared, run_segments)
        return search(attempt, prepared, run_segments)

    def outputs_exist(self, resolved: ResolvedJob) -> bool:
        folder = resolved.folder
        return all(folder.store.size(folder.key(name)) for name in ("leaderboard.md", "best.yaml"))

    def summary(self, result: Mapping[str, Any]) -> list[str]:
        if _samples_only(result):
            from colddiff.verbs.search.severities.results import list_summary

            return list_summary(result)
        from colddiff.verbs.search.tracked import summary_lines

        return summary_lines(result)

    def next_steps(self, job_id: str, result: Mapping[str, Any]) -> list[str]:
        if _samples_only(result):
            from colddiff.verbs.search.severities.results import list_next_steps

            return list_next_steps(result)
        return [
            f"colddiff submit train {result['best_yaml']}",
            "the same command with a larger num_trials searches on",
        ]

    def score(self, result: Mapping[str, Any]) -> tuple[str, float] | None:
        if _samples_only(result):
            from colddiff.verbs.search.severities.results import list_score

            return list_score(result)
        return result["metric"], result["metrics"]["search/best"]

    def features(self, job: Any) -> Sequence[FeaturesSpec]:
        if job.samples_only or job.base is None:
            return []
        from colddiff.verbs.search.settings import base_of

        return VERBS["train"].features(base_of(job))

    def checkpoints(self, job: Any) -> list[NamedCheckpoint]:
        if job.samples_only:
            from colddiff.verbs.search.severities.resolve import checkpoint_of

            return [checkpoint_of(job)]
        if job.base is None:
            return []
        from dataclasses import replace

        from colddiff.verbs.search.settings import base_of

        found = VERBS["train"].checkpoints(base_of(job))
        return [replace(one, field=f"base.{one.field}") for one in found]

    def inputs(self, job: Any) -> list[Input]:
        if job.samples_only:
            from colddiff.verbs.search.severities.resolve import inputs_of

            return inputs_of(job)
        if job.base is None:
            return []
        from dataclasses import replace

        from colddiff.verbs.search.settings import base_of

        found = VERBS["train"].inputs(base_of(job))
        return [replace(one, field=f"base.{one.field}") for one in found]

    def dry_run(self, job: Any, rate: str | None) -> DryRun:
        if job.samples_only:
            from colddiff.verbs.search.severities.estimate import dry_run_lists

            return dry_run_lists(job, rate)
        from dataclasses import replace

        from colddiff.verbs.search.ahead import check_ahead
        from colddiff.verbs.search.estimate import dry_run

        found = dry_run(job, rate)
        return replace(found, lines=[*found.lines, *check_ahead(job)])


def _samples_only(result: Mapping[str, Any]) -> bool:
    """Whether a result is that of a checkpoint's search, which trained nothing."""
    return "checkpoint" in result


VERB = Search()
