"""The Ray Jobs API of one cluster: submit an attempt, query it, stop it, read its log."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

from colddiff.cluster import local_cluster
from colddiff.cluster.address import LARGEST_ANSWER, REFUSED, Cluster, probe, refusal, request
from colddiff.cluster.capacity import reported_capacity
from colddiff.cluster.forking import CLIENT
from colddiff.cluster.home import Home
from colddiff.errors import ClusterError
from colddiff.jobs.runner import DriverState
from colddiff.machine.processes import this_claimant
from colddiff.slow_calls import SLOW_CALLS
from colddiff.spec.documents import DocumentError, read_json_object

if TYPE_CHECKING:
    from colddiff.jobs.folder import JobFolder
    from colddiff.jobs.resolve import ResolvedJob
    from colddiff.jobs.runner import Capacity

    Stage = Callable[[ResolvedJob], AbstractContextManager[Path]]

REQUEST_S = 60.0
# Enough for a stopped driver to write its final status; Ray's own default is 3.
STOP_WAIT_S = 15
FORGET_S = 5.0
"""How long Ray keeps watching a driver that has ended."""
END_S = 30.0
AGENT_S = 60.0
"""How long a cluster may have no agent that starts jobs, as right after its start."""
NO_AGENT = "no available agent"
JOIN_S = 30.0
SUBMISSION = "submission"
"""In the claim of an attempt: what tells it from another of the same job in another STORAGE."""
ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging")


def submission_id(job_id: str, attempt: int, token: str = "") -> str:
    """The attempt's submission id; a cluster accepts each id only once.

    ``token``: of its claim, as another STORAGE may have the same job and attempt. Claims of earlier
    versions have none.
    """
    return "-".join([job_id, str(attempt), *([token] if token else [])])


def entrypoint(attempt: int, *, local: bool) -> str:
    """The driver's command line, run in the staged folder.

    ``-P`` keeps the working folder out of ``sys.path[0]``; Ray puts the staged folder first into
    PYTHONPATH, so the staged ``colddiff`` wins over an installed one (tests/cluster).
    """
    return python_command(f"colddiff.cluster.driver job.json --attempt {attempt}", local=local)


def python_command(module: str, *, local: bool) -> str:
    """The command line that runs a staged module, with its arguments."""
    # `python` is resolved by PATH on the cluster; locally that may be another interpreter.
    # There a fork server of ours runs, and the path of its client is that here.
    python = shlex.join([sys.executable, "-P", CLIENT]) if local else "python -P"
    return f"{python} -m {module}"


def driver_state(status: str, exit_code: int | None, message: str) -> DriverState:
    """A driver's state from Ray's; an exit code that is negative or above 128 is a signal."""
    if status not in ENDED:
        return DriverState(ended=False)
    if status == "STOPPED":
        return DriverState(ended=True, ending="stopped")
    if status == "FAILED" and exit_code is None:
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        return DriverState(
            ended=True, ending="killed", detail=lines[0][:200] if lines else "no details from Ray"
        )
    if status == "FAILED" and exit_code is not None and not 0 <= exit_code <= 128:
        signal = -exit_code if exit_code < 0 else exit_code - 128
        return DriverState(ended=True, ending="killed", detail=f"signal {signal}")
    return DriverState(ended=True, ending="exited", detail=f"exit code {exit_code}")


class UnknownJob(ClusterError):
    """The cluster responds, but does not know the submission."""


class RayJobs:
    """``Runner`` on one cluster, through its Jobs API.

    Plain HTTP, except to submit: Ray takes seconds to import. Every method raises ClusterError if
    the cluster does not respond.
    """

    outlives_client = True

    def __init__(self, cluster: Cluster, stage: Stage | None = None) -> None:
        self.cluster = probe(cluster)
        self._stage = stage
        self._names: dict[tuple[str, int], str] = {}

    @cached_property
    def _client(self) -> Any:
        with self._requesting("connect"):
            return _client(self.cluster)

    @property
    def where(self) -> str:
        return self.cluster.address

    def claim(self) -> dict[str, Any]:
        where = {"address": self.cluster.address, "local": self.cluster.local}
        return {**where, SUBMISSION: uuid.uuid4().hex[:8], **this_claimant()}

    def owns(self, claim: Mapping[str, Any]) -> bool:
        return bool(claim.get("address", self.cluster.address) == self.cluster.address)

    def start(self, resolved: ResolvedJob, attempt: int, accepted: Callable[[], None]) -> None:
        from colddiff.cluster.stage import staged

        command = entrypoint(attempt, local=self.cluster.local or self.cluster.forks)
        with (self._stage or staged)(resolved) as folder:
            self.submit_folder(folder, command, self._name(resolved.folder, attempt))
        accepted()

    def find(self, folder: JobFolder, attempt: int) -> DriverState | None:
        return self.find_submission(self._name(folder, attempt))

    def stop(self, folder: JobFolder, attempt: int) -> None:
        self.stop_submission(self._name(folder, attempt))

    def log(self, folder: JobFolder, attempt: int) -> str:
        return self.log_of_submission(self._name(folder, attempt))

    def _name(self, folder: JobFolder, attempt: int) -> str:
        """The submission id of an attempt, by its claim, which is written once."""
        known = self._names.get((folder.uri, attempt))
        if known is None:
            claim = folder.read_claim(attempt)
            known = submission_id(folder.job_id, attempt, str(claim.get(SUBMISSION) or ""))
            if claim:
                self._names[folder.uri, attempt] = known
        return known

    def stop_submission(self, name: str, timeout_s: float = END_S) -> None:
        """Sends SIGTERM, then SIGKILL; ClusterError if it is not ended by then (``timeout_s``)."""
        with suppress(UnknownJob), self._requesting("stop a job"):
            self._answer(f"/api/jobs/{quote(name)}/stop", "POST")
        deadline = time.monotonic() + timeout_s
        while (driver := self.find_submission(name)) is not None and not driver.ended:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{name} did not end in {timeout_s:.0f} s at {self.cluster.address}"
                )
            time.sleep(0.5)

    def log_of_submission(self, name: str) -> str:
        """The driver's whole output, as long as the cluster exists; empty if it is unknown."""
        try:
            with self._requesting("read a job's log"):
                return str(self._answer(f"/api/jobs/{quote(name)}/logs").get("logs") or "")
        except UnknownJob:
            return ""

    def is_down(self) -> bool:
        return self.cluster.local and local_cluster.running(Home.from_environment()) is None

    def capacity(self) -> Capacity:
        deadline = time.monotonic() + JOIN_S
        while True:
            nodes = self._read("/api/v0/nodes?detail=1&limit=10000")["result"]["result"]
            status = self._read("/api/cluster_status").get("clusterStatus") or {}
            found = reported_capacity(nodes, status)
            if found.machines or time.monotonic() > deadline:
                return found
            # A cluster that has just been started answers before its own head has joined.
            time.sleep(0.5)

    def _read(self, endpoint: str) -> dict[str, Any]:
        with self._requesting("say what it has"):
            data: dict[str, Any] = self._answer(endpoint)["data"]
        return data

    def _answer(self, path: str, method: str = "GET") -> dict[str, Any]:
        """The object in the cluster's answer; within ``_requesting`` alone."""
        body = request(self.cluster, path, method=method, timeout_s=REQUEST_S)
        return read_json_object(body, most_bytes=LARGEST_ANSWER)

    def submit_folder(self, folder: Path, command: str, name: str) -> None:
        """Runs ``command`` in a copy of ``folder`` as submission ``name``, unless it is running."""
        before = self.find_submission(name)
        if before is not None and not before.ended:
            return
        if before is not None:
            # The job or its storage was deleted, so attempt numbers restart, but the cluster still
            # has the old one. Ray keeps watching an ended driver for a while and would take the new
            # one's actor for the old, dead one. How long ago it ended is told by the cluster's
            # clock, which may differ from ours.
            time.sleep(FORGET_S)
            with self._requesting("delete an ended job"):
                self._answer(f"/api/jobs/{quote(name)}", "DELETE")
        deadline = time.monotonic() + AGENT_S
        while not self._accepts(folder, command, name, give_up=time.monotonic() > deadline):
            time.sleep(1.0)
        if self.find_submission(name) is None:
            raise ClusterError(f"{self.cluster.address} accepted {name} but does not know it")

    def _accepts(self, folder: Path, command: str, name: str, *, give_up: bool) -> bool:
        """Whether the cluster has taken the job; False while it has no agent, unless ``give_up``.

        A cluster that has just started answers before its first agent is up.
        """
        try:
            with self._requesting("accept the job"):
                self._client.submit_job(
                    entrypoint=command,
                    submission_id=name,
                    runtime_env={"working_dir": str(folder), "env_vars": _environment()},
                    metadata={"colddiff": name},
                )
        except ClusterError as error:
            # Another submit of the same attempt was faster: Ray responds with a bare HTTP 500.
            if self.find_submission(name) is not None:
                return True
            if NO_AGENT not in str(error).lower() or give_up:
                raise
            return False
        return True

    def find_submission(self, name: str) -> DriverState | None:
        """The state of submission ``name``, or None if the cluster does not know it."""
        try:
            with self._requesting("look up a job"):
                info = self._answer(f"/api/jobs/{quote(name)}")
        except UnknownJob:
            return None
        code = info.get("driver_exit_code")
        return driver_state(str(info.get("status")), code, str(info.get("message") or ""))

    @contextmanager
    def _requesting(self, what: str) -> Iterator[None]:
        where = self.cluster.address
        try:
            with SLOW_CALLS.watched(f"the cluster at {where}", f"to {what}"):
                yield
        except HTTPError as error:
            with error:
                said = error.read(10_000).decode(errors="replace")
            if error.code in REFUSED:
                raise ClusterError(refusal(self.cluster)) from None
            if error.code == 404:
                raise UnknownJob(f"{where} does not know the job") from None
            raise ClusterError(f"{where} cannot {what}: {_last_line(said)}") from None
        except (OSError, HTTPException) as error:  # those of Ray's client are OSErrors too
            raise ClusterError(
                f"the cluster at {where} stopped responding ({type(error).__name__}: cannot {what})"
            ) from None
        except (RuntimeError, DocumentError, KeyError) as error:
            raise ClusterError(f"{where} cannot {what}: {_last_line(str(error))}") from None


def _client(cluster: Cluster) -> Any:
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    host = urlsplit(cluster.address).hostname or ""

    class Client(JobSubmissionClient):
        """The SDK's client, with a timeout on each request, which it lacks."""

        def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> Any:
            kwargs.setdefault("timeout", REQUEST_S)
            if cluster.loopback:
                # A configured HTTP proxy cannot reach this machine's own ports.
                kwargs.setdefault("proxies", {"no_proxy": host})
            try:
                return super()._do_request(method, endpoint, **kwargs)
            except AuthenticationError:
                raise ClusterError(refusal(cluster)) from None

    headers = {"Authorization": f"Bearer {cluster.token}"} if cluster.token else {}
    with _without(OVERRIDES):
        return Client(cluster.address, headers=headers)


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    # In the SDK these variables override the address argument.
    saved = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)


def _environment() -> Mapping[str, str]:
    # The dashboard shows these to everyone: never put a secret here.
    # Colour codes would end up in the stored log.
    return {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), "RAY_COLOR_PREFIX": "0"}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip(" .")]
    return lines[-1][:300] if lines else "it gives no reason"
