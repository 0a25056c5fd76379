"""What nobody needs any more of a job at rest: attempts, uploads, checkpoints, Ray's state."""

from __future__ import annotations

from collections.abc import Iterator

from colddiff.checkpoints.kept import COMMIT, STEP, beyond_kept
from colddiff.cleanup.leftover import Leftover, leftover
from colddiff.cleanup.needed import Step, named_steps
from colddiff.cleanup.ours import ATTEMPTED, CHECKPOINT_FILE, CLAIMED, RAY_STATE, RESERVED
from colddiff.cleanup.survey import SurveyedJob
from colddiff.errors import RecordError
from colddiff.jobs.status import shown_json
from colddiff.ports import StoredObject


def without_record(job: SurveyedJob) -> Iterator[Leftover]:
    """An attempt whose client died before it wrote what the job is, or one that outlived it.

    A folder with anything else in it is not one, such as somebody's notes.
    """
    ended = job.status is None or job.status.finished
    begun = job.status is not None or any(map(CLAIMED.fullmatch, job.names))
    if ended and begun and all(ATTEMPTED.fullmatch(name) for name in job.names):
        why = "claimed, but its job was never written"
        store = job.folder.store
        yield leftover("attempt", job.folder.key(), why, job.objects, store, job.id)


def of_job(job: SurveyedJob, needed: set[Step] | None, keep: int | None) -> list[Leftover]:
    """Of a job at rest. ``needed``: checkpoints that jobs name; None if that is not known.

    Raises RecordError if a record that says what to keep is damaged.
    """
    return [*_attempts(job), *_ray_state(job), *_checkpoints(job, needed, keep)]


def _attempts(job: SurveyedJob) -> Iterator[Leftover]:
    """Earlier attempts that no driver has begun."""
    assert job.status is not None
    by_attempt: dict[str, list[StoredObject]] = {}
    for item in job.below("attempts/"):
        number = item.key.removeprefix(job.folder.key("attempts/")).partition("/")[0]
        by_attempt.setdefault(number, []).append(item)
    for number, objects in by_attempt.items():
        names = [item.key.removeprefix(job.folder.key("")) for item in objects]
        if all(map(CLAIMED.fullmatch, names)) and int(number) < job.status.attempt:
            place, store = job.folder.key("attempts", number), job.folder.store
            yield leftover("attempt", place, "no driver has begun it", objects, store, job.id)


def _ray_state(job: SurveyedJob) -> Iterator[Leftover]:
    """What Ray Train kept of workers that were killed."""
    states = []
    for item in job.below("ray/"):
        name = item.key.removeprefix(job.folder.key(""))
        match = RAY_STATE.fullmatch(name)
        if RESERVED.fullmatch(name) or (match and match.group(1) == job.id):
            states.append(item)
    if states:
        why = "Ray's own state of workers that were killed"
        yield leftover("ray", job.folder.key("ray"), why, states, job.folder.store, job.id)


def _checkpoints(
    job: SurveyedJob, needed: set[Step] | None, keep: int | None
) -> Iterator[Leftover]:
    """Uploads that never ended, and committed checkpoints beyond those that are kept."""
    prefix = job.folder.key("checkpoints/")
    folders: dict[int, list[StoredObject]] = {}
    for item in job.below("checkpoints/"):
        folder, _, name = item.key.removeprefix(prefix).partition("/")
        match = STEP.fullmatch(f"{folder}/")
        if match and CHECKPOINT_FILE.fullmatch(name) and folder == _folder(int(match.group(1))):
            folders.setdefault(int(match.group(1)), []).append(item)
    steps = [n for n, items in folders.items() if any(_commits(item) for item in items)]
    wanted = keep if keep is not None else _whole(job, "keep")
    beyond: set[int] = set()
    if needed is not None and wanted is not None and len(steps) > wanted:
        every = _whole(job, "evaluate_every") if _spec(job).get("test_data") is not None else None
        beyond = set(beyond_kept(job.folder, steps, wanted, every))
        # The last that its own result names too, such as the one its numbers are of.
        own = named_steps([job.folder.result() or {}])
        beyond -= {step for of, step in needed | own if of == job.id}
    for step, objects in sorted(folders.items()):
        place, store = f"{prefix}{_folder(step)}", job.folder.store
        # The record that commits it goes first: what is left of it then is no checkpoint.
        objects = sorted(objects, key=lambda item: not _commits(item))
        if step not in steps:
            why = "a checkpoint whose upload never ended"
            yield leftover("upload", place, why, objects, store, job.id)
        elif step in beyond:
            why = f"beyond the newest {wanted}; not the best, and no job names it"
            yield leftover("checkpoint", place, why, objects, store, job.id)


def _folder(step: int) -> str:
    return f"step_{step:08d}"


def _commits(item: StoredObject) -> bool:
    return item.key.endswith(f"/{COMMIT}")


def _spec(job: SurveyedJob) -> dict[str, object]:
    return (job.job or {}).get("spec") or {}


def _whole(job: SurveyedJob, name: str) -> int | None:
    """A count in the job's spec; None without one. Raises RecordError if it is no count."""
    value = _spec(job).get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise RecordError(
        f"{job.folder.uri}/job.json is damaged: spec.{name} is {shown_json(value)}, not a whole "
        "number from 1"
    )
