"""A search that is killed again and again, held against the same one left alone.

`python -m tests.soak.search [--kills N] [--seed N] [--trials N]` (`make soak`). Its driver, the
actors that train its trials and its whole cluster are killed at random moments; in the end it is
asked for two trials more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colddiff.checkpoints.format import Checkpoints
from colddiff.cluster import local_cluster
from colddiff.cluster.home import Home
from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.ports import Store
from colddiff.stores.open import open_store
from colddiff.verbs.search.trials import Trial, read_trials
from tests.kills import DRIVER, PATIENCE_S, kill, kill_cluster, processes_of, wait_until
from tests.unit.search.tiny_search import BASE, tiny_search

KINDS = ("driver", "trial", "driver", "cluster")
EVERY = 10
"""Checkpoint interval, steps."""
ROWS = 6
PLUGIN = f'''
"""Blur that notes each training step, and is slow enough to be killed in the middle of it."""

import hashlib
import json
import time
from pathlib import Path
from typing import Literal

from colddiff.degradations import DEGRADATIONS
from colddiff.degradations.blur import Blur, BlurSpec


@DEGRADATIONS.register
class NotedBlurSpec(BlurSpec):
    """Severity t is t chained Gaussian blurs."""

    kind: Literal["noted_blur"] = "noted_blur"
    place: str

    def build(self, shape):
        return NotedBlur(self, shape)


class NotedBlur(Blur):
    def _degrade(self, x0, t, omega):
        if len(x0) == {ROWS}:  # a batch of training; those of evaluations are larger
            text = json.dumps(self.spec.to_dict(), sort_keys=True)
            name = hashlib.sha256(text.encode()).hexdigest()
            with (Path(self.spec.place) / name).open("ab") as notes:
                notes.write(b".")
            time.sleep(0.02)
        return super()._degrade(x0, t, omega)
'''


@dataclass
class KilledSearch:
    """Submits one search, and again whenever it was killed, on the cluster of ``home``."""

    place: Path
    home: Home
    env: Mapping[str, str]
    searcher: str = "random"
    results: dict[tuple[str, int], Any] = field(default_factory=dict)
    """What was measured before a kill, by training job and step."""
    hits: int = 0
    """Trainings that were interrupted."""
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    """The newest checkpoint before a kill, by training job and number of starts until then."""
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.notes = self.place / "notes"
        self.notes.mkdir(parents=True)
        self.plugin = self.place / "noted.py"
        self.plugin.write_text(PLUGIN)

    def job(self, num_trials: int) -> dict[str, Any]:
        """Fields of the search."""
        degradation = {**BASE["degradation"], "kind": "noted_blur", "place": str(self.notes)}
        base = {
            "degradation": degradation,
            "global_batch_size": ROWS,
            "num_steps": 4 * EVERY,
            "checkpoint_every": EVERY,
            "plugins": [str(self.plugin)],
        }
        more = {"max_concurrent": 2, "searcher": self.searcher, "num_trials": num_trials}
        return tiny_search(base, **more)

    def submit(self, name: str, num_trials: int) -> None:
        """The same command each time."""
        path = self.place / f"{name}.yaml"
        path.write_text(json.dumps({"search": self.job(num_trials)}))
        words = (sys.executable, "-m", "colddiff.cli.main", "submit", "search", str(path))
        with (self.place / f"{name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*words, "--name", "killed"],
                env={**self.env, "COLDDIFF_STORAGE": str(self.place / name)},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def kill(self, name: str, kind: str, steps: int, rng: random.Random) -> str:
        """Kills after ``steps`` more optimizer steps; returns what was killed."""
        wanted = self.noted() + steps
        wait_until(lambda: self.noted() >= wanted or self.ended, f"step {wanted} of all trials")
        record, process = self.home.record(), self._process
        assert record is not None
        assert process is not None
        assert not self.ended, f"it ended before its kills; give it more trials: {self.said(name)}"
        self.results |= self.measured(name)
        running = self._running(name)
        for job_id in running:
            folder = JobFolder(self.store(name), job_id)
            kept = Checkpoints(folder.store, folder.key("checkpoints")).steps()
            self.committed[job_id, len(self.starts(name, job_id))] = max(kept, default=0)
        if kind == "trial":
            assert running, "no trial runs"
            kill([rng.choice(list(running.values()))])
            self.hits += 1
            return kind
        self.hits += len(running)
        if kind == "cluster":
            kill_cluster(record)
        else:
            kill([item.pid for item in processes_of(record, DRIVER)])
        assert process.wait(timeout=PATIENCE_S) != 0
        return kind

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def finish(self, name: str) -> None:
        """Waits until it is done."""
        assert self._process is not None
        assert self._process.wait(timeout=1200) == 0, self.said(name)

    def end(self) -> None:
        """Ends what still follows it; its driver goes with the cluster."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def said(self, name: str) -> str:
        return (self.place / f"{name}.log").read_text()[-3000:]

    def noted(self) -> int:
        """Optimizer steps begun, over all trials and attempts."""
        return sum(path.stat().st_size for path in self.notes.iterdir())

    def noted_of(self, trial: Trial) -> int:
        """Those of one trial."""
        text = json.dumps(trial.job["degradation"], sort_keys=True)
        path = self.notes / hashlib.sha256(text.encode()).hexdigest()
        return path.stat().st_size if path.exists() else 0

    def forget_notes(self) -> None:
        for path in self.notes.iterdir():
            path.unlink()

    def folder(self, name: str) -> JobFolder:
        store = self.store(name)
        (found,) = [job_id for job_id in list_jobs(store) if job_id.startswith("search-")]
        return JobFolder(store, found)

    def trials(self, name: str) -> list[Trial]:
        return read_trials(self.folder(name))

    def measured(self, name: str) -> dict[tuple[str, int], Any]:
        """Every evaluation of its trainings, by job and step."""
        store = self.store(name)
        found = {}
        for job_id in list_jobs(store):
            if job_id.startswith("train-"):
                folder = JobFolder(store, job_id)
                for step in folder.evaluated_steps():
                    found[job_id, step] = (folder.evaluation(step) or {}).get("metrics")
        return found

    def reached(self, name: str) -> dict[int, int]:
        """Optimizer steps by trial, as the search's own table has them."""
        folder = self.folder(name)
        board = json.loads(folder.store.get(folder.key("leaderboard.json")))
        return {row["number"]: row["steps"] for row in board["rows"]}

    def resumed(self, name: str) -> list[str]:
        """The lines that say how many trials were resumed, over all attempts."""
        folder = self.folder(name)
        logs = [folder.log(attempt).decode(errors="replace") for attempt in folder.attempts()]
        return re.findall(r"\d+ of \d+ trials resumed", "\n".join(logs))

    def starts(self, name: str, job_id: str) -> list[int]:
        """The steps from which a training began, over all attempts.

        One that was killed before it had chosen its checkpoint counts as one from the last step.
        """
        folder = JobFolder(self.store(name), job_id)
        return [
            folder.fence(attempt, token).get("step", 4 * EVERY)
            for attempt in folder.attempts()
            for token in folder.fencing_tokens(attempt)
        ]

    def store(self, name: str) -> Store:
        return open_store(str(self.place / name))

    def _running(self, name: str) -> dict[str, int]:
        """Training jobs that run now, and their processes: the actors of Ray Tune."""
        store = self.store(name)
        folders = [JobFolder(store, job) for job in list_jobs(store) if job.startswith("train-")]
        found = {folder.job_id: folder.status() for folder in folders}
        return {
            job_id: status.pid
            for job_id, status in found.items()
            if status is not None and status.state == "running"
        }


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found after the last trial."""

    kills: tuple[str, ...]
    hits: int
    trials: int
    repeated: int
    """Points, or training jobs, that two trials share."""
    strays: int
    """Training jobs that are no trial."""
    reached: int
    trained: int
    """Optimizer steps over all attempts."""
    most_lost: int
    """Of one trial."""
    lost_results: int
    """Evaluations that were there before a kill and are gone, or have other numbers."""
    uncommitted: int
    """Starts after a kill from before a checkpoint that was there before it."""
    resumed: tuple[str, ...]

    def check(self) -> None:
        """Raises AssertionError where a promise was broken."""
        assert (self.repeated, self.strays, self.lost_results) == (0, 0, 0), self
        assert self.uncommitted == 0, self
        # The steps since the last checkpoint, and those of the one that was still being written:
        # training goes on meanwhile, and waits when the next is due.
        assert self.trained - self.reached <= 2 * EVERY * self.hits, self
        assert self.resumed, self


def findings(search: KilledSearch, name: str, kills: list[str]) -> Findings:
    """Holds a search that is done against the records of its own training jobs."""
    trials, reached = search.trials(name), search.reached(name)
    measured = search.measured(name)
    ids = {trial.job_id for trial in trials}
    points = {json.dumps(trial.point, sort_keys=True) for trial in trials}
    lost = [search.noted_of(trial) - reached[trial.number] for trial in trials]
    return Findings(
        kills=tuple(kills),
        hits=search.hits,
        trials=len(trials),
        repeated=2 * len(trials) - len(ids) - len(points),
        strays=len({job_id for job_id, _ in measured} - ids),
        reached=sum(reached.values()),
        trained=search.noted(),
        most_lost=max(lost),
        lost_results=sum(measured.get(key) != value for key, value in search.results.items()),
        uncommitted=sum(
            starts[number] < step
            for (job_id, number), step in search.committed.items()
            if len(starts := search.starts(name, job_id)) > number
        ),
        resumed=tuple(search.resumed(name)),
    )


def soak(
    search: KilledSearch, kinds: list[str], seed: int, num_trials: int, talk: Callable[[str], None]
) -> Findings:
    """The search under kills, extended, and the same one left alone."""
    rng = random.Random(seed)
    search.submit("killed", num_trials)
    kills: list[str] = []
    for kind in kinds:
        kills.append(search.kill("killed", kind, rng.randint(1, 4 * EVERY), rng))
        talk(f"kill {len(kills)}/{len(kinds)}: {kind} after {search.noted()} steps of all trials")
        if kind != "trial":
            search.submit("killed", num_trials)
    search.finish("killed")
    search.submit("killed", num_trials + 2)
    search.finish("killed")
    found = findings(search, "killed", kills)
    talk("the same without kills")
    search.forget_notes()
    search.submit("whole", num_trials + 2)
    search.finish("whole")
    assert records(search, "killed") == records(search, "whole")
    whole = search.measured("whole")
    differing = [
        key for key, value in search.measured("killed").items() if whole.get(key, value) != value
    ]
    assert differing == []
    return found


def records(search: KilledSearch, name: str) -> list[tuple[dict[str, Any], float | None, str]]:
    """What was asked, by trial: point, scale and training job."""
    return [(trial.point, trial.scale, trial.job_id) for trial in search.trials(name)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.soak.search")
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--searcher", choices=("random", "grid"), default="random")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="cds-", dir="/tmp"))
    home = Home(place / "h")
    foreign = ("COLDDIFF_", "RAY_", "MLFLOW_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    env |= {"COLDDIFF_HOME": str(home.path), "COLDDIFF_CACHE": str(place / "cache")}
    search = KilledSearch(place, home, env, options.searcher)
    kinds = [KINDS[n % len(KINDS)] for n in range(options.kills)]
    began = time.monotonic()
    try:
        found = soak(
            search,
            kinds,
            options.seed,
            options.trials,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
        print(f"{found}\nin {time.monotonic() - began:.0f} s")
        found.check()
    finally:
        search.end()
        local_cluster.stop(home)
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
