"""Folders and tars as they are found: every bad image named, what is left out said, colour kept."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from colddiff.data.both_splits import pack_splits
from colddiff.data.manifest import left_out_of, read_manifest
from colddiff.data.open import open_source
from colddiff.data.pack import PackResult, pack
from colddiff.data.pack_settings import PackSettings, selected
from colddiff.data.pil_images import decode_image
from colddiff.data.sources.webdataset_source import index_tars
from colddiff.errors import DataError, SpecError
from colddiff.spec import parse
from colddiff.stores.memory_store import MemoryStore
from tests.unit.test_pack import everything, members

RNG = np.random.default_rng(0)


def colour(size: int = 16) -> NDArray[np.uint8]:
    return RNG.integers(0, 255, (size, size, 3), dtype=np.uint8)


def save(path: Path, array: NDArray[Any] | None = None, **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colour() if array is None else array).save(path, **settings)
    return path


def packed(
    folder: Path, store: MemoryStore | None = None, kind: str = "folder", **settings: Any
) -> PackResult:
    skip, workers = settings.pop("skip_broken", False), settings.pop("workers", 2)
    return pack(
        open_source(f"{kind}:{folder}"),
        store or MemoryStore(),
        parse(PackSettings, settings),
        workers=workers,
        skip_broken=skip,
    )


def broken_folder(folder: Path, count: int = 24) -> list[str]:
    for n in range(count):
        save(folder / f"{n:02d}.png")
    names = ["03.png", "11.png", "17.png", "20.png"]
    whole = (folder / names[0]).read_bytes()
    for name, data in zip(names, (whole[:99], b"", b"<html>", whole[:-40]), strict=True):
        (folder / name).write_bytes(data)
    return names


def test_every_bad_image_is_named_in_one_run(tmp_path: Path) -> None:
    names = broken_folder(tmp_path)
    store = MemoryStore()
    for workers in (1, 4):
        with pytest.raises(DataError, match=r"4 images cannot be packed: .*and 1 more") as caught:
            packed(tmp_path, store, shard_size=3, workers=workers)
        assert sorted(line.partition(":")[0] for line in caught.value.details) == [
            str(tmp_path / name) for name in names
        ]
        assert "data pack --skip-broken` leaves such images out" in str(caught.value)
        assert everything(store) == {}


def test_broken_images_are_left_out_on_demand_and_listed(tmp_path: Path) -> None:
    names = broken_folder(tmp_path)
    stores = MemoryStore("a"), MemoryStore("b")
    for store, workers in zip(stores, (1, 4), strict=True):
        result = packed(tmp_path, store, shard_size=3, skip_broken=True, workers=workers)
        manifest = result.manifest
        assert manifest.count == sum(shard.count for shard in manifest.shards) == 20
        assert sorted(name for name, _ in manifest.settings["skipped"]) == names
        [line] = left_out_of(manifest)
        assert line.startswith("images that cannot be packed: 4 (")
        found = [json.loads(data)["source"] for name, data in members(store) if "json" in name]
        assert len(set(found)) == 20
        assert not set(found) & set(names)
    assert everything(stores[0]) == everything(stores[1])
    again = packed(tmp_path, stores[0], shard_size=3, skip_broken=True)
    assert (again.fresh, again.manifest) == (False, read_manifest(stores[0]))


def test_an_interrupted_run_that_skips_goes_on(tmp_path: Path) -> None:
    broken_folder(tmp_path)
    whole, store = MemoryStore("whole"), MemoryStore("cut")
    packed(tmp_path, whole, shard_size=3, skip_broken=True)
    packed(tmp_path, store, shard_size=3, skip_broken=True)
    settings = {
        name: value
        for name, value in read_manifest(store).settings.items()
        if name not in ("skipped", "left_out")
    }
    store.put("pack.json", json.dumps(settings).encode())
    store.delete("manifest.json")
    store.delete("shard-000002.tar")
    packed(tmp_path, store, shard_size=3, skip_broken=True)
    assert everything(store) == everything(whole)


def test_a_folder_of_broken_images_alone_is_an_error(tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / f"{n}.png").write_bytes(b"x")
    for skip in (False, True):
        with pytest.raises(DataError, match="5 images cannot be packed, which are all there are"):
            packed(tmp_path, skip_broken=skip)


def test_sizes_that_differ_are_counted(tmp_path: Path) -> None:
    for n, size in enumerate((16, 16, 16, 12, 20)):
        save(tmp_path / f"{n}.png", colour(size))
    said = r"the images have 3 sizes \(3 of 16x16, .*\): set --image-size"
    for skip in (False, True):  # which size is right is not for us to say
        with pytest.raises(DataError, match=said) as caught:
            packed(tmp_path, skip_broken=skip)
        assert "--skip-broken" not in str(caught.value)
    assert packed(tmp_path, image_size=8).manifest.count == 5
    (tmp_path / "broken.png").write_bytes(b"x")
    with pytest.raises(DataError, match=rf"{said} .*; `colddiff data pack --skip-broken` leaves"):
        packed(tmp_path)


@pytest.mark.parametrize("greys", range(1, 9))
def test_one_grey_image_makes_no_set_grey(greys: int, tmp_path: Path) -> None:
    for n in range(greys):
        save(tmp_path / f"grey{n}.png", colour()[:, :, 0])
    for n in range(8):
        save(tmp_path / f"c{n}.png")
    one, many = MemoryStore("one"), MemoryStore("many")
    result = packed(tmp_path, one, shard_size=2, workers=1)
    assert result.manifest.image.channels == 3
    assert result.altered.grey == greys
    packed(tmp_path, many, shard_size=2, workers=4)
    assert everything(one) == everything(many)
    assert not packed(tmp_path, one, shard_size=2).fresh
    for name, data in members(one):
        if name.endswith(".png"):
            assert decode_image(data, name).shape == (16, 16, 3)


def test_grey_shards_of_an_interrupted_run_are_not_kept_in_a_set_in_colour(tmp_path: Path) -> None:
    for n in range(30):
        save(tmp_path / f"grey{n}.png", colour()[:, :, 0])
    grey = MemoryStore("grey")
    packed(tmp_path, grey, shard_size=2)
    save(tmp_path / "colour.png")
    whole, store = MemoryStore("whole"), MemoryStore("cut")
    settings = packed(tmp_path, whole, shard_size=2).manifest.settings
    store.put("pack.json", json.dumps(settings).encode())
    store.put("shard-000003.tar", grey.get("shard-000003.tar"))
    packed(tmp_path, store, shard_size=2)
    assert everything(store) == everything(whole)


def test_a_colour_image_among_16_bit_ones_is_not_made_grey(tmp_path: Path) -> None:
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for n in range(6):
        save(tmp_path / f"{n}.png", deep)
    save(tmp_path / "colour.png")
    try:
        packed(tmp_path, bits=16)
    except Exception as error:
        said = str(error)
    assert "holds colour images: --bits 16 needs --channels 1" in said or (
        "colour.png: is a colour image; 16 bits are for grey images" in said
    )
    assert packed(tmp_path, bits=16, channels=1).manifest.count == 7
    assert packed(tmp_path, skip_broken=True).manifest.count == 1


# --- what is left out


def test_what_a_folder_leaves_out_is_in_the_manifest(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    frames = [Image.fromarray(colour()) for _ in range(3)]
    for name in ("pages.tif", "anim.png", "anim.webp", "anim.gif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    for name in ("x.jfif", "y.AVIF", "notes.txt", ".DS_Store", "noextension"):
        (tmp_path / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "back").symlink_to(tmp_path)
    expected = {
        "hidden files": [".DS_Store"],
        "images of a format that is not read": ["anim.gif", "x.jfif", "y.AVIF"],
        "images whose further pages or frames are not read": ["anim.png", "anim.webp"],
        "links to a folder that contains them": ["deep/back"],
        "links to what is no file": ["gone.png"],
        "other files": ["noextension", "notes.txt"],
        "pipes, devices and sockets": ["pipe.png"],
    }
    for workers in (1, 3):
        manifest = packed(tmp_path, workers=workers, shard_size=1).manifest
        found = {reason["why"]: reason["first"] for reason in manifest.settings["left_out"]}
        assert found == expected
        assert {reason["count"] for reason in manifest.settings["left_out"]} == {1, 2, 3}
        assert manifest.count == 6  # three pages of a TIFF


def tar(path: Path, found: Sequence[tuple[str, bytes | None]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in found:
            member = tarfile.TarInfo(name)
            if data is None:
                member.type, member.linkname = tarfile.SYMTYPE, "a.jpg"
            member.size = len(data or b"")
            file.addfile(member, io.BytesIO(data or b""))
    return path


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(colour()).save(file, "JPEG")
    return file.getvalue()


def test_what_tars_leave_out_is_said_by_packing_and_indexing(tmp_path: Path) -> None:
    tar(
        tmp_path / "0.tar",
        [
            ("train.v1/22.0/a.jpg", jpeg()),
            ("train.v1/22.0/a.webp", b"x"),
            ("b.1.jpg", jpeg()),
            ("c.left.jpg", jpeg()),
            ("d.jpg", jpeg()),
            ("e.jpg", None),
            ("d2.cls", b"3"),
            (".f.png", jpeg()),
            ("../g.png", jpeg()),
        ],
    )
    (tmp_path / "1.tar.gz").write_bytes(b"x")
    (tmp_path / "2.TAR").write_bytes(b"x")
    expected = {
        "names with a dot before the suffix, where their key ends": [
            "0.tar#b.1.jpg",
            "0.tar#c.left.jpg",
        ],
        "members that are not .png, .jpg, .jpeg, .json or .cls": ["0.tar#train.v1/22.0/a.webp"],
        "links and other members that are no files": ["0.tar#e.jpg"],
        "labels whose image is not beside them": ["0.tar#d2.cls"],
        "names that have no key, such as hidden ones": ["0.tar#.f.png"],
        "absolute names and names with ..": ["0.tar#../g.png"],
        "compressed or renamed tars": ["1.tar.gz", "2.TAR"],
    }
    store = open_source(f"webdataset:{tmp_path}")._store  # type: ignore[attr-defined]
    for manifest in (packed(tmp_path, kind="webdataset").manifest, index_tars(store)):
        assert manifest.count == 2
        found = {reason["why"]: reason["first"] for reason in manifest.settings["left_out"]}
        assert found == expected


def test_tars_of_which_all_is_left_out_say_why(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", [("s0.input.jpg", jpeg()), ("s1.input.jpg", jpeg())])
    with pytest.raises(DataError, match=r"hold no .*dot before the suffix.*: 2 \(0\.tar#s0\.input"):
        packed(tmp_path, kind="webdataset")


def test_every_damaged_tar_and_label_is_named(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", [("a.jpg", jpeg()), ("a.cls", b"cat")])
    (tmp_path / "1.tar").write_bytes(b"x" * 2000)
    tar(tmp_path / "2.tar", [("a.jpg", jpeg())])
    with pytest.raises(DataError, match="2 tars or labels cannot be read") as caught:
        packed(tmp_path, kind="webdataset")
    assert [line.partition(":")[0] for line in caught.value.details] == [
        str(tmp_path / name) for name in ("0.tar", "1.tar")
    ]
    tar(tmp_path / "3.tar", [("a.jpg", b"no image"), ("b.jpg", b"no image")])
    store = open_source(f"webdataset:{tmp_path}")._store  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="3 problems with the tars"):
        index_tars(store)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("webdataset:{0}/d/0.tar", "is a file; give the folder that holds it, webdataset:{0}/d"),
        ("webdataset:{0}/d/{{0..1}}.tar", "is a pattern; give the folder .* webdataset:{0}/d"),
        ("webdataset:{0}/d/*.tar", "is a pattern; give the folder that holds it, webdataset:{0}/d"),
        ("webdataset:{0}/nowhere", "nowhere: no such folder"),
        ("webdataset:{0}/gz", r"no \.tar files found .*compressed or renamed tars: 1 \(0\.tar\.gz"),
        ("folder:{0}/a.png", "is a file; give the folder that holds it, folder:{0}"),
        ("folder:{0}/*.png", "is a pattern; give the folder that holds it, folder:{0}"),
        ("folder:{0}/nowhere", "nowhere: no such folder"),
        ("folder:{0}/gz", r"no images found.*passed over: other files: 1 \(0\.tar\.gz"),
    ],
)
def test_what_is_no_folder_of_images_is_told_what_to_give(
    source: str, said: str, tmp_path: Path
) -> None:
    tar(tmp_path / "d" / "0.tar", [("a.jpg", jpeg())])
    save(tmp_path / "a.png")
    (tmp_path / "gz").mkdir()
    (tmp_path / "gz" / "0.tar.gz").write_bytes(b"x")
    kind, _, place = source.format(tmp_path).partition(":")
    with pytest.raises(DataError, match=said.format(tmp_path)):
        packed(Path(place), kind=kind)


def test_any_name_of_a_file_is_packed(tmp_path: Path) -> None:
    names = [b"two\nlines.png", b"back\\slash.png", b"tab\t.png", b"caf\xe9.png", b"a\x1b[31m.png"]
    whole = save(tmp_path / "good.png").read_bytes()
    for name in names:
        (tmp_path / "in" / os.fsdecode(name)).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / os.fsdecode(name)).write_bytes(whole)
    raw = tmp_path / os.fsdecode(b"r\xe9sultats")
    (tmp_path / "in").rename(raw)
    store = MemoryStore()
    assert packed(raw, store).manifest.count == len(names)
    assert read_manifest(store).count == len(names)


@pytest.mark.parametrize("bad", ["train", "test"])
def test_of_two_splits_that_fail_nothing_is_left_in_the_way(tmp_path: Path, bad: str) -> None:
    photos, out = tmp_path / "photos", tmp_path / "set"
    for n in range(24):
        save(photos / f"{n:02d}.png")

    def files() -> list[str]:
        return sorted(path.name for path in out.rglob("*") if path.is_file())

    def packed_both(**settings: Any) -> dict[str, Any]:
        return pack_splits(f"folder:{photos}", str(out), holdout=0.25, **settings)

    chosen = parse(PackSettings, {"holdout": 0.25, "split": bad})
    name = selected(open_source(f"folder:{photos}", chosen), chosen)[-1].name
    save(photos / name, colour(9))
    with pytest.raises(DataError, match="set --image-size to crop and resize all of them"):
        packed_both()
    assert files() == []
    found = packed_both(image_size=8)
    assert sum(manifest.count for manifest, _ in found.values()) == 24
    before = files()
    (photos / name).write_bytes(b"")
    with pytest.raises((DataError, SpecError)):
        packed_both(image_size=8)
    assert files() == before, "what an earlier run has packed stays"


def test_a_split_without_a_whole_image_is_said_to_be_one(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for n in range(6):
        save(photos / f"{n:02d}.png")
    chosen = parse(PackSettings, {"holdout": 0.25, "split": "test"})
    for entry in selected(open_source(f"folder:{photos}", chosen), chosen):
        (photos / entry.name).write_bytes(b"")
    with pytest.raises(DataError) as error:
        pack_splits(f"folder:{photos}", str(tmp_path / "set"), holdout=0.25, skip_broken=True)
    # As if it had not been given, otherwise.
    assert "--skip-broken leaves no image of the test split; another --holdout" in str(error.value)


def test_the_alpha_of_pages_is_dropped_and_said(tmp_path: Path) -> None:
    pages = RNG.integers(0, 255, (3, 12, 10, 4)).astype(np.uint8)
    pages[0, :, :, 3] = 255  # opaque everywhere, as many programs write it
    for kind, hidden in (("unassalpha", 2), ("assocalpha", 2), ("unspecified", 0)):
        tifffile.imwrite(tmp_path / "x.tif", pages, photometric="rgb", extrasamples=[kind])
        source = open_source(f"folder:{tmp_path}")
        found = pack(source, MemoryStore(), PackSettings(channels=3, image_size=8))
        assert (found.manifest.count, found.altered.transparent) == (3, hidden)
