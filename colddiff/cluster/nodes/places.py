"""What a node reaches: the store and the tracker of jobs; run on the node."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from colddiff.cluster.local_cluster import MARKER
from colddiff.errors import ColddiffError, StoreDenied, Unreachable


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


def unreached(storage: str, tracker: str, make: bool) -> list[str]:
    """What this machine does not reach, a line each with the way out; empty if all is right.

    Writes and deletes a small object in ``storage``. ``make``: a path that is not there would be
    made by the first job, as on the machine of who asks.
    """
    checks: dict[str, Callable[[], object]] = {
        "store": lambda: _check_store(storage, make=make),
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


def _check_store(storage: str, *, make: bool) -> None:
    from colddiff.stores.open import check_writable

    if "://" not in storage and not Path(storage).exists():
        if make:
            return
        raise ColddiffError(
            f"{storage} is not there; use s3://bucket/prefix, or a path that all nodes share"
        )
    check_writable(storage)


def _check_tracker(storage: str, tracker: str) -> None:
    from colddiff.tracking.open import probe_tracker

    probe_tracker(storage, tracker)
