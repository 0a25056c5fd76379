"""Ray and Python of a cluster beside those here: other minor versions cannot run our jobs."""

from __future__ import annotations

import platform
from http.client import HTTPException
from importlib.metadata import version
from urllib.error import HTTPError

from colddiff.cluster.address import Cluster, request
from colddiff.errors import ClusterError, SpecError
from colddiff.spec.documents import DocumentError, read_json_object

SAME = 2
"""Parts of a version that must be equal: patches go together."""


def refuse_other_versions(cluster: Cluster) -> None:
    """Raises SpecError if the cluster's Ray or Python is of another minor version than ours.

    Jobs' code goes to it as it is here, and pickles of Ray's cross no minor version of Python. A
    version that the cluster does not say (an older Ray says no Python) is not compared. Raises
    ClusterError if it does not respond.
    """
    here = {"Ray": version("ray"), "Python": platform.python_version()}
    for name, there in _versions(cluster).items():
        if _minor(there) != _minor(here[name]):
            wanted = ".".join(_minor(there))
            raise SpecError(
                f"the cluster at {cluster} runs {name} {there}, this is {name} {here[name]}: "
                f"{_way_out(name, wanted, local=cluster.local)}"
            )


def _way_out(name: str, wanted: str, *, local: bool) -> str:
    if local:
        return "run `colddiff cluster stop`, and the next submit starts one of this version"
    here = f"pip install 'ray=={wanted}.*'" if name == "Ray" else f"use Python {wanted} here"
    return f"{here}, or give the cluster's nodes the version here"


def _versions(cluster: Cluster) -> dict[str, str]:
    found = {"Ray": _read(cluster, "/api/version").get("ray_version")}
    # Older versions of Ray do not have it.
    about = _read(cluster, "/api/v0/cluster_metadata", missing=b"{}").get("data")
    if isinstance(about, dict):
        found["Python"] = about.get("pythonVersion")
    return {name: text for name, text in found.items() if isinstance(text, str) and _minor(text)}


def _read(cluster: Cluster, path: str, missing: bytes | None = None) -> dict[str, object]:
    """What a call of the dashboard answers, ``missing`` if it does not have it."""
    try:
        return read_json_object(request(cluster, path))
    except HTTPError as error:
        error.close()
        if missing is not None:
            return read_json_object(missing)
        why = f"HTTP {error.code}"
    except (OSError, HTTPException, DocumentError) as error:
        why = type(error).__name__
    raise ClusterError(f"the cluster at {cluster} does not say its versions ({why})")


def _minor(text: str) -> list[str]:
    """``["2", "60"]`` of ``2.60.1``; empty for what is no version."""
    parts = text.split(".")[:SAME]
    return parts if len(parts) == SAME and all(part.isdecimal() for part in parts) else []
