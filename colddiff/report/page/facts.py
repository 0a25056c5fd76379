"""Facts of a run as a page prints them: attempts, cost, provenance."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from colddiff.report.differences import value_text
from colddiff.report.page.run import AttemptFacts, ReportedRun, WorkerStart

SHORT = 12
"""Characters of a commit that are shown."""


def facts_of(run: ReportedRun) -> list[str]:
    """A few words on a run for the line above its title."""
    spec = run.spec
    found = [run.verb, run.state]
    if run.last is not None and run.last.step:
        found.append(f"evaluated at step {run.last.step}")
    found += [
        f"of {value_text(spec[name])}" for name in ("checkpoint", "samples") if spec.get(name)
    ]
    D = spec.get("degradation")
    if isinstance(D, Mapping):
        found.append(f"{D.get('kind')}, T = {D.get('num_timesteps')}")
    if spec.get("image_size"):
        found.append(f"{spec['image_size']} px, {spec.get('channels')} channel(s)")
    created = run.job.get("created")
    if created:
        found.append(f"submitted {_utc(created)}")
    return found


def attempts_of(run: ReportedRun) -> list[dict[str, Any]]:
    """A row for each attempt: when it began, its starts of workers, how far it came."""
    return [
        {
            "number": attempt.number,
            "began": _utc(attempt.began) if attempt.began else "unknown",
            "starts": "; ".join(_start(start, attempt) for start in attempt.starts) or "-",
            "ended": attempt.outcome.get("step", "-"),
        }
        for attempt in run.attempts
    ]


def _start(start: WorkerStart, attempt: AttemptFacts) -> str:
    after = ""
    if attempt.began is not None and start.time >= attempt.began:
        after = f"after {start.time - attempt.began:.0f} s "
    step = "" if start.step is None else f"from step {start.step} "
    workers = "" if start.workers is None else f"with {start.workers} worker(s)"
    return f"{after}{step}{workers}".strip()


def cost_of(run: ReportedRun) -> dict[str, str]:
    """Hours, GPU hours and, with a price, money; steps that kills have cost."""
    status = run.status
    found = {
        "state": run.state,
        "running": f"{_spent(float(status.get('running_s', 0.0)))} over all attempts",
        "GPU hours": f"{float(status.get('gpu_hours', 0.0)):.3g}",
    }
    price = (run.spec.get("resources") or {}).get("price_per_gpu_hour")
    if price is not None:
        found["cost"] = f"{float(price) * float(status.get('gpu_hours', 0.0)):.2f}"
    times = run.result.get("time")
    if isinstance(times, Mapping):
        for name, seconds in sorted(times.items()):
            if isinstance(seconds, int | float):
                # The result has those of the attempt that made it.
                seconds = _of_all_attempts(run, name) or seconds
                found[name.removesuffix("_s").replace("_", " ")] = f"{seconds:.1f} s"
    starts = [start for attempt in run.attempts for start in attempt.starts]
    if starts:
        found["starts of workers"] = str(len(starts))
    if repeated := sum(start.repeated_steps for start in starts):
        found["steps trained again after kills"] = str(repeated)
    return found


def _of_all_attempts(run: ReportedRun, name: str) -> float:
    """The sum of a time over the attempts that noted it, in s."""
    noted = [attempt.outcome.get(name) for attempt in run.attempts]
    return sum(float(seconds) for seconds in noted if isinstance(seconds, int | float))


def provenance_of(runs: Sequence[ReportedRun]) -> list[dict[str, Any]]:
    """For each run: a few words, versions, digests, where it lies, the command, its job.json."""
    return [
        {
            "id": run.name,
            "about": facts_of(run),
            "facts": _provenance(run),
            "command": run.command,
            "job": json.dumps(run.job, indent=1, sort_keys=True),
        }
        for run in runs
    ]


def _provenance(run: ReportedRun) -> dict[str, str]:
    found = {"folder": run.uri}
    git = run.job.get("git") or {}
    if git.get("commit"):
        changed = ", with local changes" if git.get("dirty") else ""
        found["commit"] = f"{str(git['commit'])[:SHORT]}{changed}"
    versions = run.job.get("versions") or {}
    if versions:
        found["versions"] = ", ".join(f"{name} {number}" for name, number in versions.items())
    for name, digest in (run.job.get("content") or {}).items():
        found[f"digest of {name}"] = str(digest)
    if run.checkpoint:
        found["checkpoint"] = run.checkpoint
    last = run.last
    if last is not None:
        for path, why in (last.provenance.get("omitted") or {}).items():
            found[f"no {path}"] = str(why)
    return found


def _spent(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.3g} h"


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(float(seconds)))
