"""Opens the session of a job's driver, which delivers what its processes log to MLflow."""

from __future__ import annotations

from colddiff.ports import Store
from colddiff.tracking.address import TrackingAddress, checked_uri
from colddiff.tracking.mlflow_outbox import MlflowOutbox
from colddiff.tracking.mlflow_service import load_mlflow
from colddiff.tracking.session import Session
from colddiff.tracking.spool import RunHeader, Spool, now_ms


def open_run(
    uri: str,
    experiment: str,
    job_id: str,
    run_name: str,
    *,
    spool: Store,
    artifact_root: str | None = None,
    wait: bool = True,
    timeout_s: float = 10.0,
) -> Session:
    """Opens the driver's session with the job's one MLflow run, shared by all attempts.

    Waits up to ``timeout_s`` for the tracker; if it does not respond, entries are spooled and the
    run is created once it does. Call ``initialise`` first to get an error instead. Without ``wait``
    the session's thread imports MLflow, which takes seconds, and reaches for the tracker.

    Args:
        uri: tracking URI, including any credentials.
        experiment: MLflow experiment for a new run.
        job_id: tag by which the run is found again, with the URI of ``spool``.
        run_name: name for a new run.
        spool: the job's STORAGE.
        artifact_root: where a new experiment stores artifacts; None leaves that to a server.
        wait: return once the tracker has responded.
        timeout_s: longest wait for the first response, and for each later request.

    Raises:
        SpecError: an invalid address. StoreError: the spool cannot be used.
    """
    address = TrackingAddress(checked_uri(uri), artifact_root)
    if wait:
        load_mlflow(address.uri)
    header = RunHeader(job_id, experiment, run_name, now_ms())
    session = Session(MlflowOutbox(address, Spool(spool, header), timeout_s=timeout_s))
    session.set_running()
    if not wait:
        session.connect()
        return session
    try:
        session.flush(timeout_s)
    except BaseException:  # an interrupt: no one else has the session, to end the run
        session.finish("KILLED")
        raise
    return session
