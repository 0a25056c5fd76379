"""`python -m tests.bench [NAME ...] [--list] [--json] [--quick]`: figures to read, by name or all.

Every figure is of this run on this device; ratios are taken side by side. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tests.bench import (
    algorithm2,
    blur,
    checkpoints,
    generate,
    kills,
    latency,
    listing,
    loader,
    metrics,
    nets,
    sampling,
    scale,
    search,
    training,
)
from tests.bench.timing import describe, device

Rows = list[dict[str, Any]]
Measure = Callable[[torch.device, bool], Rows]


def _nets(place: torch.device, quick: bool) -> Rows:
    cases = [case for case in nets.cases(place.type == "cuda") if case.size == 32 or not quick]
    return [nets.measure(case, place, 1 if quick else 5) for case in cases]


BENCHES: Mapping[str, tuple[str, Measure]] = {
    "nets": ("the paper's networks: a step of training and of sampling, and D in it", _nets),
    "training": ("the training loop: bf16 over fp32, and its waits for data", training.rows),
    "gpu": ("the training loop on a GPU: MFU, memory, D's share of a step", training.gpu_rows),
    "loader": (
        "the reader of packed sets: images per second and core, cold and warm",
        lambda _, quick: loader.measure(1 if quick else 3),
    ),
    "checkpoints": (
        "how long checkpoints hold the training up, at one per 500 steps",
        lambda p, _: [checkpoints.measure(p)],
    ),
    "generate": (
        "what generation costs beside its network, with shards of 20 s",
        lambda p, quick: [generate.measure(p, 2.0 if quick else 20.0)],
    ),
    "blur": ("D at T = 300 against the convolutions it replaces", lambda p, _: [blur.measure(p)]),
    "algorithm2": (
        "D's share of a step of Algorithm 2, for every kind",
        lambda p, _: [algorithm2.measure(p, 64 if p.type == "cuda" else 2)],
    ),
    "metrics": (
        "Frechet distances, KID, coverage and near duplicates of 10,000 images",
        lambda _, quick: metrics.measure(2_000 if quick else 10_000, 1 if quick else 3),
    ),
    "search": (
        "what a segment of a search costs beside its training and evaluation",
        lambda _, quick: [search.measure(3 if quick else 6)],
    ),
    "latency": (
        "from submit to the first step and to the end, by part",
        lambda _, quick: [latency.measure(1 if quick else 5)],
    ),
    "kills": (
        "what a killed worker and a killed driver cost a training",
        lambda _, quick: kills.measure(1 if quick else 3),
    ),
    "list": (
        "commands on submitted jobs, and a list of 500 jobs in S3",
        lambda _, quick: listing.measure(50 if quick else 500, 1 if quick else 3),
    ),
    "scale": (
        "a set of 10^9 images by simulation, 10,000 jobs, 1,000 workers on paper; minutes",
        lambda _, quick: scale.measure(10_000 if quick else 1_000_000, 500 if quick else 10_000),
    ),
    "sampling": (
        "Algorithm 2 against the paper's way of computing; minutes",
        lambda p, _: [sampling.measure(p)],
    ),
}
LONG = ("sampling",)
"""Left out of --quick."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all where none is named")
    parser.add_argument("--list", action="store_true", help="what there is, in a line each")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="few repeats, 32 px, nothing long")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHES)
    if unknown:
        parser.error(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    if options.list:
        for name, (what, _) in BENCHES.items():
            print(f"{name:12} {what}")
        return
    place = device()
    names = options.names or [n for n in BENCHES if not (options.quick and n in LONG)]
    found: dict[str, Any] = {"device": describe(place)}
    if not options.json:
        print(f"device: {found['device']}")
    for name in names:
        if name == "sampling" and not options.json:
            sampling.report(place)  # a table of its own
            continue
        found[name] = BENCHES[name][1](place, options.quick)
        if not options.json:
            _show(name, found[name])
    if options.json:
        print(json.dumps(found, indent=2))


def _show(name: str, rows: Rows) -> None:
    print(f"\n{name}: {BENCHES[name][0]}")
    for row in rows:
        print()
        for key, value in row.items():
            text = f"{value:,.4g}" if isinstance(value, float) else str(value)
            print(f"  {key:30} {text}", flush=True)


if __name__ == "__main__":
    main()
