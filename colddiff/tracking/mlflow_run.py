"""A job's one MLflow run: finding or creating it, and idempotent delivery of entries to it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from colddiff.errors import TrackerError
from colddiff.machine.credentials import masked
from colddiff.retry import Backoff
from colddiff.tracking.address import TrackingAddress, without_userinfo
from colddiff.tracking.mlflow_service import (
    GoneError,
    RefusedError,
    client,
    initialise,
    log_image,
    translated,
)
from colddiff.tracking.repeats import is_kept, is_repeat, second_value_tag
from colddiff.tracking.spool import Entry, RunHeader, Spool

JOB_TAG, STORAGE_TAG = "colddiff.job_id", "colddiff.storage"
PARENT_TAG = "mlflow.parentRunId"
"""MLflow's UI nests the runs that have it."""
# MLflow's own limits on one request and one value.
METRICS_PER_REQUEST, TEXTS_PER_REQUEST = 1000, 100
PARAM_LENGTH, TAG_LENGTH = 6000, 8000
DATASET_NAME_LENGTH, DIGEST_LENGTH = 500, 36
IMAGES = "images"
"""Folder of the artifacts that MLflow's UI steps through."""
SESSIONS = 4
"""The driver, rank 0 and an evaluation log at the same time."""
LARGEST = 1.7976931348623157e308

UPLOAD, UPLOADS = Backoff(first_s=1.0, longest_s=3.0, factor=3.0), 3


@dataclass(frozen=True, slots=True)
class NotTaken:
    """An entry that the tracker did not take, although it responds."""

    entry: Entry
    reason: str
    for_good: bool = True
    """Whether it never will; else what it keeps artifacts in does not respond."""


Refused = list[NotTaken]


@dataclass(frozen=True, slots=True)
class _Earlier:
    """One metric as earlier sessions logged it: values by step, complete from ``from_step`` on."""

    from_step: int
    rows: Mapping[int, Set[str]]


@dataclass(frozen=True, slots=True)
class _Before:
    """What the run had before one session: the names of its metrics, and those that were read."""

    metrics: Set[str]
    earlier: dict[str, _Earlier] = field(default_factory=dict)


class MlflowRun:
    """One run over all attempts of a job; calls go to the tracker and may raise TrackerError.

    Discard the object after a TrackerError: its cached state of the run may be stale.
    """

    def __init__(self, api: Any, uri: str, run: Any, run_of: Callable[[str], str]) -> None:
        """``run_of``: the id of the run of another job in the same store."""
        self.run_id = str(run.info.run_id)
        self._run_of = run_of
        self._api = api
        self._uri = uri
        self._before: dict[int, _Before] = {}
        """By the start of a session; those of the last few sessions that were delivered."""
        self._know(run)

    def _know(self, run: Any) -> None:
        self._status = run.info.status
        self._params: dict[str, str] = dict(run.data.params)
        self._tags: dict[str, str] = dict(run.data.tags)

    def deliver(self, entries: Sequence[Entry], since_ms: int) -> Refused:
        """Logs the entries of one session; returns those that MLflow did not accept, with reasons.

        Idempotent: params, tags and artifacts replace themselves, a metric with equal key, time,
        step and value is the same row, and ``is_repeat`` skips metrics that sessions before
        ``since_ms`` have logged.
        """
        before = self._before_session(since_ms)
        of_kind: dict[str, list[Entry]] = {}
        for entry in entries:
            of_kind.setdefault(entry.kind, []).append(entry)
        refused: Refused = []
        texts = self._changed_params(of_kind.get("param", []))
        tags = [entry for entry in of_kind.get("tag", []) if not is_kept(entry.key, self._tags)]
        texts += _last_of_each(tags)
        for parent in of_kind.get("parent", [])[-1:]:
            texts.append(Entry("tag", PARENT_TAG, self._run_of(parent.value), parent.time_ms))
        for chunk in _chunks(texts, TEXTS_PER_REQUEST):
            self._send(chunk, refused)
        metrics = of_kind.get("metric", [])
        metrics = [each for each in metrics if not self._was_logged(each, since_ms, before)]
        for chunk in _chunks(metrics, METRICS_PER_REQUEST):
            self._send(chunk, refused)
        for dataset in _last_of_each(of_kind.get("dataset", [])):
            self._retried(dataset, partial(self._add_dataset, dataset), refused)
        for artifact in _last_of_each(of_kind.get("artifact", [])):
            self._retried(artifact, partial(self._upload_once, artifact), refused)
        for image in of_kind.get("image", []):
            self._retried(image, partial(self._show_once, image), refused)
        for status in of_kind.get("status", [])[-1:]:
            self._set_status(status)
        return refused

    def _changed_params(self, params: Iterable[Entry]) -> list[Entry]:
        """New params, and as tags those whose value changed: MLflow rejects a second value."""
        texts = {}
        for entry in params:
            value = shortened(entry.value, PARAM_LENGTH)
            tag = second_value_tag(entry.key)
            first = self._params.setdefault(entry.key, value)
            if first == value and tag not in self._tags:
                texts[entry.key] = Entry("param", entry.key, value, entry.time_ms)
            else:
                self._tags[tag] = value
                texts[tag] = Entry("tag", tag, value, entry.time_ms)
        return list(texts.values())

    def _before_session(self, since_ms: int) -> _Before:
        """What the run had before the session that began at ``since_ms``.

        Read once for each session: those of a job's processes are delivered by turns, and reading a
        long history again at each turn would take longer than delivering it.
        """
        before = self._before.pop(since_ms, None)
        if before is None:
            # More may have been logged since this object was made.
            run = self._alive()
            self._know(run)
            before = _Before(set(run.data.metrics))
        self._before[since_ms] = before
        while len(self._before) > SESSIONS:
            del self._before[next(iter(self._before))]
        return before

    def _was_logged(self, entry: Entry, since_ms: int, before: _Before) -> bool:
        if entry.key not in before.metrics:
            return False
        earlier = before.earlier.get(entry.key)
        if earlier is None or entry.step < earlier.from_step:
            earlier = before.earlier[entry.key] = self._load(entry.key, entry.step, since_ms)
        values = earlier.rows.get(entry.step, frozenset())
        return is_repeat(entry.key, _as_stored(entry.number), values)

    def _load(self, key: str, from_step: int, since_ms: int) -> _Earlier:
        with translated(self._uri):
            history = self._api.get_metric_history(self.run_id, key)
        rows: dict[int, set[str]] = {}
        for metric in history:
            if metric.timestamp < since_ms and metric.step >= from_step:
                rows.setdefault(metric.step, set()).add(_as_stored(metric.value))
        return _Earlier(from_step, rows)

    def _send(self, entries: Sequence[Entry], refused: Refused) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [
            Metric(e.key, e.number, e.time_ms, e.step) for e in entries if e.kind == "metric"
        ]
        params = [Param(e.key, e.value) for e in entries if e.kind == "param"]
        tags = [RunTag(e.key, shortened(e.value, TAG_LENGTH)) for e in entries if e.kind == "tag"]
        try:
            with translated(self._uri, refusable=True):
                self._api.log_batch(self.run_id, metrics=metrics, params=params, tags=tags)
        except RefusedError as error:
            self._alive()
            if len(entries) == 1:
                refused.append(NotTaken(entries[0], str(error)))
                return
            # One invalid name fails the whole request: bisect until it is alone.
            middle = len(entries) // 2
            self._send(entries[:middle], refused)
            self._send(entries[middle:], refused)

    def _retried(self, entry: Entry, send: Callable[[], None], refused: Refused) -> None:
        for _ in UPLOAD.attempts(UPLOADS):
            try:
                send()
                return
            except (RefusedError, TrackerError) as error:
                # If the tracker responds but its artifact store does not, metrics must not be
                # held back: they only wait for the tracker.
                self._alive()
                found = NotTaken(entry, str(error), for_good=isinstance(error, RefusedError))
                if found.for_good:
                    break
        refused.append(found)

    def _upload_once(self, entry: Entry) -> None:
        *folders, name = entry.key.split("/")
        if any(part in ("", ".", "..") for part in (*folders, name)):
            raise RefusedError("an artifact's name is a relative path without . and ..")
        with translated(self._uri, refusable=True), tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / name
            path.write_bytes(entry.data)
            self._api.log_artifact(self.run_id, str(path), "/".join(folders) or None)

    def _show_once(self, entry: Entry) -> None:
        """Logs a PNG so that MLflow's UI steps through its series; once, however often asked."""
        with translated(self._uri, refusable=True), tempfile.TemporaryDirectory() as temporary:
            # MLflow ends each name with a random word.
            name = f"{IMAGES}/{entry.key}+step+{entry.step}+timestamp+{entry.time_ms}+"
            shown = self._api.list_artifacts(self.run_id, IMAGES)
            if any(item.path.startswith(name) for item in shown):
                return
            path = Path(temporary) / "image.png"
            path.write_bytes(entry.data)
            log_image(self._api, self.run_id, path, entry.key, entry.step, entry.time_ms)

    def _add_dataset(self, entry: Entry) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        found = json.loads(entry.value)
        place = "s3" if found["uri"].startswith("s3://") else "local"
        dataset = Dataset(
            shortened(found["name"], DATASET_NAME_LENGTH),
            found["digest"][:DIGEST_LENGTH],
            place,
            json.dumps({"uri": found["uri"]}),
            profile=json.dumps({"num_images": found["count"], "digest": found["digest"]}),
        )
        context = InputTag("mlflow.data.context", found["use"])
        with translated(self._uri, refusable=True):
            self._api.log_inputs(self.run_id, datasets=[DatasetInput(dataset, [context])])

    def _set_status(self, entry: Entry) -> None:
        with translated(self._uri):
            if entry.value != "RUNNING":
                self._api.set_terminated(self.run_id, status=entry.value, end_time=entry.time_ms)
            elif self._status != "RUNNING":
                self._api.update_run(self.run_id, status="RUNNING")
        self._status = entry.value

    def _alive(self) -> Any:
        return _known_alive(self._api, self._uri, self.run_id)


def connect(address: TrackingAddress, spool: Spool, *, timeout_s: float) -> MlflowRun:
    """The job's run: the recorded one, else the one with its tags, else a new one.

    A conditional write to the job's storage decides; a second process that created a run at the
    same time deletes its own. Raises TrackerError, StoreError.
    """
    uri, header = address.uri, spool.header
    experiment_id = initialise(
        uri, header.experiment, artifact_root=address.artifact_root, timeout_s=timeout_s
    )

    def run_of(job_id: str) -> str:
        # Of two jobs, the first to reach the tracker creates the run of the other as well.
        return connect(address, spool.of_job(job_id), timeout_s=timeout_s).run_id

    api = client(uri)
    tracker = without_userinfo(uri)
    number = 1
    if recorded := spool.known_run(tracker):
        number, run_id = recorded
        if (run := _alive(api, uri, run_id)) is not None:
            return MlflowRun(api, uri, _placed(api, uri, run, spool.storage), run_of)
        number += 1
    for run_id in spool.runs_elsewhere(tracker) if number == 1 else ():
        run = _alive(api, uri, run_id)
        if run is not None and run.data.tags.get(JOB_TAG) == header.job_id:
            # The same tracker under another name: its database was moved with the storage.
            spool.claim_run(tracker, number, run_id)
            return MlflowRun(api, uri, _placed(api, uri, run, spool.storage), run_of)
    with translated(uri):
        mine = _tagged(api, experiment_id, header.job_id, spool.storage)
        if created := mine is None:
            mine = _create(api, experiment_id, header, spool.storage)
    winner = spool.claim_run(tracker, number, str(mine.info.run_id))
    if created and winner != mine.info.run_id:
        with translated(uri):
            api.delete_run(mine.info.run_id)
    return MlflowRun(api, uri, _known_alive(api, uri, winner), run_of)


def _tagged(api: Any, experiment_id: str, job_id: str, storage: str) -> Any:
    """The job's oldest live run with its tags: its creator was killed before it recorded it."""
    runs = api.search_runs(
        [experiment_id], f"tags.`{JOB_TAG}` = '{job_id}'", order_by=["attributes.start_time ASC"]
    )
    return next((run for run in runs if run.data.tags.get(STORAGE_TAG) == storage), None)


def _placed(api: Any, uri: str, run: Any, storage: str) -> Any:
    """The run, whose tag names the storage where the job is now."""
    if run.data.tags.get(STORAGE_TAG) == storage:
        return run
    with translated(uri):
        api.set_tag(run.info.run_id, STORAGE_TAG, storage)
    return _known_alive(api, uri, run.info.run_id)


def _create(api: Any, experiment_id: str, header: RunHeader, storage: str) -> Any:
    tags = {JOB_TAG: header.job_id, STORAGE_TAG: storage}
    return api.create_run(experiment_id, header.start_ms, tags, header.run_name)


def _alive(api: Any, uri: str, run_id: str) -> Any:
    """The run, or None if it was deleted."""
    try:
        with translated(uri):
            run = api.get_run(run_id)
    except GoneError:
        return None
    return run if run.info.lifecycle_stage == "active" else None


def _known_alive(api: Any, uri: str, run_id: str) -> Any:
    run = _alive(api, uri, run_id)
    if run is None:
        raise TrackerError(f"tracker {masked(uri)}: run {run_id} was deleted there")
    return run


def shortened(text: str, length: int) -> str:
    """``text`` truncated to ``length`` characters, with a note if it was cut."""
    if len(text) <= length:
        return text
    note = f"... [cut, {len(text)} characters]"
    return text[: length - len(note)] + note


def _as_stored(value: float) -> str:
    """repr of a value as a database returns it: infinities as the largest floats, nan as nan."""
    return repr(max(-LARGEST, min(LARGEST, value)))


def _last_of_each(entries: Iterable[Entry]) -> list[Entry]:
    return list({entry.key: entry for entry in entries}.values())


def _chunks(entries: Sequence[Entry], size: int) -> Iterable[Sequence[Entry]]:
    return (entries[i : i + size] for i in range(0, len(entries), size))
