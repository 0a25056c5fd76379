"""`python -m tests.fuzz [TARGET ...] [--minutes M] [--seed N] [--count N]` (`make fuzz`).

Takes the targets in turn, each time with a new seed, until the time is over. Each line names the
seed of a turn: `python -m tests.fuzz TARGET --seed N` repeats it. At the first finding it prints
the smallest input that still shows it, and how to repeat it, and exits with 1.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz import jobs, records, tars
from tests.fuzz.harness import Maker, Target, TooLong, fuzz, quiet

MAKERS: dict[str, Maker] = {
    "tar": tars.target,
    "manifest": records.manifest,
    "checkpoint": records.checkpoint,
    "state": records.state,
    "status": records.job_files,
    "job": jobs.job_file,
    "override": jobs.override,
}


def main() -> int:
    """Runs the fuzzer; 0 if it found nothing."""
    words = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    words.add_argument("targets", nargs="*", choices=[[], *MAKERS], help="default: all of them")
    words.add_argument("--minutes", type=float, default=10.0, help="time for all targets together")
    words.add_argument("--seed", type=int, help="one turn of each target, with this seed")
    words.add_argument("--count", type=int, default=100, help="inputs of a turn")
    given = words.parse_args()
    logging.disable(logging.CRITICAL)
    until = time.monotonic() + 60 * given.minutes
    number = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    inputs = 0
    with tempfile.TemporaryDirectory(prefix="colddiff-fuzz-") as folder:
        with quiet():
            targets = [MAKERS[name](Path(folder) / name) for name in given.targets or MAKERS]
        while True:
            for target in targets:
                if not _turn(target, number, given.count):
                    return 1
                inputs += given.count
            number += 1
            if given.seed is not None or time.monotonic() > until:
                print(f"nothing found in about {inputs} inputs")
                return 0


def _turn(target: Target, number: int, count: int) -> bool:
    began = time.monotonic()
    print(f"{target.name}: seed {number}, {count} inputs", end="", flush=True)
    try:
        fuzz(target, number, count)
    except (Exception, TooLong) as found:
        print()
        traceback.print_exception(found, file=sys.stdout)
        print(f"repeat it: python -m tests.fuzz {target.name} --seed {number} --count {count}")
        return False
    print(f", {time.monotonic() - began:.1f} s", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
