"""The sbatch script that runs one job on a Slurm cluster, and its submission."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from colddiff.errors import ClusterError, SpecError

# Settings without secrets, for a script that is submitted from another shell; sbatch takes along
# the rest of the environment, such as AWS_ACCESS_KEY_ID, unless --export says otherwise.
KEPT = (
    "COLDDIFF_STORAGE",
    "COLDDIFF_CACHE",
    "COLDDIFF_FEATURES",
    "MLFLOW_TRACKING_URI",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
)
# minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S
TIME = re.compile(
    r"(?P<minutes>\d+)|(?P<m>\d+):(?P<s>\d\d)|(?P<h>\d+):(?P<hm>\d\d):(?P<hs>\d\d)|"
    r"(?P<d>\d+)-(?P<dh>\d\d?)(:(?P<dm>\d\d)(:(?P<ds>\d\d))?)?"
)
SECONDS = {"minutes": 60, "m": 60, "s": 1, "h": 3600, "hm": 60, "hs": 1}
SECONDS |= {"d": 86400, "dh": 3600, "dm": 60, "ds": 1}

SCRIPT = """\
#!/bin/bash
# {title}
# Written by `colddiff slurm`; submit it with `sbatch FILE`. It brings up Ray on all nodes of the
# allocation, runs the job, and ends with its exit code. Before the time is up, or when the job is
# preempted, it takes a checkpoint and requeues itself.
{directives}
{exports}
python={python}
if ! "$python" -c 'import importlib.util as u; exit(not (u.find_spec("ray") and \
u.find_spec("colddiff")))' 2>/dev/null; then
    echo "colddiff: error: $python on $(hostname) has no colddiff with Ray; install it where all" \\
        "nodes see it (a shared folder, or a container), and write this script with that Python" >&2
    exit 2
fi
# In place of this shell, so that Slurm's notice (--signal=B:...) reaches it.
exec "$python" -P -m colddiff.cli.main slurm-job {arguments}
"""


@dataclass(frozen=True, slots=True)
class Slurm:
    """What an allocation is asked for."""

    nodes: int = 1
    time: str | None = None
    """As in `sbatch --time`; None: the partition's own limit."""
    notice_s: int = 120
    """How long before the end of the allocation the job is told to take a checkpoint."""
    options: tuple[str, ...] = ()
    """Further options of sbatch, such as ``--partition=gpu``."""

    def directives(self, name: str, folder: Path) -> list[str]:
        """The options of sbatch; raises SpecError for those that contradict each other."""
        if self.time is not None and time_limit_s(self.time) <= self.notice_s:
            raise SpecError(
                f"--time {self.time} is over before the checkpoint that --notice {self.notice_s} "
                "asks for; use a longer --time"
            )
        found = {
            "--job-name": name,
            "--nodes": str(self.nodes),
            "--ntasks-per-node": "1",
            "--time": self.time,
            "--signal": f"B:USR1@{self.notice_s}",
            "--chdir": shlex.quote(str(folder)),
            "--output": "%x-%j.log",
            "--open-mode": "append",
        }
        given = {option.partition("=")[0] for option in self.options}
        for option in self.options:
            if not re.fullmatch(r"--?[a-zA-Z][\w-]*(=\S.*)?", option) or "\n" in option:
                raise SpecError(f"--sbatch {option!r}: write one option as --name=value")
            if (name := option.partition("=")[0]) in found and name not in ("--output", "--chdir"):
                raise SpecError(f"--sbatch {option}: colddiff sets {name} itself")
        lines = [f"{k}={v}" for k, v in found.items() if v is not None and k not in given]
        if not given & {"--cpus-per-task", "-c", "--exclusive", "--cpus-per-gpu"}:
            lines.append("--exclusive")  # else Slurm gives one CPU to each node
        return [*lines, "--requeue", *self.options]


def time_limit_s(text: str) -> float:
    """Seconds of a Slurm time limit; raises SpecError if it is none."""
    found = TIME.fullmatch(text)
    if not found:
        raise SpecError(
            f"--time {text!r}: use minutes (90), hours:minutes:seconds (12:00:00) or days-hours "
            "(2-12)"
        )
    return sum(int(v) * SECONDS[k] for k, v in found.groupdict().items() if v is not None)


def write_script(
    slurm: Slurm,
    name: str,
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
) -> str:
    """The sbatch script of a job; raises SpecError for an invalid ``slurm``.

    Args:
        slurm: what to ask Slurm for.
        name: name of the Slurm job and its log file.
        arguments: of ``colddiff slurm-job``: the verb and the words of the job.
        folder: where relative paths in the job start; all nodes must see it.
        environment: settings without secrets are written into the script.
    """
    bin_folder = shlex.quote(str(Path(sys.executable).parent))
    exports = [f'export PATH={bin_folder}:"$PATH"  # the python of the job\'s processes']
    exports += [
        f"export {key}={shlex.quote(environment[key])}"
        for key in KEPT
        if environment.get(key) and not _has_password(environment[key])
    ]
    return SCRIPT.format(
        title=" ".join(["colddiff", *(shlex.quote(word) for word in arguments)]),
        directives="\n".join(f"#SBATCH {line}" for line in slurm.directives(name, folder)),
        exports="\n".join(exports),
        python=shlex.quote(sys.executable),
        arguments=" ".join(shlex.quote(word) for word in arguments),
    )


def submit_script(script: str) -> str:
    """Submits a script with sbatch; returns the id of the Slurm job. Raises ClusterError."""
    if shutil.which("sbatch") is None:
        raise ClusterError(
            "sbatch is not on the PATH: run this on a login node of the Slurm cluster, or omit "
            "--submit and pass the script to sbatch there"
        )
    answer = subprocess.run(
        ["sbatch", "--parsable"],  # noqa: S607  # the site's own
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise ClusterError(f"sbatch refused the job: {' '.join(answer.stderr.split())}")
    return answer.stdout.strip().partition(";")[0]


def _has_password(text: str) -> bool:
    try:
        return "://" in text and urlsplit(text).password is not None
    except ValueError:
        return True
