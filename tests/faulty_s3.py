"""Proxies on loopback before an S3 service: one that does as it is told, one that fails by chance.

    with FaultyS3(s3_service.endpoint, seed=1) as faulty:
        monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.endpoint)

Other processes (commands, Ray workers) reach it through the same variable.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

HOP_HEADERS = frozenset({"connection", "content-length", "date", "server", "transfer-encoding"})


@dataclass(frozen=True)
class Answer:
    """What the service said; ``headers`` without those that belong to one connection."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    length: int
    """The Content-Length: that of the object where the answer to a HEAD has no body."""


class Relay(BaseHTTPRequestHandler):
    """A request that may be forwarded to ``upstream``, answered otherwise, or left unanswered."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: str
    behave: Callable[[Relay], None]

    def setup(self) -> None:
        super().setup()
        self._service = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=60)

    def finish(self) -> None:
        self._service.close()
        super().finish()

    def handle_any(self) -> None:
        self.body = b""
        if self.headers.get("Expect") == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if "Content-Length" in self.headers:
            self.body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).behave(self)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

    def forward(self) -> Answer:
        headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
        try:
            self._service.request(self.command, self.path, self.body, headers)
            response = self._service.getresponse()
        except (http.client.HTTPException, ConnectionError):
            # The service may close a connection that lay idle; a request is safe to repeat here.
            self._service.close()
            self._service.request(self.command, self.path, self.body, headers)
            response = self._service.getresponse()
        body = response.read()
        length = response.headers.get("Content-Length")
        kept = [(k, v) for k, v in response.getheaders() if k.lower() not in HOP_HEADERS]
        return Answer(response.status, kept, body, len(body) if length is None else int(length))

    def respond(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(answer.length))
        self.end_headers()
        self.wfile.write(answer.body)

    def refuse(self, status: int, name: str) -> None:
        """An error of S3 that the service never saw the request of."""
        body = f"<?xml version='1.0'?><Error><Code>{name}</Code><Message>no</Message></Error>"
        text = b"" if self.command == "HEAD" else body.encode()
        self.respond(Answer(status, [], text, len(text)))

    def reset(self) -> None:
        """The connection is gone, with a reset and not with a polite end."""
        # Lingering for no time at all makes the kernel send RST.
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that went away, and connections that we reset ourselves

    def shutdown_request(self, request: Any) -> None:
        try:
            super().shutdown_request(request)
        except OSError:
            request.close()


class Proxy:
    """A server between client and service, which does as it is told with each request."""

    def __init__(self, upstream: str, behave: Callable[[Relay], None], port: int = 0) -> None:
        handler = type("Told", (Relay,), {"upstream": upstream, "behave": staticmethod(behave)})
        self.server = _Server(("127.0.0.1", port), handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


BUCKET = re.compile(r"^/[^/?]+")
FAILURES: tuple[str, ...] = ("500", "503", "reset", "500 after", "reset after")
"""Ways to fail: before the service sees the request, or after it has done what was asked."""
TRUNCATIONS: tuple[str, ...] = ("broken off", "cut short")
"""A body that ends before its Content-Length, and one whose Content-Length was cut with it."""


class FaultyS3(Proxy):
    """A service of which some calls fail and some bodies are truncated.

    What happens to the n-th request of one kind is a function of (seed, method, path below the
    bucket, n), whatever the threads and processes do. ``counts`` says how often each thing
    happened.
    """

    def __init__(
        self, upstream: str, *, seed: int = 0, fail: float = 0.05, truncate: float = 0.01
    ) -> None:
        super().__init__(upstream, self._chance)
        self.counts: Counter[str] = Counter()
        self._seed, self._fail, self._truncate = seed, fail, truncate
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def _chance(self, relay: Relay) -> None:
        drawn, which = self._draw(relay)
        fault = FAILURES[which % len(FAILURES)] if drawn < self._fail else ""
        if not fault and relay.command == "GET" and drawn > 1 - self._truncate:
            fault = TRUNCATIONS[which % len(TRUNCATIONS)]
        with self._lock:
            self.counts[fault or "served"] += 1
        if fault in ("500", "503"):
            relay.refuse(int(fault), {"500": "InternalError", "503": "SlowDown"}[fault])
        elif fault == "reset":
            relay.reset()
        else:
            self._spoil(relay, relay.forward(), fault, which)

    def _spoil(self, relay: Relay, answer: Answer, fault: str, which: int) -> None:
        if fault == "500 after":
            relay.refuse(500, "InternalError")
        elif fault == "reset after":
            relay.reset()
        elif fault:
            part = answer.body[: which % max(len(answer.body), 1)]
            promised = answer.length if fault == "broken off" else len(part)
            relay.respond(Answer(answer.status, answer.headers, part, promised))
            relay.close_connection = True
        else:
            relay.respond(answer)

    def _draw(self, relay: Relay) -> tuple[float, int]:
        """A number in [0, 1) and a whole number, for this request."""
        # Without the bucket, whose name is another in each run of a test.
        request = f"{relay.command} {BUCKET.sub('', relay.path)}"
        with self._lock:
            self._seen[request] += 1
            name = f"{self._seed}/{request}/{self._seen[request]}"
        words = struct.unpack(">QQ", hashlib.blake2b(name.encode(), digest_size=16).digest())
        return words[0] / 2**64, words[1]
