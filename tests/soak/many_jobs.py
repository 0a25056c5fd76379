"""Many jobs at once on a cluster that has room for two, half of which are stopped.

`python -m tests.soak.many_jobs [--jobs N] [--at-once N] [--seed N]` (`make soak`). They are
submitted together, listed, and half of them stopped: some right after their submission, the others
while they wait or run. Every state and exit code must be true, and nothing left of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colddiff.cluster import local_cluster
from colddiff.cluster.home import Home
from colddiff.data.open import pack_source
from tests.kills import DRIVER, PATIENCE_S, TRAIN_WORKER, processes_of, wait_until
from tests.unhurried import KIND, write_plugin

COLDDIFF = (sys.executable, "-m", "colddiff.cli.main")
JOB = (
    *("image_size=16", "channels=1", "global_batch_size=8", "checkpoint_every=20"),
    f"degradation={{kind: {KIND}, num_timesteps: 2, kernel_size: 3}}",
    "restorer={kind: convnext_unet, dim: 4, dim_mults: [1, 2]}",
    "evaluation={num_images: 16, batch_size: 16, severities: 1}",
)
LIST_S = 2.0
"""CPU seconds that `colddiff list` may take, the start of Python included."""
STOPPED = 4
"""README's exit code of a job that was stopped."""


@dataclass
class Jobs:
    """So many jobs in one storage; those with an odd number never end by themselves."""

    place: Path
    env: Mapping[str, str]
    plugin: str
    began: float = field(default_factory=time.monotonic)
    ids: dict[int, str] = field(default_factory=dict)
    stopped_as: Counter[str] = field(default_factory=Counter)
    """States in which jobs were when they were stopped."""
    list_s: list[tuple[float, float]] = field(default_factory=list)
    """How long `list` took, and how much of the CPU, while nothing else was run here."""

    def tell(self, line: str) -> None:
        print(f"{time.monotonic() - self.began:7.1f} s  {line}", file=sys.stderr, flush=True)

    def run(self, *words: str) -> tuple[int, str]:
        """``colddiff words``: its exit code and what it printed; any other word fails."""
        done = subprocess.run(
            [*COLDDIFF, *words],
            env=dict(self.env),
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr[-3000:]
        return done.returncode, done.stdout

    def submit(self, number: int, *, stop: bool) -> None:
        """Begins a job; ``stop``: and stops it at once."""
        steps = 10_000_000 if number % 2 else 20
        words = (
            *JOB,
            f"data={self.place / 'data'}",
            f"plugins=[{self.plugin}]",
            f"seed={number}",
            f"num_steps={steps}",
        )
        code, said = self.run("submit", "train", *words, "--name", "many", "--detach")
        assert code == 0, (number, code)
        self.ids[number] = said.strip()
        if stop:
            self.stop(number)

    def stop(self, number: int) -> None:
        """In whatever state it is; that is counted."""
        code, said = self.run("status", self.ids[number], "--json")
        assert code == 0, (number, code)
        found = json.loads(said)
        state = "waiting" if found.get("phase") == "waiting" else found["state"]
        code, _ = self.run("stop", self.ids[number])
        assert code == 0, (number, state, code)
        self.stopped_as[state] += 1
        self.tell(f"stopped {self.ids[number]}, which was {state}")

    def states(self) -> Counter[str]:
        """What `list` says, and how long that takes."""
        began, used = time.monotonic(), _used_s()
        code, said = self.run("list", "--json")
        self.list_s.append((round(time.monotonic() - began, 2), round(_used_s() - used, 2)))
        assert code == 0, code
        rows: list[dict[str, Any]] = json.loads(said)
        assert {row["id"] for row in rows} == set(self.ids.values())
        found = Counter(
            "waiting" if row.get("phase") == "waiting" else row["state"] for row in rows
        )
        self.tell(f"list: {dict(found)} in {self.list_s[-1][0]} s, {self.list_s[-1][1]} s of CPU")
        return found

    def end(self, number: int) -> tuple[str, int]:
        """How it ended, by `wait` and `status`."""
        code, _ = self.run("wait", self.ids[number])
        _, said = self.run("status", self.ids[number], "--json")
        return json.loads(said)["state"], code


def _used_s() -> float:
    """CPU seconds of commands that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


@contextmanager
def _cancelled(pool: ThreadPoolExecutor) -> Iterator[None]:
    """A block after whose failure nothing more begins."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def soak(jobs: Jobs, home: Home, count: int, at_once: int, seed: int) -> dict[str, Any]:
    """Runs all; raises AssertionError where a state, an exit code or a time is not true."""
    rng = random.Random(seed)
    endless = [number for number in range(count) if number % 2]
    early = set(rng.sample(endless, len(endless) // 5))
    late = [number for number in endless if number not in early]
    rng.shuffle(late)
    with ThreadPoolExecutor(at_once) as pool, _cancelled(pool):
        for done in [pool.submit(jobs.submit, n, stop=n in early) for n in range(count)]:
            done.result()
        assert len(set(jobs.ids.values())) == count
        jobs.tell(f"{count} submitted, {len(early)} of them stopped at once")
        jobs.states()
        for done in [pool.submit(jobs.stop, number) for number in late]:
            done.result()
        jobs.states()
        ended = dict(zip(range(count), pool.map(jobs.end, range(count)), strict=True))
    wrong = {
        jobs.ids[number]: found
        for number, found in ended.items()
        if found != (("stopped", STOPPED) if number % 2 else ("done", 0))
    }
    assert not wrong, wrong
    assert jobs.states() == {"done": count - len(endless), "stopped": len(endless)}
    record = home.record()
    assert record is not None
    wait_until(
        lambda: not processes_of(record, DRIVER) and not processes_of(record, TRAIN_WORKER),
        "the end of all drivers and workers",
    )
    assert max(used for _, used in jobs.list_s) < LIST_S, jobs.list_s
    return {
        "jobs": count,
        "stopped when": dict(jobs.stopped_as),
        "list, s and CPU s": jobs.list_s,
        "s": round(time.monotonic() - jobs.began),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.soak.many_jobs")
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--at-once", type=int, default=4, help="commands at a time")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="cds-", dir="/tmp"))
    home = Home(place / "h")
    foreign = ("COLDDIFF_", "RAY_", "MLFLOW_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    env |= {"COLDDIFF_HOME": str(home.path), "COLDDIFF_CACHE": str(place / "cache")}
    env |= {"COLDDIFF_STORAGE": str(place / "runs")}
    pack_source("digits", str(place / "data"), image_size=16, channels=1)
    try:
        local_cluster.start(home)
        jobs = Jobs(place, env, write_plugin(place))
        print(json.dumps(soak(jobs, home, options.jobs, options.at_once, options.seed)))
    finally:
        local_cluster.stop(home)
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
