"""Resolve checkpoint references (a folder, job or URI; @last, @best, @step=N); load checkpoints."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from colddiff.checkpoints.format import Checkpoints, CommittedFile, Snapshot
from colddiff.checkpoints.kept import COMMIT
from colddiff.checkpoints.weights import Weights, check_ema, load_weights
from colddiff.data.open import open_second_set
from colddiff.degradations import Degradation
from colddiff.errors import CheckpointError, ColddiffError, Missing, SpecError
from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.jobs.listing.ids import JOB_ID
from colddiff.jobs.listing.named import whole_id
from colddiff.jobs.plugins import run_kept_plugins
from colddiff.jobs.verb import VERBS
from colddiff.machine.files import is_folder, is_regular
from colddiff.ports import Store
from colddiff.spec import nearest, parse
from colddiff.spec.documents import shown
from colddiff.spec.formats import later_version
from colddiff.stores.open import absolute, open_store, storage_at
from colddiff.terminal import TERMINALS, Terminal, TerminalSpec
from colddiff.tracking.open import job_of_run

if TYPE_CHECKING:
    from colddiff.restorers import Restorer
    from colddiff.verbs.train.job import TrainJob

_WHICH = re.compile(r"@(last|best|step=(\d+))$")
_STEP_FOLDER = re.compile(r"/?step_(\d{8,})$")
_RUN = "mlflow:"
LONGEST = 500
"""Characters of a reference in a message, where a person looks for its folder."""


@dataclass(frozen=True, slots=True)
class CheckpointAddress:
    """One committed checkpoint: its store and prefix, its step, and the files it commits.

    The commit record is read once; everything read later is verified against its hashes.
    """

    storage: str
    prefix: str
    step: int
    files: Mapping[str, CommittedFile] = field(repr=False, hash=False)
    alone: bool = False
    """Whether ``prefix`` is its own folder, copied from elsewhere or renamed."""

    @property
    def weights_sha256(self) -> str:
        """sha256 of its EMA weights; empty if it has none."""
        return self.files["ema"].sha256 if "ema" in self.files else ""

    @property
    def uri(self) -> str:
        """Address of the checkpoint's folder."""
        folder = self.prefix if self.alone else f"{self.prefix}/step_{self.step:08d}"
        return f"{self.storage}/{folder}".rstrip("/")

    @property
    def home(self) -> str:
        """Key of the parent folder, a job's or an export's; empty if the store is that folder."""
        return self.prefix.rpartition("/")[0]

    @property
    def job(self) -> JobFolder | None:
        """The folder of the job that took it; None outside a job's folder, such as an export."""
        return None if self.alone else _parent_job(self.storage, self.prefix)

    def load(self, stems: Collection[str]) -> Snapshot:
        """Its state and the files ``stems``; CheckpointError if one is missing or damaged."""
        checkpoints = Checkpoints(open_store(self.storage), self.prefix, alone=self.alone)
        return checkpoints.load(self.step, stems, self.files)


@dataclass(frozen=True, slots=True, repr=False)
class LoadedCheckpoint:
    """What sampling needs: R in evaluation mode, D, the job it was trained by, its step."""

    restorer: Restorer
    degradation: Degradation[Any]
    spec: TrainJob
    step: int
    address: CheckpointAddress
    terminal: Terminal | None = None
    """The distribution of x_T; None if the degradation has none, or none was fitted."""
    losses: tuple[tuple[int, float], ...] = ()
    """(step, training loss) up to here, at the steps that were logged."""

    def __repr__(self) -> str:
        job, D, size = self.address.job, self.degradation, self.restorer.num_parameters
        parts = (
            self.address.uri if job is None else job.job_id,
            f"step {self.step}",
            f"{D.spec.kind} T={D.num_timesteps}",
            str(self.spec.shape),
            f"{self.spec.restorer.kind} "
            + (f"{size / 1e6:.1f} M" if size >= 1e5 else f"{size / 1e3:.1f} k"),
        )
        return f"LoadedCheckpoint({', '.join(parts)})"


def find_checkpoint(checkpoint_ref: str, storage: str | None = None) -> CheckpointAddress:
    """Resolves a checkpoint reference to the address of one committed checkpoint.

    Args:
        checkpoint_ref: a checkpoint folder or URI (one that holds a ``checkpoint.json``, whatever
            its name), the folder that holds several, a job folder or URI, an export, the id of a
            job in ``storage`` (default: COLDDIFF_STORAGE, else ./runs) or the beginning of one id
            alone, or ``mlflow:RUN_ID`` for the job of that run; with ``@last`` (default),
            ``@best`` (lowest Frechet distance of Algorithm 2) or ``@step=N``.

    Raises:
        CheckpointError: no such folder or job, or no committed checkpoint.
        SpecError: the beginning of several jobs' ids.
        TrackerError: the run's tracker does not respond.
    """
    text, which = checkpoint_ref.rstrip("/"), "last"
    if match := _WHICH.search(text):
        text, which = text[: match.start()].rstrip("/"), match.group(1)
    if text.startswith(_RUN):
        text = job_of_run(text.removeprefix(_RUN), storage or storage_at())
    if "/" in text or is_folder(text):
        checkpoints, which = _place(text, which)
    else:
        root = storage or storage_at()
        job_id = _id_of(open_store(root), text, checkpoint_ref)
        checkpoints = Checkpoints(open_store(f"{root}/jobs/{job_id}"), "checkpoints")
    step = _chosen(checkpoints, which, checkpoint_ref)
    return CheckpointAddress(
        checkpoints.store.uri, checkpoints.prefix, step, checkpoints.files(step), checkpoints.alone
    )


def is_of_service(checkpoint_ref: str, storage: str) -> bool:
    """Whether only a store or a tracker can say what a reference names in ``storage``."""
    return checkpoint_ref.startswith(_RUN) or "://" in f"{storage} {checkpoint_ref}"


def _place(text: str, which: str) -> tuple[Checkpoints, str]:
    """The checkpoints that an address names, and which of them."""
    address = absolute(text)
    if match := _STEP_FOLDER.search(address):
        root, _, last = address[: match.start()].rpartition("/")
        if last not in ("", ".", ".."):
            checkpoints = Checkpoints(open_store(root or "/"), last)
            return checkpoints, f"step={int(match.group(1))}"
    if "://" not in address and is_regular(Path(address)):
        raise CheckpointError(
            f"{text} is a file: name the folder of the checkpoint, which holds a {COMMIT}"
        )
    store = open_store(address)
    if store.size(COMMIT) is not None:
        return Checkpoints(store, "", alone=True), which
    if any(_STEP_FOLDER.match(f"/{item.key.split('/')[0]}") for item in store.list("step_")):
        root, _, last = address.rpartition("/")
        return Checkpoints(open_store(root or "/"), last), which
    return Checkpoints(store, "checkpoints"), which


def _id_of(store: Store, name: str, checkpoint_ref: str) -> str:
    """The id of the job that ``name`` names; raises CheckpointError, or SpecError for several."""
    _refuse_unknown_which(checkpoint_ref)
    if JOB_ID.fullmatch(name) is None:
        return name  # a word that names no checkpoint, whatever it is
    try:
        return whole_id(store, name)
    except Missing as missing:
        raise CheckpointError(
            f"no committed checkpoint at {store.uri}/jobs/{name} "
            f"(reference {checkpoint_ref!r}): {missing}"
        ) from None


@dataclass(frozen=True, slots=True)
class CheckpointAbout:
    """The description of a checkpoint, without its weights."""

    job: TrainJob
    terminal: Mapping[str, Any] | None
    """Description of the distribution of x_T, if the checkpoint holds one."""
    terminal_sha256: str | None
    """sha256 of its fitted tensors."""

    @property
    def terminal_spec(self) -> TerminalSpec | None:
        """The spec of that distribution; SpecError if this version does not know it."""
        return None if self.terminal is None else TERMINALS.parse(self.terminal)


def describe_checkpoint(address: CheckpointAddress) -> CheckpointAbout:
    """The job of a checkpoint and its terminal's description; reads no weights.

    Raises CheckpointError if it is damaged or needs a plugin that is not loaded, SpecError if this
    version cannot parse its job.
    """
    snapshot = address.load(())
    job = _job(snapshot, address, ())
    fitted = address.files.get("terminal")
    if fitted is None:
        return CheckpointAbout(job, None, None)
    return CheckpointAbout(job, _terminal_of(snapshot, address), fitted.sha256)


def load_checkpoint(
    checkpoint_ref: str | CheckpointAddress,
    weights: Weights = "ema",
    storage: str | None = None,
    trusted: Collection[str] = (),
) -> LoadedCheckpoint:
    """R and D of a checkpoint, on the CPU; EMA weights by default, as in the paper.

    A plugin stored with it is used only if it is loaded already or its sha256 is in ``trusted``.

    >>> checkpoint = load_checkpoint(folder)  # or a job id, an export, mlflow:RUN_ID, ...@best
    >>> checkpoint.step, checkpoint.degradation.spec.kind, checkpoint.spec.image_size
    (3, 'blur', 16)
    >>> checkpoint.restorer(torch.zeros(2, 1, 16, 16), torch.tensor([1, 4])).shape
    torch.Size([2, 1, 16, 16])
    """
    if not isinstance(checkpoint_ref, str | CheckpointAddress):
        raise SpecError(
            "load_checkpoint takes the id of a job, a folder or an address, got "
            f"{shown(checkpoint_ref)}"
        )
    address = (
        checkpoint_ref
        if isinstance(checkpoint_ref, CheckpointAddress)
        else find_checkpoint(checkpoint_ref, storage)
    )
    holds_terminal = "terminal" in address.files
    snapshot = address.load((weights, *["terminal"] * holds_terminal))
    job = _job(snapshot, address, trusted)
    restorer = job.restorer.build(job.shape)
    load_weights(restorer, snapshot.tensors[weights], weights, f"{address.uri}/{weights}")
    D = job.degradation.build(job.shape)
    terminal = None
    if holds_terminal:
        # A degradation whose second set is passed as omega names no address to open.
        images = open_second_set(D, job.augment) if D.spec.second_set else None
        terminal = Terminal.from_files(
            snapshot.tensors["terminal"], _terminal_of(snapshot, address), images
        )
    losses = tuple((step, loss) for step, loss in snapshot.state.get("losses", ()))
    return LoadedCheckpoint(restorer.eval(), D, job, address.step, address, terminal, losses)


def _job(snapshot: Snapshot, address: CheckpointAddress, trusted: Collection[str]) -> TrainJob:
    """The job that trained it; loads its plugins first, which may register its kinds."""
    written = snapshot.state["job"]
    plugins = written.get("plugins")
    if plugins:
        run_kept_plugins(open_store(address.storage), address.home, trusted)
    try:
        job = parse(VERBS["train"].spec(), written, f"{address.uri}/state.json: job")
        return cast("TrainJob", job)
    except SpecError as error:
        if not plugins:
            raise _by_later_version(error, address) from None
        raise CheckpointError(
            f"{error}; it was trained with the plugins {', '.join(plugins)}: add them with "
            "--plugin FILE"
        ) from None


def _by_later_version(error: SpecError, address: CheckpointAddress) -> SpecError:
    """``error``, with the version to install where a later one wrote the checkpoint's job."""
    try:
        found = address.job.job() if address.job is not None else {}
    except ColddiffError:
        return error
    later = later_version(found.get("versions"))
    return SpecError(f"{error}{later}") if later else error


def _terminal_of(snapshot: Snapshot, address: CheckpointAddress) -> Mapping[str, Any]:
    found = snapshot.state.get("terminal")
    if found is None:
        raise CheckpointError(f"{address.uri}/state.json says nothing of its terminal's file")
    return cast("Mapping[str, Any]", found)


def load_snapshot(checkpoint_ref: str) -> Snapshot:
    """The EMA weights of a checkpoint as tensors, for another job to start from.

    Raises CheckpointError if they are not those of the network that the checkpoint describes.
    """
    address = find_checkpoint(checkpoint_ref)
    snapshot = address.load(("ema",))
    check_ema(snapshot.tensors["ema"], snapshot.state["job"], f"{address.uri}/ema")
    return snapshot


def _way_out(checkpoints: Checkpoints) -> str:
    """For a message: what to name instead, or the nearest id where the folder is of no job."""
    place, _, job_id = checkpoints.store.uri.rpartition("/jobs/")
    if checkpoints.store.size("job.json") is not None:
        return "; it has none yet, see `colddiff status`"
    if not place:
        return (
            f"; name a job's id, its folder, an export, or a folder that holds {COMMIT}, the last "
            "file that a checkpoint gets"
        )
    return (
        f": no job {job_id!r}{nearest(job_id, list_jobs(open_store(place)))}; see `colddiff list`"
    )


def _refuse_unknown_which(checkpoint_ref: str) -> None:
    """Raises CheckpointError if a reference that names nothing ends in an unknown ``@...``."""
    _, at, word = checkpoint_ref.rstrip("/").rpartition("/")[2].rpartition("@")
    if at and _WHICH.fullmatch(f"@{word}") is None:
        raise CheckpointError(
            f"{checkpoint_ref[:LONGEST]}: unknown @{word[:LONGEST]}; @last, @best or @step=N"
        )


def _chosen(checkpoints: Checkpoints, which: str, checkpoint_ref: str) -> int:
    steps = checkpoints.steps()
    if not steps:
        _refuse_unknown_which(checkpoint_ref)
        raise CheckpointError(
            f"no committed checkpoint at {checkpoints.store.uri}/{checkpoints.prefix} "
            f"(reference {checkpoint_ref[:LONGEST]!r}){_way_out(checkpoints)}"
        )
    if which == "last":
        return steps[-1]
    if which == "best":
        return _best(checkpoints, steps, checkpoint_ref)
    step = int(which.removeprefix("step="))
    if step not in steps:
        raise CheckpointError(
            f"no checkpoint of step {step} in {checkpoints.store.uri}/{checkpoints.prefix}; "
            f"there are {', '.join(map(str, steps))}"
        )
    return step


def _parent_job(storage: str, prefix: str) -> JobFolder | None:
    """The folder of the job whose checkpoints are below ``prefix``; None outside a job."""
    above = prefix.rpartition("/")[0]
    root, _, job_id = f"{storage}/{above}".rstrip("/").rpartition("/jobs/")
    return JobFolder(open_store(root), job_id) if root else None


def _best(checkpoints: Checkpoints, steps: list[int], checkpoint_ref: str) -> int:
    folder = _parent_job(checkpoints.store.uri, checkpoints.prefix)
    if folder is None:
        raise CheckpointError(f"{checkpoint_ref!r}: @best requires a job's folder; use @last")
    best = folder.best(set(steps))
    if best is None:
        raise CheckpointError(
            f"{checkpoint_ref!r}: no checkpoint of the job was evaluated; use @last"
        )
    return best.step
