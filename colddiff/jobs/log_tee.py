"""A process's standard output and error, copied to somewhere that outlives its machine."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from colddiff.errors import ColddiffError

UPLOAD_S = 3.0
LARGEST = 8 << 20


class LogTee:
    """Within ``with``, all this process and its children print also goes to ``upload``.

    ``upload`` gets the whole text so far (its last 8 MiB) every few seconds and at the end.
    """

    def __init__(self, upload: Callable[[bytes], None]) -> None:
        self._upload = upload
        self._text = bytearray()
        self._lock = threading.Lock()
        self._dirty = threading.Event()
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        sys.stdout.flush()
        sys.stderr.flush()
        self._saved = (os.dup(1), os.dup(2))
        read, write = os.pipe()
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.close(write)
        self._threads = [
            threading.Thread(target=self._pump, args=(read,), name="log-pump", daemon=True),
            threading.Thread(target=self._ship, name="log-upload", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(self._saved[0], 1)
        os.dup2(self._saved[1], 2)
        self._closed.set()
        # Children may still hold the pipe's writing end: what they say later is not waited for.
        for thread in self._threads:
            thread.join(timeout=UPLOAD_S)
        os.close(self._saved[1])
        self._send()

    def _pump(self, read: int) -> None:
        while chunk := os.read(read, 65536):
            os.write(self._saved[0], chunk)
            with self._lock:
                self._text += chunk
                del self._text[:-LARGEST]
            self._dirty.set()
        os.close(read)

    def _ship(self) -> None:
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
            # The store is away: the log is a convenience, the next upload carries everything.
            return
