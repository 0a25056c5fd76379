"""Sample sets and packed sets are equal to what earlier code made, byte by byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compat import sets, wholes
from tests.compat.conftest import Present
from tests.compat.old_layout import checkpoint_of

Recorded = Callable[[str], Any]


def test_sample_tars_plans_and_manifests(recorded: Recorded, root: Path) -> None:
    # One test for all: they share the tracker's database, whose making takes longer than any.
    assert {name: sets.make(name, root) for name in sets.SETS} == recorded("sets.json")


@pytest.mark.parametrize("name", sets.SETS)
def test_no_pixel_is_near_an_edge_where_rounding_could_flip_it(
    name: str, tmp_path: Path, present: Present
) -> None:
    (test_set,) = present.storage.glob("data/digits-*/test")
    assert sets.margin(name, tmp_path, test_set) > sets.SAFE


@pytest.mark.parametrize("name", ["noise", "mixture"])
def test_the_restorer_of_the_sets_is_constant(name: str, tmp_path: Path) -> None:
    import torch

    import colddiff

    loaded = colddiff.load_checkpoint(str(checkpoint_of(name, tmp_path)))
    x_0 = loaded.restorer(torch.randn(3, 1, 8, 8), torch.tensor([1, 2, 3]))
    assert bool((x_0 == torch.tensor(sets.GREY)).all())


def test_packed_digits(recorded: Recorded, root: Path) -> None:
    assert wholes.pack_digits(root) == recorded("packed.json")
