"""The address of the cluster that a command uses, and a probe of whether it responds."""

from __future__ import annotations

import ipaddress
import os
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from colddiff.errors import ClusterError, SpecError
from colddiff.slow_calls import SLOW_CALLS
from colddiff.spec.documents import DocumentError, read_json_object
from colddiff.stores.paths import expanded

DASHBOARD_PORT = 8265
PROBE_S = 5.0
LARGEST_ANSWER = 1 << 30
"""Bytes; of a driver's whole output."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster: its Jobs API, the token it requires, and whether it is our local one."""

    address: str
    """``http(s)://host:port``, without a trailing slash."""
    token: str | None = None
    local: bool = False
    origin: str = ""
    """Where the address was given, such as ``RAY_ADDRESS``; for messages."""

    def __str__(self) -> str:
        return f"{self.address} (from {self.origin})" if self.origin else self.address

    @property
    def loopback(self) -> bool:
        """Whether the address is a loopback one (a tunnel may still lead to another machine)."""
        host = urlsplit(self.address).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def given_address(option: str | None) -> tuple[str, str] | None:
    """(address, source) from ``--address``, COLDDIFF_ADDRESS or RAY_ADDRESS; None without one."""
    for name, value in (
        ("--address", option),
        ("COLDDIFF_ADDRESS", os.environ.get("COLDDIFF_ADDRESS")),
        ("RAY_ADDRESS", os.environ.get("RAY_ADDRESS")),
    ):
        if value:
            return value, name
    return None


def parse_address(text: str, where: str = "--address") -> str:
    """``http(s)://host:port`` of a dashboard; ``host`` and ``host:port`` are completed.

    ``where`` names the source in messages. Raises SpecError if it is not an address of a Jobs API.
    """
    example = f"http://HOST:{DASHBOARD_PORT}"
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SpecError(f"{where}: {text!r} is not an address ({error}); use {example}") from None
    if parts.scheme not in ("http", "https"):
        raise SpecError(f"{where}: {parts.scheme}:// is not the dashboard's address; use {example}")
    if not host or host == "auto" or any(c.isspace() for c in text):
        raise SpecError(f"{where}: {text!r} names no host; use {example}")
    if parts.username is not None or parts.password is not None:
        raise SpecError(f"{where}: omit user and password; a token is read from RAY_AUTH_TOKEN")
    if port is None and parts.scheme == "http":
        parts = parts._replace(netloc=f"{parts.netloc}:{DASHBOARD_PORT}")
    return urlunsplit(parts._replace(query="", fragment="")).rstrip("/")


def remote_cluster(text: str, where: str = "--address") -> Cluster:
    """The cluster at a given address; contacts nothing. Raises SpecError like ``parse_address``."""
    token = _token() if os.environ.get("RAY_AUTH_MODE", "").lower() == "token" else None
    return Cluster(parse_address(text, where), token, origin=where)


def probe(cluster: Cluster, timeout_s: float = PROBE_S) -> Cluster:
    """Sends one request; returns ``cluster``, with a token if it required one.

    Raises ClusterError if nothing responds, it is not Ray, or the token is missing or wrong.
    """
    try:
        with SLOW_CALLS.watched(f"the cluster at {cluster}", "whether it responds"):
            body = request(cluster, "/api/version", timeout_s=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 401 and cluster.token is None and (token := _token()):
            return probe(replace(cluster, token=token), timeout_s)
        raise ClusterError(_refusal(cluster, error.code)) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ClusterError(
            f"no Ray cluster responds at {cluster} ({reason}); is it running, and is this the "
            "dashboard's address?"
        ) from None
    try:
        known = "ray_version" in read_json_object(body)
    except DocumentError:
        known = False
    if not known:
        raise ClusterError(f"{cluster} is not a Ray dashboard; use the dashboard's address")
    return cluster


def request(
    cluster: Cluster, path: str, *, method: str = "GET", timeout_s: float = PROBE_S
) -> bytes:
    """The body of the dashboard's answer; raises OSError (HTTPError) or HTTPException."""
    sent = urllib.request.Request(cluster.address + path, method=method)  # noqa: S310  # http(s)
    if cluster.token:
        sent.add_header("Authorization", f"Bearer {cluster.token}")
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if cluster.loopback:
        # A configured HTTP proxy cannot reach this machine's own ports.
        handlers.append(urllib.request.ProxyHandler({}))
    with urllib.request.build_opener(*handlers).open(sent, timeout=timeout_s) as answer:
        return bytes(answer.read(LARGEST_ANSWER))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    # Following a redirect would send the token to another host.
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        return None


def _refusal(cluster: Cluster, code: int) -> str:
    if code == 401:
        return (
            f"the cluster at {cluster} requires a token: set RAY_AUTH_TOKEN_PATH to the file "
            "that holds it"
        )
    if code == 403:
        return f"the cluster at {cluster} rejects the token; see RAY_AUTH_TOKEN_PATH"
    return f"{cluster} is not a Ray dashboard (HTTP {code})"


def _token() -> str | None:
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        return expanded(named or "~/.ray/auth_token").read_text().strip() or None
    except (OSError, UnicodeDecodeError, SpecError):
        return None
