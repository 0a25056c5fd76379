"""The trainings of a study as segments, and how each stands, as its own folder says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from colddiff.checkpoints.format import Checkpoints
from colddiff.data.open import read_manifest
from colddiff.errors import ColddiffError, Missing
from colddiff.evaluation.best import left_out, metric_of_record
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.segments.listed import ListedSegments
from colddiff.jobs.segments.room import Needs
from colddiff.jobs.segments.segment import OUTAGE_S, JobSegment, Segment
from colddiff.jobs.submit import is_done
from colddiff.jobs.verb import VERBS
from colddiff.report.differences import differing_fields
from colddiff.retry import call_with_retry
from colddiff.spec import digest, parse
from colddiff.spec.documents import DocumentError, read_json_object
from colddiff.verbs.study.job import StudyJob

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

STUDY_TAG = "colddiff.study"
MEMBERS = "members.json"


@dataclass(frozen=True, slots=True)
class Member:
    """A training of a study; its id is that of the same job submitted on its own."""

    number: int
    """Its place in the study, by entry and then by seed."""
    entry: int
    """Which of ``jobs`` it is of."""
    id: str
    slug: str
    job: TrainJob
    data: Mapping[str, Any]
    """The job, JSON-ready."""
    plugins: tuple[str, ...]
    differs: Mapping[str, Any]
    """Its fields in which jobs of its name differ, seeds aside, by path."""
    measured: str
    """Digest of how it is evaluated and on what: numbers of others do not share its columns."""

    @property
    def needs(self) -> Needs:
        """What its workers reserve."""
        return Needs(self.job.resources, self.job.workers)


def members_of(job: StudyJob) -> list[Member]:
    """The trainings of a resolved study. Raises DataError where test images are gone."""
    seeds = len(job.seeds or (0,))
    spec = VERBS["train"].spec()
    differs: dict[int, dict[str, Any]] = {}
    for slug in {training.slug for training in job.trainings}:
        numbers = [n for n, training in enumerate(job.trainings) if training.slug == slug]
        plain = [{**job.trainings[n].train, "seed": None} for n in numbers]
        differs |= dict(zip(numbers, differing_fields(plain, operation_fields()), strict=True))
    members = []
    manifest = cache(lambda uri: read_manifest(uri).digest)
    for number, training in enumerate(job.trainings):
        train = cast("TrainJob", parse(spec, training.train, f"trainings[{number}].train"))
        members.append(
            Member(
                number,
                number // seeds,
                training.id,
                training.slug,
                train,
                training.train,
                training.plugins,
                differs[number],
                _measured(train, manifest),
            )
        )
    return members


def operation_fields() -> set[str]:
    """Fields of a training that say how it is run, the number of steps aside."""
    train = VERBS["train"]
    spec = train.spec()
    return set(spec.model_fields) - set(spec.identity_fields()) - {train.extent} | {"plugins"}


def is_trained(study: ResolvedJob, member: Member) -> bool:
    """Whether a training is done, by whoever submitted it, and its checkpoint is there."""
    resolved = replace(study, id=member.id, slug=member.slug, job=member.job)
    folder = resolved.folder
    status = folder.status()
    return status is not None and is_done(resolved, folder, status)


def all_done(study: ResolvedJob) -> bool:
    """Whether all trainings of a resolved study are done."""
    return all(is_trained(study, member) for member in members_of(study.job_as(StudyJob)))


class Trainings(ListedSegments[Member, JobSegment]):
    """``SegmentSource`` of the trainings of a study that are not done."""

    def __init__(self, attempt: Attempt, members: Sequence[Member]) -> None:
        self._attempt, self.members = attempt, members
        self._done = {member.number for member in members if is_trained(attempt.resolved, member)}
        self.already_done = len(self._done)
        self._measured_as: dict[int, str] = {}
        left = [member for member in members if member.number not in self._done]
        self.resumed = sum(self._has_checkpoint(member) for member in left)
        super().__init__(left)

    def _segment(self, item: Member) -> JobSegment:
        study = self._attempt.resolved.id
        # The tracker was checked as the study was submitted; what it misses is delivered later.
        tracking = {"parent": study, "tags": {STUDY_TAG: study}, "required": False}
        return JobSegment(
            item.id, item.slug, item.data, item.job.num_steps, tracking, plugins=item.plugins
        )

    def finished(self, segment: Segment, error: str) -> None:
        member = self._running[segment.key]
        super().finished(segment, error)
        if not error:
            self._done.add(member.number)
            _, found = self._result(member)
            metric = metric_of_record(found, member.data)
            told = f": {metric} {found['metrics'][metric]:.5g}" if metric else ""
            self._attempt.report(f"{self.done} of {len(self.members)} jobs: {member.id}{told}")

    @property
    def done(self) -> int:
        """How many trainings are done."""
        return len(self._done)

    def running(self) -> list[Member]:
        """Those that are being trained; for any thread."""
        return list(self._running.values())

    def trainings(self) -> dict[str, str]:
        """Ids of all trainings, and how each stands; for any thread."""
        return {member.id: self.stands(member) for member in self.members}

    def failed(self) -> dict[str, str]:
        """Why trainings failed in this attempt, by id; the next attempt tries them again."""
        return dict(self._errors)

    def steps(self, member: Member) -> int:
        """Optimizer steps that a training has made; 0 where that cannot be read now."""
        with suppress(ColddiffError):
            status = self._folder(member).status()
            return status.step if status is not None else 0
        return 0

    def record(self, member: Member) -> dict[str, Any]:
        """A training as ``members.json`` has it: what it is, how it stands, its final metrics."""
        entry = self._attempt.resolved.job_as(StudyJob).jobs[member.entry]
        overrides = entry.overrides
        state, error = self.state(member), self._errors.get(member.id, "")
        step, found = self._result(member) if state == "done" else (self.steps(member), {})
        measured = self._measured(member) if state == "done" else member.measured
        return {
            "id": member.id,
            "entry": member.entry,
            "name": member.slug,
            "recipe": entry.recipe,
            "overrides": dict(overrides) if isinstance(overrides, dict) else list(overrides),
            "differs": dict(member.differs),
            "seed": member.job.seed,
            "state": state,
            "message": error,
            "step": step,
            "num_steps": member.job.num_steps,
            "measured": measured,
            "metrics": dict(found.get("metrics") or {}),
            "left_out": left_out(found.get("provenance") or {}, member.job.evaluation.best),
        }

    def state(self, member: Member) -> str:
        """``done``, ``failed``, ``running`` or ``waiting``, in this attempt."""
        if member.number in self._done:
            return "done"
        if member.id in self._errors:
            return "failed"
        return "running" if member.id in self._running else "waiting"

    def _result(self, member: Member) -> tuple[int, dict[str, Any]]:
        """Step and evaluation of a training that is done; it may have been trained on since."""
        folder, step = self._folder(member), member.job.num_steps

        def read() -> tuple[int, dict[str, Any]]:
            found = folder.evaluation(step)
            if found is not None:
                return step, found
            result = folder.result() or {}
            return int(result.get("step") or step), result

        return call_with_retry(read, f"the result of {member.id}", OUTAGE_S)

    def _measured(self, member: Member) -> str:
        """How a training that is done was evaluated: whoever submitted it may have had others."""
        # Read once: it stays, and all records are written anew with each change of one.
        if member.number not in self._measured_as:
            with suppress(ColddiffError):
                where, spec = f"{member.id}: job.json", self._folder(member).job().get("spec")
                train = cast("TrainJob", parse(VERBS["train"].spec(), spec, where))
                found = _measured(train, lambda uri: read_manifest(uri).digest)
                self._measured_as[member.number] = found
        return self._measured_as.get(member.number, member.measured)

    def unlike(self) -> list[str]:
        """Of the trainings that are done those that were not made as asked, and in what."""
        lines = []
        for member in self.members:
            if member.number not in self._done:
                continue
            asked, step = member.job.num_steps, self._result(member)[0]
            how = [f"trained for {step} steps, not {asked}"] * (step != asked)
            how += ["evaluated otherwise than asked"] * (self._measured(member) != member.measured)
            if how:
                lines.append(f"{member.id} is taken as it is: {' and '.join(how)}")
        return lines

    def _has_checkpoint(self, member: Member) -> bool:
        folder = self._folder(member)
        return bool(Checkpoints.of(folder).steps())

    def _folder(self, member: Member) -> JobFolder:
        return JobFolder(self._attempt.folder.store, member.id)


def write_members(folder: JobFolder, records: Sequence[Mapping[str, Any]], **more: Any) -> bytes:
    """Replaces ``members.json`` of a study; returns what was written."""
    data = (json.dumps({"members": list(records), **more}, indent=2) + "\n").encode()
    folder.store.put(folder.key(MEMBERS), data)
    return data


def read_members(folder: JobFolder) -> dict[str, Any]:
    """What ``write_members`` wrote last; empty before the first, or where it is damaged."""
    try:
        return read_json_object(folder.store.get(folder.key(MEMBERS)))
    except (Missing, DocumentError):
        return {}


def _measured(job: TrainJob, digest_of: Callable[[str], str]) -> str:
    evaluation = {**job.evaluation.to_dict(), "batch_size": None}
    evaluation["features"] = {**evaluation["features"], "path": None}
    images = digest_of(job.test_data) if job.test_data is not None else None
    return digest([evaluation, images, job.augment, list(job.shape.chw)])[:8]
