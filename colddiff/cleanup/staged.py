"""Code and jobs that clients on this machine staged, and left when they were killed."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from colddiff.cleanup.leftover import Leftover, leftover
from colddiff.cleanup.ours import STAGING, unlinked
from colddiff.cluster.stage import STAGED
from colddiff.stores.local_store import LocalStore


def staged_here(older_than_s: float) -> Iterable[Leftover]:
    """On this machine: code and jobs staged by clients that were killed while they submitted."""
    place = Path(tempfile.gettempdir())
    store = LocalStore(place)
    # Nothing is written to ask for the time: other users' folders are there, too.
    now = time.time()
    for folder in sorted(place.glob(f"{STAGED}*")):
        if folder.is_symlink() or not folder.is_dir() or folder.lstat().st_uid != os.getuid():
            continue
        if not STAGING.fullmatch(folder.name):
            continue
        # The age of the folder: what was copied into it has the times of the originals.
        if now - folder.lstat().st_mtime >= older_than_s:
            why = "staged by a client that was killed while it submitted"
            if objects := unlinked(store, store.list(f"{folder.name}/")):
                yield leftover("staging", folder.name, why, objects, store)
