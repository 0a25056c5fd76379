"""The scripts in `infra` say what they do; an interval of distances is what it claims to be."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colddiff.data.open import pack_source
from colddiff.stores.local_store import LocalStore
from colddiff.verbs.generate.plan import claim_plan
from colddiff.verbs.generate.results import write_manifest
from tests.unit.generation import sets

INFRA = Path(__file__).resolve().parents[2] / "infra"
EXAMPLE = INFRA / "docs/own-degradation/kspace.py"
"""A plug-in, which colddiff reads: no program."""


def is_script(path: Path) -> bool:
    return path.suffix == ".py" or path.read_bytes()[:2] == b"#!"


FILES = sorted(path for path in INFRA.rglob("*") if path.is_file())
SCRIPTS = [path for path in FILES if is_script(path) and path != EXAMPLE]


def test_they_are_found() -> None:
    names = {path.name for path in SCRIPTS}
    assert {"audit.py", "make_reference.py", "serve", "distance_interval.py", "s3-server"} <= names


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_it_says_what_it_does_and_does_nothing(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if b"python" in script.read_bytes()[:30] or script.suffix == ".py":
        monkeypatch.setattr(sys, "argv", [str(script), "--help"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
        code, told = ended.value.code, capsys.readouterr().out
    else:
        done = subprocess.run([script, "--help"], stdout=subprocess.PIPE, text=True, check=False)
        code, told = done.returncode, done.stdout
    assert code == 0
    assert len(told.split()) > 15


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(INFRA / "local" / "distance_interval.py"))


def test_an_interval_of_distances_has_the_sign_of_what_is_nearer(script: dict[str, Any]) -> None:
    script["interval"].__globals__["RESAMPLES"] = 40
    interval: Callable[..., tuple[float, float]] = script["interval"]
    rng = np.random.default_rng(1)
    real = rng.normal(size=(60, 3))
    near, far = real + rng.normal(scale=0.1, size=real.shape), real + 1.0
    low, high = interval(near, far, real)
    assert low < high < 0
    assert interval(far, near, real) == pytest.approx((-high, -low))
    assert interval(near, near, real) == (0, 0)
    # Drawn with what they were made from, two equal sets are at no distance.
    own = interval(real, far, real, own=True)
    assert own[0] < own[1] < -2.9
    assert own[1] - own[0] < 0.1 * (high - low)


def test_it_compares_two_sets_of_samples(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    script["main"].__globals__["RESAMPLES"] = 2
    plan = sets.plan()
    for name, count in (("a", 20), ("b", 20), ("fewer", 10)):
        store = LocalStore(tmp_path / name)
        claim_plan(store, plan)
        sets.make(store, plan, sets.all_tasks(plan, count))
        write_manifest(store, plan, count)
    pack_source("digits", str(tmp_path / "real"), split="test", limit=15)
    a, b, fewer, real = (str(tmp_path / name) for name in ("a", "b", "fewer", "real"))
    script["main"]([a, b, real, "--features", "lenet"])
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("n 20 against 15")
    assert second == "A - B: +0.000, 95 % +0.000 to +0.000"
    for words, told in (
        ([a, fewer, real, "--features", "lenet"], "20 and 10 samples: pairs need the same seeds"),
        ([a, b, real, "--features", "lenet", "--own"], "15 images are fewer than the 20"),
        ([a, b, real, "--features", "lenett"], "did you mean 'lenet'?"),
        ([a, str(tmp_path / "x"), real, "--features", "lenet"], "not a sample set"),
    ):
        with pytest.raises(SystemExit) as ended:
            script["main"](words)
        assert ended.value.code == 2
        assert told in capsys.readouterr().err.splitlines()[-1]
