"""`colddiff doctor`: what this machine, the cluster, the store and the tracker lack."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import typer

from colddiff import __version__
from colddiff.cli.options import Address, Json, Storage
from colddiff.cli.output import emit, emit_json, one_line
from colddiff.cli.progress import said_if_slow

PACKAGES = ("torch", "ray", "mlflow", "numpy", "pydantic", "boto3", "webdataset")
SHM = Path("/dev/shm")  # noqa: S108  # looked at, not written to
GIB = 2**30
LOW_SHM, LOW_DISK, NO_DISK = 1 * GIB, 5 * GIB, 0.5 * GIB
"""Bytes below which shared memory and a disk are worth a line, and a disk is full."""


@dataclass(frozen=True, slots=True)
class CheckedPart:
    """One thing that was looked at: a line, with the way out where it is not all right."""

    name: str
    state: Literal["ok", "note", "wrong"]
    what: str
    way_out: str = ""


def doctor(address: Address = None, storage: Storage = None, as_json: Json = False) -> None:
    """Check what this machine and cluster lack. Versions, Ray, token, ports, shared memory, store,
    tracker and GPU, a line each.

    Changes nothing, and starts nothing here. On a cluster whose address is given, a small job asks
    each node whether it reaches the store and the tracker, for a minute at most. Exit code 1 if
    something is wrong. Its output (or that of `--json`) is what a report of an issue needs.
    """
    found = list(examine(address, storage))
    wrong = [finding.name for finding in found if finding.state == "wrong"]
    if as_json:
        emit_json({"ok": not wrong, "findings": [asdict(finding) for finding in found]})
    else:
        width = max(len(finding.name) for finding in found)
        for finding in found:
            way = f": {finding.way_out}" if finding.way_out else ""
            line = f"{finding.state:<5}  {finding.name:<{width}}  {finding.what}{way}"
            emit(one_line(line))
    raise typer.Exit(1 if wrong else 0)


def examine(address: str | None = None, storage: str | None = None) -> Iterator[CheckedPart]:
    """All findings, in the order in which they matter to each other."""
    checks: tuple[tuple[str, Callable[[], CheckedPart | list[CheckedPart]]], ...] = (
        ("machine", _machine),
        ("versions", _versions),
        ("home", _home),
        ("token", lambda: _token(address)),
        ("Ray", lambda: _ray(address)),
        ("ports", _ports),
        ("shm", _shared_memory),
        ("GPU", _gpu),
        ("store", lambda: _store(storage)),
        ("disk", lambda: _disk(storage)),
        ("tracker", lambda: _tracker(storage)),
        ("features", _features),
    )
    responds = True
    for name, check in checks:
        for found in _checked(name, check, _waits(name, address, storage)):
            responds = responds and not (name == "Ray" and found.state == "wrong")
            yield found
    if responds:
        waits = _waits("nodes", address, storage)
        yield from _checked("nodes", lambda: _nodes(address, storage), waits)


def _checked(
    name: str, check: Callable[[], CheckedPart | list[CheckedPart]], waits: str
) -> list[CheckedPart]:
    """What a check finds; an error of it is a finding."""
    from colddiff.errors import ColddiffError

    try:
        with said_if_slow(waits):
            found = check()
        return [found] if isinstance(found, CheckedPart) else found
    except ColddiffError as error:
        # Its message ends with the way out.
        return [CheckedPart(name, "wrong", " ".join(str(error).split()))]
    except OSError as error:
        return [CheckedPart(name, "wrong", f"{error.strerror or error} ({error.filename or ''})")]


def _waits(name: str, address: str | None, storage: str | None) -> str:
    """What a check asks outside this machine, and how long it waits for an answer at most."""
    from colddiff.cluster.address import PROBE_S, given_address
    from colddiff.errors import ColddiffError
    from colddiff.stores.open import storage_at
    from colddiff.tracking.open import PROBE_S as TRACKER_S
    from colddiff.tracking.open import tracking_uri

    place, _ = given_address(address) or ("the local cluster", "")
    try:
        if name == "Ray":
            return f"waiting for {place} to respond, {PROBE_S:.0f} s at most for an answer"
        if name == "nodes":
            from colddiff.cluster.nodes.ask import WAIT_S

            return (
                f"waiting for the nodes of {place} to say what they reach, {WAIT_S:.0f} s at most"
            )
        if name == "store":
            return f"waiting for the store {storage_at(storage)}"
        if name == "tracker":
            tracker = tracking_uri(storage_at(storage))
            return f"waiting for the tracker {tracker}, {TRACKER_S:.0f} s at most for an answer"
    except ColddiffError:
        pass  # said by the check itself
    return ""


def _machine() -> CheckedPart:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    what = f"{platform.platform()}, {cpus} CPUs, {memory:.0f} GiB"
    return CheckedPart("machine", "ok", f"{what}, Python {platform.python_version()}")


def _versions() -> CheckedPart:
    found, missing = [f"colddiff {__version__}"], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        way = f"python -m pip install {' '.join(missing)}, in the environment of `colddiff`"
        return CheckedPart("versions", "wrong", f"{', '.join(missing)} not installed", way)
    return CheckedPart("versions", "ok", ", ".join(found))


def _home() -> CheckedPart:
    from colddiff.cluster.home import Home

    home = Home.from_environment()
    place = _existing(home.path)
    if not _takes_files(place):
        way = "set COLDDIFF_HOME to a folder that you own"
        return CheckedPart("home", "wrong", f"{place} cannot be written", way)
    home.credentials()
    made = "" if home.path.exists() else ", made when it is needed"
    return CheckedPart("home", "ok", f"{home.path}{made}")


def _token(address: str | None) -> CheckedPart:
    from colddiff.cluster.address import given_address, given_token
    from colddiff.cluster.home import PRIVATE_FILE, Home

    if given_address(address) is not None:
        token, way = given_token(), "set RAY_AUTH_TOKEN_PATH to the file that holds it"
        if token.text:
            return CheckedPart("token", "ok", f"there is one in {token.source}")
        if token.problem:
            return CheckedPart("token", "wrong", token.problem, way)
        what = "none is given; a cluster that requires a token refuses"
        return CheckedPart("token", "note", what, way)
    path = Home.from_environment().token_path
    if not path.exists():
        return CheckedPart("token", "ok", "of the local cluster: made at its first start")
    mode = path.stat().st_mode & 0o777
    if mode != PRIVATE_FILE or not os.access(path, os.R_OK):
        what = f"{path} has mode {mode:o}, not {PRIVATE_FILE:o}"
        return CheckedPart("token", "wrong", what, f"run `chmod 600 {path}`")
    return CheckedPart("token", "ok", f"{path}, readable by you alone")


def _ray(address: str | None) -> CheckedPart:
    from colddiff.cluster import local_cluster
    from colddiff.cluster.address import probe
    from colddiff.cluster.connect import given_cluster
    from colddiff.cluster.home import Home
    from colddiff.cluster.versions import refuse_other_versions
    from colddiff.errors import SpecError

    home = Home.from_environment()
    given = given_cluster(address, home)
    if given is not None:
        cluster = probe(given)
        try:
            refuse_other_versions(cluster)
        except SpecError as error:
            what, _, way = str(error).partition(": ")
            return CheckedPart("Ray", "wrong", what, way)
        return CheckedPart("Ray", "ok", f"responds at {cluster}")
    record = local_cluster.running(home)
    if record is None:
        return CheckedPart("Ray", "ok", "no local cluster runs; the next submit starts one")
    probe(local_cluster.local(home, record))
    here = local_cluster.runtime()
    if record.runtime != here:
        what = f"the local cluster runs {record.runtime}, this is {here}"
        return CheckedPart("Ray", "wrong", what, "run `colddiff cluster stop`")
    return CheckedPart("Ray", "ok", f"the local cluster responds at {record.address}, {here}")


def _nodes(address: str | None, storage: str | None) -> list[CheckedPart]:
    """A line for each node of the cluster whose address is given, on what it reaches."""
    from colddiff.cluster.connect import given_cluster
    from colddiff.cluster.home import Home
    from colddiff.cluster.nodes.ask import ask_nodes
    from colddiff.errors import ClusterError, SpecError
    from colddiff.stores.open import storage_at
    from colddiff.tracking.open import tracking_uri

    try:
        cluster = given_cluster(address, Home.from_environment())
        if cluster is None:
            return []
        place = storage_at(storage)
        tracker = tracking_uri(place)
    except (ClusterError, SpecError):
        return []  # said above
    found = []
    for one in ask_nodes(cluster, place, tracker):
        if not one.unreached:
            what = f"{one.node} reaches {place} and {tracker}"
            found.append(CheckedPart("node", "ok", what))
        found += [CheckedPart("node", "wrong", f"{one.node}: {what}") for what in one.unreached]
    return found


def _ports() -> CheckedPart:
    from colddiff.cluster import local_cluster
    from colddiff.cluster.home import Home

    record = local_cluster.running(Home.from_environment())
    if record is not None:
        taken = ", ".join(f"{name} {port}" for name, port in sorted(record.ports.items()))
        return CheckedPart("ports", "ok", f"of the local cluster: {taken}")
    try:
        free = local_cluster.free_ports()
    except OSError as error:
        way = "end what holds them, or raise net.ipv4.ip_local_port_range"
        return CheckedPart("ports", "wrong", f"no free ports ({error.strerror})", way)
    return CheckedPart("ports", "ok", f"{len(free)} free ones for a local cluster, on loopback")


def _shared_memory() -> CheckedPart:
    if not SHM.is_dir():
        return CheckedPart("shm", "note", f"{SHM} is not there; Ray keeps its objects on a disk")
    there = shutil.disk_usage(SHM)
    what = f"{SHM}: {there.free / GIB:.2g} of {there.total / GIB:.2g} GiB free"
    if there.free >= LOW_SHM:
        return CheckedPart("shm", "ok", what)
    way = "in a container, start it with --shm-size=2g; Ray's objects go to a disk else"
    return CheckedPart("shm", "note", what, way)


def _gpu() -> CheckedPart:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return CheckedPart("GPU", "ok", f"{', '.join(names)}; CUDA {torch.version.cuda}")
    if shutil.which("nvidia-smi") is None:
        return CheckedPart("GPU", "ok", "none here; jobs run on CPUs")
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs only"
    what = f"there is an NVIDIA driver, and torch {torch.__version__} (for {build}) cannot use it"
    way = "install the build of torch for its CUDA version (pytorch.org), or update the driver"
    return CheckedPart("GPU", "wrong", what, way)


def _store(storage: str | None) -> CheckedPart:
    from colddiff.stores.open import check_writable, storage_at

    place = storage_at(storage)
    if "://" not in place and not Path(place).exists():
        above = _existing(Path(place))
        if not _takes_files(above):
            way = "set COLDDIFF_STORAGE to a path or s3://bucket/prefix that you can write"
            return CheckedPart("store", "wrong", f"{above} cannot be written", way)
        return CheckedPart("store", "ok", f"{place}, made when it is needed")
    check_writable(place)
    if "://" not in place and (mode := Path(place).stat().st_mode & 0o777) & 0o007:
        what = f"{place} can be written, and is open to all users of this machine (mode {mode:o})"
        return CheckedPart(
            "store", "note", what, f"run `chmod -R go= {place}` unless it is shared on purpose"
        )
    return CheckedPart("store", "ok", f"{place} can be written")


def _disk(storage: str | None) -> CheckedPart:
    from colddiff.stores.open import free_bytes, storage_at

    free = free_bytes(storage_at(storage))
    if free is None:
        return CheckedPart("disk", "ok", "the store is a bucket")
    what = f"{free / GIB:.3g} GiB free in the store"
    way = "free some, lower `keep`, or set COLDDIFF_STORAGE to another disk"
    if free < NO_DISK:
        return CheckedPart("disk", "wrong", what, way)
    return (
        CheckedPart("disk", "note", what, way)
        if free < LOW_DISK
        else CheckedPart("disk", "ok", what)
    )


def _tracker(storage: str | None) -> CheckedPart:
    from colddiff.stores.open import storage_at
    from colddiff.tracking.open import probe_tracker

    return CheckedPart("tracker", "ok", probe_tracker(storage_at(storage)))


def _features() -> CheckedPart:
    from colddiff.features.published import PUBLISHED, default_place

    missing = [kind for kind in PUBLISHED if not _is_there(default_place(kind))]
    if not missing:
        return CheckedPart("features", "ok", f"weights of {', '.join(PUBLISHED)}, and lenet")
    what = f"lenet is here, no weights of {', '.join(missing)} (needed where a job names it)"
    files = ", ".join(default_place(kind) for kind in missing)
    way = f"put them at {files}; on a cluster, in a place of all nodes that COLDDIFF_FEATURES names"
    return CheckedPart("features", "note", what, way)


def _is_there(place: str) -> bool:
    return "://" in place or Path(place).expanduser().is_file()


def _takes_files(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
