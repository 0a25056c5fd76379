"""What `submit search` is, for everybody who asks: the command line, resolution, the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from colddiff.jobs.verb import DryRun, Verb

if TYPE_CHECKING:
    from colddiff.jobs.attempt import Attempt
    from colddiff.jobs.recipes import Recipe
    from colddiff.jobs.resolve import ResolvedJob
    from colddiff.verbs.search.job import SearchJob


class Search(Verb):
    """The schedule of a degradation, searched."""

    name = "search"
    help = "Search the schedule of a degradation, by training jobs as trials."
    extent = "num_trials"
    unit = "trials"

    def spec(self) -> type[SearchJob]:
        from colddiff.verbs.search.job import SearchJob

        return SearchJob

    def resolve(self, job: Any, storage: str, *, pack: bool) -> tuple[SearchJob, dict[str, str]]:
        from colddiff.verbs.search.resolve import resolve_search

        return resolve_search(job, storage, pack=pack)

    def completed(self, job: Any, recipe: Recipe) -> SearchJob:
        if job.base is None and "train" in recipe.sections:
            job = job.model_copy(update={"base": recipe.train.to_dict()})
        return cast("SearchJob", job)

    def prepare(self, attempt: Attempt) -> Any:
        from colddiff.verbs.search.work import prepare

        return prepare(attempt)

    def run(self, attempt: Attempt, prepared: Any, *, on_ray: bool) -> dict[str, Any]:
        from colddiff.verbs.search.work import RunSegments, run_segments_here, search

        run_segments: RunSegments = run_segments_here
        if on_ray:
            from colddiff.verbs.search.on_ray import run_segments_on_ray

            run_segments = run_segments_on_ray
        return search(attempt, prepared, run_segments)

    def outputs_exist(self, resolved: ResolvedJob) -> bool:
        folder = resolved.folder
        return all(folder.store.size(folder.key(name)) for name in ("leaderboard.md", "best.yaml"))

    def dry_run(self, job: Any, rate: str | None) -> DryRun:
        from colddiff.verbs.search.resolve import dry_run

        return dry_run(job, rate)


VERB = Search()
