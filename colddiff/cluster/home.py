"""COLDDIFF_HOME: the local cluster's record, token, credentials and log on this machine."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import Field

from colddiff.errors import ClusterError, RecordError
from colddiff.spec.documents import DocumentError, as_record, read_json_object
from colddiff.stores.paths import absolute_path

PRIVATE_DIR, PRIVATE_FILE = 0o700, 0o600


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """The record of a started local cluster (``cluster.json``)."""

    pid: int
    """Process, session and process group of the Ray head."""
    session: Annotated[str, Field(pattern="^[0-9a-f]+$")]
    """Marks every process of this cluster, in its environment."""
    address: str
    """URL of the dashboard and Jobs API, on loopback."""
    dashboard_port: int
    ports: dict[str, int] = field(default_factory=dict)
    token: str = ""
    """Path of the token file."""
    log: str = ""
    temp_dir: str = ""
    runtime: str = ""
    """Versions of Ray and Python that a job's driver must have too."""
    started: float = 0.0
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Home:
    """``COLDDIFF_HOME``, a private folder of the user (mode 0700)."""

    path: Path

    @classmethod
    def from_environment(cls) -> Home:
        """COLDDIFF_HOME, else ``~/.colddiff``; creates nothing. SpecError if there is no home."""
        named = os.environ.get("COLDDIFF_HOME") or "~/.colddiff"
        return cls(absolute_path(named, "set COLDDIFF_HOME to a folder that you own"))

    @property
    def record_path(self) -> Path:
        """The running cluster's ``cluster.json``."""
        return self.path / "cluster.json"

    @property
    def log_path(self) -> Path:
        """The output of the Ray head."""
        return self.path / "cluster.log"

    @property
    def token_path(self) -> Path:
        """The token that every request to the local cluster must carry."""
        return self.path / "token"

    @property
    def credentials_path(self) -> Path:
        """``NAME=value`` lines for the environment of the local cluster's processes."""
        return self.path / "credentials"

    def make(self) -> None:
        """Creates the folder, or makes an existing one private (mode 0700); ClusterError."""
        try:
            self.path.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
            self.path.chmod(PRIVATE_DIR)
        except OSError as error:
            raise ClusterError(
                f"{self.path} cannot be made a private folder ({error.strerror}); set "
                "COLDDIFF_HOME to a folder that you own"
            ) from None

    def _unusable(self, path: Path, error: OSError) -> ClusterError:
        return ClusterError(
            f"{path} cannot be used ({error.strerror}); set COLDDIFF_HOME to a folder that you own"
        )

    def token(self) -> str:
        """The token, created on first use (mode 0600)."""
        self.make()
        try:
            with _create_private(self.token_path) as file:
                file.write(secrets.token_hex(32).encode())
        except FileExistsError:
            pass
        except OSError as error:
            raise self._unusable(self.token_path, error) from None
        try:
            self.token_path.chmod(PRIVATE_FILE)
            return self.token_path.read_bytes().decode("ascii").strip()
        except OSError as error:
            raise self._unusable(self.token_path, error) from None
        except UnicodeDecodeError:
            raise RecordError(f"{self.token_path} is not a token; delete it") from None

    def credentials(self) -> dict[str, str]:
        """The variables in ``credentials``; ClusterError if other users could read the file."""
        try:
            mode = self.credentials_path.stat().st_mode
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unusable(self.credentials_path, error) from None
        if mode & 0o077:
            raise ClusterError(
                f"{self.credentials_path} can be read by others; run `chmod 600` on it"
            )
        found = {}
        try:
            text = self.credentials_path.read_text(encoding="utf-8")
        except OSError as error:
            raise self._unusable(self.credentials_path, error) from None
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise ClusterError(f"{self.credentials_path} is not text: expected NAME=value lines")
        for number, line in enumerate(text.splitlines(), start=1):
            line = line.strip().removeprefix("export ")
            if not line or line.startswith("#"):
                continue
            name, equals, value = line.partition("=")
            if not equals or not name.strip().isidentifier():
                # The line itself may hold a secret: report only its number.
                raise ClusterError(f"{self.credentials_path} line {number}: expected NAME=value")
            found[name.strip()] = value.strip().strip("\"'")
        return found

    def record(self) -> ClusterRecord | None:
        """The last cluster started here, running or not; ClusterError if the record is damaged."""
        try:
            data = self.record_path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unusable(self.record_path, error) from None
        try:
            return as_record(ClusterRecord, read_json_object(data))
        except DocumentError as error:
            raise RecordError(
                f"{self.record_path} {error}; end the cluster's processes, if any, and delete it"
            ) from None

    def write_record(self, record: ClusterRecord) -> None:
        """Replaces ``cluster.json`` atomically."""
        half = self.record_path.with_suffix(".new")
        half.unlink(missing_ok=True)
        with _create_private(half) as file:
            file.write(json.dumps(asdict(record), indent=2).encode())
        half.replace(self.record_path)

    @contextmanager
    def lock(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Lets one process at a time start or stop the cluster; calls ``waiting`` before it blocks.

        The kernel releases the lock when a process dies.
        """
        self.make()
        with (self.path / "cluster.lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _create_private(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE), "wb")
