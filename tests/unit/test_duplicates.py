"""Near duplicates: planted ones are found, others are not, and no near hash is missed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from colddiff.cli.data import app
from colddiff.data.near_duplicates import Fingerprints, fingerprints, near_pairs
from colddiff.data.open import open_shards, pack_source
from colddiff.data.readers.memory_shards import MemoryShards


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 6, 6, 3)).astype(np.uint8)
    made = [
        np.asarray(Image.fromarray(c).resize((32, 32), Image.Resampling.BICUBIC)) for c in coarse
    ]
    return np.stack(made).transpose(0, 3, 1, 2)


def jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file), np.uint8).transpose(2, 0, 1)


def brighter(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (image + np.minimum(255 - image, 5)).astype(np.uint8)


def pairs_of(a: NDArray[Any], b: NDArray[Any] | None = None) -> list[tuple[int, int]]:
    prints = [fingerprints(MemoryShards(part)) for part in (a, b) if part is not None]
    return [(pair.first, pair.second) for pair in near_pairs(*prints)]


def test_planted_duplicates_are_found_and_nothing_else() -> None:
    train = images(300)
    planted = {250: train[3], 260: jpeg(train[7]), 270: brighter(train[11])}
    for number, image in planted.items():
        train[number] = image
    assert pairs_of(train) == [(3, 250), (7, 260), (11, 270)]


def test_they_are_found_between_two_sets_of_other_sizes_and_depths() -> None:
    train, test = images(200), images(50, seed=1)
    test[9] = train[123]
    assert pairs_of(train, test) == [(123, 9)]
    larger = np.repeat(np.repeat(test, 2, axis=2), 2, axis=3)
    assert pairs_of(train, larger) == [(123, 9)]
    grey = (test[:, :1].astype(np.uint16)) * 257
    assert pairs_of(test[:, :1], grey) == [(n, n) for n in range(50)]


def test_equal_hashes_of_unlike_pictures_are_no_duplicates() -> None:
    # Flat images have no neighbours that differ: their hashes are all the same.
    flat = np.stack([np.full((3, 32, 32), value, np.uint8) for value in range(0, 250, 25)])
    assert len(set(fingerprints(MemoryShards(flat)).hashes)) == 1
    assert pairs_of(flat) == []
    assert pairs_of(np.concatenate([flat, flat[:1]])) == [(0, 10)]


def test_no_near_hash_is_missed() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 400, dtype=np.uint64)
    for n in range(200):
        flipped = rng.choice(64, n % 7, replace=False).astype(np.uint64)
        hashes[200 + n] = hashes[n] ^ np.bitwise_or.reduce(np.uint64(1) << flipped)
    pictures = np.zeros((400, 256), np.uint8)
    for bits in (0, 3, 6):
        found = near_pairs(Fingerprints(hashes, pictures), max_bits=bits)
        assert [(p.first, p.second) for p in found] == [
            (n, 200 + n) for n in range(200) if n % 7 <= bits
        ]
        assert [p.bits for p in found] == [n % 7 for n in range(200) if n % 7 <= bits]


def test_the_command_says_where_they_lie(tmp_path: Path) -> None:
    for folder, numbers in (("train", range(12)), ("test", (3, 20, 21))):
        (tmp_path / folder).mkdir()
        for n in numbers:
            image = Image.fromarray(images(30)[n].transpose(1, 2, 0))
            image.save(tmp_path / folder / f"{n:02d}.png")
        source, out = f"folder:{tmp_path / folder}", str(tmp_path / f"{folder}-set")
        pack_source(source, out, shard_size=5)
    sets = [str(tmp_path / "train-set"), str(tmp_path / "test-set")]
    said = CliRunner().invoke(app, ["duplicates", *sets, "--json"])
    assert said.exit_code == 0
    found = json.loads(said.stdout)
    [pair] = found["pairs"]
    assert (found["first"]["images"], found["second"]["images"]) == (1, 1)
    assert (pair["bits"], pair["rmse"]) == (0, 0.0)
    for side, uri in zip(("first", "second"), sets, strict=True):
        index, shard, number = (pair[side][name] for name in ("index", "shard", "number"))
        assert index == 5 * int(shard[6:12]) + number
        pixels = open_shards(uri, str(tmp_path / "cache")).images(index, index + 1)[0]
        np.testing.assert_array_equal(pixels, images(30)[3])
    alone = CliRunner().invoke(app, ["duplicates", sets[0]])
    assert (alone.exit_code, alone.stdout) == (0, "")
    assert f"0 near-duplicate pairs within {sets[0]}" in alone.stderr
    both = CliRunner().invoke(app, ["duplicates", *sets])
    assert both.stdout == "03.png ~ 03.png: 0 bits, rmse 0.0000\n"
    assert f"1 near-duplicate pair: 1 image of {sets[0]}, 1 image of {sets[1]}\n" in both.stderr
    # Of one set, an image of a pair is counted on either side.
    Image.open(tmp_path / "train" / "03.png").save(tmp_path / "train" / "copy.png")
    pack_source(f"folder:{tmp_path / 'train'}", str(tmp_path / "twice"))
    twice = CliRunner().invoke(app, ["duplicates", str(tmp_path / "twice")])
    assert set(twice.stdout.split(": ")[0].split(" ~ ")) == {"03.png", "copy.png"}
    assert f"1 near-duplicate pair, of 2 images, within {tmp_path / 'twice'}" in twice.stderr
