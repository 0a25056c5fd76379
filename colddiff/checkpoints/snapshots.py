"""Snapshots in this machine's memory: after a kill, a training goes on from seconds before it."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from colddiff.background import Background
from colddiff.checkpoints.format import Snapshot
from colddiff.checkpoints.snapshot_places import all_places, is_private, own_folder, place_of
from colddiff.errors import CheckpointError, ColddiffError
from colddiff.machine.memory import free_memory
from colddiff.spec.documents import DocumentError, read_json_object, shown

log = logging.getLogger(__name__)

SHARE = 0.01
"""Of a training's time, what snapshots may take at most: large networks have them more seldom."""
ABANDONED_S = 3600.0
"""A training that runs replaces its snapshot far more often."""
ROOM = 3.0
"""Memory that must be free, in sizes of a snapshot: its copy, its file, and the file before it."""
SUFFIX = ".safetensors"
FORMAT = "colddiff-snapshot-1"


class Snapshots:
    """The newest state of one start of a training, besides its checkpoints in the store.

    A snapshot is one file in memory, in a folder of this user alone, of the training ``job``
    (its folder's address) and of ``start`` (attempt and fencing token: a superseded start touches
    its own files only). ``every_s`` are the seconds from one to the next; 0 makes none, and so
    does a machine without such a place, or without room.

    ``before`` is called before a snapshot counts: what was logged until then is kept first.
    """

    def __init__(self, job: str, every_s: float, before: Callable[[], object]) -> None:
        self._every_s, self._before = every_s, before
        self._user, self._place, self._of = own_folder(), place_of(job), job
        self._job = self._place.path
        self._start = ""
        self._background = Background("snapshots")
        self._next, self._off = 0.0, every_s == 0
        self._foreground_s = 0.0
        self._earlier: list[Path] = []

    def newest(self, after: int, known: Callable[[str], bool]) -> str | None:
        """The file of the newest snapshot later than step ``after``, of any start that is ``known``

        (not of a job of the same name that was deleted since).
        """
        if not self._is_own():
            return None
        for path in sorted(self._files(), key=_step, reverse=True):
            if _step(path) > after and known(path.parent.name):
                return str(path)
        return None

    def read(self, path: str, stems: Collection[str]) -> Snapshot:
        """The snapshot in the file ``path``, with the tensors of ``stems``.

        Raises CheckpointError if it is not there, damaged, or lacks one of them.
        """
        tensors: dict[str, dict[str, Tensor]] = {stem: {} for stem in stems}
        try:
            if not self._is_own():
                raise DocumentError(f"{self._user} is not a folder of this user alone")
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                if about.get("format") != FORMAT:
                    found = shown(about.get("format"))
                    raise DocumentError(f"is of format {found}, not {FORMAT!r}")
                state = read_json_object(about.get("state", "").encode())
                for name in file.keys():  # noqa: SIM118  # not a mapping
                    stem, _, rest = name.partition("/")
                    if stem in tensors:
                        tensors[stem][rest] = file.get_tensor(name)
        except (OSError, SafetensorError, DocumentError) as error:
            raise CheckpointError(f"{path}: {error}") from None
        absent = [stem for stem, found in tensors.items() if not found]
        if absent or state.get("step") != _step(Path(path)):
            raise CheckpointError(f"{path}: is not a whole snapshot")
        return Snapshot(_step(Path(path)), tensors, state)

    def begin(self, start: str, is_deleted: Callable[[str], bool] = lambda job: False) -> None:
        """Makes those of ``start`` from now on; earlier starts' go once it has one of its own.

        Those of other jobs go where nobody can need them: abandoned, or of one that ``is_deleted``.
        """
        self._start, self._next = start, time.monotonic() + self._every_s
        self._earlier = list(self._job.glob("*/*")) if self._is_own() else []
        self._forget_abandoned(is_deleted)

    def due(self) -> bool:
        """Whether ``save`` would make one now: it never waits for the one before."""
        return not self._off and time.monotonic() >= self._next and not self._background.busy()

    def save(self, take: Callable[[], Snapshot]) -> None:
        """Writes what ``take`` copies, in the background; a failure ends them, not the training."""
        began = time.monotonic()
        snapshot = take()
        self._foreground_s = time.monotonic() - began
        self._background.submit(lambda: self._write(snapshot))

    def end(self, *, keep: bool) -> None:
        """Waits for the one in progress; all are deleted unless the training is to go on.

        Only by whoever began: the other ranks may end while rank 0 still writes a checkpoint.
        """
        self._off = True
        self._background.wait()
        if not keep and self._start and self._is_own():
            shutil.rmtree(self._job, ignore_errors=True)

    def _write(self, snapshot: Snapshot) -> None:
        began = time.monotonic()
        size = sum(tensor.nbytes for _, tensor in _named(snapshot))
        try:
            self._make_room_for(size)
            used = time.thread_time()
            folder = self._job / self._start
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                self._place.record(self._of)
            path = folder / f"{snapshot.step:08d}{SUFFIX}"
            unfinished = path.with_suffix(".part")
            state = {"format": FORMAT, "state": json.dumps(dict(snapshot.state))}
            tensors = {name: tensor.contiguous() for name, tensor in _named(snapshot)}
            save_file(tensors, unfinished, metadata=state)
            used = time.thread_time() - used
            self._before()
            unfinished.rename(path)
            for other in {*self._earlier, *folder.glob(f"*{SUFFIX}")} - {path}:
                other.unlink(missing_ok=True)
            self._earlier = []
        except (OSError, SafetensorError) as error:
            self._off = True
            log.info("no snapshots in memory, a kill costs the steps since a checkpoint: %s", error)
            return
        pause = max(self._every_s, (self._foreground_s + used) / SHARE)
        self._next = began + pause
        log.debug("snapshot of step %d in memory, the next in %.1f s", snapshot.step, pause)

    def _make_room_for(self, size: int) -> None:
        if not self._user.parent.is_dir():
            raise OSError(f"{self._user.parent} is not there")
        self._user.mkdir(mode=0o700, exist_ok=True)
        if not self._is_own():
            raise OSError(f"{self._user} is not a folder of this user alone")
        free = min(shutil.disk_usage(self._user).free, free_memory())
        if free < ROOM * size:
            raise OSError(
                f"a snapshot has {size >> 20} MB, {self._user.parent} has room for {free >> 20} MB"
            )

    def _is_own(self) -> bool:
        return is_private(self._user)

    def _files(self) -> list[Path]:
        return [path for path in self._job.glob(f"*/*{SUFFIX}") if path.stem.isdecimal()]

    def _forget_abandoned(self, is_deleted: Callable[[str], bool]) -> None:
        """Deletes those of trainings that were killed here, and deleted or never submitted again.

        One that was killed a moment ago may go on from its own.
        """
        for place in all_places():
            with suppress(OSError, ColddiffError):
                if place == self._place:
                    continue
                job = place.job
                deleted = job is not None and not place.in_use and is_deleted(job)
                if deleted or time.time() - place.written > ABANDONED_S:
                    place.forget()


def _named(snapshot: Snapshot) -> Iterator[tuple[str, Tensor]]:
    for stem, tensors in snapshot.tensors.items():
        for name, tensor in tensors.items():
            yield f"{stem}/{name}", tensor


def _step(path: Path) -> int:
    return int(path.stem)
