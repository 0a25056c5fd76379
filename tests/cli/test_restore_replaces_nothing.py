"""`colddiff restore` replaces no input and no file of the user's, and reads what there is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.restoring import Restore, error_of, picture, pixels_of
from tests.tiny_checkpoint import RANDOM_INPAINT

DIRECT = ("--sampler", "direct")


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Restore:
    monkeypatch.chdir(tmp_path)
    return Restore(tmp_path, monkeypatch, capsys)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("words", [(), ("--overwrite",)])
@pytest.mark.parametrize("out", ["in", "in/../in", "./in/", "link", "up/in"])
def test_the_folder_of_images_is_not_that_of_results(
    run: Restore, tmp_path: Path, out: str, words: tuple[str, ...]
) -> None:
    picture(tmp_path / "in" / "a.jpg", 1)
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "up").symlink_to(tmp_path)
    before = content(tmp_path / "in")
    run.out = Path(out)
    done = error_of(run("in", *words))
    assert "is the folder of the images; use another" in done
    assert content(tmp_path / "in") == before


@pytest.mark.parametrize("words", [(), ("--overwrite",)])
@pytest.mark.parametrize(
    ("source", "out"),
    [("in/a.png", "in"), ("in/a.png", "in/../in"), ("in/a.png", "link"), ("link/a.png", "in")],
)
def test_a_result_never_replaces_its_image(
    run: Restore, tmp_path: Path, source: str, out: str, words: tuple[str, ...]
) -> None:
    picture(tmp_path / "in" / "a.png", 1)
    (tmp_path / "link").symlink_to("in")
    before = content(tmp_path / "in")
    run.out = Path(out)
    assert "a.png is an input and would be replaced" in error_of(run(source, *words))
    assert content(tmp_path / "in") == before


def test_a_result_never_replaces_a_link_to_an_image(run: Restore, tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png", 1)
    run.out.mkdir()
    (run.out / "a.png").symlink_to(tmp_path / "in" / "a.png")
    assert "is an input and would be replaced" in error_of(run("in/a.png", "--overwrite"))
    assert (run.out / "a.png").is_symlink()


def test_a_strip_a_degraded_image_and_a_reference_are_kept(run: Restore, tmp_path: Path) -> None:
    for name in ("a", "a.strip", "a.degraded"):
        picture(tmp_path / "in" / f"{name}.png", 1)
    before = content(tmp_path / "in")
    run.out = tmp_path / "in"
    for words in (("--severity", "all"), ("--degrade",)):
        message = error_of(run("in/a.png", *words, "--overwrite"))
        assert "a.png is an input" in message or "was not made by `colddiff restore`" in message
    picture(tmp_path / "more" / "b.png", 2)
    picture(tmp_path / "clean" / "b.png", 3)
    before |= content(tmp_path / "clean")
    run.out = tmp_path / "clean"
    message = error_of(run("more", "--reference", "clean", "--overwrite"))
    assert "clean/b.png is an input and would be replaced" in message
    assert content(tmp_path / "in") | content(tmp_path / "clean") == before


def test_omega_that_is_read_is_not_written_over(run: Restore, tmp_path: Path) -> None:
    run.use(degradation=RANDOM_INPAINT)
    picture(tmp_path / "in" / "a.png", 1)
    assert run("in", "--degrade").returncode == 0
    before = content(run.out)
    message = error_of(run("in", "--degrade", "--omega", run.out, "--overwrite"))
    assert "a.omega.safetensors is an input and would be replaced" in message
    assert content(run.out) == before


def test_two_images_never_write_one_file(run: Restore, tmp_path: Path) -> None:
    for name in ("a", "a.degraded", "b", "b.degraded"):
        picture(tmp_path / "in" / f"{name}.png", 1)
    message = error_of(run("in", "--degrade"))
    assert "2 results would be of two images: in/a.png and in/a.degraded.png would both" in message
    assert "in/b.png and in/b.degraded.png would both write b.degraded.png" in message
    assert not run.out.exists()
    assert run("in", *DIRECT).returncode == 0
    picture(tmp_path / "deep" / "c.png" / "d.png", 1)
    picture(tmp_path / "deep" / "c.jpg", 1)
    message = error_of(run("deep"))
    assert "the result of deep/c.jpg would be c.png, which is the folder of the result" in message


@pytest.mark.parametrize("words", [(), ("--overwrite",)])
@pytest.mark.parametrize(
    "name", ["a.png", "a.degraded.png", "a.omega.safetensors", "scores.csv", "scores.json"]
)
def test_a_file_of_the_users_is_not_replaced(
    run: Restore, tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    run.use(degradation=RANDOM_INPAINT)
    picture(tmp_path / "in" / "a.png", 1)
    run.out.mkdir()
    (run.out / name).write_bytes(b'{"mine": 1}')
    message = error_of(run("in", "--degrade", *words))
    assert f"out/{name} already exists and was not made by `colddiff restore`" in message
    assert content(run.out) == {f"{run.out}/{name}": b'{"mine": 1}'}


def test_what_a_restoration_wrote_may_be_replaced(run: Restore, tmp_path: Path) -> None:
    run.use(degradation=RANDOM_INPAINT)
    picture(tmp_path / "in" / "a.png", 1)
    for words in ((), ("--seed", "1", "--overwrite")):
        done = run("in", "--degrade", *words)
        assert done.returncode == 0, done.stderr
        assert "1 restored" in done.stderr
    # Killed before the result itself was written.
    (run.out / "a.png").unlink()
    done = run("in", "--degrade", "--seed", "2")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cut", [60, 200, -30, -1])
def test_a_result_that_is_cut_off_is_made_again(run: Restore, tmp_path: Path, cut: int) -> None:
    picture(tmp_path / "in" / "a.png", 1)
    assert run("in").returncode == 0
    whole = (run.out / "a.png").read_bytes()
    (run.out / "a.png").write_bytes(whole[:cut])
    done = run("in")
    assert (done.returncode, "1 restored" in done.stderr) == (0, True), done.stderr
    assert (run.out / "a.png").read_bytes() == whole


def test_earlier_results_are_no_inputs(run: Restore, tmp_path: Path) -> None:
    run.use(degradation=RANDOM_INPAINT)
    picture(tmp_path / "in" / "a.png", 1)
    first = run.out = tmp_path / "in" / "first"
    assert run("in", "--degrade").returncode == 0
    run.out = tmp_path / "second"
    done = run("in", *DIRECT, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["image"] for row in found["images"]] == ["in/a.png"]
    assert {
        "why": "earlier results of `colddiff restore`",
        "count": 2,
        "first": ["first/a.degraded.png", "first/a.png"],
    } in found["left_out"]
    assert "no images found" in error_of(run(first, *DIRECT))
    assert "passed over: earlier results of `colddiff restore`: 1" in error_of(
        run("in/first/a.p*", *DIRECT)
    )
    message = error_of(run(first / "a.png", *DIRECT))
    assert "a.png: is an earlier result of `colddiff restore`; give the image" in message
    # A degraded image is one to restore, when it is asked for by name.
    done = run(first / "a.degraded.png", *DIRECT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "out", ["", " ", "s3://bucket/x", "S3://b/x", "pipe:x", "gs://b/x", "a.png"]
)
def test_the_place_of_results_is_a_folder(run: Restore, tmp_path: Path, out: str) -> None:
    picture(tmp_path / "in" / "a.png", 1)
    done = run("in", "--out", out)  # the last one counts
    assert (done.returncode, done.stdout) == (2, "")
    assert "--out" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grey", "in"]


def test_a_folder_is_seen_as_packing_sees_it(run: Restore, tmp_path: Path) -> None:
    picture(tmp_path / "disk" / "cat" / "1.png", 1)
    picture(tmp_path / "disk" / "x.png", 2)
    picture(tmp_path / "in" / "dog" / "2.png", 3)
    (tmp_path / "in" / "cat").symlink_to("../disk/cat")
    (tmp_path / "in" / "x.png").symlink_to("../disk/x.png")
    (tmp_path / "in" / "loop").symlink_to("../in")
    (tmp_path / "in" / "gone.png").symlink_to("not-there.png")
    (tmp_path / "in" / "me.png").symlink_to("me.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    (tmp_path / "in" / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "in" / "notes.txt").write_text("x")
    (tmp_path / "in" / "anim.gif").write_bytes(b"GIF89a")
    done = run("in")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{run.out}/{name}.png" for name in ("cat/1", "dog/2", "x")]
    for line in (
        "links to a folder that contains them: 1 (loop)",
        "links to what is no file: 3 (gone.png, me.png, zero.png)",
        "pipes, devices and sockets: 1 (pipe.png)",
        "other files: 1 (notes.txt)",
        "images of a format that is not read: 1 (anim.gif)",
    ):
        assert f"left out: {line}" in done.stderr


def test_any_name_of_a_file_is_restored(run: Restore, tmp_path: Path) -> None:
    names = [
        b"two\nlines.png",
        b"back\\slash.png",
        b"tab\t.png",
        b"caf\xe9.png",
        b"esc\x1b[31m.png",
        "bidi\u202e.png".encode(),
        b"a[1]*?.png",
        b"-rf.png",
        b" a .png",
        b"...png",
        b"q.tmp-x.png",
        b"x" * 250 + b".png",
        "\N{CAT FACE}.png".encode(),
    ]
    picture(tmp_path / "good.png", 1)
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / os.fsdecode(name)).write_bytes((tmp_path / "good.png").read_bytes())
    expected = {os.fsdecode(name) for name in names}
    done = run("in")
    hidden = {os.fsdecode(b"...png")}
    assert done.returncode == 0, done.stderr
    assert {path.name for path in run.out.iterdir()} == expected - hidden
    for character in ("\x1b", "\udce9", "\u202e"):
        assert character not in done.stdout + done.stderr
    run.out = tmp_path / "scored"
    done = run("in", "--degrade")
    assert done.returncode == 1
    assert "the name of its result is longer than 255 bytes; shorten the name" in done.stderr
    assert len(list(run.out.glob("*.degraded.png"))) == len(names) - 2


@pytest.mark.parametrize("source", ["x" * 300, "x/" * 3000, "~nobody-of-this-name/x", "["])
def test_a_source_that_cannot_be_is_one_line(run: Restore, source: str) -> None:
    message = error_of(run("--", source))
    assert len(message) < 400


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--batch-size", "1000000000"), "--batch-size: must be 1..65536"),
        (("--seed", "-1"), "--seed: must be from 0"),
        (("--seed", "9" * 40), "--seed: must be from 0"),
        (("--severity", "9" * 5000), "--severity: must be a whole number or all"),
    ],
)
def test_numbers_that_no_machine_holds_are_refused(
    run: Restore, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    picture(tmp_path / "in" / "a.png", 1)
    message = error_of(run("in", *words))
    assert said in message
    assert len(message) < 200


def test_a_pipe_or_device_is_not_waited_for(run: Restore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for source in ("pipe.png", "/dev/zero"):
        done = run(source)
        assert done.returncode == 1
        assert f"failed: {source}: cannot be read (is not a regular file)" in done.stderr


def test_a_damaged_end_marker_is_no_damage(run: Restore, tmp_path: Path) -> None:
    Image.fromarray(picture(tmp_path / "a.png", 1)).save(tmp_path / "a.jpg", quality=95)
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(whole[:-2])
    assert run("a.jpg", "b.jpg").returncode == 0
    assert (pixels_of(run.out / "a.png") == pixels_of(run.out / "b.png")).all()
