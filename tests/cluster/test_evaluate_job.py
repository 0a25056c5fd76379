"""`submit evaluate` on a real cluster: two workers, one of which dies, and the numbers of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from colddiff.data.open import pack_source
from colddiff.spec.plugins import load_plugin, unload_plugin
from tests.in_process import Done
from tests.tiny_checkpoint import BLUR, tiny_checkpoint

pytestmark = pytest.mark.cluster

FALTERING = '''
import os
from pathlib import Path
from typing import Literal

from colddiff.degradations import DEGRADATIONS
from colddiff.degradations.blur import Blur, BlurSpec


@DEGRADATIONS.register
class FalteringSpec(BlurSpec):
    """A blur that ends its process the first time it is used."""

    kind: Literal["faltering"] = "faltering"
    marker: str

    def build(self, shape):
        return Faltering(self, shape)


class Faltering(Blur):
    def _degrade(self, x0, t, omega):
        if not Path(self.spec.marker).exists():
            Path(self.spec.marker).touch()
            os._exit(9)
        return super()._degrade(x0, t, omega)
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "faltering.py"
    path.write_text(FALTERING)
    loaded = load_plugin(path)
    yield path
    unload_plugin(loaded)


def test_a_worker_dies_and_the_numbers_are_those_of_one_process(
    colddiff_here: Callable[..., Done], tmp_path: Path, plugin: Path
) -> None:
    marker = tmp_path / "died"
    degradation = {**BLUR, "kind": "faltering", "marker": str(marker)}
    words = [
        f"checkpoint={tiny_checkpoint(tmp_path / 'made', degradation=degradation)}",
        f"test_data={tmp_path / 'digits'}",
        "batch_size=4",
        f"--plugin={plugin}",
    ]
    pack_source(
        "digits", str(tmp_path / "digits"), image_size=16, channels=1, split="test", limit=30
    )

    def evaluate(place: str, *more: str) -> dict[str, Any]:
        storage = str(tmp_path / place)
        done = colddiff_here(
            "submit", "evaluate", *words, *more, "--json", COLDDIFF_STORAGE=storage
        )
        assert done.returncode == 0, done.stderr
        outcome = json.loads(done.stdout)
        log = Path(outcome["folder"]) / "attempts" / "1" / "log.txt"
        found: dict[str, Any] = json.loads(Path(outcome["result"]).read_text())
        return {**found, "log": log}

    together = evaluate("cluster", "workers=2")
    assert marker.exists()
    # Each line without the day and time before it.
    lines = [line.split(" ", 2)[-1] for line in together["log"].read_text().splitlines()]
    assert any(": retrying: its worker died" in line for line in lines)
    with _one_thread():  # as many as a worker has
        alone = evaluate("here", "--local")
    assert together["metrics"] == alone["metrics"]
    assert together["provenance"] == alone["provenance"]
    assert len(together["pictures"]) == len(alone["pictures"]) > 0
    # The table that both end with, also in the log of the cluster's driver.
    assert together["summary"] == alone["summary"]
    assert "Algorithm 2" in together["summary"][0]
    # Its last words are there once the client, which waits for the status, has ended.
    assert "\n".join(together["summary"]) in "\n".join(lines)
    assert "next:" in lines


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
