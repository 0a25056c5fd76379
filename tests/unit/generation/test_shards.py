"""Shards: each image a function of its seed, each tar of its plan, each committed once."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from colddiff.data.manifest import read_manifest
from colddiff.data.open import open_samples
from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.data.sample_plan import SamplePlan, differences, read_plan
from colddiff.data.sample_set import entries_in_order, sample_manifest, stored_shards
from colddiff.data.sources.webdataset_source import index_tars
from colddiff.data.tars import read_tar
from colddiff.degradations import build_degradation
from colddiff.errors import ColddiffError, DataError, SpecError
from colddiff.rng import stream, streams
from colddiff.sampling import sample
from colddiff.stores.local_store import LocalStore
from colddiff.stores.memory_store import MemoryStore
from colddiff.terminal import StandardNormal, Terminal
from colddiff.transforms import normalise
from colddiff.verbs.generate.commit import OtherBytes, commit_tar, packed_tar
from colddiff.verbs.generate.plan import check_place, claim_plan
from colddiff.verbs.generate.results import first_images, write_manifest
from colddiff.verbs.generate.worker import ShardWorker
from tests.unit.generation.sets import (
    NOISE,
    SHAPE,
    Counting,
    all_tasks,
    halfway,
    make,
    maker,
    plan,
    seeds,
    tars,
)


def finished(count: int = 25, **changes: object) -> MemoryStore:
    store, the_plan = MemoryStore(), plan(**changes)
    claim_plan(store, the_plan)
    make(store, the_plan, all_tasks(the_plan, count))
    write_manifest(store, the_plan, count)
    return store


def test_every_image_is_the_sampler_on_its_own_stream() -> None:
    store = finished(25, first_seed=7)
    assert seeds(store) == list(range(7, 32))
    D = build_degradation(NOISE, SHAPE)
    images = first_images(store, plan(first_seed=7), 25)
    for seed in (7, 16, 17, 31):
        rng = [stream(seed, "generation/start")]
        x_T, omega = Terminal(StandardNormal()).draw(D, rng)
        x_0 = sample(halfway, D, x_T, omega, sampler="improved")
        expected = torch.round((x_0.clamp(-1, 1) + 1) * 127.5).to(torch.uint8).numpy()
        np.testing.assert_array_equal(images[seed - 7], expected[0])


def test_a_set_is_the_same_whatever_the_order_and_the_number_of_workers() -> None:
    one, other, the_plan = finished(), MemoryStore(), plan()
    tasks = all_tasks(the_plan, 25)
    workers = [ShardWorker(the_plan, maker(), other) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda w=w: [w.make(t) for t in reversed(tasks)]) for w in workers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tars(one) == tars(other)
    assert len(tars(one)) == 3


def test_every_forward_has_as_many_rows_as_the_plan_says() -> None:
    R = Counting()
    make(MemoryStore(), plan(), all_tasks(plan(), 25), R=R)
    # Shards of 10, 10 and 5 in batches of 4: 3 + 3 + 2 of them, 3 severities each.
    assert R.rows == [4] * (8 * 3)


def test_a_longer_set_keeps_every_byte_and_replaces_the_short_tail_only() -> None:
    store, the_plan = finished(25), plan()
    before, manifest = tars(store), sample_manifest(store)
    assert manifest.count == 25
    make(store, the_plan, all_tasks(the_plan, 42))
    write_manifest(store, the_plan, 42)
    after = tars(store)
    assert seeds(store) == list(range(42))
    changed = [key for key in before if after[key] != before[key]]
    assert changed == ["shard-000002.tar"]
    assert read_tar(after[changed[0]])[:10] == read_tar(before[changed[0]])
    assert sample_manifest(store).count == 42
    # As if it had been made in one go.
    assert after == tars(finished(42))


def test_a_shorter_set_is_part_of_the_longer_one_and_shrinks_nothing() -> None:
    store, the_plan = finished(42), plan()
    before = tars(store)
    make(store, the_plan, all_tasks(the_plan, 25))
    write_manifest(store, the_plan, 25)
    assert tars(store) == before
    assert sample_manifest(store).count == 42


def test_only_equal_bytes_count_as_made_already() -> None:
    store, the_plan = MemoryStore(), plan()
    claim_plan(store, the_plan)
    task = the_plan.task(0, 10)
    make(store, the_plan, [task])
    assert not commit_tar(store, packed_tar(task, read_tar(tars(store)[task.key])), {})
    with pytest.raises(OtherBytes, match=r"shard-000000.tar: stored bytes have sha256 .* delete"):
        make(store, the_plan, [task], R=lambda x, t: -halfway(x, t))
    # Two records by now, of unlike machines; the tar decides which of them is its own.
    entry = stored_shards(store, "webdataset")[0]
    assert store.size(task.key) == entry.bytes
    assert sample_manifest(store, partial=True).shards == (entry,)


def test_what_a_set_says_of_itself() -> None:
    store = finished(10)
    members = dict(read_tar(tars(store)["shard-000000.tar"]))
    assert json.loads(members["000000000003.json"]) == {
        "seed": 3,
        "checkpoint": "c" * 64,
        "sampler": "improved",
        "severities": 3,
        "symmetry_noise": 0.0,
        "plan": plan().digest,
    }
    (record,) = [json.loads(store.get(i.key)) for i in store.list("records/")]
    assert record["first_seed"] == 0
    assert record["count"] == 10
    assert record["sha256"] == sample_manifest(store).shards[0].sha256


def test_a_finished_set_is_a_packed_data_set_and_a_half_made_one_can_be_read(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    cache = str(tmp_path_factory.mktemp("cache"))
    store, the_plan = finished(25), plan()
    source = open_samples(store, cache_dir=cache)
    assert source.manifest.count == 25
    np.testing.assert_array_equal(source.images(0, 25), first_images(store, the_plan, 25))
    store.delete("manifest.json")
    store.delete("shard-000001.tar")
    with pytest.raises(DataError, match=r"the sample set is unfinished.*partial=true"):
        open_samples(store)
    half = open_samples(store, partial=True, cache_dir=cache)
    assert half.manifest.count == 15
    np.testing.assert_array_equal(half.images(10, 15), source.images(20, 25))
    with pytest.raises(DataError, match="shard 1 was deleted"):
        write_manifest(store, the_plan, 25)


def test_a_folder_of_png(tmp_path_factory: pytest.TempPathFactory) -> None:
    store, the_plan = LocalStore(tmp_path_factory.mktemp("out")), plan(writer="folder")
    claim_plan(store, the_plan)
    make(store, the_plan, all_tasks(the_plan, 12))
    names = [item.key for item in store.list("") if "/" not in item.key]
    assert names == [*(f"{seed:012d}.png" for seed in range(12)), "plan.json"]
    make(store, the_plan, all_tasks(the_plan, 15))
    assert [e.count for _, e in entries_in_order(store, the_plan, 15)] == [10, 5]
    assert write_manifest(store, the_plan, 15) is None
    images = first_images(store, the_plan, 15)
    np.testing.assert_array_equal(images, first_images(finished(15), plan(), 15))
    with pytest.raises(DataError, match=r"plain folder of PNG.*data pack folder:"):
        sample_manifest(store)
    store.put("000000000003.png", b"something else")
    with pytest.raises(OtherBytes, match=r"000000000003.png"):
        make(store, the_plan, all_tasks(the_plan, 10))


def test_images_of_a_set_are_degraded_by_their_numbers_and_restored() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (15, *SHAPE.chw), dtype=np.uint8)
    store, the_plan = MemoryStore(), plan(data="d" * 64)
    changes = {"source": MemoryShards(images), "terminal": None, "symmetry_noise": 0.1}
    make(store, the_plan, all_tasks(the_plan, 15), **changes)
    D = build_degradation(NOISE, SHAPE)
    x0 = normalise(torch.from_numpy(images))
    omega = D.draw(15, rng=streams(0, "evaluation/omega", range(15)))
    x_T = D.observe(x0, torch.full((15,), 3), omega)
    noise = [stream(n, "generation/symmetry").standard_normal(SHAPE.chw) for n in range(15)]
    x_T = x_T + torch.from_numpy(0.1 * np.stack(noise)).float()
    expected = sample(halfway, D, x_T, omega)
    made = normalise(torch.from_numpy(first_images(store, the_plan, 15)))
    assert float((made - expected.clamp(-1, 1)).abs().max()) <= 1 / 255 + 1e-6


def test_a_restorer_that_diverges_is_an_error() -> None:
    with pytest.raises(ColddiffError, match="NaN or inf"):
        make(MemoryStore(), plan(), [plan().task(0, 4)], R=lambda x, t: x * torch.nan)


def test_a_plan_is_put_once_and_another_names_what_differs() -> None:
    store = MemoryStore()
    assert check_place(store, plan()) is None
    store.put("probes/1", b"somebody tries whether it can be written")
    first = claim_plan(store, plan())
    assert read_plan(store) == first
    # The first run's threads are kept, whatever a later one has.
    assert claim_plan(store, replace(plan(), threads=8)).threads == 1
    with pytest.raises(SpecError) as caught:
        claim_plan(store, plan(batch_size=16, checkpoint="d" * 64))
    message = str(caught.value)
    assert "batch_size is 4 there, 16 here" in message
    assert "checkpoint is cccccccccccc... there, dddddddddddd... here" in message
    assert "sampler" not in message
    assert differences(first, plan()) == []


def test_samples_that_are_not_complete_are_no_packed_set_and_no_tars_of_others() -> None:
    store = MemoryStore()
    claim_plan(store, plan())
    make(store, plan(), [plan().task(0, 4)])
    for opened in (read_manifest, index_tars):
        with pytest.raises(DataError, match="not complete: submit the `generate` job"):
            opened(store)
    # A plain folder of PNG files has no manifest when it is complete either.
    folder = MemoryStore()
    claim_plan(folder, plan(writer="folder"))
    with pytest.raises(DataError, match="not a packed data set"):
        read_manifest(folder)


def test_a_place_that_holds_something_else_is_refused() -> None:
    store = MemoryStore()
    store.put("holiday.jpg", b"")
    with pytest.raises(SpecError, match=r"holds other objects \(holiday.jpg\) and no plan.json"):
        check_place(store, plan())
    for wrong in (
        b"{",
        b'{"format": "x"}',
        b"[]",
        plan().to_bytes().replace(b"improved", b"naive"),
        b"[" * 100_000,
        SamplePlan({"image": 3}).to_bytes(),
        SamplePlan({**plan().content, "image": {"channels": 1, "height": "x"}}).to_bytes(),
        SamplePlan({**plan().content, "shard_size": 0}).to_bytes(),
        SamplePlan(plan().content, threads=0).to_bytes(),
    ):
        store.put("plan.json", wrong)
        with pytest.raises(DataError, match=r"plan.json"):
            read_plan(store)
