"""The Ray Jobs API of one cluster: hand an attempt in, ask how it ended, end it."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from colddiff.cluster.address import Cluster, look
from colddiff.cluster.stage import staged
from colddiff.errors import ClusterError

if TYPE_CHECKING:
    from colddiff.jobs.resolve import ResolvedJob

    Stage = Callable[[ResolvedJob], AbstractContextManager[Path]]

REQUEST_S = 60.0
# Enough for a driver that is told to end to write its last words; Ray's own default is 3.
STOP_WAIT_S = 15
WATCHED_S = 5.0
ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging")


@dataclass(frozen=True, slots=True)
class Driver:
    """A submitted attempt as Ray sees it."""

    submission_id: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    exit_code: int | None
    """Of the driver's process, where it ended by itself; negative or 128 + n: by a signal."""
    message: str
    ended_at: float = 0.0
    """Seconds since the epoch, by the cluster's clock; 0 before."""

    @property
    def ended(self) -> bool:
        """Whether the driver is gone for good."""
        return self.status in ENDED


def submission_id(job_id: str, attempt: int) -> str:
    """Name of an attempt at the cluster: it takes each only once, whoever hands it in."""
    return f"{job_id}-{attempt}"


def entrypoint(verb: str, attempt: int, *, local: bool) -> str:
    """The driver's command line, run in the staged folder.

    ``-P`` keeps the working folder out of ``sys.path[0]``; Ray puts the staged folder first into
    PYTHONPATH, so the staged ``colddiff`` wins over an installed one (tests/cluster).
    """
    # The cluster's own `python` is whatever PATH says there; here it may be another one.
    python = shlex.quote(sys.executable) if local else "python"
    return f"{python} -P -m colddiff.verbs.{verb}.on_ray job.json --attempt {attempt}"


class UnknownJob(ClusterError):
    """The cluster answers, and does not know the submission."""


class RayJobs:
    """Jobs of one cluster. Every method raises ClusterError where the cluster does not answer."""

    def __init__(self, cluster: Cluster, stage: Stage = staged) -> None:
        self.cluster = look(cluster)
        self._stage = stage
        with self._asking("connect"):
            self._client = _client(self.cluster)

    def submit(self, resolved: ResolvedJob, attempt: int) -> Driver:
        """Hands ``attempt`` in, unless it is there already; returns at once, PENDING as a rule."""
        command = entrypoint(resolved.verb, attempt, local=self.cluster.local)
        with self._stage(resolved) as folder:
            return self.submit_folder(folder, command, submission_id(resolved.id, attempt))

    def submit_folder(self, folder: Path, command: str, name: str) -> Driver:
        """Runs ``command`` in a copy of ``folder`` as submission ``name``."""
        before = self.find(name)
        if before is not None and not before.ended:
            return before
        if before is not None:
            # Its job was deleted, or its storage: numbers start again, but not at the cluster. Ray
            # watches an ended driver a little longer, and would take the new one's actor for dead.
            if abs(time.time() - before.ended_at) < 60:
                time.sleep(WATCHED_S)
            with self._asking("clear up an ended job"):
                self._client.delete_job(name)
        try:
            with self._asking("take the job"):
                self._client.submit_job(
                    entrypoint=command,
                    submission_id=name,
                    runtime_env={"working_dir": str(folder), "env_vars": _environment()},
                    metadata={"colddiff": name},
                )
        except ClusterError:
            # Another submit of the same attempt was faster: Ray answers a bare HTTP 500.
            if self.find(name) is None:
                raise
        found = self.find(name)
        if found is None:
            raise ClusterError(f"{self.cluster.address} took {name} and does not know it")
        return found

    def find(self, name: str) -> Driver | None:
        """How submission ``name`` stands, or None if the cluster does not know it."""
        try:
            with self._asking("look up a job"):
                info = self._client.get_job_info(name)
        except UnknownJob:
            return None
        return Driver(
            name,
            str(info.status.value),
            info.driver_exit_code,
            str(info.message or ""),
            (info.end_time or 0) / 1000,
        )

    def stop(self, name: str) -> None:
        """Ends the driver: SIGTERM, then SIGKILL; nothing happens where it has ended."""
        with suppress(UnknownJob), self._asking("stop a job"):
            self._client.stop_job(name)

    def log(self, name: str) -> str:
        """All the driver printed, as long as the cluster lives; empty where it is unknown."""
        try:
            with self._asking("read a job's log"):
                return str(self._client.get_job_logs(name))
        except UnknownJob:
            return ""

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        import requests
        from ray.exceptions import AuthenticationError

        where = self.cluster.address
        try:
            yield
        except AuthenticationError:
            raise ClusterError(f"{where} refuses the token; see RAY_AUTH_TOKEN_PATH") from None
        except (requests.exceptions.RequestException, OSError) as error:
            raise ClusterError(
                f"the cluster at {where} stopped answering ({type(error).__name__}: cannot {what})"
            ) from None
        except RuntimeError as error:
            if _http_status(error) == 404:
                raise UnknownJob(f"{where} knows no such job") from None
            raise ClusterError(f"{where} cannot {what}: {_last_line(error)}") from None


def _client(cluster: Cluster) -> Any:
    from ray.job_submission import JobSubmissionClient

    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    host = urlsplit(cluster.address).hostname or ""

    class Client(JobSubmissionClient):
        """The SDK's client with a limit on each request, which it lacks."""

        def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> Any:
            kwargs.setdefault("timeout", REQUEST_S)
            if cluster.loopback:
                # A proxy set for the outside world does not reach this machine's own ports.
                kwargs.setdefault("proxies", {"no_proxy": host})
            return super()._do_request(method, endpoint, **kwargs)

    headers = {"Authorization": f"Bearer {cluster.token}"} if cluster.token else {}
    with _without(OVERRIDES):
        return Client(cluster.address, headers=headers)


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    # The SDK lets these win over the address it is given.
    saved = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)


def _environment() -> Mapping[str, str]:
    # The dashboard shows this to everyone: nothing that is a secret, ever.
    # Colour codes would stay in the log that is kept.
    return {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), "RAY_COLOR_PREFIX": "0"}


def _http_status(error: RuntimeError) -> int | None:
    found = re.search(r"status code (\d+)", str(error))
    return int(found.group(1)) if found else None


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    return lines[-1][:300] if lines else type(error).__name__
