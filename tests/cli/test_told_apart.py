"""`colddiff list`: jobs of which others of their name say nothing, and long addresses."""

from __future__ import annotations

from colddiff.jobs.listing.job_table import chosen, differs_text
from colddiff.stores.memory_store import MemoryStore
from tests.cli.test_job_table import rows_of, write


def test_a_job_alone_of_its_name_tells_its_kinds() -> None:
    store = MemoryStore()
    write(store, "train-blur-00000001", degradation={"kind": "blur"}, seed=0)
    unet = {"kind": "ddpm_unet", "dim": 64}
    write(store, "train-x-00000007", slug="x", degradation={"kind": "snow"}, restorer=unet)
    row = chosen(rows_of(store), (), "train-x")[0]
    assert differs_text(row) == "degradation.kind=snow, restorer.kind=ddpm_unet"


def test_addresses_are_told_apart_by_their_ends() -> None:
    store = MemoryStore()
    places = [f"/home/somebody/with/a/long/name/{name}/train" for name in ("faces", "cars")]
    for number, place in enumerate(places):
        write(store, f"train-x-0000000{number}", slug="x", data=place)
    write(store, "train-x-00000002", slug="x", data="s3://bucket/digits/half")
    texts = [differs_text(row) for row in rows_of(store)]
    assert texts == ["data=…/faces/train", "data=…/cars/train", "data=…/digits/half"]
    assert rows_of(store)[0].differs == {"data": places[0]}
