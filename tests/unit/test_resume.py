"""Resumed from any step, a training equals the uninterrupted one; workers may come and go."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from colddiff.checkpoints.format import Checkpoints
from colddiff.jobs.folder import JobFolder
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.verbs.train.local_context import LocalContext
from colddiff.verbs.train.trainer import Trainer, TrainingEnd
from tests.ranks import run_ranks
from tests.unit.test_train import GlooContext, assert_equal, folder_in, job, source, tensors

STEPS = 4
DROPOUT = {
    "kind": "ddpm_unet",
    "ch": 32,
    "ch_mult": [1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.3,
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "accumulating": {"max_batch_per_worker": 4},
    "dropout": {"restorer": DROPOUT},
    "bf16": {"precision": "bf16", "optimizer": {"lr": 1e-3, "clip_norm": 1.0, "warmup_steps": 3}},
    "all": {"restorer": DROPOUT, "precision": "bf16", "max_batch_per_worker": 1},
}


def copied(whole: JobFolder, step: int, root: Path) -> JobFolder:
    """A job that has got to ``step`` and no further."""
    name = f"checkpoints/step_{step:08d}"
    part = folder_in(root)
    shutil.copytree(Path(whole.store.uri) / whole.key(name), Path(part.store.uri) / part.key(name))
    return part


def resumed_from_every_step(context: LocalContext, root: Path, changes: dict[str, Any]) -> None:
    """One run that keeps each step's checkpoint, then a run from each of them."""
    the_job = job(num_steps=STEPS, checkpoint_every=1, **changes)
    whole = folder_in(root / "whole")

    def run(folder: JobFolder) -> TrainingEnd:
        return Trainer(the_job, source(), folder, context, MemoryTracker(), attempt=1).run()

    assert run(whole) == TrainingEnd(STEPS)
    for step in range(1, STEPS):
        context.broadcast(None)  # the last checkpoint of rank 0 is there
        place = root / f"from-{step}"
        if context.rank == 0:
            copied(whole, step, place)
        context.broadcast(None)
        assert run(folder_in(place)) == TrainingEnd(STEPS)
        if context.rank == 0:
            assert_equal(tensors(whole, STEPS), tensors(folder_in(place), STEPS))


@pytest.mark.parametrize("changes", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_from_any_step_alone(tmp_path: Path, changes: dict[str, Any]) -> None:
    resumed_from_every_step(LocalContext(), tmp_path, changes)


def _rank_from_any_step(rank: int, world_size: int, root: str) -> None:
    torch.set_num_threads(1)
    context = GlooContext(rank, world_size, f"{root}/group")
    for name in ("bf16", "all"):
        resumed_from_every_step(context, Path(root) / name, CONFIGURATIONS[name])
    context.end()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_from_any_step_at_several_workers(tmp_path: Path, workers: int) -> None:
    run_ranks(_rank_from_any_step, workers, str(tmp_path))


def _rank_elastic(rank: int, world_size: int, root: str, until: int) -> None:
    torch.set_num_threads(1)
    context = GlooContext(rank, world_size, f"{root}/group-{world_size}")
    _elastic(context, Path(root), until)
    context.end()


def _elastic(context: LocalContext, root: Path, until: int) -> None:
    record: list[int] = []
    training = Trainer(
        job(num_steps=until, checkpoint_every=2, max_batch_per_worker=2, global_batch_size=9),
        source(),
        folder_in(root / "parts"),
        context,
        MemoryTracker(),
        attempt=until,
    )
    training.restorer.register_forward_pre_hook(
        lambda module, inputs: record.append(len(inputs[0]))
    )
    training.run()
    text = json.dumps(record)
    (root / f"until-{until}-of-{context.world_size}-{context.rank}.json").write_text(text)


def losses(folder: JobFolder, step: int) -> Tensor:
    state = Checkpoints(folder.store, folder.key("checkpoints")).load(step, ()).state
    return torch.tensor([loss for _, loss in state["losses"]])


@pytest.mark.slow
def test_workers_4_3_1_at_one_global_batch(tmp_path: Path) -> None:
    """Lost workers change neither the images of a step nor what it learns from them."""
    run_ranks(_rank_elastic, 4, str(tmp_path), 2)
    run_ranks(_rank_elastic, 3, str(tmp_path), 4)
    _elastic(LocalContext(), tmp_path, 8)
    parts = folder_in(tmp_path / "parts")
    alone = folder_in(tmp_path / "alone")
    Trainer(
        job(checkpoint_every=2, global_batch_size=9),
        source(),
        alone,
        LocalContext(),
        MemoryTracker(),
        attempt=1,
    ).run()
    assert [parts.fence(attempt, 1)["world_size"] for attempt in (2, 4, 8)] == [4, 3, 1]
    assert [parts.fence(attempt, 1)["step"] for attempt in (2, 4, 8)] == [0, 2, 4]
    torch.testing.assert_close(losses(parts, 8), losses(alone, 8), rtol=0, atol=1e-5)
    for path in tmp_path.glob("until-*.json"):
        sizes = json.loads(path.read_text())[1:]  # the first call settles
        steps = {"2": 2, "4": 2, "8": 4}[path.name.split("-")[1]]
        workers = int(path.name.split("-")[3])
        assert max(sizes) <= 2
        assert sum(sizes) // steps in (9 // workers, 9 // workers + 1)
