"""The Ray Jobs API of one cluster: submit an attempt, ask how it ended, end it."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from colddiff.cluster import local_cluster
from colddiff.cluster.address import Cluster, look
from colddiff.cluster.home import Home
from colddiff.cluster.stage import staged
from colddiff.errors import ClusterError
from colddiff.jobs.runner import DriverState

if TYPE_CHECKING:
    from colddiff.jobs.resolve import ResolvedJob

    Stage = Callable[[ResolvedJob], AbstractContextManager[Path]]

REQUEST_S = 60.0
# Enough for a driver that is told to end to write its last words; Ray's own default is 3.
STOP_WAIT_S = 15
WATCHED_S = 5.0
END_S = 30.0
ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging")


def submission_id(job_id: str, attempt: int) -> str:
    """Name of an attempt at the cluster, which accepts each name only once."""
    return f"{job_id}-{attempt}"


def entrypoint(attempt: int, *, local: bool) -> str:
    """The driver's command line, run in the staged folder.

    ``-P`` keeps the working folder out of ``sys.path[0]``; Ray puts the staged folder first into
    PYTHONPATH, so the staged ``colddiff`` wins over an installed one (tests/cluster).
    """
    # The cluster's own `python` is whatever PATH says there; here it may be another one.
    python = shlex.quote(sys.executable) if local else "python"
    return f"{python} -P -m colddiff.cluster.driver job.json --attempt {attempt}"


def driver_state(status: str, exit_code: int | None, message: str) -> DriverState:
    """What Ray says of a driver; an exit code that is negative or above 128 is a signal."""
    if status not in ENDED:
        return DriverState(ended=False)
    if status == "STOPPED":
        return DriverState(ended=True, ending="stopped")
    if status == "FAILED" and exit_code is None:
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        return DriverState(
            ended=True, ending="killed", detail=lines[0][:200] if lines else "Ray does not say how"
        )
    if status == "FAILED" and exit_code is not None and not 0 <= exit_code <= 128:
        signal = -exit_code if exit_code < 0 else exit_code - 128
        return DriverState(ended=True, ending="killed", detail=f"signal {signal}")
    return DriverState(ended=True, ending="exited", detail=f"exit code {exit_code}")


class UnknownJob(ClusterError):
    """The cluster answers, and does not know the submission."""


class RayJobs:
    """``Runner`` on one cluster, through its Jobs API.

    Every method raises ClusterError where the cluster does not answer.
    """

    outlives_client = True

    def __init__(self, cluster: Cluster, stage: Stage = staged) -> None:
        self.cluster = look(cluster)
        self._stage = stage
        with self._asking("connect"):
            self._client = _client(self.cluster)

    @property
    def where(self) -> str:
        return self.cluster.address

    def claim(self) -> dict[str, Any]:
        return {"address": self.cluster.address, "local": self.cluster.local}

    def start(self, resolved: ResolvedJob, attempt: int, accepted: Callable[[], None]) -> None:
        command = entrypoint(attempt, local=self.cluster.local)
        with self._stage(resolved) as folder:
            self.submit_folder(folder, command, submission_id(resolved.id, attempt))
        accepted()

    def find(self, job_id: str, attempt: int) -> DriverState | None:
        return self.find_submission(submission_id(job_id, attempt))

    def stop(self, job_id: str, attempt: int, timeout_s: float = END_S) -> None:
        """SIGTERM, then SIGKILL; ClusterError where the driver has not ended after that."""
        name = submission_id(job_id, attempt)
        with suppress(UnknownJob), self._asking("stop a job"):
            self._client.stop_job(name)
        deadline = time.monotonic() + timeout_s
        while (driver := self.find_submission(name)) is not None and not driver.ended:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{name} did not end in {timeout_s:.0f} s at {self.cluster.address}"
                )
            time.sleep(0.5)

    def log(self, job_id: str, attempt: int) -> str:
        """All that the driver printed, as long as the cluster lives; empty where it is unknown."""
        try:
            with self._asking("read a job's log"):
                return str(self._client.get_job_logs(submission_id(job_id, attempt)))
        except UnknownJob:
            return ""

    def is_down(self) -> bool:
        return self.cluster.local and local_cluster.running(Home.from_environment()) is None

    def submit_folder(self, folder: Path, command: str, name: str) -> None:
        """Runs ``command`` in a copy of ``folder`` as submission ``name``, unless it is running."""
        before, ended_at = self._info(name)
        if before is not None and not before.ended:
            return
        if before is not None:
            # Its job was deleted, or its storage: numbers start again, but not at the cluster. Ray
            # watches an ended driver a little longer, and would take the new one's actor for dead.
            if abs(time.time() - ended_at) < 60:
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
            if self.find_submission(name) is None:
                raise
        if self.find_submission(name) is None:
            raise ClusterError(f"{self.cluster.address} took {name} and does not know it")

    def find_submission(self, name: str) -> DriverState | None:
        """How submission ``name`` stands, or None if the cluster does not know it."""
        return self._info(name)[0]

    def _info(self, name: str) -> tuple[DriverState | None, float]:
        """The state of a submission, and when it ended, in seconds since the epoch."""
        try:
            with self._asking("look up a job"):
                info = self._client.get_job_info(name)
        except UnknownJob:
            return None, 0.0
        status, code = str(info.status.value), info.driver_exit_code
        return driver_state(status, code, str(info.message or "")), (info.end_time or 0) / 1000

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
