"""The folder of a job in STORAGE: its spec, status and results, and which attempt may write."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from colddiff.errors import Exists, Missing, RecordError
from colddiff.evaluation.best import BestStep, best_step
from colddiff.jobs.listing.ended import EndedMark
from colddiff.jobs.status import Status, is_number, shown_json
from colddiff.ports import Store
from colddiff.spec.documents import DocumentError, read_json_object
from colddiff.spec.formats import refuse_later

_MEASURED: dict[str, type] = {"metrics": dict, "provenance": dict}
_WORDS: Mapping[type, str] = {str: "text", dict: "an object", list: "a list"}


class JobFolder:
    """``jobs/<id>/`` of a store."""

    def __init__(self, store: Store, job_id: str) -> None:
        self.store = store
        self.job_id = job_id
        self._mark = EndedMark(store, job_id)

    def key(self, *parts: str) -> str:
        """The store key of an object in this folder."""
        return "/".join(("jobs", self.job_id, *parts))

    @property
    def uri(self) -> str:
        """Address of the folder."""
        return f"{self.store.uri}/{self.key()}"

    def write_job(self, job: dict[str, Any]) -> None:
        """The resolved job: id, verb, slug, spec, content digests, versions, git state."""
        self._put("job.json", job)

    def job(self) -> dict[str, Any]:
        """What ``write_job`` wrote; raises Missing if there is no such job."""
        found = self._get("job.json", spec=dict, id=str, verb=str, slug=str)
        if found is not None:
            self._check("job.json", found.get("spec") or {}, "spec.", evaluation=dict)
            self._check_number("job.json", found, "created")
        if found is None:
            raise self.missing()
        return found

    def missing(self) -> Missing:
        """The error of a job that is not there."""
        return Missing(
            f"no job {self.job_id!r} in {self.store.uri}; see `colddiff list`, or set "
            "COLDDIFF_STORAGE to where it was submitted"
        )

    def write_status(self, status: Status) -> None:
        """Replaces ``status.json``, and the mark that tells lists whether the job has ended."""
        encoded = _encode(asdict(status))
        self._mark.write(self.key("status.json"), encoded, status.attempt, settled=status.settled)

    def status(self) -> Status | None:
        """The job's status as it was last written; None before the first attempt.

        Its driver may have died since: ``follow.AttemptWatch`` tells.
        """
        found = self._get("status.json")
        return None if found is None else self._as_status("status.json", found)

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes the final metrics and paths (``result.json``)."""
        self._put("result.json", result)

    def result(self) -> dict[str, Any] | None:
        """What ``write_result`` wrote last, or None; its addresses are where the job is now."""
        found = self._get("result.json", checkpoint=str, id=str, summary=list, **_MEASURED)
        self._check_numbers("result.json", found)
        before = (self._get("job.json", storage=str) or {}).get("storage") if found else None
        if found is None or before in (None, self.store.uri):
            return found
        return {name: _moved(value, str(before), self.store.uri) for name, value in found.items()}

    def settle_here(self, tracking_uri: str) -> None:
        """Makes ``result.json`` and ``job.json`` of a storage that was moved name this place."""
        job = self._get("job.json", storage=str)
        if job is None or job.get("storage") in (None, self.store.uri):
            return
        if (result := self.result()) is not None:
            self.write_result(result)
        # Last: until then it says from where the addresses of the result have moved.
        self.write_job({**job, "storage": self.store.uri, "tracking_uri": tracking_uri})

    def attempts(self) -> list[int]:
        """Numbers of the attempts claimed so far, ascending."""
        prefix = self.key("attempts/")
        numbers = {item.key.removeprefix(prefix).split("/")[0] for item in self.store.list(prefix)}
        return _ascending(numbers)

    def claim(self, attempt: int, record: dict[str, Any]) -> bool:
        """Claims ``attempt`` by a conditional write; exactly one of several claimants gets True.

        ``record`` states who claims it, ``{user, command, host, pid}``, and where it runs: with
        ``{address, local}`` on a cluster, else in that process itself.
        """
        record = {"time": time.time(), **record}
        try:
            self.store.put_new(self.key("attempts", str(attempt), "claim.json"), _encode(record))
        except Exists:
            return False
        return True

    def read_claim(self, attempt: int) -> dict[str, Any]:
        """The record of the claim of ``attempt``; empty if it was not claimed yet."""
        name = f"attempts/{attempt}/claim.json"
        claim = self._get(name, host=str, address=str, user=str) or {}
        for field in ("time", "pid"):
            if not is_number(claim.get(field, 0)):
                what = f"is damaged: {field} is {shown_json(claim[field])}, not a number"
                raise self._damaged(name, what)
        return claim

    def take_fencing_token(self, attempt: int, record: dict[str, Any]) -> int:
        """A new fencing token of ``attempt``, from 1; holders of lower ones are superseded.

        Each start of an attempt's workers takes one: when some are lost all are restarted, and
        survivors of the earlier start may still try to write.
        """
        token = (self.fencing_tokens(attempt) or [0])[-1] + 1
        while True:
            try:
                self.store.put_new(
                    self.key(f"attempts/{attempt}/starts/{token}.json"), _encode(record)
                )
            except Exists:
                token += 1
            else:
                return token

    def fencing_tokens(self, attempt: int) -> list[int]:
        """Fencing tokens taken in ``attempt`` so far, ascending."""
        prefix = self.key(f"attempts/{attempt}/starts/")
        names = {item.key.removeprefix(prefix) for item in self.store.list(prefix)}
        return _ascending({name.removesuffix(".json") for name in names})

    def write_fence(self, attempt: int, token: int, record: dict[str, Any]) -> None:
        """Replaces the record of a fencing token: step resumed from, number of workers."""
        self._put(f"attempts/{attempt}/starts/{token}.json", record)

    def fence(self, attempt: int, token: int) -> dict[str, Any]:
        """The record of a fencing token; empty if there is none."""
        name = f"attempts/{attempt}/starts/{token}.json"
        found = self._get(name) or {}
        for field in ("time", "step", "repeated_steps"):
            self._check_number(name, found, field)
        return found

    def repeated_steps(self) -> list[int]:
        """How many steps starts of workers trained again after a kill, of those that did."""
        prefix, found = self.key("attempts/"), []
        for item in self.store.list(prefix):
            start = re.fullmatch(r"([0-9]+)/starts/([0-9]+)\.json", item.key.removeprefix(prefix))
            if start is None:
                continue
            with suppress(RecordError):  # the rest of the job is of more interest
                record = self.fence(int(start[1]), int(start[2]))
                found.append(int(record.get("repeated_steps") or 0))
        return [steps for steps in found if steps]

    def write_stacks(self, attempt: int, rank: int, text: str) -> None:
        """Stores the stacks of all threads of a rank that hangs; earlier ones are kept."""
        self.store.put(
            self.key(f"attempts/{attempt}/stacks/{time.time_ns()}-{rank}.txt"), text.encode()
        )

    def stacks(self, attempt: int) -> dict[str, str]:
        """What ``write_stacks`` wrote in ``attempt``, by name, oldest first."""
        prefix = self.key(f"attempts/{attempt}/stacks/")
        keys = [item.key for item in self.store.list(prefix)]
        return {key.removeprefix(prefix): self._text(key) for key in keys}

    def superseded(self, attempt: int, token: int | None = None) -> bool:
        """Whether there is a later attempt, or a later fencing token of it: writers must end."""
        if (self.attempts() or [0])[-1] > attempt:
            return True
        return token is not None and (self.fencing_tokens(attempt) or [0])[-1] > token

    def write_progress(self, attempt: int, progress: dict[str, Any]) -> None:
        """Writes the progress: step, num_steps, loss, images_per_s, eta_s, phase, detail."""
        self._put(f"attempts/{attempt}/progress.json", progress)

    def progress(self, attempt: int) -> dict[str, Any]:
        """The latest progress of ``attempt``; empty before the first."""
        name = f"attempts/{attempt}/progress.json"
        found = self._get(name) or {}
        self._as_status(name, found)
        return found

    def write_reports(self, attempt: int, lines: Sequence[str]) -> None:
        """Writes all results on the way that ``attempt`` has reported so far, a line each."""
        self._put(f"attempts/{attempt}/reports.json", {"lines": list(lines)})

    def reports(self, attempt: int) -> list[str]:
        """What ``write_reports`` wrote last; empty before the first."""
        found = self._get(f"attempts/{attempt}/reports.json", lines=list) or {}
        return list(map(str, found.get("lines") or ()))

    def write_outcome(self, attempt: int, outcome: dict[str, Any]) -> None:
        """Writes how the work of ``attempt`` ended: {step, stopped, failed}."""
        self._put(f"attempts/{attempt}/outcome.json", outcome)

    def outcome(self, attempt: int) -> dict[str, Any] | None:
        """What ``write_outcome`` wrote; None if the work did not reach an end."""
        name = f"attempts/{attempt}/outcome.json"
        found = self._get(name)
        self._as_status(name, {"step": (found or {}).get("step", 0)})
        return found

    def write_evaluation(self, step: int, evaluation: dict[str, Any]) -> None:
        """Writes metrics and their provenance of the checkpoint at ``step``."""
        self._put(f"evaluations/step_{step:08d}.json", evaluation)

    def evaluation(self, step: int) -> dict[str, Any] | None:
        """What ``write_evaluation`` wrote, or None."""
        name = f"evaluations/step_{step:08d}.json"
        found = self._get(name, **_MEASURED)
        self._check_numbers(name, found)
        return found

    def write_details(self, step: int, data: bytes) -> None:
        """Writes what an evaluation at ``step`` keeps for its page, beside its metrics."""
        self.store.put(self._details_key(step), data)

    def details(self, step: int) -> bytes | None:
        """What ``write_details`` wrote, or None."""
        try:
            return self.store.get(self._details_key(step))
        except Missing:
            return None

    def _details_key(self, step: int) -> str:
        return self.key(f"evaluations/step_{step:08d}.safetensors")

    def evaluated_steps(self) -> list[int]:
        """Steps with an evaluation, ascending."""
        prefix = self.key("evaluations/step_")
        names = {item.key.removeprefix(prefix) for item in self.store.list(prefix)}
        return _ascending({name.removesuffix(".json") for name in names})

    def best(self, among: set[int]) -> BestStep | None:
        """The best of the evaluated steps ``among``, by the job's metric; None without one."""
        steps = sorted(among & set(self.evaluated_steps()))
        job = (self._get("job.json", spec=dict) or {}).get("spec") or {}
        self._check("job.json", job, "spec.", evaluation=dict)
        return best_step({step: self.evaluation(step) or {} for step in steps}, job)

    def write_log(self, attempt: int, text: bytes) -> None:
        """Replaces ``attempts/<n>/log.txt``."""
        self.store.put(self.key("attempts", str(attempt), "log.txt"), text)

    def write_debug_log(self, attempt: int, text: bytes) -> None:
        """Replaces ``attempts/<n>/debug.txt``: what other libraries printed of themselves."""
        self.store.put(self.key("attempts", str(attempt), "debug.txt"), text)

    def debug_log(self, attempt: int) -> bytes:
        """What ``write_debug_log`` wrote last; empty before its first upload."""
        try:
            return self.store.get(self.key("attempts", str(attempt), "debug.txt"))
        except Missing:
            return b""

    def log(self, attempt: int) -> bytes:
        """The attempt's log so far; empty before its first upload."""
        try:
            return self.store.get(self.key("attempts", str(attempt), "log.txt"))
        except Missing:
            return b""

    def request_stop(self, attempt: int, grace_s: float) -> None:
        """Requests that ``attempt`` takes a checkpoint and ends within ``grace_s`` seconds."""
        self._put(f"attempts/{attempt}/stop.json", {"grace_s": grace_s, "time": time.time()})

    def stop_requested(self, attempt: int) -> bool:
        """Whether a stop of ``attempt`` was requested."""
        return self.store.size(self.key(f"attempts/{attempt}/stop.json")) is not None

    def _put(self, name: str, value: dict[str, Any]) -> None:
        self.store.put(self.key(name), _encode(value))

    def _get(self, name: str, **types: type) -> dict[str, Any] | None:
        """A JSON object, whose fields named in ``types`` are of these types where they exist."""
        try:
            data = self.store.get(self.key(name))
        except Missing:
            return None
        try:
            found = read_json_object(data)
        except DocumentError as error:
            raise self._damaged(name, str(error)) from None
        try:
            refuse_later(found, None)
        except DocumentError as error:
            raise RecordError(f"{self.store.uri}/{self.key(name)} {error}") from None
        self._check(name, found, "", **types)
        return found

    def _check(self, name: str, found: Mapping[str, Any], above: str, **types: type) -> None:
        for field, of in types.items():
            if found.get(field) is not None and not isinstance(found[field], of):
                value = shown_json(found[field])
                what = f"is damaged: {above}{field} is {value}, not {_WORDS[of]}"
                raise self._damaged(name, what)

    def _check_numbers(self, name: str, found: Mapping[str, Any] | None) -> None:
        for path, value in ((found or {}).get("metrics") or {}).items():
            if isinstance(value, dict | list):
                what = f"is damaged: metrics.{path} is {shown_json(value)}, not a number"
                raise self._damaged(name, what)

    def _check_number(self, name: str, found: Mapping[str, Any], field: str) -> None:
        if not is_number(found.get(field) or 0.0):
            what = f"is damaged: {field} is {shown_json(found[field])}, not a number"
            raise self._damaged(name, what)

    def _as_status(self, name: str, found: Mapping[str, Any]) -> Status:
        try:
            return Status.from_dict(found)
        except DocumentError as error:
            raise self._damaged(name, f"is damaged: {error}") from None

    def _text(self, key: str) -> str:
        return self.store.get(key).decode(errors="replace")

    def _damaged(self, name: str, what: str) -> RecordError:
        """The error of a damaged file, with the way out."""
        # Without its result a job counts as done all the same.
        files = "this file and status.json" if name == "result.json" else "this file"
        way_out = f"delete {files} and run the same command again to continue"
        return RecordError(f"{self.store.uri}/{self.key(name)} {what}", way_out)


def is_deleted(store: Store, uri: str) -> bool:
    """Whether the job whose folder is at ``uri`` was in ``store``, and has no record any more.

    False of a job that is elsewhere: what is there is not known.
    """
    root, _, job_id = uri.rpartition("/jobs/")
    if root != store.uri:
        return False
    folder = JobFolder(store, job_id)
    return all(store.size(folder.key(name)) is None for name in ("job.json", "status.json"))


def list_jobs(store: Store) -> list[str]:
    """Ids of all jobs in ``store``."""
    return sorted(store.folders("jobs/"))


def _ascending(names: set[str]) -> list[int]:
    """The numbers among names of files or folders; others may lie there too."""
    return sorted(int(name) for name in names if re.fullmatch(r"[0-9]{1,18}", name))


def _moved(value: Any, before: str, now: str) -> Any:
    """``value`` with the addresses below the storage ``before`` as they are below ``now``."""
    if isinstance(value, dict):
        return {name: _moved(inner, before, now) for name, inner in value.items()}
    if isinstance(value, list):
        return [_moved(inner, before, now) for inner in value]
    if isinstance(value, str):
        # Also within a sentence, or in the address of a database; never within a longer path.
        begins = r"(?:^|(?<=[\s'\"=(])|(?<=sqlite:///))"
        return re.sub(f"{begins}{re.escape(before)}(?=/)", lambda _: now, value)
    return value


def _encode(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
