"""The training loop in plain torch, over ports: the same under Ray, in one process and in tests."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from colddiff.background import Prefetcher
from colddiff.checkpoints.format import Checkpoints, Snapshot
from colddiff.checkpoints.snapshots import Snapshots
from colddiff.checkpoints.weights import (
    check_resumed,
    load_optimizer,
    load_weights,
    on_host,
    optimizer_tensors,
)
from colddiff.checkpoints.writer import CheckpointWriter
from colddiff.data.readers.transformed import transform_of
from colddiff.degradations import Degradation
from colddiff.degradations.base import DrawImages
from colddiff.ema import Ema
from colddiff.errors import DivergedError, SpecError
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import duration
from colddiff.machine.logged_progress import LOG_EVERY_S
from colddiff.objective import restoration_loss
from colddiff.ports import Left, ShardSource, Tracker, WorkerContext
from colddiff.restorers import Restorer
from colddiff.restorers.precision import at_precision, warn_of_slow_bf16
from colddiff.rng import stream
from colddiff.terminal import Terminal
from colddiff.transforms import normalise
from colddiff.verbs.train.beginning import Beginning
from colddiff.verbs.train.estimates.cost import mfu_per_image_s
from colddiff.verbs.train.inputs import Inputs, training_inputs
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.meter import LossHistory, Meter
from colddiff.verbs.train.reporter import Reporter
from colddiff.verbs.train.watchdog import Watchdog

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 1.0
LEAVE_CHECK_S = 5.0


@dataclass(frozen=True, slots=True)
class TrainingEnd:
    """How a training loop ended: after which step, and whether early.

    ``stopped``: on request; ``left``: to be started anew, and why.
    """

    step: int
    stopped: bool = False
    left: Left = ""


class Trainer:
    """One rank's part of a training job.

    ``run`` trains from the newest undamaged checkpoint of the job's folder, or from step 0, to
    ``job.num_steps``. All randomness is a function of the job and the global position of an image,
    so that a killed and resumed run equals an uninterrupted one (``tests/unit/test_train.py``).
    ``start`` holds EMA weights of another job to initialise R with, ``terminal`` is stored in every
    checkpoint, ``images`` draws from the second set if D mixes one in, ``watchdog`` detects hangs.

    Raises SpecError if there are more workers than images per step.
    """

    def __init__(
        self,
        job: TrainJob,
        source: ShardSource,
        folder: JobFolder,
        ctx: WorkerContext,
        tracker: Tracker,
        *,
        attempt: int,
        start: Snapshot | None = None,
        terminal: Terminal | None = None,
        images: DrawImages | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        if job.global_batch_size < ctx.world_size:
            raise SpecError(
                [
                    (
                        "global_batch_size",
                        f"is {job.global_batch_size} for {ctx.world_size} workers; each needs at "
                        "least one image per step",
                    )
                ]
            )
        self.job, self.source, self.folder, self.ctx = job, source, folder, ctx
        self.tracker, self.attempt = tracker, attempt
        self.terminal, self.images = terminal, images
        self.transform = transform_of(source, job.augment, job.shape, "data")
        self.D: Degradation[Any] = job.degradation.build(job.shape).to(ctx.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(job.seed, "train/init").integers(2**31)))
            self.restorer: Restorer = job.restorer.build(job.shape)
        if start is not None:
            load_weights(self.restorer, start.tensors["ema"], "ema", f"--from {job.start_from}")
        self.layout = torch.channels_last if job.channels_last else torch.contiguous_format
        move: Any = self.restorer.to  # torch's type stubs lack memory_format
        move(ctx.device, memory_format=self.layout)
        self.restorer.train()
        self.ema = Ema(self.restorer, decay=job.ema.decay, every=job.ema.every, start=job.ema.start)
        self.optimizer = torch.optim.Adam(
            self.restorer.parameters(),
            lr=job.optimizer.lr,
            betas=job.optimizer.betas,
            eps=job.optimizer.eps,
            weight_decay=job.optimizer.weight_decay,
            fused=True,
        )
        self.checkpoints = Checkpoints.of(folder)
        self.model: nn.Module = self.restorer
        self._history = LossHistory()
        self._leave_checked_at = self._reported_at = self._logged_at = 0.0
        self._watchdog = watchdog
        self.writer = CheckpointWriter(job, folder, self.checkpoints, tracker)
        every_s = job.snapshot_every_s if ctx.rank == 0 else 0.0
        self.snapshots = Snapshots(folder.uri, every_s, tracker.flush)
        self._measured: Mapping[str, Any] = {}
        self._beginning = Beginning(
            ctx, folder, attempt, self.checkpoints, self.snapshots, self.writer
        )
        self._reporter = Reporter(folder, attempt, active=ctx.rank == 0)

    def run(self) -> TrainingEnd:
        """Trains to ``num_steps``, or to the step at which it is stopped or leaves.

        Raises DivergedError if the loss is not finite, ColddiffError if a checkpoint cannot be
        written or a later attempt has superseded this one.
        """
        if self.ctx.rank == 0:
            warn_of_slow_bf16(self.job.precision, self.ctx.device)
        try:
            with self._reporter, self._watchdog or nullcontext():
                ended = self._run()
            # Without the watchdog: the store may be slow or down for a while.
            self._save(ended.step, needed=True)
            self.writer.wait()
            self.snapshots.end(keep=False)
            return ended
        except DivergedError:
            self.snapshots.end(keep=False)
            raise
        finally:
            self.snapshots.end(keep=True)
            self.writer.wait()

    def _run(self) -> TrainingEnd:
        step = self._resume()
        self.model = self._ready_model()
        if step >= self.job.num_steps:
            return TrainingEnd(step)
        inputs = Prefetcher(
            training_inputs(
                self.job,
                self.source,
                self.D,
                rank=self.ctx.rank,
                world_size=self.ctx.world_size,
                start_step=step,
                images=self.images,
                pin=self.ctx.device.type == "cuda",
            ),
            depth=3,
        )
        meter = Meter(self.ctx, self.job, mfu_per_image_s(self.job, self.ctx.device))
        meter.resume(self._measured)
        steps, size = self.job.num_steps, self.job.global_batch_size
        if self.ctx.rank == 0:
            log.info("training: %d steps of %d images", steps - step, size)
        self._reporter.report({"phase": "training", "step": step, "num_steps": steps})
        try:
            return self._loop(step, inputs, meter)
        finally:
            inputs.close()

    def _loop(self, step: int, inputs: Prefetcher[Inputs], meter: Meter) -> TrainingEnd:
        job = self.job
        # On a CPU the collective that spreads a stop is cheap, and an early stop saves time; on a
        # GPU reading it is a device sync, so it waits for the step that logs.
        sync_every = 1 if self.ctx.device.type == "cpu" else job.log_every
        while step < job.num_steps:
            began = time.perf_counter()
            batch = next(inputs)
            meter.waited(time.perf_counter() - began)
            meter.add(self._step(step, batch, meter), batch)
            step += 1
            self.ema.update(step)
            if self._watchdog:
                self._watchdog.beat()
            last = step == job.num_steps
            due = last or step % job.checkpoint_every == 0
            if not (due or step % sync_every == 0):
                continue
            # A checkpoint that cannot be written ends the training on all ranks at the same step.
            ending = self._reporter.stop_requested or self.writer.failed
            remembering = self.snapshots.due()
            stop, check, remember = meter.sync(step, ending, self._leave_check_due(), remembering)
            if self._logs(step):
                self._log(step, meter)
            left: Left = self.ctx.leaves() if check else ""
            if (stop or left) and not last:
                return TrainingEnd(step, stopped=stop, left="" if stop else left)
            if due and not last:
                self._save(step, needed=False)
            elif remember and not last:
                self._remember(step, meter)
        return TrainingEnd(step)

    def _step(self, step: int, batch: Inputs, meter: Meter) -> Tensor:
        """One optimizer step; returns this rank's image losses, float32 [B] on the device."""
        job, ctx = self.job, self.ctx
        self._seed_dropout(step)
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr(step)
        self.optimizer.zero_grad(set_to_none=True)
        size = job.max_batch_per_worker or len(batch.t)
        found = []
        for start in range(0, len(batch.t), size):
            part = slice(start, start + size)
            final = start + size >= len(batch.t)
            with self._without_reduction(final):
                losses = self._losses(batch, part)
                # DDP averages over ranks: scaled so that the result is the mean over the whole
                # global batch, whatever the slice sizes.
                scaled = losses.sum() * (ctx.world_size / job.global_batch_size)
                torch.autograd.backward(scaled)
            found.append(losses.detach())
        self._clip(step, meter)
        self.optimizer.step()
        return torch.cat(found)

    def _lr(self, step: int) -> float:
        optimizer = self.job.optimizer
        return optimizer.lr * min(1.0, (step + 1) / (optimizer.warmup_steps + 1))

    def _clip(self, step: int, meter: Meter) -> None:
        """Clips the gradient if ``clip_norm`` is set; else only reads its norm, at steps that log
        (``test_what_is_logged_does_not_change_what_is_learnt``)."""
        limit = self.job.optimizer.clip_norm
        if limit is not None:
            meter.gradient(nn.utils.clip_grad_norm_(self.restorer.parameters(), limit))
        elif self._logs(step + 1):
            gradients = [p.grad for p in self.restorer.parameters() if p.grad is not None]
            meter.gradient(nn.utils.get_total_norm(gradients))

    def _logs(self, step: int) -> bool:
        return step % self.job.log_every == 0 or step == self.job.num_steps

    def _losses(self, batch: Inputs, part: slice) -> Tensor:
        device = self.ctx.device
        stored = batch.x0[part].to(device, non_blocking=True)
        x0 = normalise(self.transform.train(stored, batch.crops[part]))
        omega = {name: value[part] for name, value in batch.omega.items()}
        with at_precision(self.job.precision, device):
            return restoration_loss(self._restore, self.D, x0, batch.t[part], omega, self.job.loss)

    def _restore(self, x_t: Tensor, t: Tensor) -> Tensor:
        x_t = x_t.contiguous(memory_format=self.layout)
        estimate: Tensor = self.model(x_t, t.to(x_t.device, non_blocking=True))
        return estimate

    def _without_reduction(self, final: bool) -> AbstractContextManager[None]:
        no_sync = getattr(self.model, "no_sync", None)
        return no_sync() if no_sync is not None and not final else nullcontext()

    def _seed_dropout(self, step: int) -> None:
        if self.job.restorer.random_in_training:
            name = f"train/dropout/{step}"
            torch.manual_seed(int(stream(self.job.seed, name, self.ctx.rank).integers(2**31)))

    def _ready_model(self) -> nn.Module:
        """The restorer wrapped for this world size, compiled if the job says so, and run once."""
        model = self.ctx.wrap(self.restorer)
        if self.job.compile:
            compiled: nn.Module = torch.compile(model)  # type: ignore[assignment]
            try:
                # With the batch size of a real step: another shape would be recompiled later.
                self._warm_up(compiled, self._micro_batch())
            except Exception as error:
                reason = str(error).strip().splitlines()[0]
                log.warning("compile=true failed, continuing without it, slower: %s", reason)
            else:
                return compiled
        self._warm_up(model)
        return model

    def _micro_batch(self) -> int:
        rows = -(-self.job.global_batch_size // self.ctx.world_size)
        return min(rows, self.job.max_batch_per_worker or rows)

    def _warm_up(self, model: nn.Module, rows: int = 2) -> None:
        """One backward pass whose gradients are dropped.

        DDP rebuilds its buckets after the first backward pass, which changes the order of sums for
        three and more ranks: done before the first step, a resumed run sums in the same order.
        """
        x = torch.zeros(rows, *self.job.shape.chw, device=self.ctx.device)
        t = torch.ones(rows, dtype=torch.int64, device=self.ctx.device)
        with at_precision(self.job.precision, x.device):
            torch.autograd.backward(model(x, t).float().sum())
        self.optimizer.zero_grad(set_to_none=True)

    def _leave_check_due(self) -> bool:
        """Whether all ranks should ask now whether they leave: rank 0 decides."""
        now = time.monotonic()
        if self.ctx.rank != 0 or now - self._leave_checked_at < LEAVE_CHECK_S:
            return False
        self._leave_checked_at = now
        return True

    def _resume(self) -> int:
        found = self._beginning.find()
        if found is None:
            return 0
        self._measured = found.state.get("meter", {})
        where = f"{self.checkpoints.store.uri}/{self.checkpoints.key(found.step)}"
        check_resumed(found.tensors, self.restorer, where)
        self.restorer.load_state_dict(dict(found.tensors["model"]))
        self.ema.load(found.tensors["ema"])
        load_optimizer(self.restorer, self.optimizer, found.tensors["optimizer"])
        self._history = LossHistory(found.state.get("losses", ()))
        return found.step

    def _remember(self, step: int, meter: Meter) -> None:
        measured = meter.state()
        if self.ctx.rank == 0:
            self.snapshots.save(lambda: self._snapshot(step, meter=measured))

    def _save(self, step: int, *, needed: bool) -> None:
        if self.ctx.rank == 0:
            self.writer.save(step, lambda: self._snapshot(step), needed=needed)

    def _snapshot(self, step: int, **more: Any) -> Snapshot:
        return Snapshot(
            step,
            {
                "model": on_host(self.restorer.state_dict()),
                "ema": on_host(self.ema.state()),
                "optimizer": on_host(optimizer_tensors(self.restorer, self.optimizer)),
                **({"terminal": self.terminal.tensors} if self.terminal else {}),
            },
            {
                "job": self.job.to_dict(),
                "job_id": self.folder.job_id,
                "terminal": self.terminal.state() if self.terminal else None,
                "step": step,
                "attempt": self.attempt,
                "world_size": self.ctx.world_size,
                "data": self.source.manifest.digest,
                "losses": self._history.points,
                **more,
            },
        )

    def _log(self, step: int, meter: Meter) -> None:
        numbers = {**meter.read(), "train/lr": self._lr(step - 1)}
        if self.ctx.rank != 0:
            return
        self.tracker.log_metrics(numbers, step)
        self._history.add(step, numbers[f"train/loss_{self.job.loss}"])
        now, last = time.monotonic(), step == self.job.num_steps
        if now - self._reported_at < PROGRESS_EVERY_S and not last:
            return
        self._reported_at = now
        images_per_s = numbers["train/images_per_s"]
        remaining = (self.job.num_steps - step) * self.job.global_batch_size
        eta_s = remaining / images_per_s if images_per_s else None
        progress = {
            "phase": "training",
            "step": step,
            "num_steps": self.job.num_steps,
            "loss": numbers[f"train/loss_{self.job.loss}"],
            "images_per_s": images_per_s,
            "eta_s": eta_s,
        }
        self._reporter.report(progress)
        if now - self._logged_at > LOG_EVERY_S or last:
            self._logged_at = now
            place, loss = f"{step}/{self.job.num_steps}", progress["loss"]
            left = "-" if eta_s is None else duration(eta_s)
            log.info("step %s  loss %.5f  %.1f img/s  ETA %s", place, loss, images_per_s, left)
