"""Opens trackers: checks a tracking server, opens a job's run, delivers spooled entries."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from colddiff.errors import ColddiffError, Unreachable
from colddiff.ports import Store, Tracker
from colddiff.stores.open import open_store

if TYPE_CHECKING:
    import torch

    from colddiff.tracking.address import TrackingAddress


PROBE_S = 5.0

log = logging.getLogger(__name__)


def tracking_uri(storage: str) -> str:
    """MLFLOW_TRACKING_URI without credentials, else a sqlite file in ``storage``."""
    from colddiff.tracking.address import tracking_address, without_userinfo

    return without_userinfo(tracking_address(storage).uri)


def check_tracker(storage: str, experiment: str) -> None:
    """Ensures that a tracking server responds and has ``experiment``; raises TrackerError.

    A database file is not checked: the first process that logs creates it.
    """
    from colddiff.tracking.address import tracking_address

    if not has_server(storage):
        return
    address = tracking_address(storage)
    from colddiff.tracking.mlflow_service import initialise

    initialise(address.uri, experiment, artifact_root=address.artifact_root)


def has_server(storage: str) -> bool:
    """Whether jobs are tracked by a server, and not in a database file."""
    from colddiff.tracking.address import database_path, tracking_address

    return database_path(tracking_address(storage).uri) is None


def probe_tracker(storage: str, uri: str | None = None) -> str:
    """Address of the tracker, which responds or can be opened; creates nothing.

    ``uri``: the one that jobs are submitted with, by default this process's. A database that does
    not exist yet is not checked. Raises SpecError, TrackerError.
    """
    from colddiff.tracking.address import database_path, tracking_address
    from colddiff.tracking.mlflow_service import ask_server, openable

    address = tracking_address(storage) if uri is None else _tracking(storage, uri)
    database = database_path(address.uri)
    if database is not None:
        if database.exists():
            openable(database)
    elif address.uri.startswith(("http://", "https://")):
        ask_server(address.uri, PROBE_S)
    return str(address)


def open_tracker(
    storage: str, uri: str, experiment: str, job_id: str, run_name: str = "", *, wait: bool = True
) -> Tracker:
    """The job's one tracking run, for its driver, which will end it; a new one is called
    ``run_name``, by default as the job's id.

    Without ``wait`` it returns at once: what is logged is delivered once MLflow is imported.
    ``uri`` is the one the job was submitted with; this process's MLFLOW_TRACKING_URI is used
    instead if it is the same with credentials.
    """
    from colddiff.tracking.mlflow_tracker import open_run

    address = _tracking(storage, uri)
    return open_run(
        address.uri,
        experiment,
        job_id,
        run_name or job_id,
        spool=open_store(storage),
        artifact_root=address.artifact_root,
        wait=wait,
    )


def join_tracker(storage: str, experiment: str, job_id: str) -> Tracker:
    """The job's one tracking run, for its other processes: the driver delivers what they log."""
    from colddiff.tracking.relay import join_run

    return join_run(experiment, job_id, job_id, spool=open_store(storage))


def _tracking(storage: str, uri: str) -> TrackingAddress:
    from colddiff.tracking.address import tracking_address, without_userinfo

    address = tracking_address(storage)
    if without_userinfo(address.uri) != uri:
        address = tracking_address(storage, {"MLFLOW_TRACKING_URI": uri})
    return address


def replay_tracking(storage: str, uri: str, job_id: str) -> int:
    """Delivers the spooled entries of a job that no longer runs; returns their number.

    Costs one listing of the job's folder if there are none. Raises StoreError, TrackerError.
    """
    from colddiff.tracking.spool import undelivered

    store = open_store(storage)
    if not undelivered(store, job_id):
        return 0
    from colddiff.tracking.mlflow_outbox import replay

    address = _tracking(storage, uri)
    return replay(store, job_id, address.uri, artifact_root=address.artifact_root)


def job_of_run(run_id: str, storage: str) -> str:
    """Address of the folder of the job that logged to an MLflow run.

    In ``storage``, if that holds the job with this run, else where the job last logged from: a
    storage may have been moved since.

    Raises CheckpointError if there is no such run, or it is not of a colddiff job.
    """
    from colddiff.tracking.address import tracking_address
    from colddiff.tracking.mlflow_lookup import job_of
    from colddiff.tracking.spool import has_run

    job_id, place = job_of(tracking_address(storage).uri, run_id)
    if has_run(open_store(storage), job_id, run_id):
        place = storage
    return f"{place}/jobs/{job_id}"


def has_spooled_entries(store: Store, job_id: str) -> bool:
    """Whether a job has entries that are not delivered to its tracker yet."""
    from colddiff.tracking.spool import undelivered

    return bool(undelivered(store, job_id))


def deliver_late(storage: str, uri: str, *job_ids: str) -> None:
    """``replay_tracking`` of jobs that logs the outcome; an unreachable tracker is one warning."""
    for job_id in job_ids:
        try:
            count = replay_tracking(storage, uri, job_id)
        except Unreachable as error:
            log.warning("%s: its tracking entries are still spooled: %s", job_id, error)
            return
        if count:
            log.info("%s: %d spooled tracking entries have been delivered", job_id, count)


def end_run(storage: str, uri: str, experiment: str, job_id: str, status: str) -> None:
    """Ends the run of a job whose driver is gone, if it has one: ``FAILED`` or ``KILLED``.

    If its tracker is away, or is a database on another machine, the end is spooled: whoever
    submits the job again delivers it.
    """
    from colddiff.tracking.address import database_path
    from colddiff.tracking.spool import keep_end

    try:
        if not keep_end(open_store(storage), job_id, experiment, status):
            return
        database = database_path(uri)
        if database is None or database.exists():
            replay_tracking(storage, uri, job_id)
    except ColddiffError as error:
        log.warning("%s: its tracking run has not ended yet: %s", job_id, error)


def system_sampler(
    tracker: Tracker, since: float, every_s: float, device: torch.device
) -> AbstractContextManager[object]:
    """Within ``with``, logs CPU, memory, network and GPU; steps are seconds since ``since``."""
    from colddiff.tracking.system_metrics import SystemSampler

    return SystemSampler(tracker, since, every_s, device)


def null_tracker() -> Tracker:
    """A tracker that does nothing, for every rank but the first."""
    from colddiff.tracking.memory_tracker import NullTracker

    return NullTracker()
