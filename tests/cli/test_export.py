"""`colddiff export`, and what is exported: complete, public, and no code that runs unasked."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import colddiff
from colddiff.checkpoints.format import Checkpoints, Snapshot
from colddiff.checkpoints.references import describe_checkpoint, find_checkpoint, load_checkpoint
from colddiff.errors import CheckpointError
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.plugins import keep_plugins
from colddiff.jobs.resolve import record_job, resolve
from colddiff.spec.plugins import LoadedPlugin, load_plugin, plugin_digest, unload_plugin
from colddiff.stores.local_store import LocalStore
from colddiff.stores.open import open_store
from colddiff.terminal import StandardNormal, Terminal
from tests.in_process import Done, colddiff_here
from tests.restoring import picture
from tests.tiny_checkpoint import BLUR, RANDOM_INPAINT, tiny_checkpoint, tiny_job

EXAMPLE = Path(__file__).resolve().parents[2] / "infra" / "docs" / "own-degradation" / "kspace.py"
KSPACE: dict[str, Any] = {"kind": "kspace", "num_timesteps": 4}
Colddiff = Callable[..., Done]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Colddiff:
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def colddiff_(*words: str | Path) -> Done:
        return colddiff_here(monkeypatch, capsys, *words)

    return colddiff_


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tracker_database: Path
) -> tuple[Path, dict[str, Any]]:
    """STORAGE and the result of a job of one step, evaluated on 12 images in colour."""
    root = tmp_path_factory.mktemp("trained")
    (root / "runs").mkdir()
    shutil.copy(tracker_database, root / "runs" / "mlflow.db")
    # A distance that does not fit colour images, and is on their card because it is asked for.
    evaluation = {"num_images": 12, "best": "eval/sampled/fd_lenet"}
    job = tiny_job(
        data="digits",
        channels=3,
        num_steps=1,
        global_batch_size=8,
        evaluation=evaluation,
        tracking={"system_every_s": None, "images": False},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLDDIFF_STORAGE", str(root / "runs"))
        patch.setenv("COLDDIFF_CACHE", str(root / "cache"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return root / "runs", colddiff.train(job, "tiny")


@pytest.fixture
def kspace(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """The example plugin runs in this process until the returned function is called."""
    plugin: LoadedPlugin = load_plugin(EXAMPLE)

    def forget() -> None:
        unload_plugin(plugin)

    yield forget
    unload_plugin(plugin)


def error_of(done: Done) -> str:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    return done.stderr.splitlines()[-1]


def texts(folder: Path) -> str:
    """All that can be read in a folder."""
    files = [path for path in folder.rglob("*") if path.suffix in (".json", ".md")]
    return "".join(path.read_text() for path in files)


def test_a_job_is_exported_with_its_numbers_and_none_of_its_addresses(
    run: Colddiff,
    tmp_path: Path,
    trained: tuple[Path, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage, result = trained
    monkeypatch.setenv("COLDDIFF_STORAGE", str(storage))
    out = tmp_path / "export"
    done = run("export", f"{result['id']}@best", "--out", out)
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    card = json.loads((out / "card.json").read_text())
    assert card["evaluation"]["metrics"] == result["metrics"]
    assert card["evaluation"]["provenance"]["n"] == 12
    folder = JobFolder(open_store(str(storage)), result["id"])
    assert card["training"]["data_digest"] == folder.job()["content"]["data"]
    readme = (out / "README.md").read_text()
    assert f"{result['metrics']['eval/sampled/psnr']:.4g}" in readme
    assert "| | psnr | rmse | ssim | fd_lenet |" in readme
    assert "colddiff submit generate checkpoint=DIR" in readme
    assert str(storage.parent) not in texts(out)

    there, here = load_checkpoint(result["checkpoint"]), load_checkpoint(str(out))
    weights = here.restorer.state_dict()
    for name, tensor in there.restorer.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert here.degradation.spec == there.degradation.spec
    assert here.terminal
    assert there.terminal
    assert here.terminal.state() == there.terminal.state()
    assert torch.equal(here.terminal.tensors["means"], there.terminal.tensors["means"])
    picture(tmp_path / "a.png", 1)
    restored = run(
        "restore", "--checkpoint", out, "--out", tmp_path / "restored", tmp_path / "a.png"
    )
    assert restored.returncode == 0, restored.stderr

    # A second-hand export is the same; only a job's folder says which checkpoint is best.
    again = run("export", out, "--out", tmp_path / "second-hand")
    assert again.returncode == 0, again.stderr
    for path in (path for path in out.rglob("*") if path.is_file()):
        assert (tmp_path / "second-hand" / path.relative_to(out)).read_bytes() == path.read_bytes()
    assert "@best requires a job's folder" in error_of(
        run("export", f"{out}@best", "--out", tmp_path / "third")
    )


@pytest.mark.parametrize("degradation", [BLUR, RANDOM_INPAINT], ids=["blur", "random inpaint"])
def test_the_commands_of_a_card_work_as_they_are(
    run: Colddiff,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    degradation: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    source = tiny_checkpoint(tmp_path / "source", degradation=degradation)
    assert run("export", source, "--out", tmp_path / "DIR").returncode == 0
    picture(tmp_path / "photo.png", 1, (20, 24))
    picture(tmp_path / "clean" / "a.png", 2, (24, 20))
    readme = (tmp_path / "DIR" / "README.md").read_text()
    lines = [line for line in readme.splitlines() if "colddiff restore" in line]
    commands = [shlex.split(line, comments=True) for line in lines]
    # Nobody knows the severity of an image that is brought: a strip of all shows which one fits.
    assert len(commands) == (2 if degradation is RANDOM_INPAINT else 3)
    for words in commands:
        done = run(*words[1:])
        assert done.returncode == 0, f"{words}: {done.stderr}"
    names = {path.name for path in (tmp_path / "restored").iterdir()}
    assert names == ({"a.degraded.png"} if degradation is RANDOM_INPAINT else {"photo.png"})


def test_a_run_of_the_tracker_is_a_reference(
    run: Colddiff,
    tmp_path: Path,
    trained: tuple[Path, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage, result = trained
    monkeypatch.setenv("COLDDIFF_STORAGE", str(storage))
    reference = f"mlflow:{result['tracking']['run_id']}"
    assert find_checkpoint(reference) == find_checkpoint(result["checkpoint"])
    assert find_checkpoint(f"{reference}@step=1").step == 1
    missing = error_of(run("export", f"mlflow:{'0' * 32}", "--out", tmp_path / "out"))
    assert "no such run at sqlite:///" in missing
    assert "set MLFLOW_TRACKING_URI to its tracker" in missing
    with pytest.raises(CheckpointError, match="no such run"):
        find_checkpoint("mlflow:../../etc")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(CheckpointError, match="no such run"):
        find_checkpoint(reference, storage=str(tmp_path / "elsewhere"))
    assert not (tmp_path / "elsewhere").exists()


def test_an_export_that_was_cut_short_is_no_checkpoint_and_can_be_finished(
    run: Colddiff, tmp_path: Path
) -> None:
    source, out = tiny_checkpoint(tmp_path / "source"), tmp_path / "export"
    assert run("export", source, "--out", out).returncode == 0
    commit = out / "checkpoints" / "step_00000003" / "checkpoint.json"
    commit.unlink()
    (commit.parent / "ema.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="no committed checkpoint"):
        find_checkpoint(str(out))
    done = run("export", source, "--out", out, "--json")
    assert json.loads(done.stdout)["fresh"] is True
    weights = load_checkpoint(str(out)).restorer.state_dict()
    for name, tensor in load_checkpoint(source).restorer.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    # What the half-written file had the name of is committed under another one, and exports too.
    assert (commit.parent / "ema.again.safetensors").exists()
    assert run("export", out, "--out", tmp_path / "second-hand").returncode == 0
    again = run("export", source, "--out", out)
    assert "already exported" in again.stderr
    other = tiny_checkpoint(tmp_path / "other", step=4)
    assert "already holds another checkpoint" in error_of(run("export", other, "--out", out))
    assert "no committed checkpoint" in error_of(
        run("export", tmp_path / "nothing", "--out", tmp_path / "x")
    )


def test_a_terminal_that_was_committed_under_another_name_is_found(tmp_path: Path) -> None:
    job = tiny_job(degradation={"kind": "noise", "num_timesteps": 2})
    folder = LocalStore(tmp_path)
    folder.put("checkpoints/step_00000001/terminal.safetensors", b"of a writer taken for dead")
    terminal = Terminal(StandardNormal())
    Checkpoints(folder, "checkpoints").save(
        Snapshot(
            1,
            {"ema": job.restorer.build(job.shape).state_dict(), "terminal": terminal.tensors},
            {"job": job.to_dict(), "terminal": terminal.state()},
        )
    )
    about = describe_checkpoint(find_checkpoint(str(tmp_path)))
    assert about.terminal == {"kind": "standard_normal"}
    assert about.terminal_sha256
    assert load_checkpoint(str(tmp_path)).terminal == terminal


def test_a_plugin_that_came_with_a_checkpoint_runs_only_when_trusted(
    run: Colddiff, tmp_path: Path, kspace: Callable[[], None]
) -> None:
    source = tmp_path / "source"
    tiny_checkpoint(source, degradation=KSPACE, plugins=[str(EXAMPLE)])
    out, sha256 = tmp_path / "export", plugin_digest(EXAMPLE)
    kspace()
    missing = error_of(run("export", source, "--out", out))
    assert f"was trained with the plugins {EXAMPLE}, which are not stored with it" in missing
    # Exporting runs no code, so a plugin that nobody trusts is only copied.
    done = run("export", source, "--out", out, "--plugin", EXAMPLE)
    assert done.returncode == 0, done.stderr
    assert (out / "plugins" / f"{sha256}.py").read_bytes() == EXAMPLE.read_bytes()
    assert f"--trust-plugin {sha256}" in (out / "README.md").read_text()
    assert "kspace" not in colddiff.DEGRADATIONS

    picture(tmp_path / "a.png", 1)
    options = ("--out", tmp_path / "made", "--sampler", "direct", tmp_path / "a.png")
    words: tuple[str | Path, ...] = ("restore", "--checkpoint", out, *options)
    for refused in (run(*words), run(*words, "--trust-plugin", "0" * 64)):
        message = error_of(refused)
        assert f"read {out}/plugins/{sha256}.py" in message
        assert f"add --trust-plugin {sha256}" in message
    assert "kspace" not in colddiff.DEGRADATIONS
    trusted = run(*words, "--trust-plugin", sha256)
    assert trusted.returncode == 0, trusted.stderr
    # Given by its user, the same code needs no trust of its own.
    kspace()
    assert run(*words, "--plugin", EXAMPLE).returncode == 0

    kspace()
    (out / "plugins" / f"{sha256}.py").write_text("print('another')")
    assert "its content does not match the sha256 in its name" in error_of(
        run(*words, "--trust-plugin", sha256)
    )


def test_another_version_of_a_plugin_does_not_stand_in_for_the_one_it_was_trained_with(
    run: Colddiff, tmp_path: Path, kspace: Callable[[], None]
) -> None:
    source = tmp_path / "source"
    tiny_checkpoint(source, degradation=KSPACE, plugins=["plugins/x.py"])
    keep_plugins(LocalStore(source), "", [EXAMPLE.read_bytes()])
    kspace()
    edited = tmp_path / "edited.py"
    edited.write_bytes(EXAMPLE.read_bytes() + b"\n# another\n")
    other = load_plugin(edited)
    try:
        with pytest.raises(CheckpointError, match="--trust-plugin"):
            load_checkpoint(str(source))
    finally:
        unload_plugin(other)


def test_a_job_keeps_its_plugins_whatever_becomes_of_the_files(
    run: Colddiff, tmp_path: Path, kspace: Callable[[], None]
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_bytes(EXAMPLE.read_bytes())
    job = tiny_job(data="digits", degradation=KSPACE, plugins=[str(mine)])
    resolved = resolve(job, "mine")
    folder = JobFolder(open_store(str(tmp_path / "runs")), resolved.id)
    record_job(resolved, folder)
    tiny_checkpoint(
        tmp_path / "runs" / "jobs" / resolved.id, degradation=KSPACE, plugins=[str(mine)]
    )
    mine.unlink()
    kspace()
    done = run("export", resolved.id, "--out", tmp_path / "export", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["plugins"] == [f"plugins/{plugin_digest(EXAMPLE)}.py"]
    with pytest.raises(CheckpointError, match="code that came with it"):
        load_checkpoint(resolved.id)
    assert load_checkpoint(resolved.id, trusted=[plugin_digest(EXAMPLE)]).degradation.spec


def test_a_file_of_the_users_is_not_replaced(tmp_path: Path, run: Colddiff) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny")
    mine = {"README.md": "my project", "card.json": '{"mine": 1}'}
    for name, text in mine.items():
        out = tmp_path / name
        out.mkdir()
        (out / name).write_text(text)
        done = run("export", checkpoint, "--out", out)
        assert done.returncode == 2
        assert f"{out / name} is not of this export, and is not replaced" in done.stderr
        assert {path.name: path.read_text() for path in out.iterdir()} == {name: text}
    (tmp_path / "folder" / "README.md").mkdir(parents=True)
    done = run("export", checkpoint, "--out", tmp_path / "folder")
    assert done.returncode == 2
    assert "README.md is in the way" in done.stderr
