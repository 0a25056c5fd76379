"""`colddiff doctor`: a line for each thing, with the way out, and exit code 1 if one is wrong."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from colddiff.cluster.address import Cluster
from colddiff.cluster.home import Home
from colddiff.cluster.nodes.places import unreached
from colddiff.errors import ClusterError
from tests.in_process import Done, colddiff_here


class Doctor:
    """Runs `colddiff doctor` with a home and a storage of its own, and no address."""

    def __init__(
        self, place: Path, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]
    ) -> None:
        self.home, self.storage = place / "home", place / "runs"
        self._patch, self._captured = patch, captured
        for name in ("COLDDIFF_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        patch.setenv("COLDDIFF_HOME", str(self.home))
        patch.setenv("COLDDIFF_STORAGE", str(self.storage))

    def __call__(self, *words: str, **env: str) -> Done:
        return colddiff_here(self._patch, self._captured, "doctor", *words, **env)

    def of(self, name: str, *words: str, **env: str) -> tuple[int, dict[str, Any]]:
        """Exit code, and the finding of that name."""
        done = self(*words, "--json", **env)
        (found,) = (one for one in json.loads(done.stdout)["findings"] if one["name"] == name)
        return done.returncode, found


@pytest.fixture
def doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Doctor:
    return Doctor(tmp_path, monkeypatch, capsys)


def test_all_is_right_on_a_machine_where_nothing_was_started(doctor: Doctor) -> None:
    done = doctor()
    assert done.returncode == 0, done.stdout
    lines = [line.split(None, 2) for line in done.stdout.splitlines()]
    assert {line[0] for line in lines} <= {"ok", "note"}
    names = {line[1] for line in lines}
    assert {"versions", "token", "Ray", "ports", "shm", "GPU", "store", "tracker"} <= names
    assert not doctor.home.exists(), "it changes nothing"
    assert not doctor.storage.exists()
    assert json.loads(doctor("--json").stdout)["ok"] is True


def test_a_cluster_that_does_not_respond_is_wrong(doctor: Doctor) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        code, found = doctor.of("Ray", "--address", address)
    assert (code, found["state"]) == (1, "wrong")
    assert f"no Ray cluster responds at {address}" in found["what"]


def test_a_wait_for_an_address_is_said_with_its_longest_time(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def silent(cluster: Cluster) -> Cluster:
        asked.append(cluster.address)
        time.sleep(0.1)
        raise ClusterError("no answer")

    monkeypatch.setattr("colddiff.cluster.address.probe", silent)
    monkeypatch.setattr("colddiff.cli.progress.SILENT_S", 0.01)
    done = doctor("--address", "http://127.0.0.1:1")
    assert asked == ["http://127.0.0.1:1"], "it is asked once"
    said = "waiting for http://127.0.0.1:1 to respond, 5 s at most for an answer"
    assert done.stderr.splitlines().count(said) == 1
    assert "waiting" not in done.stdout


def test_the_token_for_a_cluster_of_others_is_read(doctor: Doctor, tmp_path: Path) -> None:
    address = ("--address", "http://127.0.0.1:1")
    where = {"HOME": str(tmp_path), "RAY_AUTH_TOKEN_PATH": str(tmp_path / "gone")}
    code, found = doctor.of("token", *address, **where)
    assert (code, found["state"]) == (1, "wrong")
    assert found["what"] == f"{tmp_path / 'gone'}: no such file"
    (tmp_path / "gone").write_text("t0k")
    _, found = doctor.of("token", *address, **where)
    assert found["state"] == "ok"
    assert found["what"] == f"there is one in {tmp_path / 'gone'} (RAY_AUTH_TOKEN_PATH)"
    assert doctor.of("token", *address, HOME=str(tmp_path), RAY_AUTH_TOKEN_PATH="")[1] == {
        "name": "token",
        "state": "note",
        "what": "none is given; a cluster that requires a token refuses",
        "way_out": "set RAY_AUTH_TOKEN_PATH to the file that holds it",
    }


def test_a_token_that_others_can_read_is_wrong(doctor: Doctor) -> None:
    home = Home(doctor.home)
    home.token()
    assert doctor.of("token")[1]["state"] == "ok"
    home.token_path.chmod(0o644)
    code, found = doctor.of("token")
    assert (code, found["state"]) == (1, "wrong")
    assert found["way_out"] == f"run `chmod 600 {home.token_path}`"


def test_credentials_that_others_can_read_are_wrong(doctor: Doctor) -> None:
    home = Home(doctor.home)
    home.make()
    home.credentials_path.write_text("AWS_SECRET_ACCESS_KEY=hidden\n")
    home.credentials_path.chmod(0o644)
    code, found = doctor.of("home")
    assert (code, found["state"]) == (1, "wrong")
    assert "chmod 600" in found["what"]
    assert "hidden" not in doctor().stdout


def test_a_store_and_a_tracker_that_cannot_be_used_are_wrong(doctor: Doctor) -> None:
    doctor.storage.parent.joinpath("file").write_text("a file, not a folder")
    place = str(doctor.storage.parent / "file" / "runs")
    code, found = doctor.of("store", COLDDIFF_STORAGE=place)
    assert (code, found["state"]) == (1, "wrong")
    uri = "http://user:secret@127.0.0.1:9"
    code, found = doctor.of("tracker", MLFLOW_TRACKING_URI=uri)
    assert (code, found["state"]) == (1, "wrong")
    assert "does not respond" in found["what"]
    assert "secret" not in found["what"]
    code, found = doctor.of("tracker", MLFLOW_TRACKING_URI="./folder")
    assert (code, found["state"]) == (1, "wrong")
    assert "names no server or database" in found["what"]


def test_a_store_that_is_there_is_written_to_and_left_as_it_was(doctor: Doctor) -> None:
    doctor.storage.mkdir(mode=0o700)
    assert doctor.of("store")[1]["what"] == f"{doctor.storage} can be written"
    assert not [path for path in doctor.storage.rglob("*") if path.is_file()]


def test_a_storage_that_is_open_to_all_is_noted(doctor: Doctor) -> None:
    doctor.storage.mkdir()
    doctor.storage.chmod(0o755)
    code, found = doctor.of("store")
    assert (code, found["state"]) == (0, "note")
    assert "mode 755" in found["what"]
    assert found["way_out"].startswith(f"run `chmod -R go= {doctor.storage}`")
    doctor.storage.chmod(0o750)
    assert doctor.of("store")[1]["state"] == "ok"


def test_what_a_node_does_not_reach_is_named_with_the_way_out(tmp_path: Path) -> None:
    gone, silent = str(tmp_path / "runs"), "http://127.0.0.1:9"
    store, tracker = unreached(gone, silent, make=False)
    assert store.startswith(f"store: {gone} is not there; use s3://bucket/prefix, or a path that")
    assert tracker.startswith(f"tracker: tracker {silent} does not respond")
    assert unreached(gone, f"sqlite:///{gone}/mlflow.db", make=True) == []
    (tmp_path / "file").touch()
    (store,) = unreached(str(tmp_path / "file"), f"sqlite:///{gone}/mlflow.db", make=True)
    assert store.startswith("store: ")
