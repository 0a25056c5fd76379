"""What tells jobs apart: the fields in which they differ, by short paths."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

HOW_IT_RUNS = frozenset(
    {"storage", "tracking", "plugins", "max_failures", "resources", "limits", "trainings"}
)
"""Fields of how a job is run, which say nothing about what it is."""

OPERATION = frozenset(
    {
        "channels_last",
        "checkpoint_every",
        "compile",
        "confirm_best",
        "confirm_seeds",
        "evaluate_every",
        "evaluation",
        "hang_timeout_s",
        "keep",
        "limits",
        "log_every",
        "max_batch_per_worker",
        "max_concurrent",
        "max_failures",
        "num_samples",
        "num_steps",
        "num_trials",
        "on_nonfinite",
        "partial",
        "priority",
        "resources",
        "snapshot_every_s",
        "statistics",
        "storage",
        "store_patience_s",
        "tracking",
        "trainings",
        "workers",
    }
)
"""Operation fields of all verbs, which decide no id. Written out, as `list` loads no job class; a
test holds it to them."""


def differing_fields(
    specs: Sequence[Mapping[str, Any]], left_out: Collection[str] = HOW_IT_RUNS
) -> list[dict[str, Any]]:
    """For each job, its values of the fields in which ``specs`` differ, by path.

    None where a job has no such field. ``left_out``: fields of the jobs that are not compared.
    Fields of operation come last: where room is short, what makes jobs others is shown.
    """
    flat = [flat_fields({k: v for k, v in spec.items() if k not in left_out}) for spec in specs]
    paths = dict.fromkeys(path for fields in flat for path in fields)
    differing = [path for path in paths if len({repr(fields.get(path)) for fields in flat}) > 1]
    differing.sort(key=_is_of_operation)
    return [{path: fields.get(path) for path in differing} for fields in flat]


def _is_of_operation(path: str) -> bool:
    """Whether a path is of how a job runs, or how the base of a search does."""
    above, _, rest = path.partition(".")
    if above != "base":
        return above in OPERATION
    # The steps of a base are what its trials are, and no extent that grows.
    return rest.partition(".")[0] in OPERATION - {"num_steps"}


def operation_aside(differing: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The paths of how jobs run, if without them as many of ``differing`` are told apart; or none.

    >>> sorted(operation_aside([{"seed": 0, "workers": 1}, {"seed": 1, "workers": 2}]))
    ['workers']
    >>> sorted(operation_aside([{"workers": 1}, {"workers": 2}]))
    []
    """
    paths = frozenset(path for fields in differing for path in fields if _is_of_operation(path))
    rest = [{k: v for k, v in fields.items() if k not in paths} for fields in differing]
    # A value that is null is not shown beside others.
    told = [len({differences_text(fields) for fields in of}) for of in (differing, rest)]
    return paths if told[0] == told[1] else frozenset()


def differences_text(differs: Mapping[str, Any]) -> str:
    """``degradation.num_timesteps=9, sigma.start=0.42``; nulls where there is nothing else.

    >>> differences_text({"severities": None, "n": 4}), differences_text({"severities": None})
    ('n=4', 'severities=null')
    """
    short = dict(zip(differs, short_paths(list(differs)), strict=True))
    parts = [f"{short[path]}={value_text(of)}" for path, of in differs.items() if of is not None]
    if parts:
        return ", ".join(parts)
    # Of a field that is null, those that it holds elsewhere say no more.
    above = (path for path in differs if not any(path.startswith(f"{one}.") for one in differs))
    return ", ".join(f"{short[path]}=null" for path in above)


def short_paths(paths: Sequence[str]) -> list[str]:
    """For each path its field and the one that holds it, or more where another path has both.

    >>> short_paths(["seed", "ema.every", "degradation.sigma.start"])
    ['seed', 'ema.every', 'sigma.start']
    """

    def shortest(path: str) -> str:
        parts = path.split(".")
        for count in range(2, len(parts)):
            ending = ".".join(parts[-count:])
            same = [other for other in paths if f".{other}".endswith(f".{ending}")]
            if len(same) == 1:
                return ending
        return path

    return [shortest(path) for path in paths]


def short_addresses(values: Collection[str]) -> dict[str, str]:
    """For each address its last two parts, or more where another one ends in them too.

    >>> short_addresses(["/home/me/a/train", "s3://b/c/train"])
    {'/home/me/a/train': '…/a/train', 's3://b/c/train': '…/c/train'}
    """

    def shortest(value: str) -> str:
        parts = value.split("/")
        for count in range(2, len(parts)):
            ending = "/".join(parts[-count:])
            if sum(f"/{other}".endswith(f"/{ending}") for other in values) == 1:
                return f"…/{ending}"
        return value

    return {value: shortest(value) for value in values}


def flat_fields(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a spec by path."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            flat |= flat_fields(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


CHECKPOINT = re.compile(r"/checkpoints/step_0*(\d+)$")
STORED = re.compile(r"^.*/(?:jobs|samples)/(?=[^/])")
"""What is before the id of a job, in the address of what it made."""


def value_text(value: Any) -> str:
    """A value of a field in few letters; an address below STORAGE as what distinguishes it.

    >>> value_text("s3://bucket/runs/jobs/train-x-00000001/checkpoints/step_00000060")
    'train-x-00000001@step=60'
    >>> value_text("/runs/samples/generate-x-00000001")
    'generate-x-00000001'
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{','.join(map(value_text, value))}]"
    return CHECKPOINT.sub(r"@step=\1", STORED.sub("", str(value)))
