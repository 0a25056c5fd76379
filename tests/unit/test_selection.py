"""Which images are packed: parts that are disjoint and everything, groups kept together."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colddiff.data.open import open_source
from colddiff.data.pack_settings import PackSettings, selected
from colddiff.errors import DataError, SpecError
from colddiff.spec import parse
from tests.drawn_source import Drawn


@given(count=st.integers(2, 200), holdout=st.floats(0.05, 0.95), by_name=st.booleans())
def test_parts_are_disjoint_and_everything(count: int, holdout: float, by_name: bool) -> None:
    source = Drawn(count, (1, 1, 1), sorted_by_name=by_name)
    parts = []
    for split in ("train", "test"):
        try:
            settings = parse(PackSettings, {"split": split, "holdout": holdout})
            parts.append({entry.name for entry in selected(source, settings)})
        except DataError:
            parts.append(set())
    assert parts[0] | parts[1] == {entry.name for entry in source.entries(None)}
    assert not parts[0] & parts[1]


def test_the_held_out_part_is_as_large_as_asked_and_stays_so() -> None:
    settings = PackSettings(split="test", holdout=0.2)
    small = {entry.name for entry in selected(Drawn(1000, (1, 1, 1)), settings)}
    assert 150 < len(small) < 250
    large = {entry.name for entry in selected(Drawn(1999, (1, 1, 1)), settings)}
    assert {name for name in large if int(name[-4:].strip("-")) < 1000} == small


def test_groups_are_not_separated() -> None:
    parts = []
    for split in ("train", "test"):
        settings = parse(
            PackSettings, {"split": split, "holdout": 0.4, "group_by": r"image-(\d\d)"}
        )
        entries = selected(Drawn(200, (1, 1, 1)), settings)
        parts.append({entry.name[:8] for entry in entries})
    assert parts[0]
    assert parts[1]
    assert not parts[0] & parts[1]
    with pytest.raises(DataError, match="image-000: --group-by 'person' does not match"):
        selected(Drawn(), PackSettings(split="test", holdout=0.4, group_by="person"))


def test_a_folder_is_mixed_so_that_any_part_of_it_is_fair() -> None:
    names = [entry.name for entry in selected(Drawn(200, sorted_by_name=True), PackSettings())]
    assert names != sorted(names)
    assert sorted(names) == [entry.name for entry in Drawn(200).entries(None)]
    half = [int(name[-3:]) < 100 for name in names[:50]]
    assert 10 < sum(half) < 40
    few = selected(Drawn(200, sorted_by_name=True), PackSettings(limit=7))
    assert [entry.name for entry in few] == names[:7]


def test_splits_that_cannot_be_meant() -> None:
    for settings, said in (
        (PackSettings(split="test"), "no official splits; set --holdout"),
        (PackSettings(holdout=0.1), "also choose --split"),
    ):
        with pytest.raises(SpecError, match=said):
            selected(Drawn(), settings)
    official = Drawn()
    official.splits = ("train", "test")
    with pytest.raises(SpecError, match="has official train and test splits"):
        selected(official, PackSettings(split="test", holdout=0.1))
    with pytest.raises(DataError, match=r"no images in the test split with --holdout 0\.01"):
        selected(Drawn(2), PackSettings(split="test", holdout=0.01))


@pytest.mark.parametrize(("split", "holdout"), [("test", 0.01), ("train", 0.99)])
def test_a_holdout_that_parts_nothing_is_answered_with_the_nearest_that_does(
    split: str, holdout: float
) -> None:
    source = Drawn(3)
    with pytest.raises(DataError, match=rf"in the {split} split with .*it has 3 images") as caught:
        selected(source, parse(PackSettings, {"split": split, "holdout": holdout}))
    found = re.search(r"use --holdout ([0-9.]+), which puts (\d) of 3", str(caught.value))
    assert found
    for part, count in (("test", int(found[2])), ("train", 3 - int(found[2]))):
        settings = parse(PackSettings, {"split": part, "holdout": float(found[1])})
        assert 0 < len(selected(source, settings)) == count
    one = parse(PackSettings, {"split": split, "holdout": holdout, "group_by": "^"})
    with pytest.raises(DataError, match="3 images in 1 group, which no --holdout parts; add more"):
        selected(source, one)
    with pytest.raises(DataError, match="it has 1 image, which no"):
        selected(Drawn(1), PackSettings(split="test", holdout=0.01))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"channels": 2}, "channels: "),
        ({"bits": 12}, "bits: "),
        ({"bits": 16, "channels": 3}, "16-bit images have one channel"),
        ({"range": (5, 1)}, "range: must be increasing, got 5,1"),
        ({"holdout": 1.0}, "holdout: "),
        ({"group_by": "("}, "group_by: not a valid regular expression"),
        ({"limit": 0}, "limit: "),
        ({"split": "val"}, "split: "),
        ({"size": 3}, "size: no such field"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse(PackSettings, settings)


def test_digits_hold_out_a_fifth_by_themselves() -> None:
    source = open_source("digits")
    counts = [
        len(selected(source, parse(PackSettings, {"split": split})))
        for split in ("train", "test", None)
    ]
    assert counts[0] + counts[1] == counts[2] == 1797
    assert 300 < counts[1] < 420
