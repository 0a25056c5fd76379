"""`colddiff data pack` of both splits, and `colddiff data show`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.in_process import Done, colddiff_here


class Data:
    """Runs `colddiff data` in this process."""

    def __init__(self, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]) -> None:
        self._patch, self._captured = patch, captured

    def __call__(self, *words: object) -> Done:
        return colddiff_here(self._patch, self._captured, "data", *words)


@pytest.fixture
def data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Data:
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    return Data(monkeypatch, capsys)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 grey images of two classes."""
    for n in range(40):
        path = tmp_path / "photos" / ("cat" if n % 4 else "dog") / f"{n:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 9), 5 * n, np.uint8)).save(path)
    return tmp_path / "photos"


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def error_of(done: Done) -> str:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    return done.stderr.splitlines()[-1]


def test_one_command_packs_both_splits_and_says_how_many_went_where(
    data: Data, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    words = ("pack", f"folder:{photos}", "--out", out, "--holdout", "0.3")
    (photos / "phone.heic").write_bytes(b"no image")
    done = data(*words)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "left out" in line] == [
        "left out: images of a format that is not read: 1 (phone.heic), convert them to JPEG or "
        "PNG first, such as with ImageMagick"
    ]
    train, test = done.stdout.splitlines()
    counts = [int(line.split()[1]) for line in (train, test)]
    assert sum(counts) == 40
    assert all(counts)
    assert train.endswith(f": {out}/train")
    assert test.endswith(f": {out}/test")
    assert f"{counts[0]} to train and {counts[1]} to test; next: " in done.stderr
    assert f"data={out}/train test_data={out}/test" in done.stderr
    again = data(*words, "--json")
    assert again.stderr.count("is already packed") == 2
    found = json.loads(again.stdout)
    assert [found[split]["count"] for split in ("train", "test")] == counts
    # The same sets as of one command for each.
    alone = data(*words[:2], "--out", tmp_path / "alone", *words[4:], "--split", "test", "--json")
    assert json.loads(alone.stdout)["digest"] == found["test"]["digest"]
    verified = data("verify", out)
    assert verified.returncode == 0
    assert [line.rpartition("/")[2] for line in verified.stdout.splitlines()] == ["train", "test"]
    (out / "test" / "shard-000000.tar").write_bytes(b"x")
    bad = data("verify", out)
    assert (bad.returncode, len(bad.stdout.splitlines())) == (1, 2)
    assert "\ntest/shard-000000.tar: has 1 bytes" in bad.stdout
    assert set(json.loads(data("verify", out, "--json").stdout)) == {"train", "test"}
    assert f"data show {out}/test --out" in error_of(data("show", out, "--out", tmp_path / "s.png"))


def test_both_splits_of_a_source_with_its_own(data: Data, tmp_path: Path) -> None:
    done = data("pack", "digits", "--out", tmp_path / "set", "--split", "both", "--limit", "9")
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["7", "2"]


@pytest.mark.parametrize("among", ["train", "test"])
def test_both_splits_are_in_colour_where_any_image_is(
    data: Data, photos: Path, tmp_path: Path, among: str
) -> None:
    words = ("--holdout", "0.3", "--json")
    grey = data("pack", f"folder:{photos}", "--out", tmp_path / "grey", *words)
    assert json.loads(grey.stdout)[among]["image"]["channels"] == 1
    for n in range(40):
        name = photos / f"{n}.png"
        Image.fromarray(np.full((6, 9, 3), (n, 0, 200), np.uint8)).save(name)
        done = data("pack", f"folder:{photos}", "--out", tmp_path / f"set{n}", *words)
        found = json.loads(done.stdout)
        assert {found[split]["image"]["channels"] for split in found} == {3}
        before = json.loads(grey.stdout)[among]["count"]
        if found[among]["count"] > before:
            break
        name.unlink()
    assert "39 grey" in done.stderr or "40 grey" in done.stderr
    again = data("pack", f"folder:{photos}", "--out", tmp_path / f"set{n}", *words)
    assert json.loads(again.stdout) == found
    assert data("verify", tmp_path / f"set{n}" / "train").returncode == 0


def test_bad_images_of_both_splits_are_named_at_once(
    data: Data, photos: Path, tmp_path: Path
) -> None:
    for n in range(12):
        (photos / f"bad{n}.png").write_bytes(b"no image")
    done = data("pack", f"folder:{photos}", "--out", tmp_path / "set", "--holdout", "0.5")
    assert (done.returncode, done.stdout) == (2, "")
    assert all(f"bad{n}.png" in done.stderr for n in range(12))
    assert not list((tmp_path / "set").rglob("*.tar"))
    more = data(
        *("pack", f"folder:{photos}", "--out", tmp_path / "set", "--holdout", "0.5"),
        "--skip-broken",
    )
    assert more.returncode == 0


def test_a_split_that_would_be_empty_is_refused_before_anything_is_packed(
    data: Data, photos: Path, tmp_path: Path
) -> None:
    words = ("pack", f"folder:{photos}", "--out", tmp_path / "set", "--holdout")
    assert "no images in the test split" in error_of(data(*words, "0.0001"))
    assert not (tmp_path / "set").exists()
    assert "set --holdout" in error_of(data(*words[:-1], "--split", "both"))
    assert "--split is train, test or both" in error_of(data(*words, "0.1", "--split", "all"))


def test_show_says_what_a_set_holds(data: Data, photos: Path, tmp_path: Path) -> None:
    (photos / "notes.txt").write_text("no image")
    out, sheet = tmp_path / "set", tmp_path / "sheet.png"
    assert data("pack", f"folder:{photos}", "--out", out, "--image-size", "6").returncode == 0
    done = data("show", out, "--out", sheet, "--images", "9")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("40 images 1x6x6 (8 bit) in 1 shard, ")
    assert lines[1] == f"source: folder:{photos}, image_size 6"
    assert lines[2] == "classes: cat (30), dog (10)"
    assert lines[3].startswith("levels: ")
    assert " of 255, mean " in lines[3]
    assert lines[4:6] == ["range: none recorded", "left out: other files: 1 (notes.txt)"]
    assert lines[6] == f"picture: {sheet}"
    assert size_of(sheet) == (3 * 68 + 2, 3 * 68 + 2)
    again = json.loads(data("show", out, "--out", sheet, "--json").stdout)
    assert again["images_by_class"] == {"cat": 30, "dog": 10}
    assert again["levels"] == {"min": 0, "max": 195, "mean": 97.5, "images": 40}
    assert again["left_out"][0]["first"] == ["notes.txt"]
    assert again["picture"] == str(sheet)


def test_show_shows_both_splits(data: Data, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    data("pack", f"folder:{photos}", "--out", out, "--holdout", "0.3")
    alone = [data("show", out / split).stdout for split in ("train", "test")]
    assert data("show", out).stdout == "".join(alone)
    found = json.loads(data("show", out, "--json").stdout)
    assert found["test"] == json.loads(data("show", out / "test", "--json").stdout)
    assert found["train"]["count"] + found["test"]["count"] == 40
    refused = error_of(data("show", out, "--out", tmp_path / "sheet.png"))
    assert f"--out: is of one set, and {out} holds 2: `colddiff data show {out}/train" in refused


def test_show_names_the_files_of_each_split(data: Data, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    data("pack", f"folder:{photos}", "--out", out, "--holdout", "0.3")
    found = json.loads(data("show", out, "--names", "--json").stdout)
    train, test = (set(found[f"{out}/{split}"]) for split in ("train", "test"))
    files = {path.relative_to(photos).as_posix() for path in photos.rglob("*.png")}
    assert (train | test, train & test) == (files, set())
    assert set(data("show", out / "test", "--names").stdout.splitlines()) == test
    told = data("show", out, "--names").stdout.splitlines()
    assert {line.split("\t")[1] for line in told if line.startswith("test\t")} == test


def test_what_only_one_split_left_out_is_told_of_that(
    data: Data, photos: Path, tmp_path: Path
) -> None:
    (photos / "bad.png").write_bytes(b"no image")
    words = ("pack", f"folder:{photos}", "--out", tmp_path / "set", "--holdout", "0.3")
    said = [
        line for line in data(*words, "--skip-broken").stderr.splitlines() if "left out" in line
    ]
    assert len(said) == 1
    assert re.match(r"left out of (train|test): images that cannot be packed: 1 \(", said[0])


def test_show_replaces_no_file_that_it_did_not_draw(
    data: Data, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    data("pack", f"folder:{photos}", "--out", out)
    (photos / "mine.png").write_bytes(b"mine")
    assert "was not drawn by `colddiff data show`" in error_of(
        data("show", out, "--out", photos / "mine.png")
    )
    assert (photos / "mine.png").read_bytes() == b"mine"
    assert "must end in .png" in error_of(data("show", out, "--out", tmp_path / "x.jpg"))
    assert "no such folder" in error_of(data("show", out, "--out", tmp_path / "no" / "x.png"))
    assert "data pack SOURCE" in error_of(data("show", tmp_path / "nothing"))


def test_large_deep_images_are_shown_small(data: Data, tmp_path: Path) -> None:
    ramp = np.linspace(0, 4095, 300 * 400).reshape(2, 300, 200).astype(np.uint16)
    (tmp_path / "src").mkdir()
    np.save(tmp_path / "src" / "x.npy", ramp)
    packed = data(
        *("pack", f"folder:{tmp_path / 'src'}", "--out", tmp_path / "set", "--bits", "16"),
        *("--range", "-1024,3071"),
    )
    assert packed.returncode == 0, packed.stderr
    sheet = tmp_path / "sheet.png"
    done = data("show", tmp_path / "set", "--out", sheet)
    assert "levels: 0 to 4095 of 65535" in done.stdout
    assert "range: black is -1024, white is 3071" in done.stdout
    assert "classes: none" in done.stdout
    assert size_of(sheet) == (2 * (66 + 2) + 2, 100 + 2 + 2)


def test_a_missing_extra_and_a_missing_range_are_usage_errors(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "src"
    source.mkdir()
    np.save(source / "x.npy", np.linspace(-3, 5, 64).reshape(1, 8, 8))
    words = ("pack", f"folder:{source}", "--out", tmp_path / "set")
    said = error_of(data(*words))
    assert "--range: is needed for" in said
    assert "-3 to 5 in this image" in said
    assert data(*words, "--range", "-3,5").returncode == 0
    (source / "x.npy").rename(source / "x.nii")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    assert "pip install 'colddiff[medical]'" in error_of(data(*words, "--range", "-3,5"))
