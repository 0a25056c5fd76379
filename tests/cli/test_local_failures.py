"""`submit --local` that fails: stderr ends with the reason and the way out, and the log exists."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from colddiff.spec.plugins import load_plugin, unload_plugin
from tests.in_process import Done, colddiff_here
from tests.unit.generation.trained import TRAIN, train_tiny

BROKEN = """
from typing import Literal
from colddiff.degradations import DEGRADATIONS, Degradation, DegradationSpec

@DEGRADATIONS.register
class BrokenSpec(DegradationSpec):
    kind: Literal["broken"] = "broken"
    num_timesteps: int = 3

    def build(self, shape):
        return Broken(self, shape)

class Broken(Degradation):
    def _degrade(self, x0, t, omega):
        raise ZeroDivisionError("no such pixel")
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tracker_database: Path) -> dict[str, str]:
    return train_tiny(tmp_path_factory.mktemp("trained"), tracker_database)


class Here:
    """Runs commands in the storage of a trained job."""

    def __init__(
        self, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str], root: str
    ) -> None:
        self.patch, self.captured = patch, captured
        for name in os.environ:
            if name.startswith(("COLDDIFF_", "RAY_", "MLFLOW_")):
                patch.delenv(name)
        patch.setenv("COLDDIFF_STORAGE", root)
        patch.setenv("COLDDIFF_CACHE", f"{root}/cache")

    def __call__(self, *words: object) -> Done:
        return colddiff_here(self.patch, self.captured, *words)


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trained: dict[str, str]
) -> Here:
    return Here(monkeypatch, capsys, trained["storage"])


def why(here: Here, done: Done, says: str, logged: str) -> None:
    """The last line of stderr has the reason, and names a log, which has it too."""
    assert done.returncode == 1, done.stderr
    (job_id,) = done.stdout.split()
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"{job_id} ended: failed")
    assert says in last
    assert f"colddiff logs {job_id}" in last
    log = here("logs", job_id)
    assert log.returncode == 0
    assert logged in log.stdout


def written(tmp_path: Path, **fields: object) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({"name": "fails", "train": {**TRAIN, **fields}}))
    return path


def test_a_diverged_run(here: Here, tmp_path: Path) -> None:
    job = written(tmp_path, num_steps=20, optimizer={"lr": 1e30})
    done = here("submit", "train", job, "--local")
    why(here, done, "is not finite", "is not finite")
    assert "optimizer.lr" in done.stderr.splitlines()[-1]


def test_an_unexpected_error(here: Here, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    job = written(tmp_path, degradation={"kind": "broken"}, plugins=[str(tmp_path / "broken.py")])
    try:
        done = here("submit", "train", job, "--local")
    finally:
        unload_plugin(load_plugin(tmp_path / "broken.py"))
    assert "bug" not in done.stderr
    why(here, done, "no such pixel", "no such pixel")


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "num_samples=4"),
        ("evaluate", "severities=1", "metrics_of=x"),
    ],
)
def test_what_cannot_begin_says_so_in_one_line(
    here: Here, trained: dict[str, str], words: tuple[str, ...]
) -> None:
    verb, *fields = words
    gone = f"checkpoint={trained['job']}-gone"
    done = here("submit", verb, gone, *fields, "--local")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("colddiff: error: ")


def test_a_generation_whose_checkpoint_is_damaged_after_its_submission(
    here: Here, trained: dict[str, str]
) -> None:
    (weights,) = Path(trained["job"]).glob("checkpoints/*/ema.safetensors")
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    try:
        done = here(
            "submit", "generate", f"checkpoint={trained['job']}", "num_samples=4", "--local"
        )
    finally:
        weights.write_bytes(kept)
    why(here, done, "sha256 is", "sha256 is")


def test_a_training_whose_images_are_damaged(here: Here, tmp_path: Path) -> None:
    data = tmp_path / "set"
    assert here("data", "pack", "digits", "--out", data, "--limit", "40").returncode == 0
    shard = data / "shard-000000.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
    done = here("submit", "train", written(tmp_path, data=str(data), image_size=8), "--local")
    why(here, done, "shard-000000.tar", "shard-000000.tar")
    last = done.stderr.splitlines()[-1]
    assert "colddiff data verify" in last
    assert "pack them again" in last


def test_a_training_that_reaches_its_limit(here: Here, tmp_path: Path) -> None:
    job = written(tmp_path, num_steps=10_000, limits={"hours": 1e-9})
    done = here("submit", "train", job, "--local")
    (job_id,) = done.stdout.split()
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 4
    assert last.startswith(f"{job_id} ended: stopped")
    assert "limits.hours=1e-09 reached" in last
    assert last.endswith("submit the same job with a larger limits.hours to continue")
