"""`colddiff data`: one line of data on stdout, true exit codes, errors in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from colddiff.cli.data import app
from colddiff.cli.progress import ProgressBar, clock
from colddiff.errors import ColddiffError, DataError, SpecError, StoreError


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_pack_says_what_it_made_in_one_line(tmp_path: Path) -> None:
    out = str(tmp_path / "set")
    result = run("pack", "digits", "--out", out, "--split", "test", "--image-size", "12")
    assert result.exit_code == 0
    [line] = result.stdout.splitlines()
    assert line.startswith("packed 350 images 1x12x12 (8 bit) in 1 shard, ")
    assert line.endswith(f": {out}")
    again = run("pack", "digits", "--out", out, "--split", "test", "--image-size", "12", "--json")
    assert again.exit_code == 0
    assert "is already packed" in again.stderr
    said = json.loads(again.stdout)
    assert said["digest"][:12] in line
    assert (said["uri"], said["count"], said["shards"]) == (out, 350, 1)
    assert said["image"] == {"channels": 1, "height": 12, "width": 12, "bits": 8, "range": None}


def test_every_option_arrives(tmp_path: Path) -> None:
    for n in range(40):
        path = tmp_path / "images" / f"person{n // 4}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 9), 1000 * n, np.uint16)).save(path)
    packed = run(
        *("pack", f"folder:{tmp_path / 'images'}", "--out", str(tmp_path / "out"), "--json"),
        *("--split", "train", "--holdout", "0.3", "--group-by", r"^person\d+/", "--limit", "9"),
        *("--channels", "1", "--bits", "16", "--range", "-1000,3000", "--shard-size", "4"),
        *("--image-size", "6"),
    )
    assert packed.exit_code == 0
    said = json.loads(packed.stdout)
    assert (said["count"], said["shards"]) == (9, 3)
    assert said["image"] == {
        **{"channels": 1, "height": 6, "width": 6, "bits": 16},
        "range": [-1000.0, 3000.0],
    }
    assert len(said["classes"]) == 10


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (["imagenet"], SpecError, "no source 'imagenet'"),
        (["digits", "--channels", "2"], SpecError, "--channels: "),
        (["digits", "--range", "wide"], SpecError, "must be two numbers"),
        (["digits", "--split", "validation"], SpecError, "--split is train, test or both, got "),
        (["folder:/nowhere"], DataError, "folder:/nowhere: no such folder"),
        (["mnist:/nowhere"], DataError, "mnist:/nowhere: no such folder"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    tmp_path: Path, arguments: list[str], kind: type[ColddiffError], said: str
) -> None:
    result = run("pack", *arguments, "--out", str(tmp_path))
    assert isinstance(result.exception, kind)
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.exception.exit_code == 2
    assert result.stdout == ""


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    result = run("pack", "digits", "--limit", "5", "--out", str(tmp_path / "file"))
    assert isinstance(result.exception, StoreError)
    assert result.exception.exit_code == 3


def test_verify_names_each_bad_shard_and_exits_with_1(tmp_path: Path) -> None:
    out = str(tmp_path)
    assert run("pack", "digits", "--out", out, "--limit", "30", "--shard-size", "10").exit_code == 0
    good = run("verify", out)
    assert good.exit_code == 0
    assert good.stdout.startswith("verified 3 shards against the manifest ")
    (tmp_path / "shard-000000.tar").write_bytes(b"x")
    (tmp_path / "shard-000002.tar").unlink()
    bad = run("verify", out)
    assert bad.exit_code == 1
    assert [line.split(":")[0] for line in bad.stdout.splitlines()] == [
        "shard-000000.tar",
        "shard-000002.tar",
    ]
    assert f"2 of 3 shards bad in {out}; pack" in bad.stderr
    as_json = run("verify", out, "--json")
    assert as_json.exit_code == 1
    assert [shard["key"] for shard in json.loads(as_json.stdout)["bad"]] == [
        "shard-000000.tar",
        "shard-000002.tar",
    ]
    nothing = run("verify", str(tmp_path / "nothing"))
    assert isinstance(nothing.exception, DataError)


def test_verify_can_read_a_sample_of_the_shards(tmp_path: Path) -> None:
    out = str(tmp_path)
    assert run("pack", "digits", "--out", out, "--limit", "60", "--shard-size", "10").exit_code == 0
    (tmp_path / "shard-000003.tar").write_bytes(b"x")
    found = set()
    for seed in range(8):
        some = run("verify", out, "--sample", "2", "--seed", str(seed))
        assert some.exit_code == run("verify", out, "--sample", "2", "--seed", str(seed)).exit_code
        found.add(some.exit_code)
        if some.exit_code == 0:
            assert some.stdout.startswith("verified 2 drawn of 6 shards against the manifest ")
        else:
            assert some.stdout.startswith("shard-000003.tar: has 1 bytes")
            assert "1 of 2 drawn of 6 shards bad in " in some.stderr
    assert found == {0, 1}
    said = json.loads(run("verify", out, "--sample", "99", "--json").stdout)
    assert (said["shards"], said["verified"], len(said["bad"])) == (6, 6, 1)


def test_join_makes_one_set_of_those_in_the_folders(tmp_path: Path) -> None:
    for part in ("a", "b"):
        packed = run("pack", "digits", "--out", str(tmp_path / part), "--limit", "20")
        assert packed.exit_code == 0
    joined = run("join", str(tmp_path))
    assert joined.exit_code == 0
    assert joined.stdout.startswith("joined 40 images 1x8x8 (8 bit) in 2 shards, ")
    assert run("verify", str(tmp_path)).exit_code == 0


def test_index_writes_the_manifest_of_tars_that_are_there(tmp_path: Path) -> None:
    out = str(tmp_path)
    packed = json.loads(run("pack", "digits", "--out", out, "--limit", "5", "--json").stdout)
    (tmp_path / "manifest.json").unlink()
    indexed = run("index", out, "--json")
    assert indexed.exit_code == 0
    assert json.loads(indexed.stdout)["digest"] == packed["digest"]
    assert run("verify", out).exit_code == 0


def test_progress_is_told_on_stderr_when_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("colddiff.cli.progress.time.monotonic", lambda: now[0])
    progress = ProgressBar("packed", "images")
    for done in (0, 10, 1000, 1500):
        progress(done, 5000)
        now[0] += 6
    progress.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "packed 1,000 of 5,000 images (20 %), 48 s left\n"


def test_times_read_as_people_say_them() -> None:
    assert [clock(s) for s in (0.4, 59, 200, 7500)] == ["0 s", "59 s", "3 min 20 s", "2 h 05 min"]


def test_its_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from colddiff.cli import data\n"
        "heavy = {'torch', 'numpy', 'boto3', 'webdataset', 'sklearn', 'PIL', 'ray', 'mlflow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout == "[]\n"


def test_packing_ends_with_what_was_left_out(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(4):
        Image.new("RGB", (16, 16), (n, 0, 0)).save(photos / f"{n}.png")
    Image.new("L", (16, 16)).save(photos / "grey.png")
    Image.new("RGBA", (16, 16), (9, 9, 9, 128)).save(photos / "seen through.png")
    Image.new("RGBA", (16, 16), (8, 8, 8, 255)).save(photos / "opaque.png")
    (photos / "bad.png").write_bytes(b"no image")
    for n in range(2):
        Image.fromarray(np.full((16, 16), n, np.uint16)).save(photos / f"deep{n}.png")
    (photos / "two\nlines.gif").write_bytes(b"GIF89a")
    Image.new("RGB", (9, 12)).save(photos / "tiny.png")
    out = tmp_path / "set"
    arguments = ("pack", f"folder:{photos}", "--out", str(out), "--image-size", "16")
    refused = run(*arguments)
    assert isinstance(refused.exception, DataError)
    assert "bad.png: not a supported image" in str(refused.exception)
    assert not list((tmp_path / "set").glob("*"))
    done = run(*arguments, "--skip-broken")
    assert done.exit_code == 0
    for line in (
        "1 grey image is stored with three equal channels",
        "1 image with transparency: its alpha is dropped",
        "left out: images of a format that is not read: 1 (two\\nlines.gif), convert them to JPEG",
        "1 image is smaller than 16 px and was enlarged: tiny.png",
        "left out: images that cannot be packed: 3 (is a 16-bit image: 2, such as deep",
        "--bits 8` converts; not a supported image, or damaged: bad.png)",
    ):
        assert line in done.output
    again = run(*arguments, "--json")
    found = json.loads(again.stdout)
    assert (found["count"], len(found["skipped"])) == (8, 3)
    assert [reason["count"] for reason in found["left_out"]] == [1]
    converted = run(
        *arguments[:3], str(tmp_path / "8"), *arguments[4:], "--bits", "8", "--skip-broken"
    )
    assert "2 16-bit images were converted to 8 bits" in converted.output
    assert "3 grey images are stored" in converted.output
    moved = run(*arguments, "--bits", "8", "--skip-broken")
    assert "without its 2 16-bit images; pack to another place, or delete" in str(moved.exception)
