"""The jobs of a storage as a table: what tells them apart, filtered and sorted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

from colddiff.errors import ColddiffError, Unreachable
from colddiff.evaluation.best import higher_is_better
from colddiff.jobs.listing.ids import slug_of
from colddiff.jobs.status import duration, note_of
from colddiff.jobs.verb import VERBS, unit_of
from colddiff.report.differences import (
    HOW_IT_RUNS,
    OPERATION,
    differences_text,
    differing_fields,
    flat_fields,
    operation_aside,
    short_addresses,
    value_text,
)

if TYPE_CHECKING:
    from colddiff.jobs.folder import JobFolder
    from colddiff.jobs.listing.known_jobs import KnownJobs
    from colddiff.jobs.status import Status

READERS = 32
"""Jobs whose files are read at once: each read is a request where the store is S3."""
SORTS = ("created", "seen", "name", "state", "best")
LONGEST, LONGEST_NOTE, LONGEST_USER = 60, 120, 24
FEW = 8
"""Fields in which jobs of several names may differ to be told apart by them."""
MADE_FROM = ("checkpoint", "samples")
"""Fields that name what another job has made; of a search, its base may have them."""


@dataclass(slots=True)
class JobRow:
    """A job as `colddiff list` shows it."""

    folder: JobFolder
    status: Status | None
    job: Mapping[str, Any]
    """Parts of ``job.json``; empty where it is not written yet."""
    score: tuple[str, float] | None
    """Path and best value of the metric that stands for the job, once there is one."""
    differs: dict[str, Any] = field(default_factory=dict)
    """Fields in which jobs of its name differ, by path; without one, the kinds that others of its
    verb have not, and the fields in which those of the same kinds differ, if they are few."""
    short: dict[str, str] = field(default_factory=dict)
    """By path, the ends of addresses among ``differs`` that tell them apart."""
    unsaid: frozenset[str] = frozenset()
    """Paths among ``differs`` of how it runs, where others tell it apart."""

    @property
    def verb(self) -> str:
        """What the job does, the first word of its id."""
        return self.folder.job_id.partition("-")[0]

    @property
    def name(self) -> str:
        """The word that its submitter chose."""
        return str(self.job.get("slug") or slug_of(self.folder.job_id))

    @property
    def part_of(self) -> str | None:
        """Id of the search or study that runs it; None for a job that somebody submitted."""
        tracking = (self.job.get("spec") or {}).get("tracking")
        if not isinstance(tracking, Mapping):
            return None
        parent, tags = tracking.get("parent"), tracking.get("tags")
        if not isinstance(parent, str) or not isinstance(tags, Mapping):
            return None
        # Where somebody chose a parent for a job of theirs, they did not set this tag as well.
        return parent if tags.get(f"colddiff.{parent.partition('-')[0]}") == parent else None

    @property
    def state(self) -> str:
        """State of its newest attempt, WAITING where it has no workers; ``-`` before the first."""
        return "-" if self.status is None else self.status.word

    @property
    def user(self) -> str:
        """Who submitted its newest attempt; empty where an earlier version wrote its status."""
        return "" if self.status is None else self.status.user


def read_rows(folders: Sequence[JobFolder], known: KnownJobs) -> tuple[list[JobRow], list[str]]:
    """The rows of jobs, and a line for each job that has a damaged file.

    Raises StoreError if the store cannot be reached.
    """
    rows: list[JobRow] = []
    damaged: list[str] = []
    unknown: list[JobFolder] = []
    for folder in folders:
        ended = known.ended(folder)
        if ended is None:
            unknown.append(folder)
        else:
            rows.append(JobRow(folder, ended.status, ended.job, ended.score))
    with ThreadPoolExecutor(READERS, "reader") as pool:
        for found in pool.map(partial(_read, known), unknown):
            if isinstance(found, str):
                damaged.append(found)
            else:
                rows.append(found)
    rows.sort(key=lambda row: row.folder.job_id)
    known.save({row.folder.job_id for row in rows})
    _set_differences(rows)
    return rows, damaged


def chosen(
    rows: Iterable[JobRow], states: Sequence[str], name: str | None, user: str | None = None
) -> list[JobRow]:
    """Rows in one of ``states`` (any if empty) whose name or id has, or matches, ``name``.

    With ``user``, those that this user submitted.
    """

    def is_named(row: JobRow) -> bool:
        if name is None:
            return True
        if any(sign in name for sign in "*?["):
            return fnmatchcase(row.name, name) or fnmatchcase(row.folder.job_id, name)
        return name in row.folder.job_id or name in row.name

    return [
        row
        for row in rows
        if (not states or row.state in states) and is_named(row) and user in (None, row.user)
    ]


def submitted(rows: Sequence[JobRow], ids: Collection[str]) -> list[JobRow]:
    """Rows without those that a job among ``ids`` runs, such as the trials of a search."""
    return [row for row in rows if row.part_of is None or row.part_of not in ids]


def in_order(rows: Iterable[JobRow], sort: str) -> list[JobRow]:
    """Rows sorted by one of ``SORTS``; newest last, best first."""

    def key(row: JobRow) -> tuple[Any, ...]:
        seen = row.status.heartbeat if row.status else 0.0
        if sort == "best":
            if row.score is None:
                return True, "", 0.0
            path, value = row.score
            return False, path, -value if higher_is_better(path) else value
        by = {"created": row.job.get("created") or 0.0, "name": row.name, "state": row.state}
        return by.get(sort, seen), seen

    return sorted(rows, key=key)


def page(rows: list[JobRow], sort: str, limit: int) -> tuple[list[JobRow], int]:
    """At most ``limit`` of ``rows`` in the order of ``sort`` (0: all), and how many more there are.

    The newest, where the order is by time; else the first.
    """
    if not 0 < limit < len(rows):
        return rows, 0
    shown = rows[-limit:] if sort in ("seen", "created") else rows[:limit]
    return shown, len(rows) - limit


def made_from(spec: Mapping[str, Any]) -> dict[str, str]:
    """The checkpoint or samples of a job, by field, which its id does not name; empty without."""
    base = spec.get("base")
    found = {f"base.{name}": value for name, value in _addresses(base).items()}
    return _addresses(spec) or found


def _addresses(fields: object) -> dict[str, str]:
    if not isinstance(fields, Mapping):
        return {}
    return {name: fields[name] for name in MADE_FROM if isinstance(fields.get(name), str)}


def table_of(
    rows: Sequence[JobRow], now: float, *, cut: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Header and cells of a table at ``now``, in seconds since the epoch.

    With ``cut`` all texts are shortened, as on a terminal; without, no name and no reason is.
    """
    header = ["ID", "STATE", "PROGRESS", "BEST", "DIFFERENT", "LAST SEEN", ""]
    cells = [_cells(row, now, cut=cut) for row in rows]
    of = [of_text(row, cut=cut) for row in rows]
    if any(of):  # of what an evaluation is; trainings alone need no column for it
        header.insert(1, "OF")
        for row_cells, text in zip(cells, of, strict=True):
            row_cells.insert(1, text or "-")
    if len({row.user for row in rows if row.user}) > 1:
        header.insert(1, "USER")
        for row_cells, row in zip(cells, rows, strict=True):
            row_cells.insert(1, _cut(" ".join(row.user.split()), LONGEST_USER) or "-")
    return header, cells


def _cells(row: JobRow, now: float, *, cut: bool) -> list[str]:
    status, job_id, said = row.status, row.folder.job_id, ""
    if status is not None:
        lines = note_of(status).splitlines() or [""]
        said = _cut(lines[0], LONGEST_NOTE) if cut else " ".join(lines)
    progress = f"{status.step}/{status.extent} {unit_of(job_id)}" if status else ""
    return [
        job_id,
        row.state,
        progress if status and status.num_steps else "-",
        score_text(row),
        differs_text(row) or "-",
        _last_seen(status, now),
        said,
    ]


def _last_seen(status: Status | None, now: float) -> str:
    if status is None or not status.heartbeat:
        return "-"
    # By the driver's clock, which may be ahead of ours.
    return f"{duration(max(now - status.heartbeat, 0))} ago"


def of_text(row: JobRow, *, cut: bool = True) -> str:
    """``train-x-00000001@step=60``: the checkpoint or samples that a job is made from; or empty."""
    text = made_from_text(row.job.get("spec") or {})
    return _cut(text) if cut else text


def made_from_text(spec: Mapping[str, Any]) -> str:
    """What a job is made from, in few letters; empty if it needs nothing."""
    return ", ".join(map(value_text, made_from(spec).values()))


def differs_text(row: JobRow) -> str:
    """``degradation.num_timesteps=9, sigma.start=0.42``, of at most ``LONGEST`` characters.

    Without what ``of_text`` says. `--json` has all.
    """
    said = row.unsaid.union(made_from(row.job.get("spec") or {}))
    shown = {**row.differs, **row.short}
    return _cut(differences_text({k: v for k, v in shown.items() if k not in said}))


def _cut(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def score_text(row: JobRow) -> str:
    """``fd_lenet 38.5``; ``-`` without a score."""
    return "-" if row.score is None else metric_text(*row.score)


def metric_text(path: str, value: float) -> str:
    """``fd_lenet 38.5``, of the metric at ``path``."""
    return f"{path.rpartition('/')[2]} {value:.4g}"


def _read(known: KnownJobs, folder: JobFolder) -> JobRow | str:
    try:
        ended = known.read_ended(folder)
        if ended is not None:
            score = _score(folder, ended.status)
            known.keep(folder, replace(ended, score=score))
            return JobRow(folder, ended.status, ended.job, score)
        status = folder.status()
        job = known.job(folder, status.attempt if status else 0)
        score = _score(folder, status)
    except Unreachable:
        raise
    except ColddiffError as error:
        return str(error)  # a damaged file of one job hides no other
    return JobRow(folder, status, job, score)


def _score(folder: JobFolder, status: Status | None) -> tuple[str, float] | None:
    """Read from the status, which saves a request; from the result of an earlier version's job."""
    if status is None:
        return None
    if status.score_metric and status.score is not None:
        return status.score_metric, status.score
    verb = VERBS.get(folder.job_id.partition("-")[0])
    result = folder.result() if verb and status.state == "done" else None
    if not (verb and result):
        return None
    try:
        return verb.score(result)
    except (KeyError, TypeError, ValueError):
        return None


def _set_differences(rows: Iterable[JobRow]) -> None:
    groups: dict[tuple[str, str], list[JobRow]] = {}
    for row in rows:
        if row.job.get("spec"):
            groups.setdefault((row.verb, row.name), []).append(row)
    for (verb_name, _), group in groups.items():
        verb = VERBS.get(verb_name)
        # The extent is what PROGRESS shows.
        left_out = HOW_IT_RUNS | {verb.extent if verb else ""}
        found = differing_fields([row.job["spec"] for row in group], left_out)
        _add(group, found)
        unsaid = operation_aside(found)
        for row in group:
            row.unsaid = unsaid
    # A job that nothing tells from those of its name; often it is the only one.
    alone = [row for group in groups.values() for row in group if not row.differs]
    _set_kinds(alone, [row for group in groups.values() for row in group])


def _set_kinds(alone: Sequence[JobRow], rows: Sequence[JobRow]) -> None:
    """What kinds of things jobs are made of, where others of their verb are made of others.

    And, where they differ in few fields from those of the same kinds: these.
    """
    for verb in {row.verb for row in alone}:
        of_verb = [row for row in rows if row.verb == verb]
        kinds = differing_fields([_kinds(row) for row in of_verb])
        same: dict[str, list[JobRow]] = {}
        for row, fields in zip(of_verb, kinds, strict=True):
            if any(row is one for one in alone):
                _add([row], [{path: kind for path, kind in fields.items() if kind is not None}])
                same.setdefault(repr(_kinds(row)), []).append(row)
        for group in same.values():
            specs = [row.job["spec"] for row in group]
            found = differing_fields(specs, HOW_IT_RUNS | OPERATION)
            if len(found[0]) <= FEW:
                _add(
                    group,
                    [_within(fields, spec) for fields, spec in zip(found, specs, strict=True)],
                )


def _within(fields: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``fields`` that a spec has, if only as null."""
    there = flat_fields(spec)
    return {path: value for path, value in fields.items() if path in there}


def _kinds(row: JobRow) -> dict[str, dict[str, Any]]:
    spec = row.job["spec"]
    return {
        name: {"kind": of.get("kind")}
        for name, of in spec.items()
        if isinstance(of, Mapping) and "kind" in of
    }


def _add(group: Sequence[JobRow], differing: Sequence[Mapping[str, Any]]) -> None:
    """Adds to each row the fields that tell it apart, and the ends of addresses among them."""
    for row, fields in zip(group, differing, strict=True):
        row.differs |= fields
    for path in dict.fromkeys(path for fields in differing for path in fields):
        values = [value_text(fields.get(path)) for fields in differing]
        # Those below STORAGE are ids already.
        ends = short_addresses({value for value in values if "://" in value or value[:1] == "/"})
        for row, value in zip(group, values, strict=True):
            if value in ends:
                row.short[path] = ends[value]
