"""A real browser for pages: headless Chromium through its debugging pipe, without network."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.system import require

PROGRAM = "chromium"
# All names resolve to nothing, and no service of the browser's own is asked for.
ALONE = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
    "--no-first-run",
)


class Page:
    """An open page, and what it has asked for and complained about."""

    def __init__(self, process: subprocess.Popen[bytes], write: int, read: int) -> None:
        self._process, self._write, self._read = process, write, read
        self._number, self._buffer = 0, b""
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def open(self, path: Path, width: int = 1280, height: int = 900) -> None:
        """Opens a file, and waits until its script has run."""
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", size)
        self._call("Page.navigate", {"url": path.as_uri()})
        deadline = time.monotonic() + 60
        while self.js("document.documentElement?.dataset.ready || ''") != "yes":
            assert time.monotonic() < deadline, self.complaints
            time.sleep(0.05)

    def js(self, expression: str) -> Any:
        """The value of an expression, JSON-ready; a promise is awaited."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        found = self._call("Runtime.evaluate", {**asked, "userGesture": True})
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def theme(self, scheme: str = "light", media: str = "screen") -> None:
        """Emulates a colour scheme, and ``screen`` or ``print``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", {"media": media, "features": features})

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        wanted = {"format": "png", "captureBeyondViewport": True}
        return base64.b64decode(self._call("Page.captureScreenshot", wanted)["data"])

    def _call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params or {}}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return dict(found["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._read, 1 << 16)
            assert data, "the browser has ended"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        self._note(found.get("method", ""), found.get("params", {}))
        return found

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(str(params["args"]))


@contextmanager
def opened(path: Path, profile: Path) -> Iterator[Page]:
    """``path`` open in a browser whose profile lies in ``profile``."""
    require(PROGRAM)
    to_browser, write = os.pipe()
    read, from_browser = os.pipe()

    def as_3_and_4() -> None:
        # First away from 3 and 4, where one of them may be already.
        a, b = os.dup2(to_browser, 30), os.dup2(from_browser, 31)
        os.dup2(a, 3)
        os.dup2(b, 4)

    process = subprocess.Popen(
        [PROGRAM, *ALONE, f"--user-data-dir={profile}", "about:blank"],
        preexec_fn=as_3_and_4,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        page = Page(process, write, read)
        page.open(path)
        yield page
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(write)
        os.close(read)
