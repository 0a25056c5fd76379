"""What tests need from the system: programs that may be missing, and a real S3 service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

LOCAL = Path(__file__).resolve().parents[1] / "infra" / "local"
S3_PROGRAMS = ("ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")


def require(*programs: str) -> None:
    """Skips the test where a program is missing; fails it where COLDDIFF_REQUIRE_SYSTEM is 1."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    reason = f"{', '.join(missing)} not installed; infra/local/install-system-packages does it"
    if os.environ.get("COLDDIFF_REQUIRE_SYSTEM") == "1":
        pytest.fail(f"{reason}, and COLDDIFF_REQUIRE_SYSTEM=1 allows no skip")
    pytest.skip(reason)


def answers(url: str) -> bool:
    """Whether a server responds at ``url``, with whatever page."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@dataclass(frozen=True)
class S3Server:
    """A running ``s3-server``; nothing of it is in this process's environment."""

    folder: Path
    pids: tuple[int, ...]
    environment: dict[str, str]
    """The AWS variables of a client: endpoint, keys, region, checksums."""

    @property
    def endpoint(self) -> str:
        return self.environment["AWS_ENDPOINT_URL"]

    @property
    def access_key(self) -> str:
        return self.environment["AWS_ACCESS_KEY_ID"]

    @property
    def secret(self) -> str:
        return self.environment["AWS_SECRET_ACCESS_KEY"]

    def set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Puts the variables into the environment until the test ends."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def client(self, *, access_key: str | None = None, secret: str | None = None) -> Any:
        """A boto3 client that asks once, with other keys where given; to be closed."""
        from botocore.config import Config

        return _session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=access_key or self.access_key,
            aws_secret_access_key=secret or self.secret,
            region_name=self.environment["AWS_DEFAULT_REGION"],
            config=Config(
                retries={"total_max_attempts": 1},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def bucket(self) -> str:
        """Makes an empty bucket and returns its name."""
        name = f"colddiff-test-{uuid.uuid4().hex[:12]}"
        client = self.client()
        client.create_bucket(Bucket=name)
        client.close()
        return name


@cache
def _session() -> Any:
    # A session reads the service's description, a second of work on a busy machine, once.
    import boto3.session

    return boto3.session.Session()


def s3_command(verb: str, folder: Path, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs ``infra/local/s3-server`` to its end; ``env`` replaces variables of ours."""
    return subprocess.run(
        [sys.executable, str(LOCAL / "s3-server"), verb, "--dir", str(folder), *more],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )


def start_s3(folder: Path) -> S3Server:
    """Starts a service in ``folder``, or finds the one that runs there."""
    require(*S3_PROGRAMS)
    started = s3_command("start", folder, "--json")
    if started.returncode:
        pytest.fail(started.stderr.strip())
    said = json.loads(started.stdout)
    lines = Path(said["credentials"]).read_text().splitlines()
    environment = dict(line.split("=", 1) for line in lines)
    return S3Server(folder, tuple(said["pids"]), environment)


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """A service that ends with the block, or with this process, however that ends."""
    wait_for_us = "import subprocess, sys; sys.stdin.read(); subprocess.call(sys.argv[1:])"
    stop = [sys.executable, str(LOCAL / "s3-server"), "stop", "--dir", str(folder)]
    watch = subprocess.Popen(
        [sys.executable, "-c", wait_for_us, *stop],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield start_s3(folder)
    finally:
        watch.communicate(timeout=60)
