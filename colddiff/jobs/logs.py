"""The log of an attempt: what its processes print or log, uploaded to the job's storage."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

from colddiff.errors import ColddiffError
from colddiff.machine.printed_lines import LogLines, stamped

UPLOAD_S = 3.0
LARGEST = 8 << 20
DEBUG_UPLOAD_S = 60.0
LARGEST_DEBUG = 1 << 20
"""Of what other libraries say: less, and uploaded less often, because few ever read it."""
LOGGER = logging.getLogger("colddiff")
PIPE = 1 << 16
"""Bytes that a pipe holds: one read takes all that was printed before it."""
Flush: TypeAlias = Callable[[], None]


class LogUpload:
    """Collects text and uploads its last ``largest`` bytes every few seconds and at the end."""

    def __init__(
        self,
        upload: Callable[[bytes], None],
        every_s: float | None = None,
        largest: int = LARGEST,
    ) -> None:
        self._upload, self._largest = upload, largest
        self._every_s = UPLOAD_S if every_s is None else every_s
        self._text = bytearray()
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._dirty = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-upload", daemon=True)
        self._thread.start()

    def write(self, chunk: bytes) -> None:
        """Appends to the log."""
        with self._lock:
            self._text += chunk
            del self._text[: -self._largest]
        self._dirty.set()

    def close(self) -> None:
        """Uploads what is left, and nothing more."""
        self._closed.set()
        self._thread.join(timeout=UPLOAD_S)
        self.flush()

    def flush(self) -> None:
        """Uploads what was written since the last upload, if anything."""
        with self._sending:  # an older text would replace a newer one
            if not self._dirty.is_set():
                return
            self._dirty.clear()
            with self._lock:
                text = bytes(self._text)
            try:
                self._upload(text)
            except ColddiffError:
                # The store is down: the log is not essential, and the next upload has all of it.
                self._dirty.set()

    def _run(self) -> None:
        while not self._closed.wait(self._every_s):
            self.flush()


def _is_readable(descriptor: int, timeout_s: float | None) -> bool:
    """Whether a read would not wait, after up to ``timeout_s`` seconds (None: as long as it takes).

    Also where it would find the end.
    """
    readable = select.poll()  # one for each call: of two threads that share one, one is refused
    readable.register(descriptor, select.POLLIN)
    return bool(readable.poll(None if timeout_s is None else 1000 * timeout_s))


class _Captured:
    """What is printed into a pipe: ``log``, which is printed to ``out`` too, and ``debug``."""

    def __init__(self, pipe: int, out: int, log: LogUpload, debug: LogUpload) -> None:
        self._pipe, self._out, self._log = pipe, out, log
        self._lines, self._reading = LogLines(self._keep, debug.write), threading.Lock()
        self._gone = False

    def pump(self) -> None:
        """Takes what is printed until nobody can print any more."""
        while _is_readable(self._pipe, None) and self._take():
            pass
        self._lines.flush()
        os.close(self._pipe)

    def flush(self) -> None:
        """Uploads what was printed so far."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._take()
        self._log.flush()

    def _take(self) -> bool:
        """Takes what is in the pipe, if anything; False once nobody can write into it."""
        with self._reading:
            if not _is_readable(self._pipe, 0):
                return True
            chunk = os.read(self._pipe, PIPE)
            self._lines.feed(chunk)
            return bool(chunk)

    def _keep(self, line: bytes) -> None:
        self._log.write(line)
        while line and not self._gone:
            try:
                line = line[os.write(self._out, line) :]
            except OSError:
                self._gone = True  # full or closed: without a reader of the pipe all would block


@contextmanager
def printed(
    upload: Callable[[bytes], None], upload_debug: Callable[[bytes], None]
) -> Iterator[Flush]:
    """Within ``with``, everything that this process and its children print is uploaded.

    Each line with its time: those about the job by ``upload``, and printed too, what other
    libraries say of themselves by ``upload_debug``. Yields what uploads the former now.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    log = LogUpload(upload)
    debug = LogUpload(upload_debug, DEBUG_UPLOAD_S, LARGEST_DEBUG)
    saved = (os.dup(1), os.dup(2))
    read, write = os.pipe()
    os.dup2(write, 1)
    os.dup2(write, 2)
    os.close(write)

    captured = _Captured(read, saved[0], log, debug)

    thread = threading.Thread(target=captured.pump, name="log-pump", daemon=True)
    thread.start()
    try:
        yield captured.flush
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        # Children may still hold the pipe's write end: do not wait for what they print later.
        thread.join(timeout=UPLOAD_S)
        os.close(saved[1])
        log.close()
        debug.close()


@contextmanager
def logged(upload: Callable[[bytes], None]) -> Iterator[Flush]:
    """Within ``with``, everything that colddiff logs for this job is also uploaded.

    Yields what uploads it now.

    Unlike ``printed`` it does not redirect stdout and stderr: a debugger may be using them. Jobs
    may run in several threads at once: a record belongs to the job of its thread's context, and to
    all of them if it has none. The user's own handlers get what they would get without it; if there
    are none, warnings and errors are printed to stderr, which is what Python does by default.
    """
    log = LogUpload(upload)
    handler = _UploadHandler(log)
    token = _JOB_LOG.set(log)
    _SHARED.enter()
    LOGGER.addHandler(handler)
    try:
        yield log.flush
    finally:
        LOGGER.removeHandler(handler)
        _SHARED.leave()
        _JOB_LOG.reset(token)
        log.close()


_JOB_LOG: ContextVar[LogUpload | None] = ContextVar("colddiff_job_log", default=None)
"""The log of the job that the current context works for; helper threads inherit it."""


class _UploadHandler(logging.Handler):
    def __init__(self, log: LogUpload) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if _JOB_LOG.get() in (None, self._log):
            lines = self.format(record).splitlines() or [""]
            text = "".join(f"{stamped(line, record.created)}\n" for line in lines)
            self._log.write(text.encode())


class _SharedLevel(logging.Handler):
    """Lowers colddiff's level to INFO while any job is logged, unnoticed by the user's handlers.

    As a handler it replaces Python's handler of last resort, which any other handler disables.
    """

    def __init__(self) -> None:
        super().__init__()
        self._jobs_lock = threading.RLock()
        self._jobs = 0
        self._level = self._lowered = logging.NOTSET
        self._gated: set[logging.Handler] = set()

    def enter(self) -> None:
        with self._jobs_lock:
            self._jobs += 1
            if self._jobs == 1:
                self._level = LOGGER.level
                self._gate()
                self._lowered = min(LOGGER.getEffectiveLevel(), logging.INFO)
                LOGGER.setLevel(self._lowered)
                LOGGER.addHandler(self)

    def leave(self) -> None:
        with self._jobs_lock:
            self._jobs -= 1
            if self._jobs == 0:
                LOGGER.removeHandler(self)
                if LOGGER.level == self._lowered:  # else the user has changed it meanwhile
                    LOGGER.setLevel(self._level)
                while self._gated:
                    self._gated.pop().removeFilter(self._passes)

    def handle(self, record: logging.LogRecord) -> bool:
        if self._gate():  # before the root logger's handlers, some of which may be new
            return False
        last = logging.lastResort
        return bool(last and record.levelno >= last.level and last.handle(record))

    def _gate(self) -> bool:
        """Filters what the user's handlers get; whether there are any."""
        users = set(_users_handlers())
        with self._jobs_lock:
            if self._jobs:
                for handler in users - self._gated:
                    handler.addFilter(self._passes)
                self._gated |= users
        return bool(users)

    def _passes(self, record: logging.LogRecord) -> bool:
        """Whether the record's level would be enabled if no job were logged."""
        if LOGGER.level != self._lowered:
            return True
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            level = self._level if logger is LOGGER else logger.level
            if level:
                return record.levelno >= level
            logger = logger.parent
        return True


_SHARED = _SharedLevel()


def _users_handlers() -> Iterator[logging.Handler]:
    """The handlers that colddiff's records reach, without those of ``logged``."""
    logger: logging.Logger | None = LOGGER
    while logger is not None:
        for handler in logger.handlers:
            if not isinstance(handler, _UploadHandler | _SharedLevel):
                yield handler
        logger = logger.parent if logger.propagate else None


def log_to_stderr() -> None:
    """Prints colddiff's log records of this process to stderr, for drivers and workers."""
    if not any(getattr(handler, "name", "") == "stderr" for handler in LOGGER.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.name = "stderr"
        LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
