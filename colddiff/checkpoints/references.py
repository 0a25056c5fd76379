"""Checkpoint references: a folder, a job, a URI, with @last, @best or @step=N, made definite."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from colddiff.checkpoints.format import COMMIT, Checkpoints, CommittedFile, Snapshot
from colddiff.data.open import open_second_set
from colddiff.degradations import Degradation
from colddiff.errors import CheckpointError, SpecError
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.plugins import run_kept_plugins
from colddiff.jobs.verb import VERBS
from colddiff.restorers import Restorer
from colddiff.spec import parse
from colddiff.stores.open import open_store, storage_at
from colddiff.terminal import Terminal
from colddiff.tracking.open import job_of_run

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

Weights = Literal["ema", "model"]
_WHICH = re.compile(r"@(last|best|step=(\d+))$")
_STEP_FOLDER = re.compile(r"/?step_(\d{8,})$")
_RUN = "mlflow:"


@dataclass(frozen=True, slots=True)
class CheckpointAddress:
    """One committed checkpoint: where its siblings are, its step, and the files of its commit.

    Whatever is read through it is held to these files' hashes: the commit record is read once.
    """

    storage: str
    prefix: str
    step: int
    files: Mapping[str, CommittedFile] = field(repr=False, hash=False)

    @property
    def weights_sha256(self) -> str:
        """Of its EMA weights; empty where it has none."""
        return self.files["ema"].sha256 if "ema" in self.files else ""

    @property
    def uri(self) -> str:
        """Address of the checkpoint's folder."""
        return f"{self.storage}/{self.prefix}/step_{self.step:08d}"

    @property
    def home(self) -> str:
        """Key of the folder above, a job's or an export's; empty where the store is that folder."""
        return self.prefix.rpartition("/")[0]

    @property
    def job(self) -> JobFolder | None:
        """The job that took it; None for an export and whatever else is no job's folder."""
        return _job_above(self.storage, self.prefix)

    def load(self, stems: Collection[str]) -> Snapshot:
        """Its state and the files ``stems``; CheckpointError where they are missing or damaged."""
        return Checkpoints(open_store(self.storage), self.prefix).load(self.step, stems, self.files)


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """What sampling needs: R in evaluation mode, D, the job it was trained by, its step."""

    restorer: Restorer
    degradation: Degradation[Any]
    spec: TrainJob
    step: int
    address: CheckpointAddress
    terminal: Terminal | None = None
    """The distribution of x_T; None where the degradation has none, or none was fitted."""
    losses: tuple[tuple[int, float], ...] = ()
    """(step, training loss) up to here, at the steps that were logged."""


def find_checkpoint(reference: str, storage: str | None = None) -> CheckpointAddress:
    """The checkpoint that ``reference`` means now.

    Args:
        reference: a checkpoint folder or URI, a job folder or URI, an export, the id of a job in
            ``storage`` (default: COLDDIFF_STORAGE, else ./runs), or ``mlflow:RUN_ID`` for the job
            of that run; with ``@last`` (default), ``@best`` (lowest Frechet distance of Algorithm
            2) or ``@step=N``.

    Raises:
        CheckpointError: nothing is there, or nothing is committed.
        TrackerError: the run's tracker does not answer.
    """
    text, which = reference.rstrip("/"), "last"
    if match := _WHICH.search(text):
        text, which = text[: match.start()].rstrip("/"), match.group(1)
    if text.startswith(_RUN):
        text = job_of_run(text.removeprefix(_RUN), storage or storage_at())
    if match := _STEP_FOLDER.search(text):
        text, which = text[: match.start()], f"step={int(match.group(1))}"
        base, prefix = text, ""
    elif "/" in text or Path(text).is_dir():
        base, prefix = text, "checkpoints"
    else:
        base, prefix = f"{storage or storage_at()}/jobs/{text}", "checkpoints"
    root, _, last = base.rpartition("/") if not prefix else (base, "", "")
    checkpoints = Checkpoints(open_store(root or "."), last or prefix)
    step = _chosen(checkpoints, which, reference)
    return CheckpointAddress(
        checkpoints.store.uri, checkpoints.prefix, step, checkpoints.files(step)
    )


@dataclass(frozen=True, slots=True)
class CheckpointAbout:
    """What a checkpoint says of itself, without its weights."""

    job: TrainJob
    terminal: Mapping[str, Any] | None
    """Description of the distribution of x_T, where the checkpoint holds one."""
    terminal_sha256: str | None
    """Of what was fitted for it."""


def describe_checkpoint(address: CheckpointAddress) -> CheckpointAbout:
    """The job of a checkpoint and its terminal's description; no weights are read.

    Raises CheckpointError where it is damaged or needs a plugin that is not loaded, SpecError for a
    job this version does not know.
    """
    snapshot = address.load(())
    job = _job(snapshot, address, ())
    fitted = address.files.get("terminal")
    if fitted is None:
        return CheckpointAbout(job, None, None)
    return CheckpointAbout(job, snapshot.state["terminal"], fitted.sha256)


def load_checkpoint(
    reference: str | CheckpointAddress,
    weights: Weights = "ema",
    storage: str | None = None,
    trusted: Collection[str] = (),
) -> LoadedCheckpoint:
    """R and D of a checkpoint, on the CPU; EMA weights by default, as the paper samples with.

    A plugin that is kept with it runs only where it is loaded already, or where its sha256 is among
    ``trusted``.

    >>> checkpoint = load_checkpoint(folder)  # or a job id, an export, mlflow:RUN_ID, ...@best
    >>> checkpoint.step, checkpoint.degradation.spec.kind, checkpoint.spec.image_size
    (3, 'blur', 16)
    >>> checkpoint.restorer(torch.zeros(2, 1, 16, 16), torch.tensor([1, 4])).shape
    torch.Size([2, 1, 16, 16])
    """
    address = (
        reference
        if isinstance(reference, CheckpointAddress)
        else find_checkpoint(reference, storage)
    )
    holds_terminal = "terminal" in address.files
    snapshot = address.load((weights, *["terminal"] * holds_terminal))
    job = _job(snapshot, address, trusted)
    restorer = job.restorer.build(job.shape)
    try:
        restorer.load_state_dict(dict(snapshot.tensors[weights]), strict=weights == "model")
    except RuntimeError as error:
        raise CheckpointError(
            f"{address.uri}: its weights do not fit its restorer ({str(error).splitlines()[-1]})"
        ) from None
    D = job.degradation.build(job.shape)
    terminal = None
    if holds_terminal:
        # A degradation whose second set was given by hand has no address to open it at.
        images = open_second_set(D, job.augment) if D.spec.second_set else None
        terminal = Terminal.from_files(
            snapshot.tensors["terminal"], snapshot.state["terminal"], images
        )
    losses = tuple((step, loss) for step, loss in snapshot.state.get("losses", ()))
    return LoadedCheckpoint(restorer.eval(), D, job, address.step, address, terminal, losses)


def _job(snapshot: Snapshot, address: CheckpointAddress, trusted: Collection[str]) -> TrainJob:
    """The job that trained it, whose kinds may be those of plugins."""
    written = snapshot.state["job"]
    plugins = written.get("plugins")
    if plugins:
        run_kept_plugins(open_store(address.storage), address.home, trusted)
    try:
        job = parse(VERBS["train"].spec(), written, f"{address.uri}/state.json: job")
        return cast("TrainJob", job)
    except SpecError as error:
        if not plugins:
            raise
        raise CheckpointError(
            f"{error}; it was trained with the plugins {', '.join(plugins)}: give them with "
            "--plugin FILE"
        ) from None


def load_snapshot(reference: str) -> Snapshot:
    """The EMA weights of a checkpoint as tensors, for another job to start from."""
    return find_checkpoint(reference).load(("ema",))


def _chosen(checkpoints: Checkpoints, which: str, reference: str) -> int:
    steps = checkpoints.steps()
    if not steps:
        raise CheckpointError(
            f"no committed checkpoint at {checkpoints.store.uri}/{checkpoints.prefix} "
            f"(reference {reference!r}); {COMMIT} is what commits one"
        )
    if which == "last":
        return steps[-1]
    if which == "best":
        return _best(checkpoints, steps, reference)
    step = int(which.removeprefix("step="))
    if step not in steps:
        raise CheckpointError(
            f"no checkpoint of step {step} in {checkpoints.store.uri}/{checkpoints.prefix}; "
            f"there are {', '.join(map(str, steps))}"
        )
    return step


def _job_above(storage: str, prefix: str) -> JobFolder | None:
    """The job whose checkpoints are below ``prefix``, where they are a job's."""
    above = prefix.rpartition("/")[0]
    root, _, job_id = f"{storage}/{above}".rstrip("/").rpartition("/jobs/")
    return JobFolder(open_store(root), job_id) if root else None


def _best(checkpoints: Checkpoints, steps: list[int], reference: str) -> int:
    folder = _job_above(checkpoints.store.uri, checkpoints.prefix)
    if folder is None:
        raise CheckpointError(f"{reference!r}: only a job's folder knows which is best; use @last")
    best = folder.best_step(set(steps))
    if best is None:
        raise CheckpointError(f"{reference!r}: no checkpoint of the job was evaluated; use @last")
    return best
