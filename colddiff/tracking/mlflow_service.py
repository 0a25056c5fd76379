"""The MLflow service: importing its library, translating its errors, setting up the tracker."""

from __future__ import annotations

import errno
import fcntl
import importlib
import logging
import os
import re
import sqlite3
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from colddiff.errors import TrackerError
from colddiff.machine.credentials import masked
from colddiff.slow_calls import SLOW_CALLS
from colddiff.tracking.address import (
    ARTIFACTS,
    SQLITE,
    checked_uri,
    database_path,
    without_userinfo,
)
from colddiff.tracking.mlflow_defaults import DEFAULTS
from colddiff.tracking.repeats import DESCRIPTION

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODULES = ("mlflow.store.artifact.local_artifact_repo", "mlflow.store.tracking.sqlalchemy_store")
"""What MLflow would import at the first use, with warnings; the second for databases alone."""
WAY_OUT = "start it, unset MLFLOW_TRACKING_URI, or submit with tracking.required=false"
CREDENTIALS = (
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; a server "
    "that rejects the host name needs --allowed-hosts"
)
OTHER_PLACE = "use another MLFLOW_TRACKING_URI, or make this location writable"
ABOUT = """\
Jobs of colddiff: restorers of image degradations, their evaluations, samples and searches.

One run is one job over all its attempts. Its description has the command that submits it, its
inputs are the image sets; compare runs by the parameters that differ. `eval/sampled/...` is
Algorithm 2.
"""
KIND = "custom_model_development"
"""Of an experiment, which MLflow's UI asks for otherwise."""
_HOPELESS_FILES = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}
_NO_SUCH_CALL = re.compile(r"endpoint (\S+) failed with error code 40[45]")
"""MLflow's error for a path that the server does not have."""
_UNREACHED = re.compile(r"API request to \S+ failed with exception (HTTPS?ConnectionPool.*)")
"""MLflow's error for a server that does not respond; urllib3's own is within."""
_HOPELESS_STATUS = {400, 404, 405, 411, 413, 415}


class RefusedError(Exception):
    """The tracker will never accept this, however often it is sent."""


def client(uri: str) -> MlflowClient:
    """A client bound to ``uri``; the process-wide tracking URI of mlflow is not changed."""
    load_mlflow(uri)
    from mlflow import MlflowClient

    with translated(uri):
        return MlflowClient(tracking_uri=uri)


def load_mlflow(uri: str) -> None:
    """Imports the mlflow modules for ``uri`` (takes seconds, once) without their warnings.

    Does not override environment variables that are set. Python's warning filters are process-wide:
    the first call belongs before other threads that change them.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # It logs a traceback for each error that it also raises and we report.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    served = urlsplit(uri).scheme in ("http", "https")
    wanted = [name for name in MODULES[: 1 if served else 2] if name not in sys.modules]
    if not wanted:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in wanted:
            importlib.import_module(name)


def initialise(
    uri: str, experiment: str, *, artifact_root: str | None = None, timeout_s: float = 15.0
) -> str:
    """Ensures that the tracker responds and has ``experiment``; returns the experiment's id.

    Idempotent and safe for several processes at once: a new sqlite file is set up by one of them,
    under a lock file beside it. ``artifact_root`` is where a new experiment stores its artifacts (a
    path or s3:// URI); None leaves that to a server.

    Raises:
        SpecError: a URI that MLflow or we cannot use, such as a folder.
        TrackerError: nothing responds within ``timeout_s``, or access is denied.
    """
    uri = checked_uri(uri)
    database = database_path(uri)
    if database is None:
        if urlsplit(uri).scheme in ("http", "https"):
            ask_server(uri, timeout_s)
        return _experiment_id(client(uri), uri, experiment, artifact_root)
    load_mlflow(uri)
    with _locked(database, timeout_s):
        if not database.exists() or database.stat().st_size == 0:
            _set_up(database, artifact_root)
        openable(database)
        _relocate(database, artifact_root)
        return _experiment_id(client(uri), uri, experiment, artifact_root)


def log_image(api: Any, run_id: str, png: Path, key: str, step: int, time_ms: int) -> None:
    """Logs a PNG as one of the series ``key``, with the preview that MLflow's UI shows first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        image = mlflow.Image(str(png))
    api.log_image(run_id, image, key=key, step=step, timestamp=time_ms, synchronous=True)


class GoneError(TrackerError):
    """The requested object does not exist on the tracker (any more)."""


@contextmanager
def translated(uri: str, *, refusable: bool = False) -> Iterator[None]:
    """Translates MLflow's errors to one line: TrackerError, or GoneError if it does not exist.

    With ``refusable``, RefusedError for permanent errors; wrong credentials or a full disk are not
    permanent, the entries then stay spooled. A tracker that is waited for is named in the log.
    """
    try:
        with SLOW_CALLS.watched(f"tracker {masked(uri)}", "MLflow"):
            yield
    except TrackerError:
        raise
    except Exception as error:
        reason = masked(next(iter(str(error).splitlines()), "") or type(error).__name__)[:400]
        status = getattr(getattr(error, "response", None), "status_code", None)
        code = getattr(error, "error_code", None)
        if refusable and (
            code == "INVALID_PARAMETER_VALUE"
            or status in _HOPELESS_STATUS
            or (isinstance(error, OSError) and error.errno in _HOPELESS_FILES)
        ):
            raise RefusedError(reason) from None
        if code == "RESOURCE_DOES_NOT_EXIST":
            raise GoneError(f"tracker {masked(uri)}: {reason}") from None
        if code in ("PERMISSION_DENIED", "UNAUTHENTICATED") or status in (401, 403):
            reason = f"{reason}; {CREDENTIALS}"
        if (unreached := _UNREACHED.search(str(error))) is not None:
            raise TrackerError(_silent(uri, _cause(unreached.group(1)))) from None
        if (lacks := _NO_SUCH_CALL.search(reason)) is not None:
            raise TrackerError(_lacking(uri, lacks.group(1))) from None
        raise TrackerError(f"tracker {masked(uri)}: {reason}") from None


def _cause(reason: str) -> str:
    """What the system says, in urllib3's account of why a server was not reached.

    >>> _cause('Max retries exceeded (Caused by X("Y: [Errno 111] Connection refused"))')
    'Connection refused'
    """
    found = re.search(r"\[Errno -?\d+\] ([^\"')]+)", reason)
    return found.group(1) if found else "timed out" if "timed out" in reason else "no connection"


def _silent(uri: str, cause: str) -> str:
    return f"tracker {masked(uri)} does not respond ({cause})"


def _lacking(uri: str, call: str) -> str:
    return (
        f"tracker {masked(uri)} has no {call}: it is no MLflow server, or one that is too old for "
        f"the client here, MLflow {version('mlflow')}; upgrade the server, or correct "
        "MLFLOW_TRACKING_URI"
    )


def _experiment_id(api: Any, uri: str, name: str, artifact_root: str | None) -> str:
    with translated(uri):
        found = api.get_experiment_by_name(name)
        if found is None:
            try:
                tags = {DESCRIPTION: ABOUT, "mlflow.experimentKind": KIND}
                return str(api.create_experiment(name, artifact_root, tags))
            except Exception:
                # Another process may have created it in between; if not, raise the first error.
                found = api.get_experiment_by_name(name)
                if found is None:
                    raise
    if found.lifecycle_stage != "active":
        raise TrackerError(
            f"tracker {masked(uri)}: experiment {name!r} was deleted there; restore it (`mlflow "
            f"experiments restore -x {found.experiment_id}`) or set tracking.experiment=NAME"
        )
    return str(found.experiment_id)


def openable(database: Path) -> None:
    """Checks that the file can be opened: mlflow would retry for minutes. Raises TrackerError."""
    try:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        raise TrackerError(f"tracker {database}: {error}; {OTHER_PLACE}") from None


def _relocate(database: Path, artifact_root: str | None) -> None:
    """Points the artifacts of a database that was moved with its STORAGE to where they are now.

    Only where both lie in one folder, as by default: MLflow stores absolute addresses.
    """
    if artifact_root != str(database.with_name(ARTIFACTS)):
        return
    try:
        with closing(sqlite3.connect(database)) as connection, connection:
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                found = connection.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall()  # noqa: S608
                for (before,) in found:
                    path = str(before or "").removeprefix("file://")
                    root, name, below = path.rpartition(f"/{ARTIFACTS}")
                    now = f"{artifact_root}{below}"
                    if name and root.startswith("/") and path != now and below[:1] in ("", "/"):
                        change = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"  # noqa: S608
                        connection.execute(change, (now, before))
    except sqlite3.Error as error:
        raise TrackerError(f"tracker {database}: {error}; {OTHER_PLACE}") from None


def _set_up(database: Path, artifact_root: str | None) -> None:
    """Creates a database under a temporary name and renames it once it is complete.

    A process killed during MLflow's migrations would leave a file that cannot be opened again
    (``test_a_kill_during_set_up_leaves_nothing_behind``).
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    unfinished = database.with_name(f"{database.name}.setup")
    for leftover in database.parent.glob(f"{unfinished.name}*"):
        leftover.unlink()
    with translated(f"{SQLITE}{database}"):
        make: Any = SqlAlchemyStore
        root = artifact_root or str(database.with_name(ARTIFACTS))
        store = make(f"{SQLITE}{unfinished}", root)
        store.engine.dispose()
    unfinished.replace(database)


def ask_server(uri: str, timeout_s: float) -> None:
    """One request to a tracking server; TrackerError if nothing responds."""
    request = urllib.request.Request(f"{without_userinfo(uri).rstrip('/')}/health")  # noqa: S310
    tracker = f"tracker {masked(uri)}"
    try:
        with (
            SLOW_CALLS.watched(tracker, "whether it responds"),
            urllib.request.urlopen(request, timeout=timeout_s),  # noqa: S310  # http(s) only
        ):
            pass
    except urllib.error.HTTPError as answer:
        # Something responds; the first real request shows whether access is granted.
        answer.close()
        if answer.code >= 500:
            _absent(uri, f"HTTP {answer.code}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        _absent(uri, masked(str(getattr(reason, "strerror", None) or reason)))


def _absent(uri: str, reason: str) -> None:
    raise TrackerError(f"{_silent(uri, reason)}; {WAY_OUT}") from None


@contextmanager
def _locked(database: Path, timeout_s: float) -> Iterator[None]:
    """Locks ``database`` for one process: concurrent set-ups of a new one would fail."""
    lock = database.with_name(f"{database.name}.lock")
    deadline = time.monotonic() + max(timeout_s, 60.0)
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise TrackerError(f"tracker {database}: {error.strerror}; {OTHER_PLACE}") from None
    try:
        with SLOW_CALLS.watched(f"tracker {database}", f"another process to release {lock}"):
            while not _has_locked(descriptor):
                if time.monotonic() > deadline:
                    raise TrackerError(
                        f"tracker {database}: another process has held {lock} for too long; end "
                        "that process and retry"
                    )
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _has_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
