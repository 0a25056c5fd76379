"""The training loop: resumed equals uninterrupted, workers do not matter, bad runs end clearly."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from colddiff.checkpoints.format import Checkpoints
from colddiff.checkpoints.kept import COMMIT
from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.errors import ColddiffError, DivergedError, SpecError
from colddiff.jobs.folder import JobFolder
from colddiff.ports import Left, Tracker
from colddiff.spec import parse
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.local_context import LocalContext
from colddiff.verbs.train.meter import LossHistory
from colddiff.verbs.train.trainer import Trainer, TrainingEnd
from tests.ranks import run_ranks

JOB: dict[str, Any] = {
    "image_size": 8,
    "channels": 1,
    "degradation": {
        "kind": "blur",
        "num_timesteps": 6,
        "kernel_size": 3,
        "sigma": {"kind": "constant", "value": 1.0},
    },
    "restorer": {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2]},
    "global_batch_size": 6,
    "optimizer": {"lr": 1e-3},
    "ema": {"decay": 0.9, "every": 2, "start": 4},
    "num_steps": 8,
    "checkpoint_every": 3,
    "log_every": 2,
    "augment": "flip",
    "keep": 10,
}


def job(**changes: Any) -> TrainJob:
    return parse(TrainJob, {**JOB, **changes})


def source() -> MemoryShards:
    """Twenty bright squares on black: something that can be learnt."""
    images = np.zeros((20, 1, 8, 8), dtype=np.uint8)
    for n, image in enumerate(images):
        image[0, n % 5 : n % 5 + 3, n // 5 : n // 5 + 4] = 200 + n
    return MemoryShards(images)


def trainer(
    folder: JobFolder, the_job: TrainJob, attempt: int = 1, tracker: Tracker | None = None
) -> Trainer:
    return Trainer(
        the_job, source(), folder, LocalContext(), tracker or MemoryTracker(), attempt=attempt
    )


def folder_in(path: Path) -> JobFolder:
    return JobFolder(LocalStore(path), "train-test-00000000")


def tensors(folder: JobFolder, step: int) -> dict[str, Tensor]:
    checkpoints = Checkpoints(folder.store, folder.key("checkpoints"))
    snapshot = checkpoints.load(step, ("model", "ema", "optimizer"))
    return {
        f"{stem}/{name}": tensor
        for stem, group in snapshot.tensors.items()
        for name, tensor in group.items()
    }


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_resumed_is_bit_identical_to_uninterrupted(tmp_path: Path, cut: int) -> None:
    whole, parts = folder_in(tmp_path / "whole"), folder_in(tmp_path / "parts")
    assert trainer(whole, job()).run() == TrainingEnd(8)
    assert trainer(parts, job(num_steps=cut)).run() == TrainingEnd(cut)
    assert trainer(parts, job(), attempt=2).run() == TrainingEnd(8)
    assert_equal(tensors(whole, 8), tensors(parts, 8))


def test_channels_last_is_resumed_bit_for_bit_and_learns_the_same(tmp_path: Path) -> None:
    last, parts, first = (folder_in(tmp_path / name) for name in ("last", "parts", "first"))
    trainer(last, job(channels_last=True)).run()
    trainer(parts, job(channels_last=True, num_steps=3)).run()
    trainer(parts, job(channels_last=True), attempt=2).run()
    trainer(first, job()).run()
    assert_equal(tensors(last, 8), tensors(parts, 8))
    for name, value in tensors(first, 8).items():
        if name.startswith("model/"):
            torch.testing.assert_close(tensors(last, 8)[name], value, rtol=0, atol=1e-3)


def test_loss_falls_and_is_logged_once_per_interval(tmp_path: Path) -> None:
    tracker = MemoryTracker()
    trainer(folder_in(tmp_path), job(num_steps=60, log_every=20), tracker=tracker).run()
    losses = [value for _, value in tracker.run.history("train/loss_l1")]
    assert len(losses) == 3
    assert losses[-1] < 0.8 * losses[0]


def test_the_loss_history_travels_in_checkpoints_over_attempts(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    trainer(folder, job(num_steps=4)).run()
    trainer(folder, job(num_steps=8), attempt=2).run()
    state = Checkpoints(folder.store, folder.key("checkpoints")).load(8, ()).state
    assert [step for step, _ in state["losses"]] == [2, 4, 6, 8]


def test_a_long_loss_history_is_thinned() -> None:
    history = LossHistory()
    for step in range(1, 10_001):
        history.add(step, 1.0 / step)
    steps = [step for step, _ in history.points]
    assert len(steps) <= LossHistory.LONGEST
    assert steps == sorted(steps)
    assert steps[-1] == 10_000


def test_accumulation_gives_the_same_step(tmp_path: Path) -> None:
    whole, parts = folder_in(tmp_path / "whole"), folder_in(tmp_path / "parts")
    trainer(whole, job(num_steps=1)).run()
    trainer(parts, job(num_steps=1, max_batch_per_worker=4)).run()
    a, b = tensors(whole, 1), tensors(parts, 1)
    for name in (name for name in a if name.endswith("exp_avg")):
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-6)


def test_a_checkpoint_without_its_commit_is_not_there(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    trainer(folder, job(num_steps=6)).run()
    folder.store.delete(folder.key("checkpoints/step_00000006", COMMIT))
    assert Checkpoints(folder.store, folder.key("checkpoints")).steps() == [3]
    assert trainer(folder, job(), attempt=2).run() == TrainingEnd(8)


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_in(tmp_path)
    trainer(folder, job(num_steps=6)).run()
    key = folder.key("checkpoints/step_00000006/ema.safetensors")
    folder.store.put(key, folder.store.get(key)[:-8])
    found = Checkpoints(folder.store, folder.key("checkpoints")).newest(("model", "ema"))
    assert found is not None
    assert found.step == 3
    [line] = caplog.messages
    assert "step 6 is damaged" in line
    assert "ema.safetensors" in line


def test_a_superseded_attempt_commits_nothing(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    folder.claim(2, {})
    with pytest.raises(ColddiffError, match="later attempt"):
        trainer(folder, job(num_steps=3), attempt=1).run()
    assert Checkpoints(folder.store, folder.key("checkpoints")).steps() == []


def test_stop_takes_a_checkpoint_at_the_step_it_reached(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    folder.request_stop(1, 30.0)
    ended = trainer(folder, job(num_steps=1000, checkpoint_every=1000)).run()
    assert ended.stopped
    assert 1 <= ended.step < 1000
    assert Checkpoints(folder.store, folder.key("checkpoints")).steps() == [ended.step]


def test_workers_that_leave_take_a_checkpoint_first(tmp_path: Path) -> None:
    class Grows(LocalContext):
        def leaves(self) -> Left:
            return "growing"

    folder = folder_in(tmp_path)
    one = job(num_steps=1000, checkpoint_every=1000)
    ended = Trainer(one, source(), folder, Grows(), MemoryTracker(), attempt=1).run()
    assert (ended.left, ended.stopped) == ("growing", False)
    assert 1 <= ended.step < 1000
    assert Checkpoints(folder.store, folder.key("checkpoints")).steps() == [ended.step]


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    trainer(folder, job(num_steps=8, checkpoint_every=2, keep=2)).run()
    assert Checkpoints(folder.store, folder.key("checkpoints")).steps() == [6, 8]
    assert not list(folder.store.list(folder.key("checkpoints/step_00000002")))


def test_checkpoints_that_nothing_will_evaluate_are_pruned(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    assert job().test_data is None
    trainer(folder, job(num_steps=8, checkpoint_every=2, evaluate_every=2, keep=2)).run()
    assert Checkpoints(folder.store, folder.key("checkpoints")).steps() == [6, 8]


def test_checkpoints_still_to_be_evaluated_are_spared(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    waiting = job(num_steps=8, checkpoint_every=2, evaluate_every=4, keep=1, test_data="/packed")
    trainer(folder, waiting).run()
    assert Checkpoints(folder.store, folder.key("checkpoints")).steps() == [4, 8]


def test_a_diverged_run_names_step_and_severities_and_keeps_the_last_finite_checkpoint(
    tmp_path: Path,
) -> None:
    folder = folder_in(tmp_path)
    trainer(folder, job(num_steps=3)).run()
    broken = trainer(folder, job(num_steps=30), attempt=2)
    planted = broken.restorer.register_forward_hook(_nan_after(5))  # one call settles
    with pytest.raises(DivergedError, match=r"optimizer step 8 is not finite \(severities [1-6]"):
        broken.run()
    planted.remove()
    assert Checkpoints(folder.store, folder.key("checkpoints")).steps() == [3, 6]


def _nan_after(calls: int) -> Any:
    seen = [0]

    def hook(module: Any, args: Any, output: Tensor) -> Tensor:
        seen[0] += 1
        return output * float("nan") if seen[0] > calls else output

    return hook


def test_more_workers_than_images_is_refused(tmp_path: Path) -> None:
    context = LocalContext()
    context.world_size = 7
    with pytest.raises(SpecError, match="global_batch_size: is 6 for 7 workers"):
        Trainer(job(), source(), folder_in(tmp_path), context, MemoryTracker(), attempt=1)


_ENDED: list[object] = []


class GlooContext(LocalContext):
    """Ranks of a plain gloo group: DDP without Ray."""

    def __init__(self, rank: int, world_size: int, path: str) -> None:
        super().__init__()
        self.rank, self.world_size = rank, world_size
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{path}", rank=rank, world_size=world_size
        )

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        return torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)

    def all_reduce(self, values: Tensor) -> Tensor:
        torch.distributed.all_reduce(values)
        return values

    def broadcast(self, value: Any) -> Any:
        box = [value]
        torch.distributed.broadcast_object_list(box)
        return box[0]

    def end(self) -> None:
        """Ends the group; its object stays until the process ends.

        A DDP model freed later would hold the last reference to it: torch then joins the group's
        threads without releasing the GIL, for which one of them may wait, and never returns.
        """
        _ENDED.append(torch.distributed.group.WORLD)
        torch.distributed.destroy_process_group()


def _rank(rank: int, world_size: int, path: str, root: str, changes: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    context = GlooContext(rank, world_size, path)
    Trainer(
        job(**changes), source(), folder_in(Path(root)), context, MemoryTracker(), attempt=1
    ).run()
    context.end()


def _ranks(tmp_path: Path, name: str, world_size: int, **changes: Any) -> JobFolder:
    group = tmp_path / f"group-{name}-{changes.get('num_steps')}"
    run_ranks(_rank, world_size, str(group), str(tmp_path / name), changes)
    return folder_in(tmp_path / name)


def _count_reductions(rank: int, world_size: int, root: str) -> None:
    """Checks that three micro-batches have their gradients summed over the ranks once."""
    torch.set_num_threads(1)
    counted: list[int] = []

    class Counting(GlooContext):
        def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
            ddp = super().wrap(model)
            assert isinstance(ddp, torch.nn.parallel.DistributedDataParallel)
            # A lambda: torch takes annotations for wrong that are strings.
            ddp.register_comm_hook(None, lambda _, bucket: self._reduce(bucket))
            return ddp

        def _reduce(self, bucket: GradBucket) -> torch.futures.Future[Tensor]:
            counted[-1] += 1
            assert torch.distributed.group.WORLD is not None
            return allreduce_hook(torch.distributed.group.WORLD, bucket)

    context = Counting(rank, world_size, f"{root}/group")
    for name, changes in (("whole", {}), ("parts", {"max_batch_per_worker": 2})):
        counted.append(0)
        folder = folder_in(Path(root) / name)
        two = job(num_steps=2, **changes)
        Trainer(two, source(), folder, context, MemoryTracker(), attempt=1).run()
    context.end()
    whole, parts = counted
    # One pass settles, two steps learn.
    assert whole >= 3
    assert parts == whole


@pytest.mark.slow
def test_accumulation_sums_over_ranks_once_a_step(tmp_path: Path) -> None:
    run_ranks(_count_reductions, 2, str(tmp_path))


@pytest.mark.slow
def test_gradients_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    alone = folder_in(tmp_path / "alone")
    trainer(alone, job(num_steps=1)).run()
    three = _ranks(tmp_path, "three", 3, num_steps=1)
    a, b = tensors(alone, 1), tensors(three, 1)
    for name in (name for name in a if name.endswith("exp_avg")):
        # exp_avg after one step is 0.1 of the gradient.
        torch.testing.assert_close(a[name] * 10, b[name] * 10, rtol=0, atol=1e-6)


def test_threads_of_a_finished_run_are_gone(tmp_path: Path) -> None:
    before = threading.active_count()
    trainer(folder_in(tmp_path), job(num_steps=2)).run()
    assert threading.active_count() == before
