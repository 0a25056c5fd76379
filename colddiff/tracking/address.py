"""The tracking URI of a job: default, validation, and printing without credentials."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from colddiff.errors import SpecError
from colddiff.machine.credentials import SENSITIVE, masked
from colddiff.stores.paths import absolute_path

SQLITE = "sqlite:///"
SCHEMES = (
    *("http", "https", "sqlite", "postgresql", "mysql", "mssql"),
    *("databricks", "databricks-uc", "uc"),
)
ARTIFACTS = "mlflow-artifacts"
"""Folder of the artifacts in a STORAGE, beside its database."""


@dataclass(frozen=True, slots=True)
class TrackingAddress:
    """A tracking URI and the artifact root (None: chosen by the server).

    ``str`` and ``repr`` never show user names, passwords or tokens.
    """

    uri: str = field(repr=False)
    artifact_root: str | None = None

    def __str__(self) -> str:
        return masked(self.uri)


def without_userinfo(uri: str) -> str:
    """``uri`` without user name, password or token: equal for all users of one server."""
    parts = urlsplit(uri)
    query = "&".join(item for item in parts.query.split("&") if not re.match(SENSITIVE, item))
    # Not urlunsplit: of the four slashes of sqlite:////path it would leave two.
    netloc = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{netloc}{parts.path}{'?' if query else ''}{query}"


def database_path(uri: str) -> Path | None:
    """The file of a ``sqlite:///`` URI, None for any other."""
    if not uri.startswith(SQLITE):
        return None
    return Path(uri.removeprefix(SQLITE).partition("?")[0])


def opened_at(uri: str) -> str:
    """Where a person looks at what is tracked at ``uri``: the address, or of a file the command.

    >>> opened_at("http://ada:s3cr3t@mlflow:5000")
    'at http://***@mlflow:5000'
    >>> opened_at("sqlite:////data/runs/mlflow.db")
    'by `mlflow ui --backend-store-uri sqlite:////data/runs/mlflow.db`'
    """
    if database_path(uri) is None:
        return f"at {masked(uri)}"
    return f"by `mlflow ui --backend-store-uri {shlex.quote(uri)}`"


def checked_uri(uri: str) -> str:
    """``uri`` with a sqlite path made absolute; SpecError if MLflow or we cannot use it."""
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file"):
        raise SpecError(
            f"tracking uri {masked(uri)!r} names no server or database (MLflow no longer keeps "
            f"runs in folders); use MLFLOW_TRACKING_URI={SQLITE}/absolute/path/mlflow.db or http://..."
        )
    if scheme.partition("+")[0] not in SCHEMES and scheme not in _schemes_of_plugins():
        raise SpecError(
            f"tracking uri {masked(uri)!r}: MLflow knows no {scheme}; use MLFLOW_TRACKING_URI="
            f"http://host:port, or {SQLITE}/absolute/path/mlflow.db"
        )
    if not scheme.startswith("sqlite"):
        return uri
    path, query = database_path(uri), uri.partition("?")[2]
    if path is None or path.name in ("", ":memory:"):
        raise SpecError(f"tracking uri {uri!r} names no file; use {SQLITE}/absolute/path/mlflow.db")
    return f"{SQLITE}{absolute_path(path)}{'?' if query else ''}{query}"


def _schemes_of_plugins() -> set[str]:
    """What packages beside MLflow have registered with it as places of runs."""
    from importlib.metadata import entry_points

    return {point.name for point in entry_points(group="mlflow.tracking_store")}


def tracking_address(storage: str, environ: Mapping[str, str] | None = None) -> TrackingAddress:
    """MLFLOW_TRACKING_URI, else a sqlite file in ``storage`` (in ./runs if that is a bucket).

    Artifacts of a database go to ``storage``/mlflow-artifacts; a server has its own artifact root.
    Raises SpecError for a URI that cannot be used.
    """
    environ = os.environ if environ is None else environ
    is_bucket = "://" in storage
    root = storage.rstrip("/") if is_bucket else str(absolute_path(storage))
    folder = "./runs" if is_bucket else root
    uri = checked_uri(environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{folder}/mlflow.db")
    served = urlsplit(uri).scheme in ("http", "https")
    return TrackingAddress(uri, None if served else f"{root}/{ARTIFACTS}")
