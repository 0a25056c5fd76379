"""MLflow as a team runs it: on PostgreSQL, with a password."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from tests.kills import PATIENCE_S, kill
from tests.system import LOCAL, answers, require


@dataclass
class TrackingServer:
    """``infra/local/tracking-server`` in a folder; it can be stopped and started again."""

    folder: Path
    port: int
    artifacts: str
    env: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs: address, name and password."""
        lines = (self.folder / "credentials.env").read_text().splitlines()
        address = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.port}"}
        return address | dict(line.split("=", 1) for line in lines)

    def start(self) -> None:
        """Returns once it answers."""
        words = [str(LOCAL / "tracking-server"), str(self.folder), str(self.port), self.artifacts]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                words, env=dict(self.env), stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + PATIENCE_S
        while not answers(f"http://127.0.0.1:{self.port}/health"):
            said = (self.folder / "log").read_text(errors="replace")[-2000:]
            if self.process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"the tracking server does not start: {said}")
            time.sleep(0.5)

    def stop(self) -> None:
        """Ends it and its database."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=PATIENCE_S)
            self.process = None

    def kill(self) -> None:
        """Ends both at once and without a word, as when their machine loses power."""
        assert self.process is not None
        lock, socket = self.folder / "postgres" / "postmaster.pid", self._socket()
        database = psutil.Process(int(lock.read_text().split()[0]))
        backends = [database, *database.children()]
        kill([database.pid])
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=PATIENCE_S)
        self.process = None
        psutil.wait_procs(backends, timeout=PATIENCE_S)
        shutil.rmtree(socket)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What its database has."""
        password = (self.folder / "database-password").read_text()
        connection = psycopg2.connect(
            host=str(self._socket()), user="mlflow", password=password, dbname="mlflow"
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def _socket(self) -> Path:
        """The folder of the database's socket, as its newest start said."""
        said = (self.folder / "log").read_text(errors="replace").splitlines()
        newest = [line for line in said if line.startswith("PGHOST=")][-1]
        return Path(newest.partition("PGHOST=")[2].split()[0])


@contextmanager
def running_tracking_server(port: int, artifacts: str, **env: str) -> Iterator[TrackingServer]:
    """Within ``with``, one in a folder of its own; ``env``: that of the bucket."""
    require("pg_ctlcluster")
    # Not in pytest's folders: PostgreSQL's user, which is not root, must reach it.
    folder = Path(tempfile.mkdtemp(prefix="colddiff-tracking-", dir="/tmp"))
    found = {**os.environ, "PYTHON": sys.executable, **env}
    server = TrackingServer(folder, port, artifacts, found)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
