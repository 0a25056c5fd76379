"""What a training run logs: losses by severity, gradient norm, MFU; it only looks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from colddiff.jobs.recipes import load_recipe
from colddiff.objective import restoration_loss
from colddiff.restorers.precision import bf16_is_slow
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.transforms import normalise
from colddiff.verbs.train.estimates.cost import at_most_flops, cost_of, mfu_per_image_s
from colddiff.verbs.train.inputs import Inputs, training_inputs
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.local_context import LocalContext
from colddiff.verbs.train.meter import Meter, SeverityBuckets
from colddiff.verbs.train.trainer import Trainer
from tests.unit.test_train import assert_equal, folder_in, job, source, tensors, trainer


@pytest.mark.parametrize("T", [1, 3, 8, 20, 300, 1000])
def test_eight_ranges_of_severities_cover_all_of_them(T: int) -> None:
    buckets = SeverityBuckets(T)
    assert len(buckets.names) == buckets.count == min(8, T)
    t = torch.arange(1, T + 1)
    found = buckets.of(t).tolist()
    for number, name in enumerate(buckets.names):
        first, last = (int(part) for part in name.removeprefix("t_").split("_"))
        assert [s for s, bucket in zip(t.tolist(), found, strict=True) if bucket == number] == list(
            range(first, last + 1)
        )
    lengths = [found.count(number) for number in range(buckets.count)]
    assert max(lengths) - min(lengths) <= 1
    assert sorted(buckets.names) == list(buckets.names)


def test_losses_by_severity_are_means_over_their_images() -> None:
    meter = Meter(LocalContext(), job(global_batch_size=4))
    x0 = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    for losses, t in (([1.0, 2.0, 4.0, 8.0], [1, 1, 2, 6]), ([3.0, 1.0, 1.0, 1.0], [1, 6, 6, 6])):
        meter.add(torch.tensor(losses), Inputs(x0, torch.zeros(4, 3), torch.tensor(t), {}))
    assert meter.sync(2, False, True) == [False, True]
    found = {name: value for name, value in meter.read().items() if "loss" in name}
    assert found == pytest.approx(
        {
            "train/loss_l1": 21 / 8,
            "train/loss_l1/t_1_1": 2.0,
            "train/loss_l1/t_2_2": 4.0,
            "train/loss_l1/t_6_6": 11 / 4,
        }
    )
    assert not any("/t_" in name for name in meter.read())  # nothing is counted twice


def logged(path: Path, **changes: Any) -> dict[str, list[tuple[int, float]]]:
    tracker = MemoryTracker()
    trainer(folder_in(path), job(**changes), tracker=tracker).run()
    return {row.key: tracker.run.history(row.key) for row in tracker.run.metrics}


def test_what_is_logged_does_not_change_what_is_learnt(tmp_path: Path) -> None:
    often, rarely = folder_in(tmp_path / "often"), folder_in(tmp_path / "rarely")
    trainer(often, job(log_every=1)).run()
    trainer(rarely, job(log_every=1000)).run()
    assert_equal(tensors(often, 8), tensors(rarely, 8))


def test_the_gradient_norm_is_that_of_the_step_that_logs(tmp_path: Path) -> None:
    found = logged(tmp_path / "a", log_every=1, num_steps=3)["train/grad_norm"]
    assert [step for step, _ in found] == [1, 2, 3]
    the_job = job(num_steps=3)
    fresh = trainer(folder_in(tmp_path / "b"), the_job)
    batch = next(training_inputs(the_job, source(), fresh.D, rank=0, world_size=1, start_step=0))
    x0 = normalise(fresh.transform.train(batch.x0, batch.crops))
    losses = restoration_loss(fresh.restorer, fresh.D, x0, batch.t, {})
    gradients = torch.autograd.grad(losses.mean(), list(fresh.restorer.parameters()))
    norm = float(torch.cat([g.flatten() for g in gradients]).norm())
    assert found[0][1] == pytest.approx(norm, rel=1e-5)
    clipped = logged(tmp_path / "c", log_every=1, num_steps=1, optimizer={"clip_norm": 1e-3})
    assert clipped["train/grad_norm"][0][1] == pytest.approx(norm, rel=1e-5)


def test_throughput_waits_and_the_learning_rate(tmp_path: Path) -> None:
    warm = {"lr": 1e-3, "warmup_steps": 3}
    found = logged(tmp_path, log_every=2, num_steps=4, optimizer=warm)
    assert [step for step, _ in found["train/lr"]] == [2, 4]
    assert [rate for _, rate in found["train/lr"]] == pytest.approx([5e-4, 1e-3])
    assert [step for step, _ in found["train/images_per_s"]] == [2, 4]
    for name in ("time/step_s", "time/data_s"):
        assert all(value >= 0 for _, value in found[name])
    assert found["time/data_s"][-1][1] <= found["time/step_s"][-1][1]
    assert "train/mfu" not in found  # no peak is known of a CPU


def test_after_a_kill_the_rate_is_of_the_steps_made_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss covers the steps of the start before, too; their time is gone with it."""
    clock = [0.0]
    stopped = SimpleNamespace(perf_counter=lambda: clock[0])
    monkeypatch.setattr("colddiff.verbs.train.meter.time", stopped)
    the_job = job(global_batch_size=4)
    before = Meter(LocalContext(), the_job)
    x0 = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    batch = Inputs(x0, torch.zeros(4, 3), torch.tensor([1, 1, 2, 6]), {})
    for step in range(8):
        before.add(torch.full((4,), 2.0), batch)
        before.sync(step + 1)
    after = Meter(LocalContext(), the_job)
    after.resume(before.state())
    for step in (8, 9):
        after.add(torch.full((4,), 1.0), batch)
        after.sync(step + 1)
    clock[0] = 2.0
    found = after.read()
    assert found["train/loss_l1"] == pytest.approx((8 * 2.0 + 2 * 1.0) / 10)
    assert (found["train/images_per_s"], found["time/step_s"]) == (4.0, 1.0)
    # What is made from now on is timed as ever.
    after.add(torch.full((4,), 1.0), batch)
    after.sync(11)
    clock[0] = 2.5
    assert after.read()["train/images_per_s"] == 8.0


def test_mfu_follows_from_a_given_peak(tmp_path: Path) -> None:
    peak = {"peak_tflops": 0.5}
    found = logged(tmp_path, log_every=4, num_steps=4, resources=peak)
    flops = cost_of(job()).training_flops
    assert cost_of(job(seed=3)) is cost_of(job())  # counted once for all trainings of a search
    ((_, mfu),), ((_, rate),) = found["train/mfu"], found["train/images_per_s"]
    assert mfu == pytest.approx(flops * rate / 0.5e12)
    assert mfu_per_image_s(job(), torch.device("cpu")) is None


@pytest.mark.parametrize("name", ["quickstart", "paper/deblur-celeba", "paper/deblur-cifar10"])
def test_the_bound_of_a_training_is_above_what_is_counted(name: str) -> None:
    recipe = load_recipe(name).job("train")
    assert isinstance(recipe, TrainJob)
    counted = cost_of(recipe).training_flops
    assert counted < at_most_flops(recipe) < 50 * counted


def test_the_cost_of_a_job_is_what_its_checkpoints_weigh(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    trainer(folder, job(num_steps=1)).run()
    cost = cost_of(job())
    files = {
        item.key.rpartition("/")[2]: item.size
        for item in folder.store.list(folder.key("checkpoints/step_00000001/"))
    }
    written = sum(files[f"{stem}.safetensors"] for stem in ("model", "ema", "optimizer"))
    # Names and shapes lie beside the numbers: much for this net, nothing for a real one.
    names = sum(len(name) + 100 for name in tensors(folder, 1))
    assert cost.checkpoint_bytes < written < cost.checkpoint_bytes + names
    x = torch.nn.Conv2d(1, 1, 1)
    assert cost.parameters > sum(p.numel() for p in x.parameters())


def test_flops_are_two_for_each_multiplication() -> None:
    # PAPER 2.1: 4.21 GFLOP for the ConvNeXt U-Net at 32 px, counted otherwise.
    paper = job(
        image_size=32, channels=3, restorer={"kind": "convnext_unet"}, degradation={"kind": "blur"}
    )
    assert cost_of(paper).forward_flops == pytest.approx(4.21e9, rel=0.02)


def test_a_cpu_without_bf16_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = job(num_steps=1, precision="bf16")
    Trainer(one, source(), folder_in(tmp_path), LocalContext(), MemoryTracker(), attempt=1).run()
    slow = bf16_is_slow(torch.device("cpu"))
    assert any("no bf16 instructions" in line for line in caplog.messages) == slow


# PyTorch warns about itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_failing_compiler_is_logged_and_training_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here\nlong trace")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    one = job(num_steps=2, compile=True)
    ended = Trainer(
        one, source(), folder_in(tmp_path), LocalContext(), MemoryTracker(), attempt=1
    ).run()
    assert ended.step == 2
    [line] = [line for line in caplog.messages if "compile" in line]
    assert line.startswith("compile=true failed, continuing without it, slower: ")
    assert "\n" not in line
