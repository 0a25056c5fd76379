"""Import of a checkpoint of the paper's code as one of ours: weights, job and terminal."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from colddiff.checkpoints.format import Checkpoints, Snapshot
from colddiff.checkpoints.paper_weights import Weights, import_reference_checkpoint
from colddiff.data.open import open_transformed
from colddiff.errors import CheckpointError
from colddiff.stores.open import open_store
from colddiff.terminals.fit import make_terminal

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

PREFIX = "checkpoints"


@dataclass(frozen=True, slots=True)
class Imported:
    """Result of an import: the checkpoint's address, its step, the kind of its terminal."""

    uri: str
    step: int
    terminal: str | None
    fresh: bool
    """False if the same file had been imported there before."""


def import_paper_checkpoint(
    path: str | Path,
    job: TrainJob,
    out: str,
    *,
    data: str | None = None,
    weights: Weights = "ema",
) -> Imported:
    """Commits the network of a ``.pt`` file of the paper's code to ``out`` as a checkpoint.

    Args:
        path: a local file (see ``import_reference_checkpoint`` for its format).
        job: the job it corresponds to: degradation, restorer and image shape.
        out: a folder or ``s3://bucket/prefix``, which then is a checkpoint reference.
        data: packed shards that a mixture terminal is fitted to.
        weights: ``ema``, which the paper evaluates, or ``model``.

    Raises:
        CheckpointError: not such a file, weights that do not fit, or another checkpoint at ``out``.
        DataError: ``data`` is missing or of another shape.
        SpecError: a degradation that mixes in a second set but names none.
    """
    restorer, D = job.restorer.build(job.shape), job.degradation.build(job.shape)
    step = import_reference_checkpoint(path, restorer, weights=weights) or 0
    source = None if data is None else open_transformed(data, job.augment, job.shape)
    terminal = make_terminal(D, source, job.terminal)
    state = {
        "job": job.to_dict(),
        "step": step,
        "reference": {"sha256": _sha256(Path(path)), "weights": weights},
        "data": None if source is None else source.manifest.digest,
        "terminal": None if terminal is None else terminal.state(),
    }
    checkpoints = Checkpoints(open_store(out), PREFIX)
    uri = f"{checkpoints.store.uri}/{checkpoints.key(step)}".rstrip("/")
    kind = None if terminal is None else terminal.spec.kind
    if checkpoints.steps():
        if checkpoints.steps() != [step] or dict(checkpoints.load(step, ()).state) != state:
            raise CheckpointError(
                f"{checkpoints.store.uri} already holds another checkpoint; import to another "
                "location"
            )
        return Imported(uri, step, kind, fresh=False)
    tensors = {"ema": restorer.state_dict()}
    if terminal is not None:
        tensors["terminal"] = dict(terminal.tensors)
    checkpoints.save(Snapshot(step, tensors, state))
    return Imported(uri, step, kind, fresh=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
