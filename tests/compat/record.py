"""``python -m tests.compat.record PART ...`` makes recordings anew, with the code that is here.

Recordings hold later code to what earlier code did: only what is meant to change is made anew, by
its part, and a change of any of them is one that users see. ``runs`` and ``constant`` are folders
of the first layout and stay as they are: later code does not write them any more.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from tests.compat import catalogue, old_layout, running, sets, wholes
from tests.compat.running import RECORDED, storage_in, train_tiny

MIXTURE = (
    'degradation={"kind": "blur", "num_timesteps": 3, "kernel_size": 5, '
    '"sigma": {"kind": "constant", "value": 2.0}}',
    'terminal={"kind": "gmm", "components": 2, "grid": [2, 2]}',
)


def write(name: str, data: Any) -> None:
    """Keeps a recording as JSON."""
    (RECORDED / name).write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


def record_runs(root: Path) -> None:
    """``run``: trained to its end in this process; ``killed``: on a cluster that died under it."""
    with storage_in(root) as storage:
        result = train_tiny()
        _keep(storage, result["id"], "run")
        _record_killed(storage)


def _record_killed(storage: Path) -> None:
    words = ("num_steps=1000000", "checkpoint_every=20", "evaluate_every=null", "log_every=20")
    submitted = running.process(
        *("submit", "train", running.TINY, "--name", "killed", "--detach", "keep=1", *words)
    )
    print(submitted.stderr, file=sys.stderr)
    (job_id,) = submitted.stdout.split()
    try:
        folder = storage / "jobs" / job_id
        deadline = time.monotonic() + 120
        while not list(folder.glob("checkpoints/*/checkpoint.json")):
            assert time.monotonic() < deadline, "no checkpoint"
            time.sleep(0.2)
        while not (folder / "attempts/1/log.txt").exists():
            assert time.monotonic() < deadline, "no log"
            time.sleep(0.2)
        claim = json.loads((folder / "attempts/1/claim.json").read_text())
        os.kill(claim["pid"], signal.SIGKILL)
    finally:
        running.process("cluster", "stop")
    _keep(storage, job_id, "killed")


def _keep(storage: Path, job_id: str, name: str) -> None:
    shutil.rmtree(RECORDED / name, ignore_errors=True)
    out = RECORDED / name
    old_layout.keep(storage / "jobs" / job_id, storage, out)
    shutil.rmtree(out / "pictures", ignore_errors=True)
    _refuse_names(out)


def _refuse_names(folder: Path) -> None:
    for path in folder.rglob("*"):
        text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
        host = f'"{socket.gethostname()}"'
        for name in (host, tempfile.gettempdir(), str(Path.cwd()), str(Path.home())):
            assert name not in text, f"{path} names {name}"


def record_constant(root: Path) -> None:
    """``constant``: checkpoints of a restorer that returns one grey, of noise and of a mixture."""
    for name, changes in {"noise": (), "mixture": MIXTURE}.items():
        with storage_in(root) as storage:
            result = train_tiny("num_steps=1", "test_data=null", *changes)
            _blank(Path(result["checkpoint"]))
            out = RECORDED / "constant" / name
            shutil.rmtree(out, ignore_errors=True)
            old_layout.keep(Path(result["checkpoint"]), storage, out / "checkpoints/step_00000001")
            _refuse_names(out)


def _blank(checkpoint: Path) -> None:
    """Leaves the EMA weights alone, all of them 0 but the last bias."""
    path, commit = checkpoint / "ema.safetensors", checkpoint / "checkpoint.json"
    weights = {
        name: torch.zeros_like(value) for name, value in safetensors.torch.load_file(path).items()
    }
    weights["final_conv.1.bias"].fill_(sets.GREY)
    data = safetensors.torch.save(weights)
    path.write_bytes(data)
    record = json.loads(commit.read_text())
    record["files"][path.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    for stem in ("model", "optimizer"):
        del record["files"][f"{stem}.safetensors"]
        (checkpoint / f"{stem}.safetensors").unlink()
    commit.write_text(json.dumps(record, indent=2))


def record_ids(root: Path) -> None:
    """``job_ids.json`` and ``dry_runs.json``."""
    with storage_in(root):
        ids = {"recipes": catalogue.recipe_ids(root), "others": catalogue.other_ids(root)}
        write("job_ids.json", {**ids, "plugin": catalogue.plugin_id(root)})
        write("dry_runs.json", catalogue.dry_runs())


def record_sets(root: Path) -> None:
    """``sets.json``: sample sets and packed sets."""
    with storage_in(root) as storage:
        train_tiny("num_steps=1")
        (test_set,) = storage.glob("data/digits-*/test")
        for name in sets.SETS:
            found = sets.margin(name, root, test_set)
            assert found > sets.SAFE, f"{name}: {found}; choose another first_seed"
        write("sets.json", {name: sets.make(name, root) for name in sets.SETS})


def record_wholes(root: Path) -> None:
    """``packed.json`` and ``wholes.json``: what packing, training, evaluating, generating leave."""
    with storage_in(root) as storage:
        write("packed.json", wholes.pack_digits(root))
        write("wholes.json", wholes.describe(storage, wholes.run(storage)))


PARTS: dict[str, Callable[[Path], None]] = {
    "runs": record_runs,
    "constant": record_constant,
    "ids": record_ids,
    "sets": record_sets,
    "wholes": record_wholes,
}


def main() -> None:
    """Records the parts that are named."""
    parts = sys.argv[1:]
    if not parts or set(parts) - set(PARTS):
        sys.exit(f"usage: python -m tests.compat.record PART ...; parts: {', '.join(PARTS)}")
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="compat-") as root:
            PARTS[part](Path(root))
        print(f"recorded {part}")


if __name__ == "__main__":
    main()
