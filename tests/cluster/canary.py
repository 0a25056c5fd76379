"""A secret that the cluster of the tests holds, and a search of all places where none may be."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from colddiff.cluster.address import Cluster
from colddiff.cluster.home import ClusterRecord

CANARY = "canary-5c1d0f7e9a3b"
PAGES = ("api/jobs/", "nodes?view=summary", "api/v0/actors?detail=true", "api/v0/nodes?detail=true")


def places_with(
    secret: str, folders: list[Path], cluster: Cluster, record: ClusterRecord
) -> list[str]:
    """Where ``secret`` is: files below ``folders``, Ray's and the head's logs, the dashboard."""
    logs = [path for path in Path(record.temp_dir).glob("session_*/logs") if path.is_dir()]
    texts = [*_files([*folders, *logs]), (record.log, Path(record.log).read_bytes())]
    found = [name for name, data in [*texts, *_dashboard(cluster)] if secret.encode() in data]
    return sorted(set(found))


def _files(folders: list[Path]) -> Iterator[tuple[str, bytes]]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                yield str(path), path.read_bytes()


def _dashboard(cluster: Cluster) -> Iterator[tuple[str, bytes]]:
    jobs = json.loads(_page(cluster, PAGES[0]))
    assert jobs, "the dashboard knows of no job"
    names = [job["submission_id"] for job in jobs if job["submission_id"]]
    for page in (*PAGES, *(f"api/jobs/{name}/logs" for name in names)):
        yield page, _page(cluster, page)


def _page(cluster: Cluster, page: str) -> bytes:
    request = urllib.request.Request(f"{cluster.address}/{page}")
    request.add_header("Authorization", f"Bearer {cluster.token}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return bytes(answer.read())
