"""Asks the nodes of a cluster what they reach, by a small job on it."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from colddiff.cluster.ray_jobs import RayJobs, python_command, submission_id
from colddiff.cluster.stage import STAGED, copy_package
from colddiff.errors import ClusterError, ColddiffError
from colddiff.spec.documents import DocumentError, read_json_object
from colddiff.stores.open import probed

if TYPE_CHECKING:
    from colddiff.cluster.address import Cluster

WAIT_S = 60.0
"""For all answers: half of it for the nodes, the rest to unpack the code and start Python."""
PLACES = "places.json"
DRIVER = "colddiff.cluster.nodes.driver"


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """A node by its address, and what it does not reach."""

    node: str
    unreached: tuple[str, ...]


def ask_nodes(
    cluster: Cluster, storage: str, tracker: str, wait_s: float = WAIT_S
) -> list[NodeAnswer]:
    """What each node of a cluster answers, within ``wait_s`` of the start of the job that asks.

    One that reaches another store of that address than this process says so.

    Args:
        cluster: any that responds.
        storage: where jobs write, an absolute address.
        tracker: a tracking URI without credentials: the nodes have their own.

    Raises ClusterError if the cluster does not take the job, or no node answers.
    """
    places = {"storage": storage, "tracker": tracker, "make": cluster.loopback}
    with _marked(storage) as mark:
        return _asked(cluster, {**places, "mark": mark}, wait_s)


@contextmanager
def _marked(storage: str) -> Iterator[str | None]:
    """Within ``with``, an object that this process has written there; None if it cannot."""
    with ExitStack() as stack:
        mark = None
        with suppress(ColddiffError):
            if "://" in storage or Path(storage).exists():
                mark = stack.enter_context(probed(storage))
        yield mark


def _asked(cluster: Cluster, places: Mapping[str, object], wait_s: float) -> list[NodeAnswer]:
    jobs, name = RayJobs(cluster), submission_id("doctor", 1, uuid.uuid4().hex[:8])
    with tempfile.TemporaryDirectory(prefix=STAGED) as staged:
        folder = Path(staged)
        copy_package(folder)
        (folder / PLACES).write_text(json.dumps(places))
        command = python_command(f"{DRIVER} {PLACES}", local=cluster.local)
        jobs.submit_folder(folder, command, name)
    deadline = time.monotonic() + wait_s
    while True:
        driver = jobs.find_submission(name)
        late = time.monotonic() > deadline
        if driver is None or driver.ended or late:
            break
        time.sleep(0.5)
    log = jobs.log_of_submission(name)
    if late:
        with suppress(ClusterError):
            jobs.stop_submission(name, timeout_s=1.0)
    found = _answers(log)
    if not found:
        lines = log.strip().splitlines()
        why = f"no node answered in {wait_s:.0f} s" if late else lines[-1] if lines else "it ended"
        raise ClusterError(f"{cluster.address}: cannot ask its nodes what they reach: {why[:300]}")
    return found


def _answers(log: str) -> list[NodeAnswer]:
    found = []
    for line in log.splitlines():
        with suppress(DocumentError, KeyError):
            answer = read_json_object(line.encode())
            found.append(NodeAnswer(str(answer["node"]), tuple(map(str, answer["unreached"]))))
    return found
