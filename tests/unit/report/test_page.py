"""The report page: one file, the same bytes, nothing from outside; and in a real browser."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colddiff.evaluation.best import notes_on_restored
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.pages.read import command_of, read_run
from colddiff.jobs.pages.write import write_page
from colddiff.jobs.recipes import load_recipe
from colddiff.report.page.compared import compared
from colddiff.report.page.facts import cost_of
from colddiff.report.page.latex import to_latex
from colddiff.report.page.markdown import report_markdown
from colddiff.report.page.page import MOST_BYTES, report_page
from colddiff.report.page.paper import paper_lines
from colddiff.report.page.table import note_of, notes_below, tables_of
from colddiff.report.page.told import told_of
from colddiff.report.page.verdict import verdict_of_several
from colddiff.tracking.memory_tracker import MemoryTracker
from tests.browser import opened
from tests.unit.report.made_runs import train_job


def page_of(storage: Path, **fields: object) -> str:
    return report_page([read_run(train_job(storage, **fields))])  # type: ignore[arg-type]


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    folder = train_job(tmp_path)
    first, second = (report_page([read_run(folder)]) for _ in range(2))
    assert first == second
    assert len(first.encode()) < MOST_BYTES


def test_it_names_nothing_outside_and_allows_nothing_else(tmp_path: Path) -> None:
    text = page_of(tmp_path)
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    policy = html.unescape(policy)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for name in ("style", "script"):
        (inner,) = re.findall(rf"<{name}>(.*?)</{name}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    # Such styles would be blocked, and the page would look wrong.
    assert not re.search(r"<style|<[^>]* style=", text.split("</style>", 1)[1])


def test_what_others_wrote_is_text(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    text = page_of(tmp_path, data=bad)
    assert bad not in text
    assert html.escape(bad) in text


def test_every_number_says_where_it_comes_from(tmp_path: Path) -> None:
    text = page_of(tmp_path)
    proofs = [html.unescape(found) for found in re.findall(r'data-proof="([^"]*)"', text)]
    assert len(proofs) == 4 * 4 + 1
    for proof in proofs:
        for word in ("reference images", "again by", "protocol", "train-blocks-00000001"):
            assert word in proof
    assert any("paired bootstrap over 23 images" in proof for proof in proofs)
    # Each of the five distances, of real images too; errors of pixels have none.
    assert sum('"features"' in proof for proof in proofs) == 5


def test_a_damaged_part_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    folder = train_job(tmp_path)
    folder.store.put(folder.key("evaluations/step_00000010.safetensors"), b"damaged")
    folder.store.put(folder.key("result.json"), b"{")
    run = read_run(folder)
    assert len(run.problems) == 2
    text = report_page([run])
    assert "the images of step 10 of train-blocks-00000001: not the details" in text
    assert "result.json" in text
    assert 'id="severity"' in text


def test_a_job_without_results_says_how_it_stands(tmp_path: Path) -> None:
    text = report_page([read_run(train_job(tmp_path, strengths=(), state="running"))])
    assert "The job is running at 0 of 20." in text
    assert "<table>" not in text.split("Attempts and cost")[0]


def test_the_page_says_what_kills_have_cost(tmp_path: Path) -> None:
    found = cost_of(read_run(train_job(tmp_path)))
    assert found["steps trained again after kills"] == "7"
    assert "steps trained again after kills" in page_of(tmp_path)


def test_large_images_are_left_out_until_it_is_small_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train_job(tmp_path)
    whole = report_page([read_run(folder)])
    monkeypatch.setattr("colddiff.report.page.page.IMAGE_BYTES", 6_000)
    small = report_page([read_run(folder)])
    assert len(small) < len(whole)
    assert small.count('id="path-') < whole.count('id="path-')


def test_the_command_submits_an_equal_job(tmp_path: Path) -> None:
    folder: JobFolder = train_job(tmp_path, seed=3)
    command = command_of(folder.job())
    assert command.startswith("colddiff submit train --name blocks ")
    assert "seed=3" in command
    assert "'degradation={kind: blur, num_timesteps: 4" in command
    assert "checkpoint_every" not in command  # its default
    of_study = train_job(tmp_path, tracking={"parent": "study-a-01234567", "required": False})
    assert "tracking" not in command_of(of_study.job())


def test_the_papers_number_stands_beside_ours_where_the_recipe_has_one(tmp_path: Path) -> None:
    folder = train_job(tmp_path)
    job = {**folder.job(), "slug": "paper-deblur-mnist"}
    folder.write_job(job)
    record = folder.evaluation(20)
    assert record is not None
    record["metrics"]["eval/sampled/fid"] = 7.5
    folder.write_evaluation(20, record)
    text = report_page([replace(read_run(folder), unlike={})])
    assert text.count("<small>paper ") == 1
    assert "7.5</button><small>paper 4.69</small>" in text
    assert "7.5</button><small>paper 4.69, not comparable</small>" in report_page(
        [read_run(folder)]
    )
    assert "arXiv 2208.09392, Table 1" in html.unescape(text)
    assert "<small>paper " not in page_of(tmp_path / "other")


def test_the_verdict_of_several_systems_has_a_sentence_for_each(tmp_path: Path) -> None:
    runs = [replace(read_run(train_job(tmp_path / name)), id=name) for name in ("first", "second")]
    runs[1].job["spec"]["degradation"]["num_timesteps"] = 9
    text = html.unescape(report_page(runs))
    verdict = text[text.index('class="verdict"') :].split("</section>")[0].split("</div>")[0]
    assert verdict.count("Sampling (Algorithm 2, improved) against one step (direct)") == 2


def test_images_plots_and_attempts_are_those_of_each_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"train-blocks-0000000{n}" for n in (1, 2)]
    strengths = [(0.7, 0.9), (0.5, 0.6)]
    runs = [read_run(train_job(tmp_path, *job)) for job in zip(ids, strengths, strict=True)]
    text, written = report_page(runs), report_markdown(runs)
    for run in runs:
        assert run.last is not None
        assert run.last.details is not None
        for part in ("From severity T to 0", "Images, chosen by rule", "Over training", "Training"):
            assert text.count(f">{part}: {run.id}</h2>") == 1, part
        sheets = [one.sheet for one in run.last.details.paths]
        for sheet in [*sheets, *(one.sheet for one in run.last.details.shown)]:
            assert base64.b64encode(sheet).decode() in text
        attempts = text.partition("Attempts and cost")[2].partition("Provenance")[0]
        assert f"<h3>{run.id}</h3>" in attempts
        told = written.partition("### Attempts and cost")[2].partition("### Provenance")[0]
        assert f"#### {run.id}\n\n| attempt |" in told
    found = re.findall(r'\bid="([^"]+)"', text)
    assert len(found) == len(set(found)), "ids are unique on the page"
    named = re.findall(r'(?:url\(|href="|data-sheet="|for=")#?([^")]+)', text.split("</style>")[1])
    assert set(named) - {"data:image/webp;base64,"} <= set(found)
    monkeypatch.setattr("colddiff.report.page.told.MOST_SHOWN", 1)
    few = report_page(runs)
    assert f"those of 1 jobs; 1 more need a report of their own: {ids[1]}." in few
    assert f": {ids[1]}</h2>" not in few


def test_what_is_worse_than_no_restoration_is_not_praised(tmp_path: Path) -> None:
    runs = [replace(read_run(train_job(tmp_path / name)), id=name) for name in ("first", "second")]
    runs[1].job["spec"]["degradation"]["num_timesteps"] = 9
    tables = tables_of(runs)
    worse = {**tables[1].measured[0].metrics, "eval/degraded/rmse": 0.01}
    tables[1] = replace(tables[1], measured=(replace(tables[1].measured[0], metrics=worse),))
    first, second = verdict_of_several(tables)
    assert "Sampling (Algorithm 2, improved) against one step (direct)" in first
    assert "makes the RMSE worse" in second
    assert "better" not in second


def test_tables_that_a_verb_wrote_are_on_its_page(tmp_path: Path) -> None:
    folder = train_job(tmp_path, strengths=())
    board = "| rank | who |\n| ---: | :--- |\n| 1 | a \\| b |\n| **2** | **base** |\n"
    board += f"| 3 | {'passed over ' * 3} |\n\nlow <b>\n"
    folder.store.put(folder.key("leaderboard.md"), board.encode())
    text = report_page([read_run(folder)])
    assert "<h2>Leaderboard</h2>" in text
    assert '<th scope="col">rank</th><th scope="col">who</th>' in text
    assert "<tr><td>1</td><td>a | b</td></tr>" in text
    assert '<tr class="marked"><td>2</td><td>base</td></tr>' in text
    # A sentence gets room, so that it does not make its row the height of the page.
    assert '<td class="prose">passed over passed over passed over</td>' in text
    assert "<p>low &lt;b&gt;</p>" in text
    folder.write_result(
        {"id": folder.job_id, "metrics": {"search/best": 3.0}, "summary": ["Best."]}
    )
    text = report_page([read_run(folder)])
    assert '<h2 id="numbers">' not in text  # of restorations, of which there are none
    assert "<p>Best.</p>" in text


def test_money_is_shown_where_a_price_is_set(tmp_path: Path) -> None:
    folder = train_job(tmp_path, resources={"gpus": 1, "price_per_gpu_hour": 2.5})
    status = folder.status()
    assert status is not None
    folder.write_status(replace(status, gpu_hours=3.0))
    assert "<dt>cost</dt><dd>7.50</dd>" in report_page([read_run(folder)])
    assert "<dt>cost</dt>" not in page_of(tmp_path / "other")


def test_a_page_that_cannot_be_made_fails_no_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = train_job(tmp_path)
    folder.store.put(folder.key("job.json"), b"{")
    tracker = MemoryTracker()
    assert write_page(folder, tracker, {}) is None
    assert "report.html was not written (RecordError: " in caplog.text
    assert folder.store.size(folder.key("report.html")) is None


@pytest.mark.system
def test_in_a_browser_without_network(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    jobs = [train_job(tmp_path / "runs", f"train-blocks-0000000{n}") for n in (1, 2)]
    path.write_text(report_page([read_run(job) for job in jobs]))
    with opened(path, tmp_path / "profile") as page:
        others = [url for url in page.requests if not url.startswith(("file:", "data:"))]
        assert (others, page.complaints) == ([], [])
        first = "document.querySelector('#severities ~ section.walk canvas')"
        before = page.js(f"{first}.toDataURL()")
        page.js(
            "(() => { const s = document.getElementById('severity'); s.value = s.max;"
            " s.dispatchEvent(new Event('input')); })()"
        )
        assert page.js("document.querySelector('output[for=severity]').textContent") == "t = 0"
        after = page.js(f"{first}.toDataURL()")
        assert before != after
        second = "document.querySelector('#job2-severities ~ section.walk canvas')"
        assert page.js(f"{second}.toDataURL()") == before, "each job has a slider of its own"
        # At severity 0 the first row shows the original, and its error is black.
        page.js("document.querySelector('section.walk input[type=checkbox]').click()")
        error = base64.b64decode(page.js(f"{first}.toDataURL()").partition(",")[2])
        assert not np.asarray(Image.open(io.BytesIO(error)).convert("RGB")).any()
        page.js("document.querySelector('button.num').click()")
        assert "reference images" in page.js("document.querySelector('.proof').textContent")
        assert page.js("document.querySelector('.proof').hidden") is False
        page.js("document.querySelector('button.copy').click()")
        page.js("new Promise(done => setTimeout(done, 300))")
        assert page.js("document.querySelector('button.copy').textContent") == "copied"
        shots = []
        for scheme, media in (("light", "screen"), ("dark", "screen"), ("light", "print")):
            page.theme(scheme, media)
            shots.append(np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L")))
        light, dark, printed = (float(shot.mean()) for shot in shots)
        assert light > 180 > 90 > dark
        assert printed > 180
        assert page.complaints == []
        contrasts = page.js(CONTRASTS)
        assert min(contrasts) >= 4.5, contrasts


CONTRASTS = """(() => {
  const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number);
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll('p, th, td, button, figcaption, dt, dd, h1, h2, summary')]
    .map((one) => light(getComputedStyle(one).color))
    .map((ink) => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05));
})()"""


def test_what_differs_between_jobs_is_a_table_whose_longer_side_runs_down(tmp_path: Path) -> None:
    runs = [read_run(train_job(tmp_path / str(n), f"train-blocks-0000000{n}")) for n in range(3)]
    assert compared(runs) is None
    assert compared(runs[:1]) is None
    for n, run in enumerate(runs):
        run.job["spec"]["optimizer"] = {"lr": 0.5 * n, "eps": 1.0}
    found = compared(runs)
    assert found is not None
    assert (found.head, found.rows[2]) == (["job", "optimizer.lr"], ["train-blocks-00000002", "1"])
    for n, run in enumerate(runs):
        run.job["spec"].update(seed=n, loss="l1" if n else None, num_steps=n + 1)
    found = compared(runs)
    assert found is not None
    assert found.head == ["field", *(run.id for run in runs)]
    assert ["loss", "-", "l1", "l1"] in found.rows
    assert not any(row[0] == "num_steps" for row in found.rows), "but what was evaluated"
    found = compared([runs[0], replace(runs[1], step=10)])
    assert found is not None
    assert found.head == ["field", runs[0].id, f"{runs[1].id}@step=10"]
    assert ["step evaluated", "20", "10"] in found.rows
    other = replace(runs[0], verb="evaluate", job={"spec": {"checkpoint": "x", "seed": 5}})
    found = compared([runs[0], other])
    assert found is not None
    assert found.rows == [["verb", "train", "evaluate"], ["seed", "0", "5"]]
    assert other.last is not None
    fewer = {**other.last.provenance, "severities": [4, 2, 0]}
    other = replace(other, evaluations=(replace(other.last, provenance=fewer),))
    found = compared([runs[0], other])
    assert found is not None
    assert ["severities evaluated", "4", "2"] in found.rows


def test_the_papers_numbers_of_a_recipe_stand_in_a_line(tmp_path: Path) -> None:
    run = read_run(train_job(tmp_path))
    assert "paper:" not in report_markdown([run])
    assert run.last is not None
    other = f"not comparable with {run.last.provenance['metric']}"
    told = "paper: fid 4.69 sampled, 5.10 direct (Inception features"
    run = replace(run, targets=load_recipe("paper/deblur-mnist").targets or {})
    for text in (report_page([run]), report_markdown([run])):
        assert f"{told}; {other})" in text
    last = replace(run.evaluations[-1], provenance={"metric": "fid"})
    assert paper_lines([replace(run, evaluations=(last,))]) == [f"{told})"]
    assert paper_lines([run, replace(run, id="b", targets={"fid": 54.68})]) == [
        f"{told}; {other}): {run.id}",
        f"paper: fid 54.68 (Inception features; {other}): b",
    ]


def test_page_and_markdown_say_the_same(tmp_path: Path) -> None:
    folder = train_job(tmp_path)
    folder.store.put(folder.key("leaderboard.md"), b"| rank |\n| --- |\n| first |\n")
    first = replace(read_run(folder), problems=("a picture is damaged",))
    about = notes_on_restored("fd_lenet", (3, 12, 12), 23, 64)
    assert first.last is not None
    last = replace(first.last, provenance={**first.last.provenance, "notes": about})
    first = replace(first, evaluations=(*first.evaluations[:-1], last))
    other = replace(read_run(train_job(tmp_path / "other", "train-blocks-00000002")))
    other.job["spec"]["num_steps"] = 7
    targets = load_recipe("paper/deblur-mnist").targets or {}
    for runs in ([first], [replace(first, targets=targets), other]):
        told = told_of(runs)
        assert len(told.side_by_side) == len(runs) - 1
        page, text = html.unescape(report_page(runs)), report_markdown(runs)
        assert notes_below(told.tables[0]) == about
        words = [*told.verdict, *told.paper, *told.problems, told.title, "first"]
        for one in told.provenance:
            words += [*one["about"], one["id"], one["command"], *one["facts"].values()]
        for job in told.jobs:
            words += [str(word) for row in (*job.attempts, job.cost) for word in row.values()]
        for table in told.all_tables:
            words += [table.title, note_of(table), *notes_below(table)]
            words += [row.label for row in table.rows]
        for block in filter(None, [told.compared]):
            words += [cell for row in block.rows for cell in row]
        assert len(told.verdict) > 1
        assert [word for word in words if word not in page] == []
        assert [word for word in words if word not in text] == []
        assert f"% {about[1]}" in to_latex(told.tables)
