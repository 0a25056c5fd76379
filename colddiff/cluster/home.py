"""This machine's own state of colddiff: the local cluster's record, token, credentials and log."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import BinaryIO

from colddiff.errors import ClusterError

PRIVATE_DIR, PRIVATE_FILE = 0o700, 0o600


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """What is known of a local cluster once it is started (``cluster.json``)."""

    pid: int
    """Process, session and process group of the Ray head."""
    session: str
    """Marks every process of this cluster, through its environment."""
    address: str
    """Dashboard and Jobs API, on loopback."""
    dashboard_port: int
    ports: dict[str, int] = field(default_factory=dict)
    token: str = ""
    """Path of the token's file."""
    log: str = ""
    temp_dir: str = ""
    runtime: str = ""
    """Versions of Ray and Python that a job's driver must share."""
    started: float = 0.0
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Home:
    """``COLDDIFF_HOME``, a folder of the user's that nobody else can read."""

    path: Path

    @classmethod
    def from_environment(cls) -> Home:
        """COLDDIFF_HOME, else ``~/.colddiff``; nothing is created yet."""
        return cls(Path(os.environ.get("COLDDIFF_HOME") or "~/.colddiff").expanduser().absolute())

    @property
    def record_path(self) -> Path:
        """The running cluster's ``cluster.json``."""
        return self.path / "cluster.json"

    @property
    def log_path(self) -> Path:
        """What the Ray head prints."""
        return self.path / "cluster.log"

    @property
    def token_path(self) -> Path:
        """The token every request to the local cluster must carry."""
        return self.path / "token"

    @property
    def credentials_path(self) -> Path:
        """``NAME=value`` lines that the local cluster's processes get in their environment."""
        return self.path / "credentials"

    def make(self) -> None:
        """Creates the folder, mode 0700; one that is there already is closed to others."""
        try:
            self.path.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
            self.path.chmod(PRIVATE_DIR)
        except OSError as error:
            raise ClusterError(
                f"{self.path} cannot be made a private folder ({error.strerror}); set "
                "COLDDIFF_HOME to one of yours"
            ) from None

    def token(self) -> str:
        """The token, made on first use (mode 0600)."""
        self.make()
        try:
            with _create_private(self.token_path) as file:
                file.write(secrets.token_hex(32).encode())
        except FileExistsError:
            self.token_path.chmod(PRIVATE_FILE)
        return self.token_path.read_text().strip()

    def credentials(self) -> dict[str, str]:
        """What ``credentials`` says, refused where other users could read it."""
        try:
            mode = self.credentials_path.stat().st_mode
        except FileNotFoundError:
            return {}
        if mode & 0o077:
            raise ClusterError(
                f"{self.credentials_path} can be read by others; run `chmod 600` on it"
            )
        found = {}
        for number, line in enumerate(self.credentials_path.read_text().splitlines(), start=1):
            line = line.strip().removeprefix("export ")
            if not line or line.startswith("#"):
                continue
            name, equals, value = line.partition("=")
            if not equals or not name.strip().isidentifier():
                # The line itself may hold a secret: only its number is told.
                raise ClusterError(f"{self.credentials_path} line {number}: expected NAME=value")
            found[name.strip()] = value.strip().strip("\"'")
        return found

    def record(self) -> ClusterRecord | None:
        """The last cluster started here, alive or not."""
        try:
            data = json.loads(self.record_path.read_text())
            names = {item.name for item in fields(ClusterRecord)}
            return ClusterRecord(**{key: data[key] for key in data if key in names})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise ClusterError(
                f"{self.record_path} is damaged; end its processes if there are any, then delete it"
            ) from None

    def write_record(self, record: ClusterRecord) -> None:
        """Replaces ``cluster.json`` in one go."""
        half = self.record_path.with_suffix(".new")
        half.unlink(missing_ok=True)
        with _create_private(half) as file:
            file.write(json.dumps(asdict(record), indent=2).encode())
        half.replace(self.record_path)

    @contextmanager
    def lock(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """One process at a time starts or stops the cluster; ``waiting`` is called before a wait.

        The kernel frees the lock of a process that died.
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
