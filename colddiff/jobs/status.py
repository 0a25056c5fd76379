"""The status of a job (``status.json``), and its one-line renderings for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Literal, TypeGuard, get_args

State = Literal["queued", "running", "done", "failed", "stopped", "lost"]
TERMINAL: frozenset[str] = frozenset({"done", "failed", "stopped", "lost"})
EXIT_CODES: dict[str, int] = {"done": 0, "failed": 1, "lost": 1, "stopped": 4}
INTERRUPTED = 130
HEARTBEAT_S = 2.0
LOST_AFTER_S = 30.0
"""How long a heartbeat may not change, while it is watched, before its attempt counts as lost."""
WAITING = "waiting"
"""The phase in which a job has no workers, as the cluster has no room for them."""
MOST = 1e15
"""No number of a status is larger: of seconds, 30 million years."""
AGAIN = "submit the same job again to continue"


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a job, written by one process, the driver of ``attempt``."""

    state: State = "queued"
    attempt: int = 0
    step: int = 0
    num_steps: int = 0
    heartbeat: float = 0.0
    """When the driver last wrote, in seconds since the epoch by its own clock.

    It shows life where it changes, and is never compared with another machine's clock.
    """
    started: float | None = None
    """When the first attempt started, in seconds since the epoch."""
    running_s: float = 0.0
    """Time spent running, over all attempts."""
    waiting_s: float = 0.0
    """Time spent waiting for CPUs or GPUs of the cluster, over all attempts."""
    gpu_hours: float = 0.0
    """Of GPUs that workers held, over all attempts."""
    loss: float | None = None
    images_per_s: float | None = None
    eta_s: float | None = None
    phase: str = ""
    """Current phase, such as ``training`` or ``evaluating``."""
    detail: str = ""
    """Details of the progress, such as ``12/100 shards, 1 retried``."""
    reports: int = 0
    """How many results on the way the attempt has reported, such as evaluations."""
    score: float | None = None
    """Best value so far of ``score_metric``, the metric that stands for the job in a list."""
    score_metric: str = ""
    message: str = ""
    """Why it failed or stopped, and what to do about it."""
    host: str = ""
    """Host name of the driver's machine; ``pid`` is its process there."""
    pid: int = 0
    user: str = ""
    """Who submitted the attempt, as its claim says; empty where an earlier version wrote that."""

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Status:
        """The status of a ``status.json``, perhaps of a later version; raises DocumentError."""
        # Heavy, and `--help` needs this module.
        from colddiff.spec.documents import DocumentError

        known = {item.name: item for item in fields(cls) if item.name in found}
        # A null text is one that is not known.
        values = {
            name: found[name]
            for name, item in known.items()
            if not (item.type == "str" and found[name] is None)
        }
        for name, value in values.items():
            expected = _mismatch(name, str(known[name].type), value)
            if expected:
                raise DocumentError(f"{name} is {shown_json(value)}, not {expected}")
            if known[name].type == "int":
                values[name] = int(value)  # a verb may have written 3.0
        return cls(**values)

    @property
    def finished(self) -> bool:
        """Whether no attempt is queued or running."""
        return self.state in TERMINAL

    @property
    def settled(self) -> bool:
        """Whether the final status was written, by the driver or by a client that saw it end."""
        return self.finished and self.state != "lost"

    @property
    def extent(self) -> int:
        """The steps of the job: those requested, or more that were done before."""
        return max(self.num_steps, self.step)

    @property
    def word(self) -> str:
        """The state as people are told it: WAITING where it runs and has no workers yet."""
        return WAITING if self.state == "running" and self.phase == WAITING else self.state


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value read from JSON is a finite number of a sensible size."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and isfinite(value)
        and abs(value) <= MOST
    )


def shown_json(value: object) -> str:
    """``value`` as JSON writes it, cut to a length that fits into a message."""
    from colddiff.spec.documents import SHOWN

    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _mismatch(name: str, type_name: str, value: object) -> str:
    """What a field with this annotation must be, if ``value`` is not that; else ""."""
    if type_name == "State":
        return (
            ""
            if isinstance(value, str) and value in get_args(State)
            else f"one of {', '.join(get_args(State))}"
        )
    if type_name == "str":
        return "" if isinstance(value, str) else "text"
    if type_name == "float | None" and value is None:
        return ""
    if name in ("loss", "score") and isinstance(value, float):
        return ""  # it may be infinite
    if type_name == "int" and is_number(value) and (value != int(value) or value < 0):
        return "a whole number from 0"
    return "" if is_number(value) else "a number"


def progress_line(status: Status) -> str:
    """``training  120/500  24%  loss 0.123  812 img/s  ETA 0:01:23``."""
    phase = status.state if status.finished else status.phase or status.state
    parts = [f"{phase:<10}"]
    if status.num_steps:
        share = 100 * status.step // status.extent
        parts.append(f"{status.step}/{status.extent}  {share}%")
    if status.finished:
        return "  ".join(parts).rstrip()
    if status.detail:
        parts.append(status.detail)
    if status.loss is not None:
        parts.append(f"loss {status.loss:.4g}")
    if status.images_per_s:
        parts.append(f"{status.images_per_s:.0f} img/s")
    if status.eta_s is not None:
        parts.append(f"ETA {duration(status.eta_s)}")
    return "  ".join(parts).rstrip()


def of_lost(why: str, *, requested: bool) -> tuple[State, str]:
    """State and message of an attempt that ended with its driver or cluster; ``requested``: that
    it stops."""
    return ("stopped", f"ended on request; {AGAIN}") if requested else ("lost", f"{why}; {AGAIN}")


def note_of(status: Status) -> str:
    """What a list says of a job beside its numbers: why it ended, or what it waits for."""
    return status.message or (status.detail if status.phase == WAITING else "")


def spent_line(status: Status) -> str:
    """Cost of all attempts: ``0:12:33 of running over 2 attempts, 1.27 GPU hours``."""
    attempts = f" over {status.attempt} attempts" if status.attempt > 1 else ""
    waited = f", {duration(status.waiting_s)} of waiting" if status.waiting_s >= 1 else ""
    spent = f"{duration(status.running_s)} of running{attempts}{waited}"
    return f"{spent}, {status.gpu_hours:.3g} GPU hours"


def verdict_line(job_id: str, status: Status, unit: str) -> str:
    """One line: how the job ended, why, and what to do about it."""
    reached = f" ({extent_line(status, unit)})" if status.num_steps else ""
    verb = "is done" if status.state == "done" else f"ended: {status.state}"
    line = f"{job_id} {verb}{reached}"
    if status.message:
        line += f": {status.message}"
    if status.state in ("failed", "lost"):
        line += f" (see `colddiff logs {job_id}`)"
    return line


def extent_line(status: Status, unit: str) -> str:
    """Progress of a job, such as ``250 of 250 steps``."""
    return f"{status.step} of {status.extent} {unit}"


def hours_text(hours: float) -> str:
    """An estimate in hours, and in what people count so few or so many of them in.

    >>> hours_text(0.071), hours_text(30), hours_text(20_614)
    ('0:04:15', '30 hours', '20,600 hours (2.4 years)')
    """
    if hours < 1:
        return duration(3600 * hours)
    text = f"{float(f'{hours:.3g}'):,.15g} hours"
    days = hours / 24
    if days < 2:
        return text
    return f"{text} ({days:.0f} days)" if days < 730 else f"{text} ({days / 365.25:,.1f} years)"


def duration(seconds: float) -> str:
    """``h:mm:ss``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
