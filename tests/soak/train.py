"""A training that is killed again and again, held against the same one left alone.

`python -m tests.soak.train [--kills N] [--seed N] [--steps N] [--every N]` (`make soak`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from colddiff.checkpoints.format import Checkpoints
from colddiff.cluster import local_cluster
from colddiff.cluster.home import Home
from colddiff.data.open import pack_source
from colddiff.jobs.folder import JobFolder
from colddiff.stores.local_store import LocalStore
from tests.kills import (
    DRIVER,
    PATIENCE_S,
    TRAIN_WORKER,
    kill,
    kill_cluster,
    processes_of,
    upload_under_way,
    wait_until,
)

COLDDIFF = (sys.executable, "-m", "colddiff.cli.main")
STEMS = ("model", "ema", "optimizer")
JOB = (
    "image_size=16",
    "channels=1",
    "degradation={kind: blur, num_timesteps: 4, kernel_size: 5}",
    "restorer={kind: convnext_unet, dim: 8, dim_mults: [1, 2]}",
    "global_batch_size=8",
    "ema={start: 10}",
    "workers=2",
    "keep=3",
    "log_every=1",
    "tracking={required: false, images: false}",
    "evaluation={num_images: 16, batch_size: 16}",
)
KINDS = ("worker", "driver", "upload")


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL and what it cost."""

    kind: str
    committed: int
    """Newest committed step when it came."""
    reached: int
    """Last step that was told before, about once a second."""
    resumed: int
    """Step from which the next start went on."""
    gap_s: float
    """From the kill to the next start."""


class KilledTraining:
    """Submits one job, and again whenever its driver was killed, on the cluster of ``home``."""

    def __init__(
        self, place: Path, home: Home, env: Mapping[str, str], *, num_steps: int, every: int
    ) -> None:
        self.place, self.home, self.every = place, home, every
        self.env = {**env, "COLDDIFF_CACHE": str(place / "cache")}
        self.num_steps = num_steps
        self._process: subprocess.Popen[bytes] | None = None
        self.data = place / "data"
        pack_source("digits", str(self.data), image_size=16, channels=1)

    def whole(self) -> JobFolder:
        """The job left alone."""
        self._process = self._submit("whole")
        assert self._process.wait(timeout=1200) == 0, self._talk("whole")
        return self._folder("whole")

    def killed(
        self, kinds: list[str], rng: random.Random, talk: Callable[[str], None]
    ) -> tuple[JobFolder, list[Kill]]:
        """The job under kills of ``kinds``, in order, at moments that ``rng`` draws."""
        self._process, kills = self._submit("killed"), list[Kill]()
        wait_until(lambda: self._jobs("killed"), "the job's folder")
        folder = self._folder("killed")
        for number, kind in enumerate(kinds, start=1):
            self._await_progress(folder, rng)
            kills.append(self._kill(kind, folder, rng))
            talk(f"kill {number}/{len(kinds)}: {kills[-1]}")
        assert self._process.wait(timeout=1200) == 0, self._talk("killed")
        return folder, kills

    def end(self) -> None:
        """Ends what still follows a job; its driver goes with the cluster."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _kill(self, kind: str, folder: JobFolder, rng: random.Random) -> Kill:
        began, starts = time.monotonic(), self._starts(folder)
        attempts = folder.attempts()
        kind, committed, reached = self._strike(kind, folder, rng)
        if kind in ("driver", "cluster"):
            # Whoever followed it says that it is lost; the same command goes on.
            assert self._process is not None
            assert self._process.wait(timeout=PATIENCE_S) != 0
            self._process = self._submit("killed")
        wait_until(lambda: len(self._starts(folder)) > len(starts), f"a start after {kind}")
        gap_s = time.monotonic() - began
        # Workers are started again by their driver; a driver that was killed, by a new attempt.
        assert len(folder.attempts()) == len(attempts) + (kind in ("driver", "cluster"))
        return Kill(kind, committed, reached, self._resumed(folder), round(gap_s, 1))

    def _resumed(self, folder: JobFolder) -> int:
        """The step from which the newest start went on."""
        wait_until(lambda: self._starts(folder), "a start")
        attempt, start = self._starts(folder)[-1]
        wait_until(lambda: "step" in folder.fence(attempt, start), "its step")
        return int(folder.fence(attempt, start)["step"])

    def _await_progress(self, folder: JobFolder, rng: random.Random) -> None:
        """Until the newest start has committed a few checkpoints of its own."""
        wanted = self._resumed(folder) + rng.randint(1, 4) * self.every
        assert wanted < self.num_steps, "the job ends before its kills; give it more steps"
        wait_until(lambda: self._newest(folder) >= wanted, f"the checkpoint of step {wanted}")

    def _strike(self, kind: str, folder: JobFolder, rng: random.Random) -> tuple[str, int, int]:
        record = self.home.record()
        assert record is not None
        if kind == "cluster":
            committed, reached = self._newest(folder), self._reached(folder)
            kill_cluster(record)
            return kind, committed, reached
        victims = [item.pid for item in processes_of(record, DRIVER)]
        if kind != "driver":
            victims = [item.pid for item in processes_of(record, TRAIN_WORKER)]
        assert victims, "nobody to kill"
        if kind == "worker":
            victims = [rng.choice(victims)]
        time.sleep(rng.random() * 0.2)
        path = Path(folder.store.uri) / folder.key("checkpoints")
        seen: list[Path] = []

        def uploading() -> bool:
            seen[:] = [found] if (found := upload_under_way(path)) else []
            return bool(seen)

        if kind == "upload":
            wait_until(uploading, "an upload", every_s=0.002)
        kill(victims)
        committed, reached = self._newest(folder), self._reached(folder)
        if kind == "upload" and (seen[0] / "checkpoint.json").exists():
            kind = "worker"  # it was faster than we were
        return kind, committed, reached

    def _newest(self, folder: JobFolder) -> int:
        return (checkpoints_of(folder).steps() or [0])[-1]

    def _reached(self, folder: JobFolder) -> int:
        attempt, start = self._starts(folder)[-1]
        told = Path(folder.store.uri) / folder.key(f"attempts/{attempt}/progress.json")
        if not told.exists() or told.stat().st_mtime < folder.fence(attempt, start)["time"]:
            return self._newest(folder)  # what was told is of the start before
        return max(self._newest(folder), int(folder.progress(attempt).get("step", 0)))

    def _starts(self, folder: JobFolder) -> list[tuple[int, int]]:
        return [(a, start) for a in folder.attempts() for start in folder.fencing_tokens(a)]

    def _jobs(self, name: str) -> list[str]:
        return [path.name for path in (self.place / name / "jobs").glob("train-*")]

    def _folder(self, name: str) -> JobFolder:
        return JobFolder(LocalStore(self.place / name), self._jobs(name)[0])

    def _submit(self, name: str) -> subprocess.Popen[bytes]:
        with (self.place / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [
                    *(*COLDDIFF, "submit", "train", *JOB, f"data={self.data}"),
                    *(f"num_steps={self.num_steps}", f"checkpoint_every={self.every}"),
                ],
                env={**self.env, "COLDDIFF_STORAGE": str(self.place / name)},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def _talk(self, name: str) -> str:
        return (self.place / f"{name}.log").read_text()[-3000:]


def checkpoints_of(folder: JobFolder) -> Checkpoints:
    return Checkpoints(folder.store, folder.key("checkpoints"))


def tensors_of(folder: JobFolder, step: int) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by file and name, verified."""
    found = checkpoints_of(folder).load(step, STEMS)
    return {f"{s}/{n}": t for s, group in found.tensors.items() for n, t in group.items()}


@dataclass(frozen=True, slots=True)
class Findings:
    """What a soak found."""

    kills: list[Kill]
    damaged: int
    """How often a damaged checkpoint was met; none may be written, so none can be chosen."""
    unequal: list[str]
    """Tensors of the last checkpoint that are not bit-identical to those of the run left alone."""
    every: int
    num_steps: int

    def check(self) -> None:
        """Raises AssertionError where a promise was broken."""
        assert self.damaged == 0
        assert self.unequal == []
        for item in self.kills:
            # All that was committed counts. What is not: the interval under way, and the one
            # before it while its upload was.
            assert item.resumed >= item.committed, item
            assert item.reached - item.resumed < 2 * self.every, item

    def to_dict(self) -> dict[str, object]:
        """JSON-ready, with the worst of each."""
        kinds = [item.kind for item in self.kills]
        lost = [max(0, item.reached - item.resumed) for item in self.kills]
        return {
            "kills": len(self.kills),
            "by kind": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
            "checkpoint interval, steps": self.every,
            "most work lost, steps": max(lost, default=0),
            "committed work lost, steps": max(
                [max(0, item.committed - item.resumed) for item in self.kills], default=0
            ),
            "damaged checkpoints met": self.damaged,
            "tensors unequal to the run without kills": len(self.unequal),
            "longest gap, s": max([item.gap_s for item in self.kills], default=0),
            "steps": self.num_steps,
        }


def soak(
    training: KilledTraining, kinds: list[str], seed: int, talk: Callable[[str], None]
) -> Findings:
    """Runs the job under kills, then left alone, and compares."""
    try:
        return _soak(training, kinds, seed, talk)
    finally:
        training.end()


def _soak(
    training: KilledTraining, kinds: list[str], seed: int, talk: Callable[[str], None]
) -> Findings:
    folder, kills = training.killed(kinds, random.Random(seed), talk)
    logs = [folder.log(attempt).decode(errors="replace") for attempt in folder.attempts()]
    talk("the same without kills")
    whole = tensors_of(training.whole(), training.num_steps)
    parts = tensors_of(folder, training.num_steps)
    assert whole.keys() == parts.keys()
    unequal = [name for name in whole if not torch.equal(whole[name], parts[name])]
    damaged = sum(log.count("is damaged") for log in logs)
    return Findings(kills, damaged, unequal, training.every, training.num_steps)


def drawn_kinds(count: int, seed: int) -> list[str]:
    """``count`` kinds of kills, as evenly mixed as can be, two of the whole cluster among 20."""
    whole = count // 10
    kinds = [KINDS[n % len(KINDS)] for n in range(count - whole)] + ["cluster"] * whole
    random.Random(seed).shuffle(kinds)
    return kinds


def report(findings: Findings) -> str:
    """JSON of the summary and of each kill."""
    return json.dumps(
        {**findings.to_dict(), "each": [asdict(item) for item in findings.kills]}, indent=2
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.soak.train")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--every", type=int, default=10, help="checkpoint interval, steps")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="cds-", dir="/tmp"))
    home = Home(place / "h")
    foreign = ("COLDDIFF_", "RAY_", "MLFLOW_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    env["COLDDIFF_HOME"] = str(home.path)
    try:
        training = KilledTraining(place, home, env, num_steps=options.steps, every=options.every)
        findings = soak(
            training,
            drawn_kinds(options.kills, options.seed),
            options.seed,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
        print(report(findings))
        findings.check()
    finally:
        local_cluster.stop(home)
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
