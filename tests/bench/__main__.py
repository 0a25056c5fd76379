"""`python -m tests.bench [--json] [--quick]`: all benchmarks, on whatever device there is."""

from __future__ import annotations

import argparse
import json
from typing import Any

from tests.bench import algorithm2, blur, loader, nets, sampling
from tests.bench.timing import describe, device


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one repeat, 32 px only")
    parser.add_argument("--sampling", action="store_true", help="sampling alone, minutes")
    parser.add_argument("--loader", action="store_true", help="the reader of packed sets alone")
    options = parser.parse_args()
    place = device()
    if options.loader:
        _say({"device": describe(place), "loader": loader.measure()}, as_json=options.json)
        return
    if options.sampling:
        sampling.report(place, as_json=options.json)
        return
    cases = nets.cases(place.type == "cuda")
    if options.quick:
        cases = [case for case in cases if case.size == 32]
    found: dict[str, Any] = {
        "device": describe(place),
        "nets": [nets.measure(case, place, 1 if options.quick else 5) for case in cases],
        "blur": blur.measure(place),
        "algorithm2": algorithm2.measure(place, 64 if place.type == "cuda" else 2),
        "loader": loader.measure(1 if options.quick else 3),
    }
    _say(found, as_json=options.json)


def _say(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(f"device: {found.pop('device')}")
    rows = [row for part in found.values() for row in (part if isinstance(part, list) else [part])]
    for row in rows:
        print()
        for name, value in row.items():
            print(
                f"  {name:30} {value:,.4g}" if isinstance(value, float) else f"  {name:30} {value}"
            )


if __name__ == "__main__":
    main()
