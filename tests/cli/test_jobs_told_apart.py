"""`colddiff list`: jobs of several names, and fields that are null or of how a job runs."""

from __future__ import annotations

from typing import Any

from colddiff.jobs.listing.job_table import chosen, differs_text
from colddiff.report.differences import differing_fields
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


def test_how_jobs_run_is_shown_where_nothing_else_tells_them_apart() -> None:
    store = MemoryStore()
    lasts: tuple[dict[str, Any], ...] = ({"dim": 16}, {"dim": 32}, {"dim": 32})
    for number, last in enumerate(lasts[:2]):
        spec = {"checkpoint_every": 200 + number, "evaluation": {"num_images": 16 + number}}
        write(store, f"train-wide-0000000{number}", slug="wide", **spec, restorer=last)
    rows = chosen(rows_of(store), (), "wide")
    assert [differs_text(row) for row in rows] == ["restorer.dim=16", "restorer.dim=32"]
    assert rows[0].differs["checkpoint_every"] == 200  # with --json
    # Two that its fields of identity leave alike, as their images have other contents.
    write(store, "train-wide-00000002", slug="wide", checkpoint_every=9, restorer=lasts[2])
    text = differs_text(chosen(rows_of(store), (), "wide")[2])
    assert text == "restorer.dim=32, checkpoint_every=9"
    base = [{"seed": n, "log_every": n, "num_steps": n} for n in range(2)]
    assert list(differing_fields([{"base": one} for one in base])[0])[-1] == "base.log_every"
