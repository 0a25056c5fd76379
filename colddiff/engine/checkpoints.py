"""Checkpoints in a job's folder: safetensors and JSON, complete or invisible, never a pickle."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from colddiff.errors import CheckpointError, ColddiffError, DivergedError, Exists, Missing
from colddiff.ports import Store

FORMAT = "colddiff-checkpoint-1"
COMMIT = "checkpoint.json"
_STEP = re.compile(r"step_(\d{8,})/")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Training state after optimizer step ``step``, in host memory.

    ``tensors`` maps a file's stem (``model``, ``ema``, ``optimizer``, ``terminal``) to its tensors;
    ``state`` is JSON: what else a resumed run or a sampler needs, the job's spec among it.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


class Checkpoints:
    """The checkpoints below one prefix of a store, ``jobs/<id>/checkpoints`` or an export.

    A checkpoint is a folder ``step_00001000``; its last object, ``checkpoint.json``, commits it by
    naming every file with size and sha256. Folders without it are not there.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self.store = store
        self.prefix = prefix.strip("/")

    def key(self, step: int, name: str = "") -> str:
        """Store key of a file of the checkpoint at ``step``."""
        return f"{self.prefix}/step_{step:08d}/{name}"

    def steps(self) -> list[int]:
        """Steps with a committed checkpoint, rising."""
        return sorted(self._folders()[0])

    def save(self, snapshot: Snapshot, fenced: Callable[[], bool] = lambda: False) -> None:
        """Writes and commits; a step that is committed already stays as it is.

        Raises DivergedError before anything is written where a weight is not finite, and
        ColddiffError where ``fenced()`` says that a later attempt has taken over.
        """
        if self.store.size(self.key(snapshot.step, COMMIT)) is not None:
            return
        _refuse_nonfinite(snapshot)
        files: dict[str, dict[str, Any]] = {}
        for stem, tensors in snapshot.tensors.items():
            data = safetensors.torch.save({k: v.contiguous() for k, v in tensors.items()})
            files[f"{stem}.safetensors"] = self._write(snapshot.step, f"{stem}.safetensors", data)
        state = json.dumps(dict(snapshot.state), indent=2, sort_keys=True).encode()
        files["state.json"] = self._write(snapshot.step, "state.json", state)
        if fenced():
            raise ColddiffError(
                f"{self.key(snapshot.step)}: not committed, a later attempt of the job took over"
            )
        commit = {"format": FORMAT, "step": snapshot.step, "files": files}
        try:
            self.store.put_new(
                self.key(snapshot.step, COMMIT), json.dumps(commit, indent=2).encode()
            )
        except Exists:
            raise ColddiffError(
                f"{self.key(snapshot.step)}: committed by another writer meanwhile"
            ) from None

    def commit_record(self, step: int) -> dict[str, Any]:
        """The parsed ``checkpoint.json``; raises CheckpointError."""
        where = f"{self.store.uri}/{self.key(step)}"
        try:
            record = json.loads(self.store.get(self.key(step, COMMIT)))
        except Missing:
            raise CheckpointError(f"{where}: no committed checkpoint") from None
        except ValueError as error:
            raise CheckpointError(f"{where}{COMMIT} is damaged ({error})") from None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise CheckpointError(f"{where}{COMMIT} is not of format {FORMAT}")
        return record

    def load(self, step: int, stems: Collection[str]) -> Snapshot:
        """``state`` and the files ``stems`` at ``step``, sizes and hashes verified.

        Raises CheckpointError naming what is missing or damaged.
        """
        files = self.commit_record(step)["files"]
        absent = {f"{stem}.safetensors" for stem in stems} - set(files)
        if absent:
            raise CheckpointError(f"{self.key(step)}: holds no {', '.join(sorted(absent))}")
        tensors = {}
        for stem in stems:
            data = self._read(step, f"{stem}.safetensors", files)
            try:
                tensors[stem] = safetensors.torch.load(data)
            except SafetensorError as error:
                raise CheckpointError(
                    f"{self.key(step, stem)}: not safetensors ({error})"
                ) from None
        return Snapshot(step, tensors, json.loads(self._read(step, "state.json", files)))

    def newest(self, stems: Collection[str], talk: Callable[[str], None]) -> Snapshot | None:
        """The newest undamaged checkpoint; each damaged one is named through ``talk``."""
        for step in reversed(self.steps()):
            try:
                return self.load(step, stems)
            except CheckpointError as error:
                talk(f"checkpoint of step {step} is damaged, going back to the one before: {error}")
        return None

    def prune(self, keep: int, spare: Collection[int] = ()) -> None:
        """Removes all but the newest ``keep`` and those in ``spare``, commit record first."""
        committed, objects = self._folders()
        for step in committed[: max(0, len(committed) - keep)]:
            if step not in spare:
                self.store.delete(self.key(step, COMMIT))
                for key in objects[step]:
                    self.store.delete(key)

    def _folders(self) -> tuple[list[int], dict[int, list[str]]]:
        committed: list[int] = []
        objects: dict[int, list[str]] = {}
        for item in self.store.list(f"{self.prefix}/"):
            match = _STEP.match(item.key.removeprefix(f"{self.prefix}/"))
            if match:
                step = int(match.group(1))
                objects.setdefault(step, []).append(item.key)
                if item.key.endswith(f"/{COMMIT}"):
                    committed.append(step)
        return sorted(committed), objects

    def _write(self, step: int, name: str, data: bytes) -> dict[str, Any]:
        self.store.put(self.key(step, name), data)
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def _read(self, step: int, name: str, files: Mapping[str, Any]) -> bytes:
        where = f"{self.store.uri}/{self.key(step, name)}"
        try:
            data = self.store.get(self.key(step, name))
        except Missing:
            raise CheckpointError(f"{where}: named in {COMMIT} but not there") from None
        expected = files.get(name, {}).get("sha256")
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise CheckpointError(
                f"{where}: sha256 is {found[:12]}..., {COMMIT} says {str(expected)[:12]}..."
            )
        return data


def _refuse_nonfinite(snapshot: Snapshot) -> None:
    for stem, tensors in snapshot.tensors.items():
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise DivergedError(
                    f"step {snapshot.step}: {stem} tensor {name} holds NaN or inf; no checkpoint "
                    "is written"
                )
