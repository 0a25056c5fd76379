"""What a kind's fields mean is said by hooks of the base class, for a plugin's kinds too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from colddiff.checkpoints.references import load_checkpoint
from colddiff.data.open import open_second_set, pack_source, read_manifest
from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.degradations import DEGRADATIONS, Degradation, build_degradation
from colddiff.errors import SpecError
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import resolve
from colddiff.restoration import RestoreSettings
from colddiff.restoration.forward import Forward
from colddiff.restorers import RESTORERS
from colddiff.rng import stream, streams
from colddiff.spec.plugins import load_plugin, unload_plugin
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.types import ImageShape
from colddiff.verbs.train.local_context import LocalContext
from colddiff.verbs.train.trainer import Trainer
from tests.tiny_checkpoint import tiny_checkpoint, tiny_job

SHAPE = ImageShape(1, 16, 16)
PLUGIN = '''\
"""A degradation and a restorer whose fields have names of their own."""

from __future__ import annotations

from typing import Literal

import torch

from colddiff.degradations import DEGRADATIONS, Degradation, DegradationSpec
from colddiff.restorers import RESTORERS, Restorer, RestorerSpec


@DEGRADATIONS.register
class GhostSpec(DegradationSpec):
    """Severity t mixes in t / T of half a ghost; black at T where ``goes_out``."""

    kind: Literal["ghost"] = "ghost"
    num_timesteps: int = 4
    film: bool = False
    goes_out: bool = False
    ghosts: str | None = None

    def build(self, shape):
        return Ghost(self, shape)

    @property
    def observed_in_8_bit(self):
        return self.film

    def for_start(self, t):
        out = t < self.num_timesteps and self.goes_out
        return self.model_copy(update={"goes_out": False}) if out else self

    @property
    def second_set(self):
        return self.ghosts

    def with_second_set(self, uri):
        return self.model_copy(update={"ghosts": uri})


class Ghost(Degradation[GhostSpec]):
    omega_names = ("ghost",)
    omega_images = ("ghost",)

    def _degrade(self, x0, t, omega):
        weight = (t / self.num_timesteps).to(x0.dtype).view(-1, 1, 1, 1) / 2
        x_t = (1 - weight) * x0 + weight * omega["ghost"]
        out = (t == self.num_timesteps).view(-1, 1, 1, 1) & self.spec.goes_out
        return torch.where(out, -1.0, x_t)

    def check_start(self, t):
        assert not self.spec.goes_out or t == self.num_timesteps, "for_start was not asked"


@RESTORERS.register
class ShakySpec(RestorerSpec):
    """One number, shaken in training."""

    kind: Literal["shaky"] = "shaky"
    shake: float = 0.5

    def build(self, shape):
        return Shaky(self.shake)

    @property
    def random_in_training(self):
        return self.shake > 0


class Shaky(Restorer):
    def __init__(self, shake):
        super().__init__()
        self.shake = shake
        self.gain = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x_t, t):
        noise = torch.rand(()) if self.training else 0.5
        return x_t * (self.gain + self.shake * (noise - 0.5))
'''


@pytest.fixture(autouse=True)
def _ghosts(tmp_path: Path) -> Iterator[None]:
    path = tmp_path / "ghosts.py"
    path.write_text(PLUGIN)
    loaded = load_plugin(path)
    yield
    unload_plugin(loaded)


def ghost(**fields: Any) -> Degradation[Any]:
    return build_degradation({"kind": "ghost", **fields}, SHAPE)


def drawn(batch: int = 2) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.uniform(-1, 1, (batch, *SHAPE.chw)).astype(np.float32))


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    pack_source("digits", str(tmp_path / "digits"), image_size=16, channels=1, limit=9)
    return str(tmp_path / "digits")


def test_without_hooks_a_kind_means_nothing_special() -> None:
    spec = DEGRADATIONS.parse({"kind": "decolor"})
    assert not spec.observed_in_8_bit
    assert spec.second_set is None
    assert spec.for_start(1) is spec
    with pytest.raises(SpecError, match="decolor: does not mix in a second set"):
        spec.with_second_set("here")
    assert not RESTORERS.parse({"kind": "convnext_unet"}).random_in_training


@pytest.mark.parametrize("film", [False, True])
def test_its_observations_are_rounded_where_it_says_so(film: bool) -> None:
    D, x0, t = ghost(film=film), drawn(), torch.tensor([2, 0])
    omega = {"ghost": drawn()}
    x_t, seen = D.degrade(x0, t, omega), D.observe(x0, t, omega)
    levels = (seen.double() + 1) * 127.5
    assert torch.equal(seen[1], x0[1])
    assert torch.equal(seen, x_t) != film
    assert torch.allclose(levels[0], levels[0].round(), atol=1e-4) == film


def test_it_is_restored_from_below_its_end_as_it_is_there(tmp_path: Path) -> None:
    reference = tiny_checkpoint(tmp_path / "tiny", degradation={"kind": "ghost", "goes_out": True})
    loaded, settings = load_checkpoint(reference), RestoreSettings(batch_size=1, degrade=True)
    forward = Forward(loaded, SHAPE, settings, torch.device("cpu"), lambda count: None)
    x0, omega = drawn(1)[0], {"ghost": drawn(2)[1]}
    for start, black in ((4, True), (2, False)):
        found = forward.restored([x0], [omega], start)
        assert bool((found.x_t == -1).all()) == black


def test_its_second_set_is_opened_and_pinned_by_digest(digits: str, tmp_path: Path) -> None:
    D = ghost(ghosts=digits)
    images = open_second_set(D)
    assert images is not None
    found = D.draw(3, rng=streams(0, "test", range(3)), images=images)["ghost"]
    assert torch.equal(found[1], images([stream(0, "test", 1)])[0])
    with pytest.raises(SpecError, match=r"degradation.other: is required for ghost"):
        open_second_set(ghost())
    job = tiny_job(data=digits, degradation={"kind": "ghost", "ghosts": digits})
    resolved = resolve(job, "ghosts")
    assert resolved.content["other"] == read_manifest(digits).digest
    pack_source("digits", str(tmp_path / "more"), image_size=16, channels=1, limit=8)
    more = tiny_job(data=digits, degradation={"kind": "ghost", "ghosts": str(tmp_path / "more")})
    assert resolve(more, "ghosts").id != resolved.id


def trained(path: Path, steps: int, attempt: int = 1) -> Tensor:
    job = tiny_job(
        restorer={"kind": "shaky"},
        global_batch_size=4,
        num_steps=steps,
        optimizer={"lr": 0.1, "warmup_steps": 0},
    )
    images = np.random.default_rng(0).integers(0, 256, (8, *SHAPE.chw), dtype=np.uint8)
    folder = JobFolder(LocalStore(path), "train-shaky-00000000")
    trainer = Trainer(
        job, MemoryShards(images), folder, LocalContext(), MemoryTracker(), attempt=attempt
    )
    assert trainer.run().step == steps
    found = load_checkpoint("train-shaky-00000000", weights="model", storage=str(path))
    gain: Tensor = found.restorer.state_dict()["gain"]
    return gain


def test_what_it_draws_in_training_is_the_same_after_a_resume(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 6)
    with torch.random.fork_rng():
        torch.manual_seed(77)
        trained(tmp_path / "parts", 3)
        torch.manual_seed(99)
        assert torch.equal(trained(tmp_path / "parts", 6, attempt=2), whole)


@pytest.mark.parametrize(
    ("noun", "field", "hook"),
    [
        ("Degradation", "quantise", "observed_in_8_bit"),
        ("Degradation", "collapse_to_mean", "for_start"),
        ("Degradation", "other", "second_set"),
        ("Restorer", "dropout", "random_in_training"),
    ],
)
def test_a_field_of_a_known_meaning_without_its_hook_is_refused(
    tmp_path: Path, noun: str, field: str, hook: str
) -> None:
    plugin = tmp_path / "old.py"
    plugin.write_text(
        f"from typing import Literal\n"
        f"from colddiff.{noun.lower()}s import {noun}Spec\n"
        f"class OldSpec({noun}Spec):\n"
        f"    kind: Literal['old'] = 'old'\n"
        f"    {field}: float = 0.0\n"
    )
    with pytest.raises(SpecError, match=rf"old.py' line 3: .*{field}.*{noun}Spec\.{hook}"):
        load_plugin(plugin)
