"""Sample sets whose every byte is recorded, made so that no CPU's rounding can show in them.

Pixels are floats rounded to 8 bit, and the last bit of a float differs between machines: with and
without FMA, between AVX2 and AVX-512, between versions of oneDNN. What is recorded here does not
see it, for two reasons:

- The restorer is exactly constant: all of its EMA weights are 0 but the last bias. Every product in
  it is then 0 and every sum exact, whatever kernel computes it.
- What remains is a handful of float operations for each pixel on numbers below 10 (draw x_T, two
  degradations, one difference; sums of 25 products for the blur), which machines may round apart by
  about 1e-6, which is 1e-4 of a grey level. ``margin`` tells how far the value nearest to the edge
  between two grey levels is from it; the seeds are chosen so that it is above ``SAFE``, and a test
  says so.

Beside the pixels a tar depends on zlib (as Pillow brings it, pinned in constraints.txt) alone.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import colddiff
from colddiff.rng import stream, streams
from tests.compat.described import hashes
from tests.compat.old_layout import checkpoint_of
from tests.compat.running import command

GREY = 0.3
"""What the constant restorers return."""
SAFE = 1e-3
"""Grey levels between any value and the edge at which it would round to the next level."""

SETS: dict[str, tuple[str, dict[str, Any]]] = {
    "drawn": ("noise", {"num_samples": 12, "first_seed": 156, "symmetry_noise": 0.002}),
    "mixture": ("mixture", {"num_samples": 12, "first_seed": 117}),
    "direct": ("noise", {"num_samples": 7, "sampler": "direct"}),
    "restored": ("noise", {"data": "digits", "num_samples": 8, "first_seed": 290, "severities": 2}),
}
"""Which checkpoint, and what the job says; all in shards of 5 and batches of 4."""


def make(name: str, root: Path) -> dict[str, Any]:
    """Generates a set with the present code; id, plan, manifest and the sha256 of its tars."""
    checkpoint, fields = SETS[name]
    reference = checkpoint_of(checkpoint, root)
    words = [f"{key}={value}" for key, value in fields.items()]
    outcome = command(
        *("submit", "generate", "--local", "--json", "--name", name, f"checkpoint={reference}"),
        *("shard_size=5", "batch_size=4", *words),
    ).json
    result = json.loads(Path(outcome["result"]).read_text())
    samples = Path(result["samples"])
    plan = json.loads((samples / "plan.json").read_text())
    return {
        "id": outcome["id"],
        "plan": result["plan"],
        "manifest": result["manifest"],
        "plan keys": sorted(plan),
        "content keys": sorted(plan["content"]),
        "tars": hashes(samples),
        "members": _members(samples / "shard-000000.tar"),
    }


def margin(name: str, root: Path, test_set: Path) -> float:
    """Grey levels between the values of a set and the nearest edge at which one would flip."""
    checkpoint, fields = SETS[name]
    loaded = colddiff.load_checkpoint(str(checkpoint_of(checkpoint, root)))
    D = loaded.degradation
    first = int(fields.get("first_seed", 0))
    seeds = range(first, first + int(fields["num_samples"]))
    severities = fields.get("severities")
    if "data" in fields:
        omega = D.draw(len(seeds), rng=streams(0, "evaluation/omega", seeds))
        x0 = torch.from_numpy(_pixels(test_set, seeds)).float() / 127.5 - 1
        x_T = D.degrade(x0, torch.full((len(x0),), D.num_timesteps), omega)
    else:
        assert loaded.terminal is not None
        rng = [stream(seed, "generation/start") for seed in seeds]
        noise = float(fields.get("symmetry_noise", 0.0))
        x_T, omega = loaded.terminal.draw(D, rng, symmetry_noise=noise)
    x_0 = colddiff.sample(
        loaded.restorer,
        D,
        x_T,
        omega,
        sampler=fields.get("sampler", "improved"),
        severities=severities,
    )
    levels = (x_0.double().numpy() + 1) * 127.5
    # What is cut off at black and white cannot flip.
    inside = levels[(levels > -0.4) & (levels < 255.4)]
    return float(np.abs(inside - np.floor(inside) - 0.5).min())


def _pixels(folder: Path, seeds: range) -> NDArray[np.uint8]:
    """uint8 [N, 1, 8, 8]: images of a packed set by number."""
    found = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".png"):
                    file = tar.extractfile(member)
                    assert file is not None
                    found.append(np.asarray(Image.open(file))[None])
    return np.stack([found[seed] for seed in seeds])


def _members(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()
