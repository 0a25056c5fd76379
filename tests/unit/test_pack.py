"""Packing: the same bytes on every run, complete or invisible, and every image in one part."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colddiff.data import packed_sets as datasets
from colddiff.data.left_out import altered_lines
from colddiff.data.manifest import KEY, read_manifest
from colddiff.data.open import open_shards, open_source, pack_source
from colddiff.data.pack import CLAIM, pack
from colddiff.data.pack_settings import PackSettings
from colddiff.data.pil_images import crop_and_resize, decode_image, encode_png, with_channels
from colddiff.data.sources.webdataset_source import WebdatasetSource, index_tars
from colddiff.data.verify import BadShard, verify
from colddiff.errors import DataError, SpecError
from colddiff.ports import Store
from colddiff.spec import parse
from colddiff.stores.memory_store import MemoryStore
from colddiff.stores.open import open_store
from tests.drawn_source import Drawn


def members(store: Store) -> Iterator[tuple[str, bytes]]:
    for shard in read_manifest(store).shards:
        with tarfile.open(fileobj=io.BytesIO(store.get(shard.key))) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                assert (member.mtime, member.uid, member.uname) == (0, 0, "")
                yield member.name, file.read()


def everything(store: Store) -> dict[str, bytes]:
    return {item.key: store.get(item.key) for item in store.list()}


def test_every_pixel_label_and_name_is_there() -> None:
    source, store = Drawn(), MemoryStore()
    packed = pack(source, store, PackSettings(shard_size=10))
    manifest = packed.manifest
    assert packed.fresh
    assert manifest == read_manifest(store)
    assert [shard.count for shard in manifest.shards] == [10, 10, 3]
    assert [shard.key for shard in manifest.shards] == [f"shard-00000{n}.tar" for n in range(3)]
    assert (manifest.classes, manifest.source) == (("even", "odd"), "drawn:here")
    found = list(members(store))
    assert [name for name, _ in found[:2]] == ["000000000000.png", "000000000000.json"]
    for n in range(23):
        np.testing.assert_array_equal(decode_image(found[2 * n][1], "x"), source.pixels[n])
        assert json.loads(found[2 * n + 1][1]) == {"label": n % 2, "source": f"image-{n:03d}"}
    assert verify(store, manifest) == []


def test_two_runs_make_the_same_bytes() -> None:
    stores = MemoryStore("a"), MemoryStore("b")
    for store in stores:
        pack(Drawn(), store, PackSettings(shard_size=10))
    assert everything(stores[0]) == everything(stores[1])


def test_a_second_run_finds_it_done() -> None:
    store = MemoryStore()
    first = pack(Drawn(), store, PackSettings())
    before, again = everything(store), Drawn()
    second = pack(again, store, PackSettings())
    assert (second.manifest, second.fresh) == (first.manifest, False)
    assert everything(store) == before
    assert len(again.loaded) == 1


def test_an_interrupted_run_is_invisible_and_goes_on() -> None:
    store, source, whole = MemoryStore(), Drawn(), MemoryStore()
    source.fails_at = 15
    with pytest.raises(KeyboardInterrupt):
        pack(source, store, PackSettings(shard_size=10), workers=1)
    assert set(everything(store)) == {CLAIM, "shard-000000.tar"}
    with pytest.raises(DataError, match="did not finish"):
        read_manifest(store)
    again, said = Drawn(), list[int]()
    assert pack(again, store, PackSettings(shard_size=10), lambda n, _: said.append(n)).fresh
    assert 5 not in again.loaded  # the shard that was made is kept
    assert said == list(range(10, 24))  # and is no measure of how long the others take
    pack(Drawn(), whole, PackSettings(shard_size=10))
    assert everything(store) == everything(whole)


def test_a_bad_image_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    for n in range(6):
        Image.new("L", (4, 4), n).save(tmp_path / f"{n}.png")
    bad = tmp_path / "3.png"
    bad.write_bytes(bad.read_bytes()[:50])
    store, source = MemoryStore(), f"folder:{tmp_path}"
    with pytest.raises(DataError, match=str(bad)):
        pack(open_source(source), store, PackSettings(shard_size=1))
    assert everything(store) == {}
    bad.unlink()
    packed = pack(open_source(source), store, PackSettings(shard_size=1))
    assert packed.manifest.count == 5


FOREIGN = [b'{"my": "precious webpage manifest"}', b"not json", b"[]", b""]


@pytest.mark.parametrize("manifest", FOREIGN)
def test_a_manifest_of_another_program_is_not_replaced(manifest: bytes, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    pack(Drawn(), store, PackSettings())
    store.put(KEY, manifest)
    with pytest.raises(DataError, match="is not a manifest of colddiff, or is damaged"):
        datasets.index_shards(str(tmp_path))
    with pytest.raises(DataError, match="is not a manifest of colddiff, or is damaged"):
        pack(Drawn(), store, PackSettings())
    assert store.get(KEY) == manifest


def test_indexing_does_not_replace_what_packing_wrote(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    pack(Drawn(), store, PackSettings())
    before = everything(store)
    with pytest.raises(DataError, match="is a packed set already"):
        datasets.index_shards(str(tmp_path))
    assert everything(store) == before


def test_an_index_is_made_anew_when_tars_are_added(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    pack(Drawn(), (made := MemoryStore()), PackSettings(shard_size=12))
    store.put("0.tar", made.get("shard-000000.tar"))
    assert datasets.index_shards(str(tmp_path)).count == 12
    store.put("1.tar", made.get("shard-000001.tar"))
    assert datasets.index_shards(str(tmp_path)).count == 23


def test_a_failed_pack_deletes_its_own_shards_alone(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no image")
    store = MemoryStore()
    mine = {"shard-notes.txt": b"mine", "shard-000000.json": b"mine", "README.md": b"mine"}
    for key, data in mine.items():
        store.put(key, data)
    with pytest.raises(DataError, match=r"b\.png"):
        pack(open_source(f"folder:{tmp_path / 'in'}"), store, PackSettings(shard_size=1))
    assert everything(store) == mine


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image_size": 4}, "image_size: None there, 4 here"),
        ({"limit": 5}, "limit: None there, 5 here"),
        ({"bits": 16}, "bits: 8 there, 16 here"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_at_the_same_place_are_refused(
    settings: dict[str, object], said: str, finished: bool
) -> None:
    store, source = MemoryStore(), Drawn()
    if not finished:
        source.fails_at = 15
    try:
        pack(source, store, PackSettings())
    except KeyboardInterrupt:
        assert not finished
    before = everything(store)
    with pytest.raises(SpecError, match=said) as caught:
        pack(Drawn(), store, parse(PackSettings, settings))
    assert caught.value.exit_code == 2
    assert everything(store) == before


def test_other_images_at_the_same_place_are_refused() -> None:
    store = MemoryStore()
    pack(Drawn(), store, PackSettings())
    with pytest.raises(SpecError, match="packed from other images"):
        pack(Drawn(24), store, PackSettings())


def test_a_place_with_other_tars_is_left_alone() -> None:
    store = MemoryStore()
    store.put("shard-000000.tar", b"somebody else's")
    with pytest.raises(SpecError, match=r"already holds shard-000000\.tar.*data index"):
        pack(Drawn(), store, PackSettings())
    assert set(everything(store)) == {"shard-000000.tar"}


def test_sixteen_bits_go_through_unchanged() -> None:
    source, store = Drawn(dtype=np.uint16), MemoryStore()
    settings = parse(PackSettings, {"bits": 16, "range": (-1000, 3000)})
    manifest = pack(source, store, settings).manifest
    assert (manifest.image.bits, manifest.image.range) == (16, (-1000.0, 3000.0))
    [first, _, *_] = members(store)
    np.testing.assert_array_equal(decode_image(first[1], "x"), source.pixels[0])
    with pytest.raises(DataError, match="image-000: is a 16-bit image; use --bits 16"):
        pack(Drawn(dtype=np.uint16), MemoryStore(), PackSettings())
    store = MemoryStore()
    in_colour = parse(PackSettings, {"bits": 8, "channels": 3})
    result = pack(Drawn(dtype=np.uint16), store, in_colour)
    assert altered_lines([result.altered])[1:] == ["23 16-bit images were converted to 8 bits"]
    [first, _, *_] = members(store)
    rounded = np.rint(source.pixels[0] / 257).repeat(3, axis=2)
    np.testing.assert_array_equal(decode_image(first[1], "x"), rounded)
    # Those who left them out earlier are not told that nothing is to be done.
    without, mixed = MemoryStore(), Drawn(dtype=np.uint16)
    mixed.load = lambda entry: Drawn().load(entry) if entry.index else source.pixels[0]  # type: ignore[method-assign]
    assert pack(mixed, without, PackSettings(), skip_broken=True).manifest.count == 22
    with pytest.raises(SpecError, match="holds the set without its 1 16-bit image; pack to"):
        pack(mixed, without, parse(PackSettings, {"bits": 8}), skip_broken=True)
    with pytest.raises(SpecError, match="--bits 16 needs --channels 1"):
        pack(Drawn(shape=(8, 8, 3)), MemoryStore(), PackSettings(bits=16))


def test_eight_bits_fill_sixteen() -> None:
    store = MemoryStore()
    pack(Drawn(), store, PackSettings(bits=16))
    [first, *_] = members(store)
    deep = decode_image(first[1], "x").astype(int)
    np.testing.assert_array_equal(deep, Drawn().pixels[0].astype(int) * 257)


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    for name, side in (("a", 8), ("b", 9), ("c", 30)):
        Image.new("RGB", (side, 12)).save(tmp_path / f"{name}.png")
    source = open_source(f"folder:{tmp_path}")
    other = r"\.png: is \d+x12, the first image is \d+x12 \(and 1 more like it\); the images have 3"
    with pytest.raises(DataError, match=other) as caught:
        pack(source, MemoryStore(), PackSettings())
    assert caught.value.details == ()
    manifest = pack(source, MemoryStore(), PackSettings(image_size=6)).manifest
    assert (manifest.image.height, manifest.image.width, manifest.image.channels) == (6, 6, 3)


def test_resizing_takes_the_centre_square_bilinearly() -> None:
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (8, 20, 3)).astype(np.uint8)
    expected = Image.fromarray(wide[:, 6:14]).resize((4, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(crop_and_resize(wide, 4), np.asarray(expected))
    np.testing.assert_array_equal(crop_and_resize(wide, 8), wide[:, 6:14])
    deep = rng.integers(0, 65536, (10, 10, 1)).astype(np.uint16)
    halved = deep[..., 0].astype(float)
    small = crop_and_resize(deep, 5)[..., 0]
    assert small.dtype == np.uint16
    assert abs(small.mean() - halved.mean()) < 2500
    np.testing.assert_array_equal(crop_and_resize(np.full((9, 9, 1), 40000, np.uint16), 4), 40000)


def test_channels_are_repeated_or_weighted() -> None:
    grey = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    np.testing.assert_array_equal(with_channels(grey, 3), np.repeat(grey, 3, axis=2))
    colour = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert with_channels(colour, 1)[0, :, 0].tolist() == [76, 150, 29, 255]


def test_progress_reaches_the_end() -> None:
    said: list[tuple[int, int]] = []
    pack(Drawn(), MemoryStore(), PackSettings(shard_size=10), lambda *done: said.append(done))
    assert said[-1] == (23, 23)
    assert said == sorted(said)


def test_verify_names_every_bad_shard() -> None:
    store = MemoryStore()
    manifest = pack(Drawn(), store, PackSettings(shard_size=8)).manifest
    whole = store.get("shard-000001.tar")
    store.put("shard-000001.tar", whole[:-1] + b"x")
    store.delete("shard-000002.tar")
    bad = verify(store, manifest)
    assert [shard.key for shard in bad] == ["shard-000001.tar", "shard-000002.tar"]
    assert manifest.shards[1].sha256 in bad[0].problem
    assert bad[1] == BadShard("shard-000002.tar", "is in the manifest but missing")


def test_a_webdataset_of_others_can_be_packed_again() -> None:
    import webdataset

    store = MemoryStore()
    for number in range(2):
        file = io.BytesIO()
        with webdataset.TarWriter(file, mtime=0) as tar:
            for n in range(3):
                png = encode_png(np.full((4, 4, 1), 10 * number + n, np.uint8))
                label = str(n).encode() if number else json.dumps({"label": n}).encode()
                tar.write({"__key__": f"{n:03d}", "png": png, "cls" if number else "json": label})
        store.put(f"part-{number}.tar", file.getvalue())
    source = WebdatasetSource(store)
    entries = source.entries(None)
    assert [entry.name for entry in entries][::3] == ["part-0.tar#000", "part-1.tar#000"]
    assert [entry.label for entry in entries] == [0, 1, 2, 0, 1, 2]
    assert [int(source.load(entry)[0, 0, 0]) for entry in entries] == [0, 1, 2, 10, 11, 12]
    for workers in (1, 4):
        out = MemoryStore("out")
        again = pack(WebdatasetSource(store), out, PackSettings(shard_size=1), workers=workers)
        assert again.manifest.count == 6
        pngs = [content for name, content in members(out) if name.endswith(".png")]
        values = [int(decode_image(png, "x")[0, 0, 0]) for png in pngs]
        assert values == [0, 1, 2, 10, 11, 12]


def test_tars_of_others_are_indexed_where_they_lie(tmp_path: Path) -> None:
    made = open_store(str(tmp_path))
    original = pack(Drawn(), made, PackSettings(shard_size=10)).manifest
    made.delete(KEY)
    indexed = datasets.index_shards(str(tmp_path))
    assert (indexed.digest, indexed.count) == (original.digest, 23)
    assert read_manifest(made) == indexed
    made.put("z.tar", made.get("shard-000000.tar")[:700])
    with pytest.raises(DataError, match=r"z\.tar: truncated at 700 bytes"):
        datasets.index_shards(str(tmp_path))
    made.put("z.tar", bytes(10240))
    with pytest.raises(DataError, match=r"z\.tar: contains no PNG or JPEG"):
        datasets.index_shards(str(tmp_path))
    made.put(CLAIM, b"{}")
    with pytest.raises(DataError, match="packing did not finish; run"):
        datasets.index_shards(str(tmp_path))


def test_indexing_wants_images_of_one_size() -> None:
    store = MemoryStore()
    pack(Drawn(3), store, PackSettings())
    data = store.get("shard-000000.tar")
    pack(Drawn(3, (9, 9, 1)), (other := MemoryStore()), PackSettings())
    store = MemoryStore()
    store.put("a.tar", data)
    store.put("b.tar", other.get("shard-000000.tar"))
    with pytest.raises(DataError, match=r"b\.tar: 000000000000: is 9x9.*--image-size"):
        index_tars(store)
    with pytest.raises(DataError, match=r"no \.tar files found"):
        index_tars(MemoryStore())


def test_real_images_survive(shared: Path, tmp_path: Path) -> None:
    manifest, _ = pack_source(
        f"mnist:{shared / 'data' / 'mnist'}", str(tmp_path), split="test", limit=50
    )
    assert manifest.count == 50
    assert manifest.settings["split"] == "test"
    first = open_shards(str(tmp_path), str(tmp_path / "cache")).images(0, 50)
    source = open_source(f"mnist:{shared / 'data' / 'mnist'}")
    for n, entry in enumerate(source.entries("test")[:50]):
        np.testing.assert_array_equal(first[n, 0], source.load(entry)[..., 0])
