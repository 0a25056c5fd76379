"""The S3 service for development: as strict as a real one, private, and gone when it is stopped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.kills import wait_until
from tests.loopback_slurm import PROGRAMS as SLURM_PROGRAMS
from tests.system import LOCAL, S3_PROGRAMS, S3Server, require, s3_command, start_s3

pytestmark = [pytest.mark.system, pytest.mark.cluster]


@pytest.fixture
def client(s3_server: S3Server) -> Iterator[Any]:
    client = s3_server.client()
    yield client
    client.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a test starts a service of its own, which never outlives it."""
    yield tmp_path / "s3"
    s3_command("stop", tmp_path / "s3")


def refused(call: Callable[[], object]) -> tuple[int, str]:
    """HTTP status and S3's name for why ``call`` was refused."""
    with pytest.raises(ClientError) as caught:
        call()
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def alive(pids: tuple[int, ...]) -> list[int]:
    """Those that run; a zombie has ended."""
    stats = [Path(f"/proc/{pid}/stat") for pid in pids]
    running = [stat for stat in stats if stat.exists()]
    return [
        int(s.parent.name) for s in running if s.read_text().rpartition(")")[2].split()[0] != "Z"
    ]


def marked(folder: Path) -> list[str]:
    """Command lines of all processes that belong to the service in ``folder``."""
    mark = f"COLDDIFF_S3_SERVER={folder}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environ.read_bytes().split(b"\0"):
                found.append((environ.parent / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_what_is_put_is_read_back(s3_server: S3Server, client: Any) -> None:
    bucket = s3_server.bucket()
    client.put_object(Bucket=bucket, Key="a/b c", Body=b"\0cold")
    assert client.get_object(Bucket=bucket, Key="a/b c")["Body"].read() == b"\0cold"
    assert [item["Key"] for item in client.list_objects_v2(Bucket=bucket)["Contents"]] == ["a/b c"]


def test_a_second_conditional_put_is_refused(s3_server: S3Server, client: Any) -> None:
    bucket = s3_server.bucket()
    client.put_object(Bucket=bucket, Key="claim", Body=b"first", IfNoneMatch="*")
    again = lambda: client.put_object(Bucket=bucket, Key="claim", Body=b"2nd", IfNoneMatch="*")  # noqa: E731
    assert refused(again) == (412, "PreconditionFailed")
    assert client.get_object(Bucket=bucket, Key="claim")["Body"].read() == b"first"


def test_wrong_keys_are_refused(s3_server: S3Server) -> None:
    bucket = s3_server.bucket()
    for keys, name in (
        ({"secret": "a wrong secret"}, "SignatureDoesNotMatch"),
        ({"access_key": "NOBODY"}, "InvalidAccessKeyId"),
    ):
        stranger = s3_server.client(**keys)
        assert refused(lambda: stranger.list_objects_v2(Bucket=bucket)) == (403, name)  # noqa: B023
        stranger.close()


def test_a_body_that_is_not_its_digest_is_refused(s3_server: S3Server, client: Any) -> None:
    bucket = s3_server.bucket()
    put = {"Bucket": bucket, "Key": "k", "Body": b"x", "ContentMD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}
    assert refused(lambda: client.put_object(**put)) == (400, "BadDigest")
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_a_shard_of_100_mb_goes_in_one_put(s3_server: S3Server, client: Any) -> None:
    bucket = s3_server.bucket()
    data = os.urandom(1 << 20) * 100
    client.put_object(Bucket=bucket, Key="shard", Body=data, IfNoneMatch="*")
    stored = client.get_object(Bucket=bucket, Key="shard")["Body"].read()
    assert hashlib.sha256(stored).digest() == hashlib.sha256(data).digest()
    client.delete_object(Bucket=bucket, Key="shard")


def test_keys_are_their_owners_alone(s3_server: S3Server) -> None:
    credentials = s3_server.folder / "credentials.env"
    assert credentials.stat().st_mode & 0o777 == 0o600
    assert s3_server.folder.stat().st_mode & 0o777 == 0o700
    assert len(s3_server.secret) >= 32
    plain, as_json = (s3_command("status", s3_server.folder, *more) for more in ((), ("--json",)))
    said = "".join((plain.stdout, plain.stderr, as_json.stdout, as_json.stderr))
    assert str(credentials) in said
    assert s3_server.endpoint in said
    for key in (s3_server.secret, s3_server.access_key):
        assert key not in said
        assert not any(key in command for command in marked(s3_server.folder))
    logs = "".join(log.read_text() for log in (s3_server.folder / "log").iterdir())
    assert s3_server.secret not in logs


def test_only_this_machine_can_connect(s3_server: S3Server) -> None:
    sockets = set()
    for pid in s3_server.pids:
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            sockets.add(str(handle.readlink()).removeprefix("socket:[").removesuffix("]"))
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and inode in sockets:
                listening.append(local.split(":")[0])
    loopback = socket.inet_aton("127.0.0.1")[::-1].hex().upper()
    assert len(listening) >= 3
    assert set(listening) == {loopback}


def test_a_service_lives_until_it_is_stopped(folder: Path) -> None:
    with ThreadPoolExecutor() as pool:
        first, also_first = pool.map(start_s3, (folder, folder))
    assert also_first == first
    other = s3_command("start", folder, "--port", "19")
    assert (other.returncode, other.stdout) == (1, "")
    assert f"uses port {first.endpoint.rpartition(':')[2]}; stop it first" in other.stderr

    for pid in first.pids:
        os.kill(pid, signal.SIGKILL)
    while alive(first.pids):
        time.sleep(0.02)
    dead = s3_command("status", folder)
    assert (dead.returncode, dead.stdout) == (1, "")

    second = start_s3(folder)
    assert second.secret != first.secret
    assert second.bucket()
    stopped = s3_command("stop", folder)
    assert (stopped.returncode, stopped.stdout) == (0, "")
    assert alive(second.pids) == []
    assert not folder.exists()
    assert s3_command("stop", folder).returncode == 0


def test_a_start_that_fails_says_why_and_leaves_no_process(folder: Path) -> None:
    require(*S3_PROGRAMS)
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        failed = s3_command("start", folder, "--port", port)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == (
        f"s3-server: port {port} is in use; choose another with --port; log: {folder / 'log'}\n"
    )
    s3_command("stop", folder)
    assert list(folder.iterdir()) == []  # it was there before


def test_a_daemon_that_ends_by_itself_is_named(folder: Path, tmp_path: Path) -> None:
    require(*S3_PROGRAMS)
    # The real programs, but for a gateway that cannot run.
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "radosgw").write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    (programs / "radosgw").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    failed = s3_command("start", folder, PATH=path)
    assert failed.returncode == 1
    assert failed.stderr == f"s3-server: radosgw exited unexpectedly; log: {folder / 'log'}\n"
    assert (folder / "log" / "radosgw.err").read_text() == "no such luck\n"
    assert marked(folder) == []


def test_an_interrupted_start_leaves_no_process(folder: Path) -> None:
    require(*S3_PROGRAMS)
    command = [sys.executable, str(LOCAL / "s3-server"), "start", "--dir", str(folder)]
    starting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not any("ceph-mon\0-c\0ceph.conf\0-f" in line for line in marked(folder)):
        assert starting.poll() is None
    starting.terminate()
    assert starting.wait(30) == 128 + signal.SIGTERM
    assert marked(folder) == []


def test_a_service_of_the_tests_ends_with_them_even_when_they_are_killed(folder: Path) -> None:
    require(*S3_PROGRAMS)
    script = (
        "import os, pathlib, sys; from tests.system import running_s3\n"
        "with running_s3(pathlib.Path(sys.argv[1])) as server:\n"
        "    print(*server.pids, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", script, str(folder)]
    killed = subprocess.run(
        command, cwd=LOCAL.parents[1], stdout=subprocess.PIPE, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    pids = tuple(int(pid) for pid in killed.stdout.split())
    assert len(pids) == 3
    wait_until(lambda: not folder.exists(), "the end of the service")
    assert alive(pids) == []


def test_a_folder_of_somebody_else_is_left_alone(folder: Path) -> None:
    require(*S3_PROGRAMS)
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    failed = s3_command("start", folder)
    assert failed.returncode == 1
    assert "has other content; choose another folder with --dir" in failed.stderr
    assert s3_command("stop", folder).returncode == 0
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("thesis.txt", "mine")]


def test_missing_programs_are_named_with_what_installs_them(folder: Path) -> None:
    failed = s3_command("start", folder, PATH="/nowhere")
    assert failed.returncode == 1
    assert failed.stderr.startswith("s3-server: ceph-authtool, ceph-mon, ")
    assert "infra/local/install-system-packages" in failed.stderr
    assert not folder.exists()


def test_the_status_of_nothing(folder: Path) -> None:
    status = s3_command("status", folder, "--json")
    assert status.returncode == 1
    said = json.loads(status.stdout)
    assert (said["running"], said["endpoint"], said["pids"]) == (False, None, [])


def test_installing_twice_installs_nothing() -> None:
    require(*S3_PROGRAMS, *SLURM_PROGRAMS)
    install = subprocess.run(
        [LOCAL / "install-system-packages"], capture_output=True, text=True, check=False
    )
    assert (install.returncode, install.stdout) == (0, "")
    assert install.stderr == "system packages: nothing to install\n"


def test_what_cannot_be_installed_is_named(tmp_path: Path) -> None:
    bash, identify = shutil.which("bash"), shutil.which("id")
    assert bash
    assert identify
    (tmp_path / "id").symlink_to(identify)
    install = subprocess.run(
        [bash, LOCAL / "install-system-packages"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert install.returncode == 1
    assert install.stderr.startswith("system packages: ")
    assert all(program in install.stderr for program in S3_PROGRAMS)


def test_a_missing_program_skips_or_fails_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLDDIFF_REQUIRE_SYSTEM", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no-such-program not installed; .*packages"):
        require("python3", "no-such-program")
    monkeypatch.setenv("COLDDIFF_REQUIRE_SYSTEM", "1")
    with pytest.raises(pytest.fail.Exception, match=r"no-such-program not installed; .*packages"):
        require("python3", "no-such-program")
    require("python3")
