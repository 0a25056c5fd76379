"""Resolve a study: its trainings with packed data, and the ids that they have on their own."""

from __future__ import annotations

from colddiff.errors import CheckpointError, DataError, SpecError
from colddiff.jobs.resolve import identified
from colddiff.jobs.results import each_line_once
from colddiff.spec import digest
from colddiff.spec.plugins import load_plugins, plugin_digest
from colddiff.stores.open import absolute
from colddiff.verbs.study.job import StudyJob, TrainingSpec
from colddiff.verbs.study.written import blamed, submitted_entry, written_trainings


def resolve_study(job: StudyJob, storage: str, *, pack: bool) -> tuple[StudyJob, dict[str, str]]:
    """The study with its trainings, and the digest of their ids, which stands for all of them.

    Raises SpecError, DataError, CheckpointError naming the entry: before anything is started.
    """
    if job.trainings:
        raise SpecError([("trainings", "is written when a study is submitted: leave it out")])
    load_plugins(job.plugins)
    with each_line_once():
        trainings, plugins = _resolved_trainings(job, storage, pack)
    _refuse_twice(job, trainings)
    changes = {"trainings": tuple(trainings), "plugins": tuple(dict.fromkeys(plugins))}
    ids = digest([training.id for training in trainings])
    return job.model_copy(update=changes), {"jobs": ids, "seeds": "", "overrides": ""}


def _resolved_trainings(
    job: StudyJob, storage: str, pack: bool
) -> tuple[list[TrainingSpec], list[str]]:
    """All trainings of a study, and the plugins that they need."""
    plugins: list[str] = []
    trainings: list[TrainingSpec] = []
    for number, (slug, train) in enumerate(written_trainings(job)):
        own = tuple(dict.fromkeys(map(absolute, (*job.plugins, *train.plugins))))
        try:
            with submitted_entry(job, number):
                found, content, _ = identified(
                    train.model_copy(update={"plugins": own}), slug, storage, pack=pack
                )
        except (SpecError, DataError, CheckpointError) as error:
            raise blamed(job, number, error) from None
        plugins += own
        tracking = found.tracking.model_copy(update={"experiment": job.tracking.experiment})
        for seed in job.seeds or (train.seed,):
            one = found.model_copy(update={"seed": seed, "tracking": tracking})
            # A study stages its plugins for all its trainings: each knows them by their content.
            data = {**one.to_dict(), "plugins": []}
            digests = tuple(map(plugin_digest, own))
            trainings.append(
                TrainingSpec(id=one.job_id(slug, content), slug=slug, train=data, plugins=digests)
            )
    return trainings, plugins


def _refuse_twice(job: StudyJob, trainings: list[TrainingSpec]) -> None:
    """SpecError for two entries that are the same training."""
    seeds = len(job.seeds or (0,))
    first: dict[str, int] = {}
    for number, training in enumerate(trainings):
        entry = number // seeds
        before = first.setdefault(training.id, entry)
        if before != entry:
            what = (
                f"is the same training as jobs[{before}], {training.id}: only fields of how a job "
                "is run differ, or none"
            )
            raise SpecError([(f"jobs[{entry}]", what)])
