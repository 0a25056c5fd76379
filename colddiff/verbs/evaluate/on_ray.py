"""`python -m colddiff.verbs.evaluate.on_ray job.json --attempt N`: one attempt under Ray."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import ray

from colddiff.cluster.driver import handed_in
from colddiff.cluster.worker_count import most_workers
from colddiff.errors import ColddiffError
from colddiff.evaluation.partition import NUM_PARTS, Part, merge_all, parts_of
from colddiff.evaluation.sums_bytes import tally_from_bytes, tally_to_bytes
from colddiff.jobs.device import refuse_idle_gpu
from colddiff.jobs.log import say
from colddiff.jobs.log_tee import LogTee
from colddiff.jobs.resolve import ResolvedJob
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.evaluate.work import Subject, open_subject, run_evaluation

POLL_S = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Exit code of the attempt: 0 done, 1 failed, 4 stopped."""
    resolved, folder, number = handed_in("evaluate", arguments)
    with LogTee(lambda text: folder.write_log(number, text)):
        ray.init(log_to_driver=True, ignore_reinit_error=True)
        workers = min(NUM_PARTS, most_workers(resolved.job_as(EvaluateJob)))

        def tallying(
            subject: Subject, progress: Callable[[int], None], mind_stop: Callable[[], None]
        ) -> Any:
            parts = parts_of(subject.measured)
            return _Queue(resolved, parts, min(workers, len(parts)), progress, mind_stop).run()

        return run_evaluation(
            resolved,
            number,
            tallying,
            {"job": resolved.to_dict()},
            gpus=resolved.job_as(EvaluateJob).resources.gpus * workers,
        )


class _Worker:
    """Tallies parts in a process of its own, with the checkpoint or the sets open."""

    def __init__(self, data: dict[str, Any]) -> None:
        resolved = ResolvedJob.from_dict(data)
        self._resources = resolved.job_as(EvaluateJob).resources
        self._measured = open_subject(resolved).measured
        self._parts = parts_of(self._measured)

    def tally(self, number: int) -> bytes:
        refuse_idle_gpu(self._resources)  # here, for a call's error is told as it is
        return tally_to_bytes(self._parts[number].tally(self._measured))


class _Queue:
    """Hands parts to actors that ask for more; a part whose actor died goes to another one."""

    def __init__(
        self,
        resolved: ResolvedJob,
        parts: list[Part],
        workers: int,
        progress: Callable[[int], None],
        mind_stop: Callable[[], None],
    ) -> None:
        self._parts, self._progress, self._mind_stop = parts, progress, mind_stop
        job = resolved.job_as(EvaluateJob)
        self._max_failures = job.max_failures
        self._failures = 0
        # Not restarted by Ray: its handle answers "unavailable" for a while, which looks like more
        # deaths. A new actor takes calls at once and serves them when it is up.
        options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0}
        options |= {"num_cpus": job.resources.cpus, "num_gpus": job.resources.gpus}
        if job.resources.accelerator:
            options["accelerator_type"] = job.resources.accelerator
        self._actor: Any = ray.remote(**options)(_Worker)
        self._data = resolved.to_dict()
        self._actors: list[Any] = [self._actor.remote(self._data) for _ in range(workers)]

    def run(self) -> Any:
        """The tally over all parts."""
        waiting = deque(self._parts)
        done: dict[int, Any] = {}
        under_way: dict[Any, tuple[Any, Part]] = {}
        idle = deque(self._actors)
        try:
            while len(done) < len(self._parts):
                while idle and waiting:
                    actor, part = idle.popleft(), waiting.popleft()
                    under_way[actor.tally.remote(part.number)] = (actor, part)
                finished, _ = ray.wait(list(under_way), timeout=POLL_S)
                self._mind_stop()
                for reference in finished:
                    actor, part = under_way.pop(reference)
                    try:
                        done[part.number] = tally_from_bytes(ray.get(reference))
                    except ray.exceptions.RayActorError as error:
                        actor = self._replaced(actor, part, error)
                        waiting.appendleft(part)
                    except ray.exceptions.RayTaskError as error:
                        raise _cause(error) from None
                    else:
                        self._progress(part.num_images)
                    idle.append(actor)
        finally:
            for actor in self._actors:
                ray.kill(actor)
        return merge_all([done[number] for number in sorted(done)])

    def _replaced(self, actor: Any, part: Part, error: Exception) -> Any:
        """A new actor for one that died; ColddiffError after too many."""
        self._failures += 1
        line = next(iter(str(error).splitlines()), type(error).__name__)
        if self._failures > self._max_failures:
            raise ColddiffError(f"workers died {self._failures} times, the last time of: {line}")
        say(f"part {part.number} is begun anew, its worker died: {line}")
        ray.kill(actor)
        self._actors.remove(actor)
        self._actors.append(self._actor.remote(self._data))
        return self._actors[-1]


def _cause(error: Exception) -> Exception:
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, ColddiffError) else error


if __name__ == "__main__":
    sys.exit(main())
