"""All that a team runs while what it runs on fails: a machine, the store, the tracker, the client.

`python -m tests.soak.chain [--samples N] [--outage-s S]` (`make soak`). A training, its
evaluation, images made from it, their evaluation and a report, on three machines, the RADOS Gateway
and MLflow on PostgreSQL, each of which is killed or stopped in the middle of a job.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colddiff.data.tars import read_tar
from colddiff.jobs.status import Status
from colddiff.machine.processes import Process, marked_processes
from colddiff.stores.open import open_store
from tests.kills import PATIENCE_S, TRAIN_WORKER, wait_until
from tests.machines import processes_on
from tests.soak.team import (
    COLDDIFF,
    UNREACHABLE,
    Team,
    restart_store,
    restart_tracker,
    running_team,
    stop_dashboard,
    stop_store,
)

MARKER = "COLDDIFF_SOAK"
SHARD = 50
TRAIN = (
    *("data=digits", "image_size=16", "channels=1", "global_batch_size=8", "workers=2"),
    "degradation={kind: noise, num_timesteps: 3}",
    "restorer={kind: convnext_unet, dim: 8, dim_mults: [1, 2]}",
    *("checkpoint_every=20", "log_every=1"),
    "evaluation={num_images: 80, batch_size: 40, severities: 1}",
)
TWICE = """
    select r.name, m.key, m.step, count(*) from metrics m join runs r on r.run_uuid = m.run_uuid
    where m.key not like 'system/%' group by r.name, m.key, m.step having count(*) > 1
"""
LOSSES = "select step from metrics where key = 'train/loss_l1' order by step"
STOPPED = 4
"""README's exit code of a job that was stopped."""


class Step:
    """One submit of the chain, typed again whenever its client ended before the job."""

    def __init__(self, team: Team, name: str, *words: str) -> None:
        self.team, self.name = team, name
        self.words = ("submit", *words, "--name", name, "--address", team.address, "--json")
        self.before, self.id = team.jobs(), ""
        self.process = self._submit()
        self.codes: list[int] = []
        """How its clients ended."""

    def __enter__(self) -> Step:
        self.team.tell(f"{self.name}: submitted")
        wait_until(lambda: self.team.jobs() - self.before, "the job's folder", every_s=0.5)
        (self.id,) = self.team.jobs() - self.before
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def until(self, holds: Callable[[Status], bool], what: str) -> None:
        """Waits for a status for which it holds; a client that ended meanwhile is replaced."""
        folder = self.team.folder(self.id)

        def seen() -> bool:
            self._type_again()
            status = folder.status()
            assert status is None or status.state in ("queued", "running"), (status, self.said())
            return status is not None and holds(status)

        wait_until(seen, f"{self.name}: {what}", every_s=0.5)

    def goes_on(self, by: int) -> None:
        """Until it has come further by so many steps, or images."""
        status = self.team.folder(self.id).status()
        wanted = (status.step if status else 0) + by
        self.until(lambda status: status.step >= wanted, f"step {wanted}")

    def kill_client(self) -> None:
        """And types the same again at once."""
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait() == -signal.SIGKILL
        self.team.tell(f"    {self.name}: the client is killed, and the same submitted again")
        self.process = self._submit()

    def done(self, attempts: int = 1) -> dict[str, Any]:
        """What it says when the job is done; where the store is away, its client says so first.

        No fault here may take more than so many ``attempts``.
        """
        self._ends_with(0)
        found: dict[str, Any] = json.loads(self._out().read_text().splitlines()[-1])
        assert (found["state"], found["exit_code"]) == ("done", 0), found
        assert found["attempt"] <= attempts, found
        assert found["id"] == self.id
        self.team.tell(f"{self.name}: done")
        return found

    def stop_and_end(self, more: int) -> int:
        """Stops a training, and submits it again to end so many steps later; returns that step."""
        # Before, not after: what is submitted once it has stopped trains on.
        self._type_again()
        self.team.run("stop", self.id, "--address", self.team.address)
        self._ends_with(STOPPED)
        self.team.tell(f"{self.name}: stopped, and submitted again")
        status = self.team.folder(self.id).status()
        assert status is not None
        end = status.step + more
        self.words = tuple(
            f"num_steps={end}" if word.startswith("num_steps=") else word for word in self.words
        )
        self.process = self._submit()
        return end

    def _ends_with(self, expected: int) -> None:
        while (code := self.process.wait(timeout=PATIENCE_S)) == UNREACHABLE:
            self._type_again()
        assert code == expected, f"{self.name}: exit code {code}: {self.said()}"

    def said(self) -> str:
        return self._out(".err").read_text()[-3000:]

    def _type_again(self) -> None:
        if self.process.poll() == UNREACHABLE:
            last = self.said().strip().splitlines()[-1]
            self.team.tell(f"    {self.name}: the client ended with {UNREACHABLE}: {last}")
            self.process = self._submit()

    def _out(self, suffix: str = ".out") -> Path:
        return self.team.place / f"{self.name}{suffix}"

    def _submit(self) -> subprocess.Popen[bytes]:
        with self._out().open("wb") as out, self._out(".err").open("ab") as err:
            return subprocess.Popen([*COLDDIFF, *self.words], stdout=out, stderr=err)


def lose_machine(team: Team, step: Step) -> None:
    """One that trains, and is not the driver's."""
    cluster, others = team.machines
    wait_until(lambda: [m for m in others if processes_on(m, TRAIN_WORKER)], "a worker elsewhere")
    (lost, *_) = [machine for machine in others if processes_on(machine, TRAIN_WORKER)]
    folder = team.folder(step.id)
    starts = len(folder.fencing_tokens(1))
    cluster.remove_node(lost, allow_graceful=False)
    others.remove(lost)
    team.tell("    a machine is killed")
    wait_until(lambda: len(folder.fencing_tokens(1)) > starts, "workers elsewhere", every_s=0.5)
    team.tell("    workers elsewhere")


@dataclass
class Chain:
    """What was run: the jobs in their order, and the address of the images."""

    out: str
    steps: int = 0
    ids: list[str] = field(default_factory=list)
    commands: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, step: Step, attempts: int = 1) -> str:
        """Waits for a step's end."""
        self.ids.append(step.done(attempts)["id"])
        self.commands.append(step.words)
        return self.ids[-1]


def chain(team: Team, samples: int) -> Chain:
    """Runs it and returns what to hold it to."""
    done = Chain(f"{team.bucket}/samples")
    with Step(team, "train", "train", *TRAIN, "num_steps=1000000") as step:
        step.until(lambda status: status.step >= 40, "two checkpoints")
        lose_machine(team, step)
        step.goes_on(40)
        step.kill_client()
        step.goes_on(20)
        stop_store(team)
        step.goes_on(40)
        restart_tracker(team, step.id)
        step.goes_on(20)
        stop_dashboard(team, step.id)
        done.steps = step.stop_and_end(50)
        trained = done.add(step, attempts=2)
    checkpoint = f"checkpoint={trained}@last"
    with Step(team, "evaluate", "evaluate", checkpoint, "num_images=80", "workers=2") as step:
        # Maybe before its cluster knew of the attempt, which is lost then.
        step.kill_client()
        done.add(step, attempts=2)
    made = (f"num_samples={samples}", f"shard_size={SHARD}", "batch_size=5", "workers=2")
    with Step(team, "generate", "generate", checkpoint, f"out={done.out}", *made) as step:
        step.until(lambda status: status.step > 0, "a shard")
        step.kill_client()
        restart_store(team, trained)
        step.goes_on(SHARD)
        stop_dashboard(team, trained)
        done.add(step)
    (reference,) = (
        f"{team.bucket}/team/{item.key.removesuffix('/manifest.json')}"
        for item in open_store(f"{team.bucket}/team").list("data/")
        if item.key.endswith("/test/manifest.json")
    )
    compared = (f"samples={done.out}", f"reference={reference}")
    with Step(team, "compare", "evaluate", *compared) as step:
        done.add(step)
    return done


def check(team: Team, done: Chain, samples: int) -> None:
    """Holds all that is left to what was promised; raises AssertionError."""
    ids, commands, out = done.ids, done.commands, done.out
    shown = [job_id for job_id in ids if not job_id.startswith("generate")]
    team.run("report", *shown, "--out", team.place / "page")
    page = (team.place / "page" / "report.html").read_text()
    assert all(job_id in page for job_id in shown)
    listed = {row["id"]: row["state"] for row in json.loads(team.run("list", "--json"))}
    assert listed == dict.fromkeys(ids, "done"), listed
    for job_id in ids:
        team.run("wait", job_id)
    # What a tracker was too slow for at a job's end is delivered when it is submitted again.
    for typed, job_id in zip(commands, ids, strict=True):
        assert json.loads(team.run(*typed))["id"] == job_id
    assert team.tracking.rows(TWICE) == []
    assert team.tracking.rows(LOSSES) == [(step,) for step in range(1, done.steps + 1)]
    ended = team.tracking.rows("select name, status from runs")
    assert sorted(ended) == sorted((job_id, "FINISHED") for job_id in ids), ended
    spooled = [item.key for item in open_store(f"{team.bucket}/team").list("jobs/")]
    assert not [key for key in spooled if "/tracking/spool/" in key], spooled
    team.run("data", "verify", out)
    store = open_store(out)
    manifest = json.loads(store.get("manifest.json"))
    assert len(manifest["shards"]) == -(-samples // SHARD)
    seeds = [
        json.loads(content)["seed"]
        for shard in manifest["shards"]
        for name, content in read_tar(store.get(shard["key"]))
        if name.endswith(".json")
    ]
    assert sorted(seeds) == list(range(samples))
    rows = team.tracking.rows("select count(*) from metrics where key not like 'system/%'")
    team.tell(f"{rows[0][0]} rows of metrics, each once; {samples} images, each once")


def left_of(place: Path) -> set[Process]:
    """What was started here and runs; Ray's workers hide their environment."""
    return marked_processes(f"{MARKER}={place}", os.getsid(0))


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.soak.chain")
    parser.add_argument("--samples", type=int, default=6000)
    parser.add_argument("--outage-s", type=float, default=60.0)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="cds-", dir="/tmp"))
    os.environ[MARKER] = str(place)
    before = left_of(place)
    with running_team(place, options.outage_s) as team:
        done = chain(team, options.samples)
        check(team, done, options.samples)
    left = left_of(place) - before
    assert not left, left
    team.tell("nothing is left")
    print("\n".join(team.events))
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
