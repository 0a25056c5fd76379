"""`python -m tests.soak.generate`: generation whose actors and driver are killed, to the byte.

The same samples are made by 1, 2 and 4 actors, and by 4 that are killed again and again together
with their driver; every seed must be there once, and all tars equal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from colddiff.cluster import local_cluster
from colddiff.cluster.home import ClusterRecord, Home
from colddiff.data.tars import read_tar
from colddiff.machine.processes import Process, marked_processes
from colddiff.verbs.generate.on_ray import GenerationWorker
from tests.kills import DRIVER, PATIENCE_S, wait_until
from tests.unit.generation.trained import train_tiny

ACTOR = GenerationWorker.__name__


@dataclass
class Trial:
    """One checkpoint on one local cluster, from which the same samples are made again and again."""

    home: Home
    record: ClusterRecord
    checkpoint: str
    root: Path
    fields: tuple[str, ...]
    env: Mapping[str, str]
    kills: dict[str, int] = field(default_factory=lambda: {ACTOR: 0, DRIVER: 0})

    def out(self, name: str) -> Path:
        """Where the samples of one run go."""
        return self.root / name

    def start(self, name: str, workers: int) -> subprocess.Popen[str]:
        """`colddiff submit generate` in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "colddiff.cli.main", *self.words(name, workers)],
            env=dict(self.env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def words(self, name: str, workers: int) -> list[str]:
        """What a person would type after `colddiff`."""
        words = [f"checkpoint={self.checkpoint}", f"out={self.out(name)}", f"workers={workers}"]
        return ["submit", "generate", *words, *self.fields, "--name", name, "--json"]

    def whole(self, name: str, workers: int, timeout_s: float = 1800) -> None:
        """One run to its end, which must be a good one."""
        process = self.start(name, workers)
        try:
            _, stderr = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
        assert process.returncode == 0, stderr

    def killed(
        self, name: str, workers: int, actors: int, drivers: int, pause_s: float = 4.0
    ) -> None:
        """A run in which so many actors are killed, one after another, and so many drivers.

        After a driver's death the same command is typed again.
        """
        rng = random.Random(0)
        goals = [(k + 1) * actors // (drivers + 1) for k in range(drivers)]
        before = self.kills[ACTOR]
        process = self.start(name, workers)
        while process.poll() is None:
            dead = self.kills[ACTOR] - before
            if goals and dead >= goals[0]:
                goals.pop(0)
                wait_until(lambda: self.kill(DRIVER), "a driver", every_s=0.1)
                process.communicate(timeout=PATIENCE_S)
                process = self.start(name, workers)
            elif dead < actors:
                self.kill(ACTOR, rng)
            time.sleep(pause_s * rng.uniform(0.5, 1.5))
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr

    def kill(self, what: str, rng: random.Random | None = None) -> bool:
        """SIGKILL to one actor at work, or to the driver and the shell it runs in."""
        hits = [item for item in self.processes() if what in item.command]
        if rng is not None and hits:
            hits = [rng.choice(sorted(hits, key=lambda item: item.pid))]
        for item in hits:
            with suppress(ProcessLookupError):
                os.kill(item.pid, signal.SIGKILL)
        self.kills[what] += bool(hits)
        return bool(hits)

    def processes(self) -> set[Process]:
        """Those of this very cluster."""
        marker = f"{local_cluster.MARKER}={self.record.session}"
        return marked_processes(marker, self.record.pid)

    def checked(self, name: str, count: int) -> dict[str, str]:
        """sha256 by tar of a finished run; every seed must be there, once."""
        found: list[int] = []
        hashes = {}
        for path in sorted(self.out(name).glob("shard-*.tar")):
            data = path.read_bytes()
            hashes[path.name] = hashlib.sha256(data).hexdigest()
            members = read_tar(data)
            found += [json.loads(c)["seed"] for n, c in members if n.endswith(".json")]
        assert len(found) == len(set(found)), "a seed is there twice"
        assert sorted(found) == list(range(count)), "a seed is missing"
        manifest = json.loads((self.out(name) / "manifest.json").read_text())
        assert {s["key"]: s["sha256"] for s in manifest["shards"]} == hashes
        return hashes


@contextmanager
def own_trial(root: Path, fields: tuple[str, ...]) -> Iterator[Trial]:
    """A trial on a cluster of its own, which ends with it."""
    home = Home(Path(tempfile.mkdtemp(prefix="cds-", dir="/tmp")))
    others = ("COLDDIFF_ADDRESS", "RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    env = {name: value for name, value in os.environ.items() if name not in others}
    env |= {"COLDDIFF_HOME": str(home.path), "COLDDIFF_STORAGE": str(root / "runs")}
    try:
        os.environ["COLDDIFF_STORAGE"] = env["COLDDIFF_STORAGE"]
        checkpoint = train_tiny(root / "runs")["job"]
        record = local_cluster.start(home)
        yield Trial(home, record, checkpoint, root, fields, env)
    finally:
        local_cluster.stop(home)
        shutil.rmtree(home.path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.soak.generate")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--actor-kills", type=int, default=10)
    parser.add_argument("--driver-kills", type=int, default=2)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="colddiff-soak-"))
    fields = (f"num_samples={options.samples}", "shard_size=100", "batch_size=20")
    try:
        with own_trial(root, fields) as trial:
            found = {}
            for workers in (1, 2, 4):
                began = time.monotonic()
                trial.whole(f"whole-{workers}", workers)
                found[workers] = trial.checked(f"whole-{workers}", options.samples)
                took = time.monotonic() - began
                print(f"{workers} actors: {len(found[workers])} tars, {took:.0f} s", flush=True)
            began = time.monotonic()
            trial.killed("killed", 4, options.actor_kills, options.driver_kills)
            killed = trial.checked("killed", options.samples)
            took = time.monotonic() - began
            print(f"4 actors, kills {trial.kills}: {len(killed)} tars, {took:.0f} s", flush=True)
            assert trial.kills[ACTOR] >= options.actor_kills, "too quick to be killed: more samples"
            assert trial.kills[DRIVER] >= options.driver_kills
            assert found[1] == found[2] == found[4] == killed, "the tars differ"
            print(f"{options.samples} seeds, each there once, every tar equal in all four runs")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
