"""The folder of a job in STORAGE: what the job is, how it stands, and which attempt may write."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, fields
from typing import Any

from colddiff.errors import ColddiffError, Exists, Missing
from colddiff.jobs.status import Status
from colddiff.ports import Store

_SCORE = re.compile(r"eval/sampled/(fid|fd_\w+)")


class JobFolder:
    """``jobs/<id>/`` of a store."""

    def __init__(self, store: Store, job_id: str) -> None:
        self.store = store
        self.job_id = job_id

    def key(self, *parts: str) -> str:
        """The store key of something in this folder."""
        return "/".join(("jobs", self.job_id, *parts))

    @property
    def uri(self) -> str:
        """Address of the folder."""
        return f"{self.store.uri}/{self.key()}"

    def write_job(self, job: dict[str, Any]) -> None:
        """The resolved job: id, verb, slug, spec, content digests, versions, git state."""
        self._put("job.json", job)

    def job(self) -> dict[str, Any]:
        """What ``write_job`` wrote; raises Missing where there is no such job."""
        found = self._get("job.json")
        if found is None:
            raise Missing(
                f"no job {self.job_id!r} in {self.store.uri}; see `colddiff list`, or set "
                "COLDDIFF_STORAGE to where it was submitted"
            )
        return found

    def write_status(self, status: Status) -> None:
        """Replaces ``status.json``."""
        self._put("status.json", asdict(status))

    def status(self, now: float | None = None) -> Status | None:
        """How the job stands, lost if its heartbeat stopped; None before the first attempt."""
        found = self._get("status.json")
        if found is None:
            return None
        names = {field.name for field in fields(Status)}
        status = Status(**{name: value for name, value in found.items() if name in names})
        return status.seen_at(time.time() if now is None else now)

    def write_result(self, result: dict[str, Any]) -> None:
        """Final metrics and paths."""
        self._put("result.json", result)

    def result(self) -> dict[str, Any] | None:
        """What ``write_result`` wrote last, or None."""
        return self._get("result.json")

    def attempts(self) -> list[int]:
        """Numbers of the attempts claimed so far, rising."""
        prefix = self.key("attempts/")
        numbers = {item.key.removeprefix(prefix).split("/")[0] for item in self.store.list(prefix)}
        return sorted(int(number) for number in numbers if number.isdigit())

    def claim(self, attempt: int, record: dict[str, Any]) -> bool:
        """Claims ``attempt`` for whoever starts it; of several claimants exactly one gets True.

        ``record`` says where the attempt runs: ``{host, pid}`` for a process that runs it itself,
        ``{address, local}`` for a cluster.
        """
        record = {"time": time.time(), **record}
        try:
            self.store.put_new(self.key("attempts", str(attempt), "claim.json"), _encode(record))
        except Exists:
            return False
        return True

    def read_claim(self, attempt: int) -> dict[str, Any]:
        """The record of whoever claimed ``attempt``; empty before."""
        return self._get(f"attempts/{attempt}/claim.json") or {}

    def begin_start(self, attempt: int, note: dict[str, Any]) -> int:
        """Number of a new start of the workers of ``attempt``, from 1: it fences those before.

        An attempt starts its workers again when some were lost; what is left of the earlier ones
        may still write.
        """
        number = (self.starts(attempt) or [0])[-1] + 1
        while True:
            try:
                self.store.put_new(
                    self.key(f"attempts/{attempt}/starts/{number}.json"), _encode(note)
                )
            except Exists:
                number += 1
            else:
                return number

    def starts(self, attempt: int) -> list[int]:
        """Numbers of the starts of ``attempt``'s workers so far, rising."""
        prefix = self.key(f"attempts/{attempt}/starts/")
        names = (item.key.removeprefix(prefix) for item in self.store.list(prefix))
        return sorted(int(name.removesuffix(".json")) for name in names)

    def write_start(self, attempt: int, start: int, note: dict[str, Any]) -> None:
        """Replaces the note of a start: from which step it went on, with how many workers."""
        self._put(f"attempts/{attempt}/starts/{start}.json", note)

    def start(self, attempt: int, start: int) -> dict[str, Any]:
        """The note of a start; empty where there is none."""
        return self._get(f"attempts/{attempt}/starts/{start}.json") or {}

    def write_stacks(self, attempt: int, rank: int, text: str) -> None:
        """What every thread of a rank that hangs was doing; each is kept."""
        self.store.put(
            self.key(f"attempts/{attempt}/stacks/{time.time_ns()}-{rank}.txt"), text.encode()
        )

    def stacks(self, attempt: int) -> dict[str, str]:
        """What ``write_stacks`` wrote in ``attempt``, by name, oldest first."""
        prefix = self.key(f"attempts/{attempt}/stacks/")
        keys = [item.key for item in self.store.list(prefix)]
        return {key.removeprefix(prefix): self.store.get(key).decode() for key in keys}

    def superseded(self, attempt: int, start: int | None = None) -> bool:
        """Whether a later attempt, or a later ``start`` of it, began: then a writer must end."""
        if (self.attempts() or [0])[-1] > attempt:
            return True
        return start is not None and (self.starts(attempt) or [0])[-1] > start

    def write_progress(self, attempt: int, progress: dict[str, Any]) -> None:
        """How far it is: step, num_steps, loss, images_per_s, eta_s, phase, detail."""
        self._put(f"attempts/{attempt}/progress.json", progress)

    def progress(self, attempt: int) -> dict[str, Any]:
        """What rank 0 wrote last in ``attempt``; empty before."""
        return self._get(f"attempts/{attempt}/progress.json") or {}

    def write_outcome(self, attempt: int, outcome: dict[str, Any]) -> None:
        """How the training loop of ``attempt`` ended: {step, stopped, failed}."""
        self._put(f"attempts/{attempt}/outcome.json", outcome)

    def outcome(self, attempt: int) -> dict[str, Any] | None:
        """What ``write_outcome`` wrote, or None where the loop did not come to an end."""
        return self._get(f"attempts/{attempt}/outcome.json")

    def write_evaluation(self, step: int, evaluation: dict[str, Any]) -> None:
        """Metrics and their provenance of the checkpoint at ``step``."""
        self._put(f"evaluations/step_{step:08d}.json", evaluation)

    def evaluation(self, step: int) -> dict[str, Any] | None:
        """What ``write_evaluation`` wrote, or None."""
        return self._get(f"evaluations/step_{step:08d}.json")

    def evaluated_steps(self) -> list[int]:
        """Steps with an evaluation, rising."""
        prefix = self.key("evaluations/step_")
        names = (item.key.removeprefix(prefix) for item in self.store.list(prefix))
        return sorted(int(name.removesuffix(".json")) for name in names)

    def best_step(self, among: set[int]) -> int | None:
        """The evaluated step with the lowest Frechet distance of Algorithm 2; None without one."""
        scored = []
        for step in among & set(self.evaluated_steps()):
            metrics = (self.evaluation(step) or {}).get("metrics", {})
            scored += [(value, step) for name, value in metrics.items() if _SCORE.fullmatch(name)]
        return min(scored)[1] if scored else None

    def write_log(self, attempt: int, text: bytes) -> None:
        """Replaces ``attempts/<n>/log.txt``."""
        self.store.put(self.key("attempts", str(attempt), "log.txt"), text)

    def log(self, attempt: int) -> bytes:
        """The attempt's log so far; empty before its first upload."""
        try:
            return self.store.get(self.key("attempts", str(attempt), "log.txt"))
        except Missing:
            return b""

    def request_stop(self, attempt: int, grace_s: float) -> None:
        """Asks ``attempt`` to take a checkpoint and end within ``grace_s`` seconds."""
        self._put(f"attempts/{attempt}/stop.json", {"grace_s": grace_s, "time": time.time()})

    def stop_requested(self, attempt: int) -> bool:
        """Whether somebody asked ``attempt`` to stop."""
        return self.store.size(self.key(f"attempts/{attempt}/stop.json")) is not None

    def _put(self, name: str, value: dict[str, Any]) -> None:
        self.store.put(self.key(name), _encode(value))

    def _get(self, name: str) -> dict[str, Any] | None:
        try:
            found = json.loads(self.store.get(self.key(name)))
        except Missing:
            return None
        except ValueError as error:
            raise ColddiffError(
                f"{self.store.uri}/{self.key(name)} is not JSON ({error})"
            ) from None
        if not isinstance(found, dict):
            raise ColddiffError(f"{self.store.uri}/{self.key(name)} is not a JSON object")
        return found


def list_jobs(store: Store) -> list[str]:
    """Ids of all jobs in ``store``."""
    ids = {item.key.split("/")[1] for item in store.list("jobs/") if item.key.count("/") >= 2}
    return sorted(ids)


def _encode(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
