"""`submit evaluate` on a real cluster: two workers, one of which dies, and the numbers of one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colddiff.data.open import pack_source
from colddiff.spec.plugins import load_plugin, unload_plugin
from tests.cluster.conftest import RunningCluster
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
    cluster: RunningCluster, tmp_path: Path, plugin: Path
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
        env = cluster.env | {
            "COLDDIFF_STORAGE": str(tmp_path / place),
            "COLDDIFF_CACHE": str(tmp_path / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        env.pop("MLFLOW_TRACKING_URI", None)
        command = [sys.executable, "-m", "colddiff.cli.main", "submit", "evaluate", *words, *more]
        done = subprocess.run(
            [*command, "--json"], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        outcome = json.loads(done.stdout)
        log = Path(outcome["folder"]) / "attempts" / "1" / "log.txt"
        found: dict[str, Any] = json.loads(Path(outcome["result"]).read_text())
        return {**found, "log": log.read_text() if log.exists() else ""}

    together = evaluate("cluster", "workers=2")
    assert marker.exists()
    assert ": retrying: its worker died" in together["log"]
    alone = evaluate("here", "--local")
    assert together["metrics"] == alone["metrics"]
    assert together["provenance"] == alone["provenance"]
    assert len(together["pictures"]) == len(alone["pictures"]) > 0
    # The table that both end with, also in the log of the cluster's driver.
    assert together["summary"] == alone["summary"]
    assert "Algorithm 2" in together["summary"][0]
    assert "\n".join(together["summary"]) in together["log"]
