"""Export of a checkpoint to its own folder: EMA weights, degradation, terminal, plugins, a card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colddiff.checkpoints.format import Checkpoints, Snapshot
from colddiff.checkpoints.references import CheckpointAddress, find_checkpoint
from colddiff.checkpoints.weights import check_ema
from colddiff.degradations import DEGRADATIONS
from colddiff.errors import CheckpointError, Exists, Missing
from colddiff.jobs.plugins import keep_plugins, kept_plugins
from colddiff.ports import Store
from colddiff.report.card import card_readme
from colddiff.spec.documents import DocumentError, read_json_object
from colddiff.spec.plugins import plugin_source
from colddiff.stores.open import open_store
from colddiff.types import ImageShape

PREFIX, CARD, README = "checkpoints", "card.json", "README.md"
FORMAT = "colddiff-card-1"
PRIVATE = ("data", "test_data", "start_from", "storage")
"""Job fields that hold the owner's addresses; they are not exported, only digests are."""


TRAINING = (
    "augment",
    "global_batch_size",
    "optimizer",
    "ema",
    "loss",
    "precision",
    "seed",
)


@dataclass(frozen=True, slots=True)
class Exported:
    """The exported folder, which is a checkpoint reference, and its content."""

    uri: str
    step: int
    weights_sha256: str
    plugins: tuple[str, ...]
    fresh: bool
    """False if the same checkpoint had been exported there before."""


def export(checkpoint_ref: str, out: str, *, plugins: Sequence[str | Path] = ()) -> Exported:
    """Exports the checkpoint named by ``checkpoint_ref`` to the folder or URI ``out``.

    Runs no code that came with the checkpoint. ``plugins`` are the files it was trained with, if
    its job's folder does not have them. The commit record is written last, so that a folder that
    can be loaded is complete.

    Raises:
        CheckpointError: no EMA weights or incomplete ones, a missing plugin, or another export or
            a foreign file at ``out``.
    """
    address = find_checkpoint(checkpoint_ref)
    stems = [stem for stem in ("ema", "terminal") if stem in address.files]
    if "ema" not in stems:
        raise CheckpointError(f"{address.uri}: holds no EMA weights to export")
    snapshot = address.load(stems)
    check_ema(snapshot.tensors["ema"], snapshot.state["job"], f"{address.uri}/ema")
    sources = _plugins(address, snapshot, plugins)
    store = open_store(out)
    target = Checkpoints(store, PREFIX)
    names = tuple(sorted(f"plugins/{sha256}.py" for sha256 in sources))
    state = _public(snapshot.state, names)
    fresh = not _already_exported(target, address, state)
    if fresh:
        card = make_card(address, snapshot, names)
        # Of the checkpoint itself, which an export of an export has too.
        best = (snapshot.state["job"].get("evaluation") or {}).get("best")
        files = {
            CARD: (json.dumps(card, indent=2) + "\n").encode(),
            README: card_readme(card, omega_names(card), best).encode(),
            **{f"plugins/{sha256}.py": source for sha256, source in sources.items()},
        }
        _refuse_foreign(store, files)
        keep_plugins(store, "", sources.values())
        for name in (CARD, README):
            _put_ours(store, name, files[name])
        target.save(Snapshot(address.step, snapshot.tensors, state))
    return Exported(store.uri, address.step, address.weights_sha256, names, fresh)


def _refuse_foreign(store: Store, files: Mapping[str, bytes]) -> None:
    """Raises CheckpointError if one of ``files`` is there with other content."""
    for name, data in files.items():
        try:
            size = store.size(name)
            same = size is None or (size == len(data) and store.get(name) == data)
        except Missing:
            same = True
        if not same:
            raise CheckpointError(
                f"{store.uri}/{name} is not of this export, and is not replaced; export to an "
                "empty or new folder"
            )


def _put_ours(store: Store, name: str, data: bytes) -> None:
    try:
        store.put_new(name, data)
    except Exists:
        # Left by an export of the same checkpoint that was interrupted, or put there just now.
        _refuse_foreign(store, {name: data})
        if store.size(name) is None:
            raise CheckpointError(f"{store.uri}/{name} is in the way; use another --out") from None


def make_card(
    address: CheckpointAddress, snapshot: Snapshot, plugins: Sequence[str]
) -> dict[str, Any]:
    """The model card, JSON-ready: model, data, training, evaluation, versions."""
    before = _card_beside(address)
    if before is not None:  # an export of an export: its job's folder is elsewhere
        return before
    job, state, folder = snapshot.state["job"], snapshot.state, address.job
    resolved = _job_json(address)
    losses = state.get("losses") or []
    evaluation = folder.evaluation(address.step) if folder else None
    return {
        "format": FORMAT,
        "name": state.get("job_id") or Path(address.storage).name,
        "step": address.step,
        "weights": "ema",
        "weights_sha256": address.weights_sha256,
        "parameters": sum(tensor.numel() for tensor in snapshot.tensors["ema"].values()),
        "image": {"channels": job["channels"], "size": job["image_size"]},
        "degradation": job["degradation"],
        "restorer": job["restorer"],
        "terminal": state.get("terminal"),
        "training": {
            "data_digest": state.get("data"),
            **{name: job[name] for name in TRAINING},
            "last_loss": losses[-1][1] if losses else None,
            "reference": state.get("reference"),
        },
        "evaluation": evaluation,
        "plugins": list(plugins),
        "versions": resolved.get("versions", {}),
        "git": resolved.get("git", {}),
    }


def omega_names(card: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What is random in the D of a card, by name; None where plugins, which are not run, say so."""
    if card["plugins"] or card["degradation"]["kind"] not in DEGRADATIONS:
        return None
    spec, image = DEGRADATIONS.parse(card["degradation"]), card["image"]
    return spec.build(ImageShape(image["channels"], image["size"], image["size"])).omega_names


def _plugins(
    address: CheckpointAddress, snapshot: Snapshot, plugin_paths: Sequence[str | Path]
) -> dict[str, bytes]:
    named = snapshot.state["job"].get("plugins") or ()
    if not named:
        return {}
    kept = kept_plugins(open_store(address.storage), address.home)
    if kept:
        return kept
    if not plugin_paths:
        raise CheckpointError(
            f"{address.uri}: was trained with the plugins {', '.join(named)}, which are not stored "
            "with it; add them with --plugin FILE"
        )
    sources = [plugin_source(path) for path in plugin_paths]
    return {hashlib.sha256(source).hexdigest(): source for source in sources}


def _public(state: Mapping[str, Any], plugins: Sequence[str]) -> dict[str, Any]:
    """The state to export: without the owner's addresses and without optimizer state."""
    job = {name: value for name, value in state["job"].items() if name not in PRIVATE}
    kept = ("step", "terminal", "data", "job_id", "losses", "reference")
    return {
        "job": {**job, "plugins": list(plugins)},
        **{name: state[name] for name in kept if name in state},
    }


def _already_exported(
    target: Checkpoints, address: CheckpointAddress, state: dict[str, Any]
) -> bool:
    """Whether this same export is committed; raises CheckpointError if another one is."""
    steps = target.steps()
    if not steps:
        return False
    if steps == [address.step]:
        files = target.files(address.step)
        same = "ema" in files and files["ema"].sha256 == address.weights_sha256
        stored = target.load(address.step, (), files).state if same else None
        if same and stored == json.loads(json.dumps(state)):
            return True
    raise CheckpointError(
        f"{target.store.uri} already holds another checkpoint; export to another location"
    )


def _card_beside(address: CheckpointAddress) -> dict[str, Any] | None:
    if address.home:
        return None
    try:
        found = read_json_object(open_store(address.storage).get(CARD))
    except (Missing, DocumentError):
        return None
    return found if found.get("weights_sha256") == address.weights_sha256 else None


def _job_json(address: CheckpointAddress) -> dict[str, Any]:
    try:
        return address.job.job() if address.job else {}
    except Missing:
        return {}
