"""The address of the cluster that a command uses, and a probe of whether it responds."""

from __future__ import annotations

import ipaddress
import os
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from http.client import BadStatusLine, HTTPException, HTTPMessage
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from colddiff.errors import ClusterError, SpecError
from colddiff.slow_calls import SLOW_CALLS
from colddiff.spec.documents import DocumentError, read_json_object
from colddiff.stores.paths import expanded

DASHBOARD_PORT = 8265
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"  # noqa: S105  # a name
DEFAULT_TOKEN = "~/.ray/auth_token"  # noqa: S105  # a path
"""Where Ray itself looks for a token that no variable names."""
LONGEST_TOKEN = 4096
PROBE_S = 5.0
LARGEST_ANSWER = 1 << 30
"""Bytes; of a driver's whole output."""
SAMPLE = 1 << 16
"""Bytes of an error's page that may tell whose it is."""
UNAUTHORIZED, FORBIDDEN = 401, 403
REFUSED = (UNAUTHORIZED, FORBIDDEN)
"""What Ray answers to a request without a token, and to one with a wrong one."""
HTTP_2 = "\0\0"
"""First bytes of a frame of HTTP/2, which Ray's own services speak."""
TLS_ALERT = "\x15\x03"
USE_DASHBOARD = f"use the address of the dashboard, whose port is {DASHBOARD_PORT} by default"


@dataclass(frozen=True, slots=True)
class Token:
    """What a cluster of others may be sent, where it is from, or why it cannot be used."""

    text: str | None = None
    source: str = ""
    """``RAY_AUTH_TOKEN`` or a file; for messages."""
    problem: str = ""
    """Of what was named and holds no token: where, and what is wrong; empty where nothing was."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster: its Jobs API, the token it requires, and whether it is our local one."""

    address: str
    """``http(s)://host:port``, without a trailing slash."""
    token: str | None = None
    local: bool = False
    forks: bool = False
    """Whether processes are forks on its nodes, which another than `local_cluster` has started."""
    origin: str = ""
    """Where the address was given, such as ``RAY_ADDRESS``; for messages."""
    token_source: str = ""
    """Where ``token`` is from; for messages."""

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
    cluster = Cluster(parse_address(text, where), origin=where)
    required = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    return _with_token(cluster, given_token()) if required else cluster


def given_token() -> Token:
    """The token for clusters of others, looked for where Ray does."""
    if text := os.environ.get(TOKEN_VARIABLE, "").strip():
        return _checked(text, TOKEN_VARIABLE)
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    place = named or DEFAULT_TOKEN
    try:
        with expanded(place).open(encoding="utf-8", errors="replace") as file:
            text = file.read(LONGEST_TOKEN)
    except FileNotFoundError:
        return Token(problem=f"{place}: no such file") if named else Token()
    except IsADirectoryError:
        return Token(problem=f"{place}: is a folder, not a file")
    except OSError as error:
        why = error.strerror or type(error).__name__
        return Token(problem=f"{place}: cannot be read ({why})")
    except SpecError as error:
        return Token(problem=str(error))
    found = _checked(text, place)
    because = "RAY_AUTH_TOKEN_PATH" if named else "Ray's default file"
    return replace(found, source=f"{place} ({because})")


def _checked(text: str, source: str) -> Token:
    text = text.strip()
    if not text:
        return Token(problem=f"{source}: is empty")
    # Anything else cannot stand in the header of a request.
    if not (text.isascii() and text.isprintable()):
        return Token(problem=f"{source}: holds no token, which is one line of ASCII")
    return Token(text, source)


def _with_token(cluster: Cluster, token: Token) -> Cluster:
    return replace(cluster, token=token.text, token_source=token.source)


def probe(cluster: Cluster, timeout_s: float = PROBE_S) -> Cluster:
    """Sends one request; returns ``cluster``, with a token if it required one.

    Raises ClusterError if nothing responds, it is not Ray, or the token is missing or wrong.
    """
    try:
        with SLOW_CALLS.watched(f"the cluster at {cluster}", "whether it responds"):
            body = request(cluster, "/api/version", timeout_s=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            other = _other_service(error)
        if other or error.code not in REFUSED:
            what = f"{cluster} is {other or 'not a Ray dashboard'} (HTTP {error.code}"
            by = f" of {named[:40]}" if (named := error.headers.get("Server")) else ""
            raise ClusterError(f"{what}{by}); {USE_DASHBOARD}") from None
        token = given_token()
        if error.code == UNAUTHORIZED and cluster.token is None and token.text:
            return probe(_with_token(cluster, token), timeout_s)
        raise ClusterError(refusal(cluster)) from None
    except (OSError, HTTPException) as error:
        raise ClusterError(_no_answer(cluster, error)) from None
    try:
        known = "ray_version" in read_json_object(body)
    except DocumentError:
        known = False
    if not known:
        raise ClusterError(f"{cluster} is not a Ray dashboard; {USE_DASHBOARD}")
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


def refusal(cluster: Cluster) -> str:
    """Why a cluster that answered 401 or 403 did so: it got no token, or a wrong one."""
    if cluster.token is not None:
        wrong = f"the cluster at {cluster} rejects the token"
        if not cluster.token_source:
            return wrong
        # The variable goes before the file.
        unset = "unset it and " if cluster.token_source == TOKEN_VARIABLE else ""
        way = f"{unset}set RAY_AUTH_TOKEN_PATH to the file that holds the cluster's"
        return f"{wrong} in {cluster.token_source}; {way}"
    problem = given_token().problem
    return (
        f"the cluster at {cluster} requires a token{f' ({problem})' if problem else ''}: set "
        "RAY_AUTH_TOKEN_PATH to the file that holds it"
    )


def _no_answer(cluster: Cluster, error: Exception) -> str:
    """Why nothing was understood; what another service said may be no text, and is left out."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLError) and "WRONG_VERSION" in str(reason):
        return f"{cluster} does not answer in https; use http:// if it is the dashboard's"
    if isinstance(error, ConnectionError) or not isinstance(error, HTTPException):
        return (
            f"no Ray cluster responds at {cluster} ({reason}); is it running, and is this the "
            "dashboard's address?"
        )
    said = str(error.args[0]) if isinstance(error, BadStatusLine) else ""
    if said.startswith(TLS_ALERT):
        return f"{cluster} answers, but not in plain HTTP; use https:// if it is the dashboard's"
    what = "this may be the port of Ray's control store (GCS)" if said.startswith(HTTP_2) else ""
    return "; ".join(filter(None, (f"{cluster} answers, but not in HTTP", what, USE_DASHBOARD)))


def _other_service(error: urllib.error.HTTPError) -> str:
    """What answered instead of Ray, as far as an error's headers and body tell; else ""."""
    try:
        body = error.read(SAMPLE)
    except (OSError, HTTPException):
        body = b""
    names = {name.lower() for name in error.headers}
    if b"<Error><Code>" in body or any(name.startswith("x-amz") for name in names):
        return "an S3 server, not a Ray dashboard"
    if b"mlflow" in body.lower():
        return "an MLflow server, not a Ray dashboard"
    return ""
