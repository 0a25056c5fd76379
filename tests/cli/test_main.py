"""The command line as a person types it: exit codes, two streams, one line per error."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from colddiff import __version__
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import Status
from colddiff.stores.local_store import LocalStore
from tests.in_process import Done, colddiff_here

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "ray", "mlflow", "boto3", "rich", "numpy", "yaml")


class Colddiff:
    """Runs ``colddiff`` in an empty folder, with a home and a storage of its own."""

    def __init__(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._patch, self._captured = monkeypatch, capsys
        self.home, self.storage = tmp_path / "home", tmp_path / "runs"
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        monkeypatch.chdir(folder)
        for name in os.environ:
            if name.startswith(("COLDDIFF_", "RAY_", "MLFLOW_", "AWS_")):
                monkeypatch.delenv(name)
        monkeypatch.setenv("COLDDIFF_HOME", str(self.home))
        monkeypatch.setenv("COLDDIFF_STORAGE", str(self.storage))

    def __call__(self, *arguments: str, **env: str) -> Done:
        """In this process, which has torch imported after the first such command."""
        return colddiff_here(self._patch, self._captured, *arguments, **env)

    def process(self, *arguments: str, before: str = "") -> Done:
        """In a process of its own, after the Python code ``before``."""
        code = f"{before}\nfrom colddiff.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def colddiff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Colddiff:
    return Colddiff(tmp_path, monkeypatch, capsys)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection fails the test: for what must contact nothing."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was used")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def one_error(done: Done, code: int) -> str:
    """The single line a deliberate error prints."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("colddiff: error: ")
    return lines[0]


def test_help_imports_nothing_heavy(colddiff: Colddiff) -> None:
    for arguments in (["--help"], ["submit", "train", "--help"], ["cluster", "start", "--help"]):
        report = f"sys.stderr.write(str([n for n in {HEAVY!r} if is_imported(n)]))"
        needs = "import atexit, sys; from colddiff.machine.deferred_import import is_imported"
        before = f"{needs}; atexit.register(lambda: {report})"
        done = colddiff.process(*arguments, before=before)
        assert done.returncode == 0
        assert done.stdout.startswith("Usage: colddiff")
        assert done.stderr == "[]"


def test_version(colddiff: Colddiff) -> None:
    done = colddiff("--version")
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [["nope"], ["submit", "train", "--nope"], ["stop"], ["stop", "x", "--grace", "soon"]],
    ids=" ".join,
)
def test_usage_errors_exit_2(colddiff: Colddiff, arguments: list[str]) -> None:
    done = colddiff(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error: " in done.stderr


@pytest.mark.usefixtures("offline")
def test_dry_run_is_a_job_file_and_contacts_nothing(colddiff: Colddiff, tmp_path: Path) -> None:
    first = colddiff(
        "submit", "train", "quickstart", "seed=3", "degradation.num_timesteps=7", "--dry-run",
        "--name", "My job",
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    job = yaml.safe_load(first.stdout)
    assert list(job) == ["name", "train"]
    assert job["name"] == "my-job"
    assert job["train"]["seed"] == 3
    assert job["train"]["degradation"]["num_timesteps"] == 7
    file = tmp_path / "job.yaml"
    file.write_text(first.stdout)
    second = colddiff("submit", "train", str(file), "--dry-run")
    assert second.stdout == first.stdout
    assert not colddiff.home.exists()
    assert not colddiff.storage.exists()
    as_json = colddiff(
        "submit", "train", str(file), "--dry-run", "--json", "--rate", "100", "num_steps=3600",
        "global_batch_size=100",
    )  # fmt: skip
    found = json.loads(as_json.stdout)
    estimate = found.pop("estimate")
    assert found["train"] == {**job["train"], "num_steps": 3600, "global_batch_size": 100}
    assert (estimate["images"], estimate["hours"]) == (360_000, 1.0)
    assert estimate["checkpoint_bytes"] > 4 * 4 * estimate["parameters"]
    assert "at 100 images/s: 1 hours" in as_json.stderr
    assert not colddiff.home.exists()
    assert not colddiff.storage.exists()
    alone = colddiff("submit", "train", str(file), "--rate", "100")
    assert (alone.returncode, alone.stdout) == (2, "")
    assert "--rate is for an estimate" in alone.stderr


def test_a_job_needs_no_recipe(colddiff: Colddiff) -> None:
    done = colddiff("submit", "train", "data=digits", "channels=1", "--dry-run")
    job = yaml.safe_load(done.stdout)
    assert (job["name"], job["train"]["data"]) == ("job", "digits")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["quickstart", "sead=1"], r"train\.sead: no such field; did you mean 'seed'"),
        (["quickstart", "degradation.kind=blurr"], r"train\.degradation\.kind: .*'blur'"),
        (["quickstart", "num_steps=many"], r"train\.num_steps: .*got 'many'"),
        (["quickstart", "seed"], r"'seed' is not key=value, and JOB is already 'quickstart'"),
        (
            ["quikstart"],
            r"no recipe 'quikstart'; did you mean 'quickstart'\? \(nor is there a file",
        ),
        (["missing.yaml"], r"no job file 'missing\.yaml' \(`colddiff recipes` lists"),
        (["quikstart.yaml"], r"no job file 'quikstart\.yaml'; did you mean 'quickstart'\?"),
        (["quickstart", "--variant", "nope"], r"no variant 'nope'"),
        (["seed=1", "--variant", "paper"], "--variant needs a JOB"),
        (["quickstart", "--local", "--detach"], "--local .* --detach"),
        (["quickstart", "--plugin", "missing.py"], r"plugin '.*missing\.py' cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_exits_2_with_the_way_out(
    colddiff: Colddiff, words: list[str], says: str
) -> None:
    assert re.search(says, one_error(colddiff("submit", "train", *words), 2))


@pytest.mark.usefixtures("unloaded_plugins")
def test_a_plugin_brings_a_kind_of_its_own(colddiff: Colddiff, tmp_path: Path) -> None:
    plugin = tmp_path / "fade.py"
    plugin.write_text(
        "from typing import Literal\n"
        "from colddiff.degradations.blur import BlurSpec\n"
        "from colddiff.degradations import DEGRADATIONS\n"
        "@DEGRADATIONS.register\n"
        "class HazeSpec(BlurSpec):\n"
        "    '''A haze.'''\n"
        "    kind: Literal['haze'] = 'haze'\n"
    )
    done = colddiff(
        "submit", "train", "data=digits", "degradation.kind=haze", "--plugin", str(plugin),
        "--dry-run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    job = yaml.safe_load(done.stdout)["train"]
    assert (job["degradation"]["kind"], job["plugins"]) == ("haze", [str(plugin)])


@pytest.mark.parametrize("way", ["--address", "COLDDIFF_ADDRESS", "RAY_ADDRESS"])
def test_no_cluster_at_the_address_exits_3_quickly(colddiff: Colddiff, way: str) -> None:
    address = "http://127.0.0.1:9"
    words = ["submit", "train", "quickstart"]
    done = (
        colddiff(*words, "--address", address)
        if way == "--address"
        else colddiff(*words, **{way: address})
    )
    line = one_error(done, 3)
    assert f"no Ray cluster responds at {address} (from {way})" in line


def test_the_option_wins_over_the_environment(colddiff: Colddiff) -> None:
    done = colddiff(
        "submit", "train", "quickstart", "--address", "127.0.0.1:9",
        COLDDIFF_ADDRESS="http://127.0.0.1:10",
    )  # fmt: skip
    assert "http://127.0.0.1:9 " in one_error(done, 3)


@pytest.mark.usefixtures("offline")
def test_paths_of_this_machine_are_refused_for_another_ones_cluster(colddiff: Colddiff) -> None:
    words = ("submit", "train", "quickstart", "--address", "http://head.example:8265")
    assert "storage" in one_error(colddiff(*words), 2)
    bucket = {"COLDDIFF_STORAGE": "s3://bucket/prefix"}
    line = one_error(colddiff(*words, **bucket), 2)
    assert "MLFLOW_TRACKING_URI=http://host:port, or add --shared-path" in line


@pytest.mark.usefixtures("offline")
def test_a_start_is_a_field_of_the_job(colddiff: Colddiff) -> None:
    done = colddiff("submit", "train", "quickstart", "--from", "train-x@best", "--dry-run")
    assert yaml.safe_load(done.stdout)["train"]["start_from"] == "train-x@best"


@pytest.mark.parametrize(
    "address", ["ray://127.0.0.1:10001", "auto", "http://", "http://h:port", "http://u:p@h:1"]
)
def test_what_is_no_address_exits_2(colddiff: Colddiff, address: str) -> None:
    line = one_error(colddiff("submit", "train", "quickstart", "--address", address), 2)
    assert "--address" in line


def test_what_answers_must_be_ray(colddiff: Colddiff) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("elsewhere/api/version"):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"ray_version": "0"}')
                return
            self.send_response(302)
            self.send_header("Location", "/elsewhere/api/version")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        line = one_error(colddiff("submit", "train", "quickstart", "--address", address), 3)
        server.shutdown()
    assert f"{address} (from --address) is not a Ray dashboard (HTTP 302 of Base" in line


def test_an_unknown_kind_exits_2_with_the_nearest(colddiff: Colddiff) -> None:
    assert "did you mean 'blur'" in one_error(colddiff("degradations", "blurr"), 2)


def test_a_kind_shows_its_fields_bounds_and_ranges(colddiff: Colddiff) -> None:
    assert re.search(r"^blur +\S", colddiff("degradations").stdout, re.MULTILINE)
    shown = colddiff("degradations", "blur").stdout
    assert re.search(r"kernel_size +int +11 +px +>= 1, <= 255 ", shown)
    assert re.search(r"num_timesteps +int +20 +>= 1, <= 4,000 +5\.\.400 \(log\)", shown)
    fields = json.loads(colddiff("degradations", "blur", "--json").stdout)["fields"]
    assert fields["padding"]["bounds"] == "circular | reflect"
    assert fields["sigma"]["search"] == (
        "sigma.value 0.3..10 (log), sigma.ratio 0.125..8 (log), sigma.kind linear | exponential"
    )


def test_recipes_name_what_can_be_submitted(colddiff: Colddiff) -> None:
    done = colddiff("recipes", "--json")
    recipes = {recipe["name"]: recipe for recipe in json.loads(done.stdout)}
    assert recipes["quickstart"]["verbs"] == ["train"]
    assert "quickstart" in colddiff("recipes").stdout


def test_jobs_of_a_storage_are_shown_without_a_cluster(colddiff: Colddiff) -> None:
    assert json.loads(colddiff("list", "--json").stdout) == []
    folder = JobFolder(LocalStore(colddiff.storage), "train-a-01234567")
    folder.write_job({"id": folder.job_id})
    folder.write_status(
        Status("failed", attempt=2, step=3, num_steps=9, heartbeat=1.0, message="broke\nhere")
    )
    folder.write_log(2, b"what it said\n")
    (row,) = json.loads(colddiff("list", "--json").stdout)
    assert (row["id"], row["state"], row["exit_code"]) == (folder.job_id, "failed", 1)
    assert "3/9" in colddiff("list").stdout
    damaged = JobFolder(folder.store, "train-b-01234567")
    damaged.write_job({"id": damaged.job_id})
    damaged.store.put(damaged.key("status.json"), b"{half")
    listed = colddiff("list")
    assert (listed.returncode, "3/9" in listed.stdout) == (0, True)
    assert "train-b-01234567/status.json is not JSON" in listed.stderr
    damaged.store.delete(damaged.key("status.json"))
    assert colddiff("delete", damaged.job_id, "--yes").returncode == 0
    shown = json.loads(colddiff("status", folder.job_id, "--json").stdout)
    assert (shown["attempt"], shown["message"], shown["result"]) == (2, "broke\nhere", None)
    assert colddiff("logs", folder.job_id).stdout == "what it said\n"
    assert colddiff("logs", folder.job_id, "-f").stdout == "what it said\n"
    folder.write_debug_log(2, b"what Ray said\n")
    assert colddiff("logs", folder.job_id, "--debug").stdout == "what Ray said\n"
    refused = colddiff("logs", folder.job_id, "--debug", "-f")
    assert (refused.returncode, "leave out -f" in refused.stderr) == (2, True)
    assert colddiff("stop", folder.job_id).returncode == 0
    waited = colddiff("wait", folder.job_id, "--json")
    assert (waited.returncode, json.loads(waited.stdout)["exit_code"]) == (1, 1)
    assert "did you mean" in one_error(colddiff("status", "train-a-0123457"), 2)
    assert "--yes" in one_error(colddiff("delete", folder.job_id), 2)
    assert colddiff("delete", folder.job_id, "--yes").returncode == 0
    assert json.loads(colddiff("list", "--json").stdout) == []


def test_an_unwritable_storage_is_an_unreachable_store(colddiff: Colddiff, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = colddiff("submit", "train", "quickstart", "--local", f"storage={tmp_path}/file/runs")
    assert str(tmp_path / "file") in one_error(done, 3)


def test_a_bug_is_called_one_and_shows_where_when_asked(colddiff: Colddiff) -> None:
    broken = "from colddiff.cluster import local_cluster as c\nc.running = lambda home: 1 / 0\n"
    line = one_error(colddiff.process("cluster", "status", before=broken), 1)
    assert "unexpected ZeroDivisionError" in line
    assert "COLDDIFF_TRACEBACK=1" in line
    traced = "import os; os.environ['COLDDIFF_TRACEBACK'] = '1'\n"
    shown = colddiff.process("cluster", "status", before=traced + broken)
    assert shown.returncode == 1
    assert "Traceback (most recent call last)" in shown.stderr


def test_an_interrupt_exits_130(colddiff: Colddiff) -> None:
    interrupted = (
        "from colddiff.cluster import local_cluster as c\n"
        "def interrupt(home): raise KeyboardInterrupt\nc.running = interrupt\n"
    )
    ended = colddiff.process("cluster", "status", before=interrupted)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (130, "colddiff: interrupted")


def test_what_is_wrong_with_a_job_is_said_before_a_cluster_is_started(colddiff: Colddiff) -> None:
    line = one_error(colddiff("submit", "train", "image_size=16"), 2)
    assert "data: is required" in line
    assert not (colddiff.home / "cluster.json").exists()


def test_credentials_that_others_can_read_are_refused(colddiff: Colddiff) -> None:
    colddiff.home.mkdir()
    credentials = colddiff.home / "credentials"
    credentials.write_text("AWS_SECRET_ACCESS_KEY=hush\n")
    credentials.chmod(0o644)
    line = one_error(colddiff("cluster", "start"), 3)
    assert "chmod 600" in line
    assert "hush" not in line


def test_no_local_cluster_is_no_error(colddiff: Colddiff) -> None:
    assert json.loads(colddiff("cluster", "status", "--json").stdout) == {"running": False}
    stopped = colddiff("cluster", "stop", "--json")
    assert json.loads(stopped.stdout) == {"running": False, "stopped": False}


@pytest.mark.usefixtures("offline")
def test_a_dry_run_of_generation_shows_its_grid_and_is_a_job_file(
    colddiff: Colddiff, tmp_path: Path
) -> None:
    words = ("num_samples=2500", "batch_size=64", "--dry-run")
    done = colddiff("submit", "generate", "quickstart", *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(
        "\nestimate:\n  2500 images, shards of 1000: 3, the last of 500, batches of 64 rows: 40, "
        "to STORAGE/samples/<id>\ncheckpoint: submitting this would fail: nothing was trained from"
    )
    # Its checkpoint is that of the train section, which belongs to it then.
    assert list(yaml.safe_load(done.stdout)) == ["name", "train", "generate"]
    file = tmp_path / "job.yaml"
    file.write_text(done.stdout)
    assert colddiff("submit", "generate", str(file), "--dry-run").stdout == done.stdout
    missing = colddiff("submit", "generate", "quickstart", "num_samples=9", "--local")
    assert "nothing was trained from this file" in one_error(missing, 2)
