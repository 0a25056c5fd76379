"""What processes print, by line: about the job, or what other libraries say of themselves.

The latter go into a file beside the log.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

LONGEST = 64 << 10
"""Bytes of a line without an end that is passed on as it is, such as a progress bar."""

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SOURCE = re.compile(r"^\((?P<name>[\w.:+ ]+?)(?: pid=\d+)?(?:, ip=[^)]*)?\) ?(?P<text>.*)$")
"""What Ray writes before a line of another process: ``(RayTrainWorker pid=7805) step 20/60``."""

NOISY_ACTORS = {
    # Asks for the state of the newest cluster on its machine, which may be another one: on machines
    # with several it says twice a second that it cannot.
    "PlacementGroupCleaner",
}
WARNING = re.compile(
    r"(?!\S*-packages/colddiff/)\S*(?:-packages|lib/python3\.\d+)/\S+\.py:\d+: \w*Warning: "
)
NOISE = re.compile(
    "|".join(
        (
            # Ray's own log below a warning, in Python and in C++.
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\s+(?:DEBUG|INFO) \S+\.py:\d+ -- ",
            r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [DI] \d+ \d+\] ",
            # https://github.com/ray-project/ray/issues/53727, of an actor of Ray Train itself.
            r"\[.* E \d+ \d+\] core_worker\.cc:\d+: Actor with class name: 'PreemptionWatcher'",
            # What Ray Train is about to do, which the job's own lines say.
            r"Requesting resources: ",
            # On a busy machine, before each of some attempts.
            r"Failed to send resource request for ",
            r"Attempting to start training worker group of size ",
            r"Detected (?:ready resources for|changes in the cluster resources)",
            r"Started training worker group of size ",
            r"- \(ip=\S+, pid=\d+\) world_rank=",
            r"Setting up process group for: env://",
            r"Tip: ",
            # Of any job of the cluster, which says itself what it waits for.
            r"Error: No available node types can fulfill resource request ",
            # Above the traceback of a worker, which says it.
            r"Error in training function:$",
            # Before a driver, in the log that a cluster has of it.
            r"Running entrypoint for job ",
            # What Ray says of any worker that is gone, and guesses of its cause: our own line about
            # the failure names what failed.
            r"A worker died or was killed while executing a task by an unexpected system error",
            r"The actor (?:died unexpectedly before finishing|is dead because|never ran) ?",
            r"\t(?:class_name|actor_id|pid|name|namespace|ip): ",
            # What a machine that was lost had counted, in the words of its last log.
            r"\s*\[state-dump\]",
            # Where the client of S3 has its settings from.
            r"Found (?:credentials|endpoint) ",
            # MLflow and its database, errors aside.
            r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (?:INFO|WARNING) mlflow",
            r"(?:INFO|WARNI)\s+\[alembic\.",
            # Clients of services below a warning, such as where boto found credentials, however
            # whoever configured logging has them printed.
            r".{0,60}\b(?:INFO|DEBUG)\b.{0,60}\b(?:botocore|boto3|s3transfer|urllib3)\b",
            r".{0,120}Found credentials (?:in|from) ",
            # Ray's control store, asked while it starts or goes: our own lines name what is lost.
            r"\[.* [WE] \d+ \d+\] (?:\(\w+\) )?(?:gcs_\w+|ray_syncer\w*)\.(?:cc|h):\d+: ",
        )
    )
)
NOISE_OF = {
    # Describes each worker that failed, twice; the traceback of an error in it is kept.
    "TrainController": re.compile(
        r"\[FailurePolicy\] |  Source: |  Error count: \d|\[Rank [\d,]+ Error Snippet\]:$"
        r"|(?:Error|ray\.train\.WorkerGroupError): Training failed due to worker errors:$"
        r"|A worker health check failed\.$|Worker info: Worker\($"
        r"|  (?:actor|metadata|resources|distributed_context|log_file_path|placement_\w+)="
        r"|    (?:hostname|node_id|node_ip|pid|\w+_ids)=|  \),$|\)$"
        r"|Graceful shutdown of backend failed\."
    )
}
"""What one of Ray's actors says of itself, by its name."""
TRACEBACK = "Traceback (most recent call last):"
CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
FRAME = re.compile(r'  File "(?P<path>[^"]+)", line \d+')
THEIR_FRAME = re.compile(
    r".*(?:-packages/ray/|lib/python3\.\d+/(?!site-packages|dist-packages))|python/ray/"
)
NOT_OF_THE_JOB = re.compile(
    r"(?:ray\.exceptions\.|ray\._raylet\.)?"
    r"(?:GetTimeoutError|RpcError|ActorDiedError|ActorUnavailableError)\b|grpc\.\S*RpcError\b"
)
"""Last line of a traceback of Ray that waited for its control store or a worker that is gone."""
EXPECTED = re.compile(r"colddiff\.errors\.\w+(?:: |$)")
"""Last line of a traceback of an error of ours: the driver says its message, which has all that
helps, as the line of a failure or of the job's end."""
SNIPPET = re.compile(r"\[Rank [\d,]+ Error Snippet\]:$")
"""What a controller quotes of a worker's traceback follows, which the worker has printed whole."""
CUT = "... (Output truncated"
LONGEST_TRACEBACK = 200
"""Lines of one that are held back until it is known what it is about."""

STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ ?")
REPEATED = re.compile(r"\[repeated \d+x across cluster\]")
"""Ray's sum of equal lines of other processes, the first of which it has printed."""


class LogLines:
    """Takes what processes print, in pieces; hands on whole lines, each with its time.

    Args:
        keep: gets the lines that are about the job.
        set_aside: gets those of other libraries.
        clock: seconds since 1970, of this machine; None for lines that have their time.
    """

    def __init__(
        self,
        keep: Callable[[bytes], None],
        set_aside: Callable[[bytes], None],
        clock: Callable[[], float] | None = time.time,
    ) -> None:
        self._keep, self._set_aside, self._clock = keep, set_aside, clock
        self._begun = b""
        self._warned: set[str] = set()
        """Sources whose last line was a warning: the code that it is about follows."""
        self._quoting = ""
        """Source whose last line announces what it quotes of a traceback."""
        self._held: _Traceback | None = None

    def feed(self, chunk: bytes) -> None:
        """Takes a piece; a line that it does not end is kept until it ends, or grows too long."""
        *lines, self._begun = (self._begun + chunk).split(b"\n")
        if len(self._begun) > LONGEST:
            lines.append(self._begun)
            self._begun = b""
        for line in lines:
            self._pass_on(line)

    def flush(self) -> None:
        """Passes on a line that has no end yet."""
        if self._begun:
            self._pass_on(self._begun)
            self._begun = b""
        self._release()

    def _pass_on(self, line: bytes) -> None:
        text = ANSI.sub("", line.decode(errors="replace")).rstrip("\r")
        if self._is_noise(text):
            self._write(self._set_aside, text)
        elif not self._holds(text):
            # Of another process an empty line is what is left of something that was set aside.
            source, said = _source_and_text(text)
            self._write(self._set_aside if source and not said else self._keep, text)

    def _write(self, take: Callable[[bytes], None], text: str) -> None:
        line = text if self._clock is None else stamped(text, self._clock())
        take(f"{line}\n".encode())

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            for line in held.lines:
                self._write(self._set_aside if held.is_noise else self._keep, line)

    def _holds(self, line: str) -> bool:
        """Whether the line is of a traceback that is held back; its last line decides on it."""
        source, text = _source_and_text(line)
        if self._held is not None and not self._held.takes(source, text):
            self._release()
        if self._held is None:
            # Ray prints lines that several processes have said once, and some of them again alone.
            quoted = source == self._quoting and text.startswith(("  ", CUT))
            part = quoted or bool(FRAME.match(text))
            if text != TRACEBACK and not (source and part):
                return False
            self._held = _Traceback(source, part)
        self._quoting = ""
        self._held.add(line, text)
        return True

    def _is_noise(self, line: str) -> bool:
        found = SOURCE.match(line)
        source, text = (found["name"], found["text"]) if found else ("", line)
        if source in NOISY_ACTORS or REPEATED.search(text):
            return True
        key = line[: len(line) - len(text)]
        if source == "TrainController" and SNIPPET.match(text):
            self._quoting = key
        if key in self._warned and text.startswith("  "):
            self._warned.discard(key)
            return True
        self._warned.discard(key)
        if WARNING.match(text):
            self._warned.add(key)
            return True
        of_actor = NOISE_OF.get(source)
        return bool(NOISE.match(text) or (of_actor and of_actor.match(text)))


class _Traceback:
    """Lines of one that is held back, all of one source, with the errors that it is chained to."""

    def __init__(self, source: str, part: bool) -> None:
        self.lines: list[str] = []
        self._source, self._part = source, part
        self._last = ""
        """The line after the frames; "" before it."""
        self._cut = False
        """Whether the next line lacks its beginning."""
        self._others = False
        """Whether a frame is of other code than Ray's."""

    def takes(self, source: str, text: str) -> bool:
        """Whether the next line is of it too."""
        if source != self._source or len(self.lines) > LONGEST_TRACEBACK:
            return False
        chained = not text or text in CHAINED
        if self._last:
            return chained
        return not (text == TRACEBACK and self.lines and not self._may_begin())

    def add(self, line: str, text: str) -> None:
        """Takes the next line."""
        self.lines.append(line)
        frame = FRAME.match(text)
        self._others |= bool(frame and not THEIR_FRAME.match(frame["path"]))
        if text in CHAINED:
            self._last = ""
        elif text and not (self._cut or text.startswith((" ", CUT)) or text == TRACEBACK):
            self._last = text
        self._cut = text.startswith(CUT)

    @property
    def is_noise(self) -> bool:
        """Whether it says nothing that the job's own lines do not say."""
        if not self._last:
            return self._part
        unanswered = NOT_OF_THE_JOB.match(self._last) and not self._others
        return bool(unanswered or EXPECTED.match(self._last))

    def _may_begin(self) -> bool:
        """Whether a traceback may follow: after the line that chains it."""
        last = [_source_and_text(line)[1] for line in self.lines[-2:]]
        return any(text in CHAINED for text in last)


def parted(log: bytes) -> tuple[bytes, bytes]:
    """A log as a cluster has it of a driver: what is about the job, and what is set aside."""
    kept: list[bytes] = []
    aside: list[bytes] = []
    lines = LogLines(kept.append, aside.append, None)
    lines.feed(log)
    before = len(kept)
    lines.flush()
    if len(kept) > before and not log.endswith(b"\n"):
        kept[-1] = kept[-1].removesuffix(b"\n")  # the next read of the log goes on from there
    return b"".join(kept), b"".join(aside)


def _source_and_text(line: str) -> tuple[str, str]:
    """What Ray writes before a line of another process, and the line."""
    found = SOURCE.match(line)
    return ("", line) if found is None else (line[: found.start("text")], found["text"])


def stamped(line: str, at: float) -> str:
    """``line`` after its time, ``2026-11-27 01:28:10Z``: UTC, for people in other places.

    >>> stamped("step 20/60", 0.0)
    '1970-01-01 00:00:00Z step 20/60'
    """
    return f"{time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime(at))} {line}".rstrip()


def unstamped(line: str) -> str:
    """The inverse of ``stamped``; a line without a time, as older logs have, is returned as is."""
    return STAMP.sub("", line)
