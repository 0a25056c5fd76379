"""The checkpoint format: safetensors and JSON, committed atomically, never a pickle."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError

from colddiff.checkpoints.kept import COMMIT, STEP
from colddiff.errors import (
    CheckpointError,
    ColddiffError,
    DivergedError,
    Exists,
    LaterFormat,
    Missing,
)
from colddiff.ports import Store
from colddiff.spec.documents import DocumentError, as_record, read_json_object, shown
from colddiff.spec.formats import LaterRecord, refuse_later

if TYPE_CHECKING:
    from torch import Tensor

    from colddiff.jobs.folder import JobFolder

log = logging.getLogger(__name__)

FORMAT = "colddiff-checkpoint-1"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Training state after optimizer step ``step``, in host memory.

    ``tensors`` maps a file's stem (``model``, ``ema``, ``optimizer``, ``terminal``) to its tensors;
    ``state`` is JSON: what else resuming or sampling needs, such as the job's spec.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CommittedFile:
    """A file of a checkpoint as its commit record names it."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Entry:
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class _Commit:
    """What this version reads of a commit record."""

    step: Annotated[int, Field(ge=0)]
    files: dict[str, _Entry]


@dataclass(frozen=True, slots=True)
class _JobOfState:
    plugins: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _State:
    """What this version reads of a ``state.json``."""

    job: _JobOfState
    terminal: dict[str, Any] | None = None
    losses: list[Annotated[list[float], Field(min_length=2, max_length=2)]] = field(
        default_factory=list
    )


class Checkpoints:
    """The checkpoints below one prefix of a store, ``jobs/<id>/checkpoints`` or an export.

    A checkpoint is a folder ``step_00001000``; its last object, ``checkpoint.json``, commits it by
    naming every file with size and sha256. Folders without it are ignored.

    ``alone``: the prefix is itself the folder of one checkpoint, whatever its name.
    """

    def __init__(self, store: Store, prefix: str, *, alone: bool = False) -> None:
        self.store = store
        self.prefix = prefix.strip("/")
        self.alone = alone

    @classmethod
    def of(cls, folder: JobFolder) -> Checkpoints:
        """Those that a training keeps in its folder."""
        return cls(folder.store, folder.key("checkpoints"))

    def key(self, step: int, name: str = "") -> str:
        """Store key of a file of the checkpoint at ``step``."""
        if self.alone:
            return f"{self.prefix}/{name}" if self.prefix else name
        return f"{self.prefix}/step_{step:08d}/{name}"

    def steps(self) -> list[int]:
        """Steps with a committed checkpoint, ascending; of one alone, what its record says."""
        return [self._commit(0).step] if self.alone else sorted(self._folders()[0])

    def save(
        self,
        snapshot: Snapshot,
        fenced: Callable[[], bool] = lambda: False,
        writer: str = "again",
    ) -> None:
        """Writes and commits ``snapshot``; a step that is already committed is left unchanged.

        No stored object is replaced, so that a superseded writer cannot damage what its successor
        wrote: if a name is taken by other bytes, the file becomes ``model.<writer>.safetensors``
        and the commit record names it.

        Raises DivergedError, before anything is written, if a weight is not finite, and
        ColddiffError if ``fenced()`` returns true: a later writer has superseded this one.
        """
        if self.store.size(self.key(snapshot.step, COMMIT)) is not None:
            return
        _refuse_nonfinite(snapshot)
        files: dict[str, dict[str, Any]] = {}
        for stem, tensors in snapshot.tensors.items():
            data = _to_bytes({k: v.contiguous() for k, v in tensors.items()})
            files |= self._write(snapshot.step, stem, ".safetensors", data, writer)
        state = json.dumps(dict(snapshot.state), indent=2, sort_keys=True).encode()
        files |= self._write(snapshot.step, "state", ".json", state, writer)
        superseded = (
            f"{self.key(snapshot.step)}: not committed, superseded by a later attempt of the job"
        )
        if fenced():
            raise ColddiffError(superseded)
        commit = {"format": FORMAT, "step": snapshot.step, "files": files}
        try:
            self.store.put_new(
                self.key(snapshot.step, COMMIT), json.dumps(commit, indent=2).encode()
            )
        except Exists:
            # A superseded writer committed this step first. Its content is the same, so accept it.
            if fenced():
                raise ColddiffError(superseded) from None

    def files(self, step: int) -> dict[str, CommittedFile]:
        """The files that ``checkpoint.json`` commits, by stem: ``model``, ``ema``, ``state``...

        Raises CheckpointError if it is missing or damaged.
        """
        return {
            name.split(".")[0]: CommittedFile(name, entry.bytes, entry.sha256)
            for name, entry in self._commit(step).files.items()
        }

    def _commit(self, step: int) -> _Commit:
        where = f"{self.store.uri}/{self.key(step)}"
        try:
            data = self.store.get(self.key(step, COMMIT))
        except Missing:
            raise CheckpointError(f"{where}: no committed checkpoint") from None
        try:
            record = read_json_object(data)
            refuse_later(record, FORMAT)
            if record.get("format") != FORMAT:
                found = shown(record.get("format"))
                raise DocumentError(f"is of format {found}, this version reads {FORMAT!r}")
            return as_record(_Commit, record)
        except LaterRecord as error:
            raise LaterFormat(f"{where}{COMMIT} {error}") from None
        except DocumentError as error:
            raise CheckpointError(f"{where}{COMMIT} {error}") from None

    def load(
        self,
        step: int,
        stems: Collection[str],
        files: Mapping[str, CommittedFile] | None = None,
    ) -> Snapshot:
        """``state`` and the files ``stems`` at ``step``, hashes verified.

        ``files`` are those of ``step``, if its commit record was already read. Raises
        CheckpointError naming what is missing or damaged.
        """
        if files is None:
            files = self.files(step)
        absent = sorted({*stems, "state"} - set(files))
        if absent:
            raise CheckpointError(f"{self.key(step)}: holds no {', '.join(absent)}")
        tensors = {}
        for stem in stems:
            data = self._read(step, files[stem])
            try:
                tensors[stem] = _from_bytes(data)
            except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
                # safetensors knows dtypes that torch does not.
                raise CheckpointError(
                    f"{self.key(step, stem)}: not safetensors ({error})"
                ) from None
        return Snapshot(step, tensors, self._state(step, files["state"]))

    def _state(self, step: int, file: CommittedFile) -> dict[str, Any]:
        try:
            state = read_json_object(self._read(step, file))
            as_record(_State, state)
        except DocumentError as error:
            where = f"{self.store.uri}/{self.key(step, file.name)}"
            raise CheckpointError(f"{where} {error}") from None
        return state

    def newest(self, stems: Collection[str]) -> Snapshot | None:
        """The newest undamaged checkpoint; each damaged one is logged.

        Raises LaterFormat for one that a later version wrote: going on from an earlier one would
        delete it.
        """
        for step in reversed(self.steps()):
            try:
                return self.load(step, stems)
            except LaterFormat:
                raise
            except CheckpointError as error:
                log.warning(
                    "checkpoint of step %d is damaged, falling back to the previous one: %s",
                    step,
                    error,
                )
        return None

    def clear_after(self, step: int, fenced: Callable[[], bool]) -> None:
        """Deletes everything later than ``step`` or not committed, before resuming from ``step``.

        That is damaged checkpoints, which will be written again, and interrupted uploads. Stops
        early if ``fenced()`` returns true.
        """
        committed, objects = self._folders()
        for number in sorted(objects):
            if fenced():
                return
            if number > step or number not in committed:
                self._delete(number, objects[number])

    def prune(self, beyond: Callable[[list[int]], Collection[int]]) -> None:
        """Deletes, of the committed steps, those that ``beyond`` names, commit record first."""
        committed, objects = self._folders()
        for step in beyond(committed):
            self._delete(step, objects[step])

    def _delete(self, step: int, keys: list[str]) -> None:
        self.store.delete(self.key(step, COMMIT))
        for key in keys:
            self.store.delete(key)

    def _folders(self) -> tuple[list[int], dict[int, list[str]]]:
        committed: list[int] = []
        objects: dict[int, list[str]] = {}
        for item in self.store.list(f"{self.prefix}/"):
            match = STEP.match(item.key.removeprefix(f"{self.prefix}/"))
            if match:
                step = int(match.group(1))
                objects.setdefault(step, []).append(item.key)
                if item.key.endswith(f"/{COMMIT}"):
                    committed.append(step)
        return sorted(committed), objects

    def _write(
        self, step: int, stem: str, suffix: str, data: bytes, writer: str
    ) -> dict[str, dict[str, Any]]:
        entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name in (f"{stem}{suffix}", f"{stem}.{writer}{suffix}"):
            try:
                self.store.put_new(self.key(step, name), data)
            except Exists:
                if not self._holds(step, name, data):
                    continue
            return {name: entry}
        raise ColddiffError(f"{self.key(step, stem)}{suffix}: another writer has written it")

    def _holds(self, step: int, name: str, data: bytes) -> bool:
        try:
            return self.store.get(self.key(step, name)) == data
        except Missing:
            return False

    def _read(self, step: int, file: CommittedFile) -> bytes:
        where = f"{self.store.uri}/{self.key(step, file.name)}"
        size = self.store.size(self.key(step, file.name))
        if size is not None and size != file.bytes:
            # Before it is read: it may be of any size.
            raise CheckpointError(f"{where}: has {size} bytes, {COMMIT} says {file.bytes}")
        try:
            data = self.store.get(self.key(step, file.name))
        except Missing:
            raise CheckpointError(f"{where}: named in {COMMIT} but missing") from None
        found = hashlib.sha256(data).hexdigest()
        if found != file.sha256:
            raise CheckpointError(
                f"{where}: sha256 is {found[:12]}..., {COMMIT} says {file.sha256[:12]}..."
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


# Imported with torch, and most commands only read what is beside the tensors.


def _to_bytes(tensors: dict[str, Tensor]) -> bytes:
    import safetensors.torch

    return safetensors.torch.save(tensors)


def _from_bytes(data: bytes) -> dict[str, Tensor]:
    import safetensors.torch

    return safetensors.torch.load(data)
