"""The training loop in plain torch, over ports: the same under Ray, in one process and in tests."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from colddiff.background import Prefetcher
from colddiff.checkpoints.format import Checkpoints, Snapshot
from colddiff.checkpoints.weights import check_resumed, load_weights
from colddiff.checkpoints.writer import CheckpointWriter
from colddiff.data.readers.transformed import transform_of
from colddiff.degradations import Degradation
from colddiff.degradations.base import DrawImages
from colddiff.ema import Ema
from colddiff.errors import SpecError
from colddiff.jobs.folder import JobFolder
from colddiff.objective import restoration_loss
from colddiff.ports import ShardSource, Tracker, WorkerContext
from colddiff.restorers import Restorer
from colddiff.restorers.precision import at_precision, warn_of_slow_bf16
from colddiff.rng import stream
from colddiff.terminal import Terminal
from colddiff.transforms import normalise
from colddiff.verbs.train.estimates.cost import mfu_per_image_s
from colddiff.verbs.train.inputs import Inputs, training_inputs
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.meter import LossHistory, Meter
from colddiff.verbs.train.reporter import Reporter
from colddiff.verbs.train.watchdog import Watchdog

log = logging.getLogger(__name__)

RESUMED = ("model", "ema", "optimizer")
PROGRESS_EVERY_S = 1.0
PREEMPTION_CHECK_S = 5.0
LOG_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class TrainingEnd:
    """How a training loop ended: after which step, and whether early.

    ``stopped``: on request; ``preempted``: a machine is about to be preempted.
    """

    step: int
    stopped: bool = False
    preempted: bool = False


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
        self.checkpoints = Checkpoints(folder.store, folder.key("checkpoints"))
        self.model: nn.Module = self.restorer
        self._history = LossHistory()
        self._preemption_checked_at = self._reported_at = self._logged_at = 0.0
        self._watchdog = watchdog
        self.writer = CheckpointWriter(job, folder, self.checkpoints, tracker)
        self._reporter = Reporter(folder, attempt, active=ctx.rank == 0)

    def run(self) -> TrainingEnd:
        """Trains to ``num_steps``, or to the step at which it is stopped or preempted.

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
            return ended
        finally:
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
            stop, check = meter.sync(step, ending, self._preemption_check_due())
            if self._logs(step):
                self._log(step, meter)
            preempted = check and self.ctx.preempted()
            if (stop or preempted) and not last:
                return TrainingEnd(step, stopped=stop, preempted=preempted and not stop)
            if due and not last:
                self._save(step, needed=False)
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

    def _preemption_check_due(self) -> bool:
        """Whether all ranks should check for preemption now: rank 0 decides."""
        now = time.monotonic()
        if self.ctx.rank != 0 or now - self._preemption_checked_at < PREEMPTION_CHECK_S:
            return False
        self._preemption_checked_at = now
        return True

    def _resume(self) -> int:
        found = self._take_over() if self.ctx.rank == 0 else None
        step = int(self.ctx.broadcast(found.step if found else 0))
        if step == 0:
            return 0
        snapshot = found or self.checkpoints.load(step, RESUMED)
        where = f"{self.checkpoints.store.uri}/{self.checkpoints.key(step)}"
        check_resumed(snapshot.tensors, self.restorer, where)
        self.restorer.load_state_dict(dict(snapshot.tensors["model"]))
        self.ema.load(snapshot.tensors["ema"])
        self._load_optimizer(snapshot.tensors["optimizer"])
        self._history = LossHistory(snapshot.state.get("losses", ()))
        if self.ctx.rank == 0:
            log.info("resuming from the checkpoint of step %d", step)
        return step

    def _take_over(self) -> Snapshot | None:
        """Fences off earlier writers, then chooses the checkpoint that all ranks resume from."""
        record = {"world_size": self.ctx.world_size, "time": time.time()}
        token = self.folder.take_fencing_token(self.attempt, record)
        self.writer.begin(self.attempt, token)
        found = self.checkpoints.newest(RESUMED)
        step = found.step if found else 0
        self.checkpoints.clear_after(step, self.writer.superseded)
        self.folder.write_fence(self.attempt, token, {**record, "step": step})
        return found

    def _save(self, step: int, *, needed: bool) -> None:
        if self.ctx.rank == 0:
            self.writer.save(step, lambda: self._snapshot(step), needed=needed)

    def _snapshot(self, step: int) -> Snapshot:
        return Snapshot(
            step,
            {
                "model": _on_host(self.restorer.state_dict()),
                "ema": _on_host(self.ema.state()),
                "optimizer": _on_host(self._optimizer_tensors()),
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
            },
        )

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        named = {id(parameter): name for name, parameter in self.restorer.named_parameters()}
        return {
            f"{named[id(parameter)]}.{key}": value
            for parameter, state in self.optimizer.state.items()
            for key, value in state.items()
        }

    def _load_optimizer(self, tensors: Any) -> None:
        for name, parameter in self.restorer.named_parameters():
            state = {key: tensors[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = {
                # In the parameter's own memory layout: fused Adam iterates over both in parallel.
                key: torch.empty_like(parameter).copy_(value)
                if value.shape == parameter.shape
                else value.to(self.ctx.device)
                for key, value in state.items()
            }

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
        progress = {
            "phase": "training",
            "step": step,
            "num_steps": self.job.num_steps,
            "loss": numbers[f"train/loss_{self.job.loss}"],
            "images_per_s": images_per_s,
            "eta_s": remaining / images_per_s if images_per_s else None,
        }
        self._reporter.report(progress)
        if now - self._logged_at > LOG_EVERY_S or last:
            self._logged_at = now
            place, loss = f"{step}/{self.job.num_steps}", progress["loss"]
            log.info("step %s  loss %.5f  %.1f img/s", place, loss, images_per_s)


def _on_host(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
