"""The worked example of one's own degradation: it trains, resumes and samples like a built-in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from colddiff.checkpoints.references import load_checkpoint
from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.recipes import load_recipe
from colddiff.rng import streams
from colddiff.sampling import sample
from colddiff.spec.plugins import load_plugin, unload_plugin
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.transforms import normalise
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.local_context import LocalContext
from colddiff.verbs.train.trainer import Trainer, TrainingEnd

EXAMPLE = Path(__file__).resolve().parents[2] / "infra" / "docs" / "own-degradation"
SMALL = ["image_size=8", "restorer.dim=8", "restorer.dim_mults=[1,2]", "global_batch_size=8"]


@pytest.fixture(autouse=True, scope="module")
def _forgets_the_example() -> Iterator[None]:
    """Its kind would be in every later list of kinds."""
    yield
    unload_plugin(load_plugin(EXAMPLE / "kspace.py"))


def job(*overrides: str) -> TrainJob:
    found = load_recipe(EXAMPLE / "kspace.yaml").job("train", [*SMALL, *overrides])
    assert isinstance(found, TrainJob)
    return found


def squares() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Bright squares on black, sharp from row to row."""
    images = np.zeros((20, 1, 8, 8), dtype=np.uint8)
    for n, image in enumerate(images):
        image[0, n % 5 : n % 5 + 3, n // 5 : n // 5 + 4] = 220
    return images


def trained(path: Path, the_job: TrainJob, attempt: int = 1) -> MemoryTracker:
    tracker = MemoryTracker()
    folder = JobFolder(LocalStore(path), "train-kspace-00000000")
    shards = MemoryShards(squares())
    ended = Trainer(the_job, shards, folder, LocalContext(), tracker, attempt=attempt).run()
    assert ended == TrainingEnd(the_job.num_steps)
    return tracker


def test_the_job_file_of_the_example_is_valid_and_brings_its_plugin() -> None:
    whole = load_recipe(EXAMPLE / "kspace.yaml").train
    assert whole.plugins == (str(EXAMPLE / "kspace.py"),)
    assert whole.degradation.kind == "kspace"


@pytest.mark.slow
def test_it_trains_and_samples(tmp_path: Path) -> None:
    steps = ["num_steps=300", "log_every=100", "checkpoint_every=300", "optimizer.lr=3e-3"]
    losses = trained(tmp_path, job(*steps)).run.history("train/loss_l1")
    assert [step for step, _ in losses] == [100, 200, 300]
    assert losses[-1][1] < 0.7 * losses[0][1]

    found = load_checkpoint("train-kspace-00000000", storage=str(tmp_path))
    assert found.step == 300
    D, R = found.degradation, found.restorer
    x0 = normalise(torch.from_numpy(squares()[::3]))
    omega = D.draw(len(x0), rng=streams(0, "test", range(len(x0))))
    x_T = D.degrade(x0, torch.full((len(x0),), D.num_timesteps), omega)
    ends = {s: sample(R, D, x_T, omega, sampler=s) for s in ("direct", "improved")}
    for x in ends.values():
        assert torch.isfinite(x).all()
        assert x.shape == x0.shape
    assert error(ends["direct"], x0) < 0.8 * error(x_T, x0)
    assert not torch.equal(ends["direct"], ends["improved"])


def error(x: Tensor, x0: Tensor) -> float:
    return float((x - x0).abs().mean())


def test_resumed_is_bit_identical_to_uninterrupted(tmp_path: Path) -> None:
    trained(tmp_path / "whole", job("num_steps=6"))
    trained(tmp_path / "parts", job("num_steps=3"))
    trained(tmp_path / "parts", job("num_steps=6"), attempt=2)
    whole, parts = (
        load_checkpoint("train-kspace-00000000", weights="model", storage=str(tmp_path / name))
        for name in ("whole", "parts")
    )
    expected = whole.restorer.state_dict()
    for name, tensor in parts.restorer.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_acquired_rows_can_be_given_as_its_readme_says() -> None:
    D = job("image_size=32", "degradation.jitter=1.0").degradation.build(job("image_size=32").shape)
    acquired = torch.tensor([0, 1, 2, 5])
    order = torch.ones(1, 17)
    order[0, acquired] = 0
    x0 = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 1, 32, 32)))
    x_T = D.degrade(x0, torch.tensor([D.num_timesteps]), {"order": order})
    left = torch.fft.rfft(x_T, dim=-2).abs().sum(dim=(0, 1, 3))
    there = torch.fft.rfft(x0, dim=-2).abs().sum(dim=(0, 1, 3))
    assert torch.allclose(left[acquired], there[acquired])


def test_the_readme_names_what_is_there() -> None:
    text = (EXAMPLE / "README.md").read_text()
    code = (EXAMPLE / "kspace.py").read_text()
    for name in ("_degrade", "_draw_row", "omega_shape", "_make_tables", "parameter_tables"):
        assert name in text
        assert name in code
    [shown] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for line in filter(None, map(str.strip, shown.splitlines())):
        assert line in code, "what the page shows stands in the file"


@pytest.mark.parametrize("keep", [0.1, 0.5])
def test_search_may_change_its_fields_by_path(keep: float) -> None:
    assert job(f"degradation.keep={keep}").degradation.to_dict()["keep"] == keep
