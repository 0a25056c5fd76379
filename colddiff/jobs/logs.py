"""The log of an attempt: what its processes print or log, uploaded to the job's storage."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from colddiff.errors import ColddiffError

UPLOAD_S = 3.0
LARGEST = 8 << 20
LOGGER = logging.getLogger("colddiff")


class LogUpload:
    """Collects text and uploads it (its last 8 MiB) every few seconds and at the end."""

    def __init__(self, upload: Callable[[bytes], None]) -> None:
        self._upload = upload
        self._text = bytearray()
        self._lock = threading.Lock()
        self._dirty = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-upload", daemon=True)
        self._thread.start()

    def write(self, chunk: bytes) -> None:
        """Appends to the log."""
        with self._lock:
            self._text += chunk
            del self._text[:-LARGEST]
        self._dirty.set()

    def close(self) -> None:
        """Uploads the whole log once more."""
        self._closed.set()
        self._thread.join(timeout=UPLOAD_S)
        self._send()

    def _run(self) -> None:
        while not self._closed.wait(UPLOAD_S):
            if self._dirty.is_set():
                self._dirty.clear()
                self._send()

    def _send(self) -> None:
        with self._lock:
            text = bytes(self._text)
        try:
            self._upload(text)
        except ColddiffError:
            # The store is down: the log is not essential, and the next upload has all of it.
            return


@contextmanager
def printed(upload: Callable[[bytes], None]) -> Iterator[None]:
    """Within ``with``, everything that this process and its children print is also uploaded."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = LogUpload(upload)
    saved = (os.dup(1), os.dup(2))
    read, write = os.pipe()
    os.dup2(write, 1)
    os.dup2(write, 2)
    os.close(write)

    def pump() -> None:
        while chunk := os.read(read, 65536):
            os.write(saved[0], chunk)
            log.write(chunk)
        os.close(read)

    thread = threading.Thread(target=pump, name="log-pump", daemon=True)
    thread.start()
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        # Children may still hold the pipe's write end: do not wait for what they print later.
        thread.join(timeout=UPLOAD_S)
        os.close(saved[1])
        log.close()


@contextmanager
def logged(upload: Callable[[bytes], None]) -> Iterator[None]:
    """Within ``with``, everything that colddiff logs in this process is also uploaded.

    Unlike ``printed`` it does not redirect stdout and stderr: a debugger may be using them.
    """
    log = LogUpload(upload)
    handler = _UploadHandler(log)
    level = LOGGER.level
    LOGGER.addHandler(handler)
    if level == logging.NOTSET:
        LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        LOGGER.removeHandler(handler)
        log.close()


class _UploadHandler(logging.Handler):
    def __init__(self, log: LogUpload) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.write(f"{self.format(record)}\n".encode())


def log_to_stderr() -> None:
    """Prints colddiff's log records of this process to stderr, for drivers and workers."""
    if not any(getattr(handler, "name", "") == "stderr" for handler in LOGGER.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.name = "stderr"
        LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
