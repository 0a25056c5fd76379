"""The local cluster: one Ray head in its own session, which outlives the process that starts it."""

from __future__ import annotations

import logging
import os
import platform
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from colddiff.cluster.address import Cluster, probe
from colddiff.cluster.forking import RAY_START
from colddiff.cluster.home import ClusterRecord, Home
from colddiff.errors import ClusterError
from colddiff.machine.processes import Process, marked_processes, process, terminate_all

log = logging.getLogger(__name__)

MARKER = "COLDDIFF_CLUSTER_SESSION"
MIN_CPUS = 4
LAST_LINES = 3
ERROR_LINE = re.compile(r"error|exception|fail|cannot|denied|too long|no space", re.IGNORECASE)
START_S = 120.0
STOP_GRACE_S = 5.0
# A socket's path has at most 107 bytes. Below our folder Ray needs 70 of them: the longest of its
# sockets is r/session_<date>_<pid>/sockets/dash_MetricsHead, with a pid of up to 7 digits.
LONGEST_TEMP_DIR = 36
# And below TMPDIR multiprocessing needs 33: /pymp-<8>/listener-<8>.
LONGEST_TMPDIR = 74
# Variables of another cluster, or of a Ray job that this process may be part of.
FOREIGN = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_", "RAY_JOB_", "RAY_CLIENT_MODE")
_TEMP_DIR = "--temp-dir=%s"
PORTS = ("port", "dashboard", "agent")


def running(home: Home) -> ClusterRecord | None:
    """The record of the cluster of ``home``, if it is running."""
    record = home.record()
    return record if record is not None and _head(record) is not None else None


def start(
    home: Home,
    *,
    port: int | None = None,
    dashboard_port: int | None = None,
) -> ClusterRecord:
    """The running cluster of ``home``, started if there is none; it responds when this returns.

    Args:
        home: owner of the cluster; at most one per home.
        port: of Ray's global control store, outside 10002-19999; default: a free one.
        dashboard_port: of the dashboard and Jobs API, on loopback; default: a free one.

    Raises:
        ClusterError: a requested port is in use or differs from that of the running cluster, or the
            head does not start (its remaining processes are ended; the message names its log).
    """
    with home.lock(
        lambda: log.info("waiting for another process that is starting or stopping the cluster")
    ):
        record = running(home)
        if record is not None:
            _same_ports(record, port, dashboard_port)
            if record.runtime != runtime():
                raise ClusterError(
                    f"the local cluster runs {record.runtime}, but this is {runtime()}; "
                    "run `colddiff cluster stop` first"
                )
            _await_answer(home, record)
            return record
        _clean(home)
        ports = _choose_ports(port, dashboard_port)
        return _start(home, ports)


def free_ports() -> dict[str, int]:
    """Ports that a new local cluster could take, by what they are for; OSError without any."""
    return _choose_ports(None, None)


def stop(home: Home) -> bool:
    """Ends every process of the cluster of ``home`` and removes its folder; False if none ran."""
    with home.lock():
        was_running = running(home) is not None
        _clean(home)
        return was_running


def local(home: Home, record: ClusterRecord) -> Cluster:
    """The address and token of the cluster of ``home``."""
    return Cluster(address=record.address, token=home.token(), local=True)


def cluster_environment(home: Home, session: str) -> dict[str, str]:
    """The environment of the head, and so of every job on it.

    That of this process, so that AWS_*, MLFLOW_TRACKING_* and proxies reach the jobs, overlaid with
    ``credentials`` of ``home``: a cluster keeps the environment it was started with.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    # Ray and torch ask for both, and fail where a container's user has no entry in passwd.
    env.setdefault("HOME", str(home.path))
    env.setdefault("USER", "colddiff")
    home.token()
    return (
        env
        | home.credentials()
        | {
            MARKER: session,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(home.token_path),
            "RAY_USAGE_STATS_ENABLED": "0",
            # SIGTERM ends the node immediately; by default it would first drain for 30 s.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        }
    )


def _start(home: Home, ports: Mapping[str, int]) -> ClusterRecord:
    session = secrets.token_hex(4)
    env = cluster_environment(home, session)
    log.info("starting a local Ray cluster on 127.0.0.1:%d (takes ~10 s)", ports["dashboard"])
    temp_dir = _temp_dir(home, session)
    env |= _temporary_files(temp_dir.parent)
    record = None
    try:
        with home.log_path.open("wb") as head_log:
            home.log_path.chmod(0o600)
            head = subprocess.Popen(  # noqa: S603  # our own interpreter and arguments
                _command(ports, temp_dir),
                stdin=subprocess.DEVNULL,
                stdout=head_log,
                stderr=subprocess.STDOUT,
                cwd=home.path,
                env=env,
                start_new_session=True,
            )
        # It outlives this process on purpose; without this Python warns when `head` is collected.
        head.returncode = 0
        record = ClusterRecord(
            pid=head.pid,
            session=session,
            address=f"http://127.0.0.1:{ports['dashboard']}",
            dashboard_port=ports["dashboard"],
            ports=dict(ports),
            token=str(home.token_path),
            log=str(home.log_path),
            temp_dir=str(temp_dir),
            runtime=runtime(),
            started=time.time(),
        )
        # Before it responds: if we crash, the next command finds what it has to end.
        home.write_record(record)
        _await_answer(home, record)
    except BaseException as error:
        if record is not None:
            _append_ray_errors(home, temp_dir)
            _clean(home)
        shutil.rmtree(temp_dir.parent, ignore_errors=True)
        if isinstance(error, ClusterError):
            raise ClusterError(f"{error}; its end: {_last_words(home)}") from None
        raise
    return record


def _last_words(home: Home) -> str:
    """The last lines of the head's log that say something, on one line."""
    try:
        text = home.log_path.read_bytes()[-20_000:].decode(errors="replace")
    except OSError:
        return "(no log)"
    lines = [" ".join(line.split()) for line in text.splitlines()]
    said = [line for line in lines if any(character.isalnum() for character in line)]
    # A line that names an error says more than the last one.
    errors = [line for line in said if ERROR_LINE.search(line)]
    return " | ".join(line[:200] for line in (errors or said)[-LAST_LINES:]) or "(empty)"


def _command(ports: Mapping[str, int], temp_dir: Path) -> list[str]:
    options = {
        "port": ports["port"],
        "dashboard-host": "127.0.0.1",
        "dashboard-port": ports["dashboard"],
        "dashboard-agent-listen-port": ports["agent"],
        # Free ports instead of 10002-19999, which all clusters on a machine would share.
        "min-worker-port": 0,
        "max-worker-port": 0,
        "num-cpus": max(MIN_CPUS, os.cpu_count() or 1),
        "temp-dir": temp_dir,
    }
    return [
        *RAY_START,
        "--head",
        "--block",
        "--include-dashboard=true",
        "--disable-usage-stats",
        *(f"--{name}={value}" for name, value in options.items()),
    ]


def _temp_dir(home: Home, session: str) -> Path:
    """A private folder with a short name, for Ray's sockets and logs."""
    inside = home.path / f"ray-{session}"
    if len(str(inside)) > LONGEST_TEMP_DIR:
        # Not tempfile's choice: TMPDIR may be as long as the home.
        inside = Path(f"/tmp/colddiff-{session}")  # noqa: S108  # made here, 0700, random name
    inside.mkdir(mode=0o700)
    # Ray makes its folder world-writable (0777), so it gets one inside ours.
    return inside / "r"


def _temporary_files(folder: Path) -> dict[str, str]:
    """TMPDIR, where the one that is set is too long for the sockets of Python's own processes."""
    given = os.environ.get("TMPDIR", "")
    return {"TMPDIR": str(folder)} if len(os.fsencode(given)) > LONGEST_TMPDIR else {}


def _choose_ports(port: int | None, dashboard_port: int | None) -> dict[str, int]:
    requested = {"port": port, "dashboard": dashboard_port}
    for name, number in requested.items():
        if number is not None:
            _refuse_taken(number, "--port" if name == "port" else "--dashboard-port")
    # Held open until all are chosen, so that no two are the same.
    with_sockets: list[socket.socket] = []
    chosen = {name: number for name, number in requested.items() if number is not None}
    try:
        while len(chosen) < len(PORTS):
            held = socket.socket()
            with_sockets.append(held)
            held.bind(("", 0))
            number = held.getsockname()[1]
            if not 10002 <= number <= 19999 and number not in chosen.values():
                chosen[next(name for name in PORTS if name not in chosen)] = number
    finally:
        for held in with_sockets:
            held.close()
    return chosen


def _refuse_taken(number: int, option: str) -> None:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("", number))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ClusterError(
                f"{option} {number} cannot be used ({reason}); choose another or omit the option"
            ) from None


def runtime() -> str:
    """Versions of Ray and Python that a cluster started now would have."""
    return f"ray {version('ray')} on python {platform.python_version()}"


def _same_ports(record: ClusterRecord, port: int | None, dashboard_port: int | None) -> None:
    for option, requested, has in (
        ("--port", port, record.ports.get("port")),
        ("--dashboard-port", dashboard_port, record.dashboard_port),
    ):
        if requested is not None and requested != has:
            raise ClusterError(
                f"the local cluster already runs with {option} {has}; "
                "run `colddiff cluster stop` first"
            )


def _await_answer(home: Home, record: ClusterRecord) -> None:
    deadline = time.monotonic() + START_S
    cluster, missing = local(home, record), 0
    while True:
        try:
            probe(cluster, timeout_s=5.0)
            return
        except ClusterError as error:
            reason = str(error)
        # Twice: a process that has just been started has no command line for a moment.
        missing = missing + 1 if _head(record) is None else 0
        if missing >= 2:
            raise ClusterError(f"the local cluster did not start; its log is {record.log}")
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the local cluster did not respond in {START_S:.0f} s ({reason}); its log is "
                f"{record.log}"
            )
        time.sleep(0.2)


def _head(record: ClusterRecord) -> Process | None:
    head = process(record.pid)
    # The pid may have been reused by another program, and the record is a file that could have been
    # edited: ours has its folder, which is named after its session, on its command line.
    ours = head is not None and _is_ours(record) and _TEMP_DIR % record.temp_dir in head.command
    return head if ours else None


def _is_ours(record: ClusterRecord) -> bool:
    """Whether the folder of a record is one that we have named."""
    name = Path(record.temp_dir).parent.name
    return name in (f"ray-{record.session}", f"colddiff-{record.session}")


def _clean(home: Home) -> None:
    record = home.record()
    if record is None:
        return

    def members() -> set[Process]:
        leader = process(record.pid)
        others = leader is not None and _head(record) is None
        return marked_processes(f"{MARKER}={record.session}", None if others else record.pid)

    survivors = terminate_all(members, STOP_GRACE_S)
    if survivors:
        numbers = ", ".join(str(item.pid) for item in survivors)
        raise ClusterError(f"processes {numbers} of the local cluster could not be ended")
    folder = Path(record.temp_dir).parent
    if _is_ours(record):
        shutil.rmtree(folder, ignore_errors=True)
    home.record_path.unlink(missing_ok=True)


def _append_ray_errors(home: Home, temp_dir: Path) -> None:
    # The head's output rarely has the reason; Ray's logs do, but the temporary folder is removed.
    with home.log_path.open("ab") as log:
        for path in sorted(temp_dir.glob("session_2*/logs/*")):
            if path.suffix in (".err", ".out", ".log") and path.is_file():
                lines = path.read_bytes().splitlines()[-20:]
                if lines:
                    log.write(b"\n".join([b"", f"== {path.name}".encode(), *lines, b""]))
