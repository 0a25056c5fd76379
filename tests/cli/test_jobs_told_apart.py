"""`colddiff list`: jobs of several names, and fields that are null."""

from __future__ import annotations

from colddiff.jobs.listing.job_table import differs_text
from colddiff.stores.memory_store import MemoryStore
from tests.cli.test_job_table import rows_of, write


def test_jobs_of_several_names_are_told_apart_by_a_few_fields() -> None:
    store = MemoryStore()
    blur = {"kind": "blur", "num_timesteps": 20}
    for number, (slug, of) in enumerate((("a", blur), ("b", {**blur, "num_timesteps": 9}))):
        write(store, f"train-{slug}-0000000{number}", slug=slug, degradation=of, workers=number)
    assert [differs_text(row) for row in rows_of(store)] == [
        "degradation.num_timesteps=20",
        "degradation.num_timesteps=9",
    ]
    many = {f"field_{n}": n for n in range(9)}
    write(store, "train-c-00000003", slug="c", degradation={"kind": "blur"}, **many)
    write(store, "train-d-00000004", slug="d", degradation={"kind": "snow"})
    kinds = [differs_text(row) for row in rows_of(store)]
    assert kinds == ["degradation.kind=blur"] * 3 + ["degradation.kind=snow"]


def test_a_field_that_is_null_tells_a_job_apart_where_nothing_else_does() -> None:
    store = MemoryStore()
    for number, severities in enumerate((None, 5)):
        write(store, f"evaluate-x-0000000{number}", slug="x", severities=severities)
    texts = [differs_text(row) for row in rows_of(store)]
    assert texts == ["severities=null", "severities=5"]
