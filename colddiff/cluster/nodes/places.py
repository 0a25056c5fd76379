"""What a node reaches: the store and the tracker of jobs; run on the node."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from colddiff.cluster.local_cluster import MARKER
from colddiff.errors import ColddiffError, StoreDenied, Unreachable
from colddiff.jobs.folder import JobFolder


def where_to_set() -> str:
    """Where what this node lacks is set: what who submits has in the environment is not enough."""
    if MARKER in os.environ:
        return "a local cluster keeps the environment it was started with: `colddiff cluster stop`"
    return "jobs have the environment of `ray start`: set it there, on each node"


def unreached_store(storage: str, error: Exception, who: str = "the cluster's nodes") -> str:
    """Why a job ends that cannot even write its status, as one line with the way out."""
    reason = " ".join(str(error).split())
    where = f"; {where_to_set()}" if "://" in storage else ""
    return f"{who} cannot reach {storage}: {reason}{where}"


@contextmanager
def denied_node_named(storage: str) -> Iterator[None]:
    """Within ``with``, in a worker: where the store denies access, the error names this node.

    Its driver has reached the store, so that what lacks credentials is the node of the worker.
    """
    import ray

    try:
        yield
    except StoreDenied as error:
        node = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        raise StoreDenied(unreached_store(storage, error, f"node {node}")) from None


def other_store(storage: str, what: str) -> str:
    """Why a store lacks ``what``, which who asks has written: it is another one of that address."""
    if "://" not in storage:
        return f"{storage} lacks {what}: use s3://bucket/prefix, or a path that all machines share"
    return (
        f"{storage} lacks {what}: AWS_ENDPOINT_URL must name one service for who submits and for "
        f"all nodes; {where_to_set()}"
    )


def refuse_other_store(folder: JobFolder, storage: str) -> None:
    """Raises ColddiffError, in a driver, where its job was submitted to another store."""
    if folder.store.size(folder.key("job.json")) is None:
        what = f"{folder.job_id}, which was submitted to it, unless it was deleted since"
        raise ColddiffError(other_store(storage, what))


def unreached(storage: str, tracker: str, make: bool, mark: str | None = None) -> list[str]:
    """What this machine does not reach, a line each with the way out; empty if all is right.

    Writes and deletes a small object in ``storage``. ``make``: a path that is not there would be
    made by the first job, as on the machine of who asks, who has written ``mark`` to it.
    """
    checks: dict[str, Callable[[], object]] = {
        "store": lambda: _check_store(storage, make=make, mark=mark),
        "tracker": lambda: _check_tracker(storage, tracker),
    }
    found = []
    for name, check in checks.items():
        try:
            check()
        except ColddiffError as error:
            service = "://" in storage if name == "store" else tracker.startswith("http")
            where = f"; {where_to_set()}" if service and isinstance(error, Unreachable) else ""
            found.append(f"{name}: {' '.join(str(error).split())}{where}")
        except Exception as error:  # such as a package that this node lacks
            found.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")
    return found


def _check_store(storage: str, *, make: bool, mark: str | None) -> None:
    from colddiff.stores.open import check_writable, open_store

    if "://" not in storage and not Path(storage).exists():
        if make:
            return
        raise ColddiffError(
            f"{storage} is not there; use s3://bucket/prefix, or a path that all nodes share"
        )
    check_writable(storage)
    if mark is not None and open_store(storage).size(mark) is None:
        raise ColddiffError(other_store(storage, "what was just written to it"))


def _check_tracker(storage: str, tracker: str) -> None:
    from colddiff.tracking.open import probe_tracker

    probe_tracker(storage, tracker)
