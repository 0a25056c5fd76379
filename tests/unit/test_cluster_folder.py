"""Ray's sockets fit below whatever COLDDIFF_HOME is."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pytest

from colddiff.cluster.home import Home
from colddiff.cluster.local_cluster import _temp_dir

LONGEST_BELOW = "session_2026-11-23_06-59-04_178123_4194304/sockets/dash_MetricsHead"


@pytest.mark.parametrize("length", [8, 18, 22, 23, 27, 60])
def test_the_longest_socket_of_ray_has_a_path_of_at_most_107_bytes(length: int) -> None:
    name = uuid.uuid4().hex
    home = Path("/tmp") / (name * 3)[: length - len("/tmp/")]
    home.mkdir()
    folder = None
    try:
        folder = _temp_dir(Home(home), name[:8])
        assert len(f"{folder}/{LONGEST_BELOW}") <= 107
        assert folder.parent.stat().st_mode & 0o077 == 0
    finally:
        shutil.rmtree(home)
        if folder is not None:
            shutil.rmtree(folder.parent, ignore_errors=True)
