"""Where numbers go when nobody says, what is refused, and that no password is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from colddiff.errors import SpecError
from colddiff.machine.credentials import masked
from colddiff.tracking.address import (
    TrackingAddress,
    checked_uri,
    tracking_address,
    without_userinfo,
)


def test_a_path_storage_holds_database_and_artifacts(tmp_path: Path) -> None:
    address = tracking_address(str(tmp_path), {})
    assert address.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert address.artifact_root == f"{tmp_path}/mlflow-artifacts"


def test_a_bucket_holds_the_artifacts_of_a_database_in_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = tracking_address("s3://bucket/prefix", {})
    assert address.uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert address.artifact_root == "s3://bucket/prefix/mlflow-artifacts"


def test_a_server_keeps_its_own_artifacts(tmp_path: Path) -> None:
    address = tracking_address(str(tmp_path), {"MLFLOW_TRACKING_URI": "http://tracker:5000"})
    assert address == TrackingAddress("http://tracker:5000", None)


def test_a_relative_database_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = tracking_address("runs", {"MLFLOW_TRACKING_URI": "sqlite:///here.db?timeout=3"})
    assert address.uri == f"sqlite:///{tmp_path}/here.db?timeout=3"
    assert address.artifact_root == f"{tmp_path}/runs/mlflow-artifacts"


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "./mlruns", "/tmp/mlruns", "", "mlruns"])
def test_a_folder_is_refused_with_the_way_out(uri: str) -> None:
    with pytest.raises(SpecError, match=r"MLFLOW_TRACKING_URI=sqlite:////.*mlflow\.db") as caught:
        checked_uri(uri)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("uri", ["ftp://ada:s3cr3t@host", "htp://host:5000"])
def test_an_unknown_kind_of_place_is_refused_with_the_way_out(uri: str) -> None:
    with pytest.raises(
        SpecError, match=r"MLflow knows no .*; use MLFLOW_TRACKING_URI=http"
    ) as caught:
        checked_uri(uri)
    assert "s3cr3t" not in str(caught.value)
    assert len(str(caught.value)) < 200
    for known in ("https://host", "postgresql+psycopg2://db/mlflow", "databricks"):
        assert checked_uri(known if "://" in known else f"{known}://x")


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://x.db"])
def test_a_database_without_a_file_is_refused(uri: str) -> None:
    with pytest.raises(SpecError, match="names no file"):
        checked_uri(uri)


@pytest.mark.parametrize(
    ("uri", "clean"),
    [
        ("http://ada:s3cr3t@host:5000/mlflow", "http://host:5000/mlflow"),
        ("https://s3cr3t@host", "https://host"),
        (
            "postgresql://ada:s3cr3t@db/mlflow?sslmode=require",
            "postgresql://db/mlflow?sslmode=require",
        ),
        ("postgresql://db/mlflow?a=1&password=s3cr3t", "postgresql://db/mlflow?a=1"),
        ("http://ada:s3cr3t@with@host:5000", "http://host:5000"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
    ],
)
def test_credentials_are_taken_out(uri: str, clean: str) -> None:
    assert without_userinfo(uri) == clean
    for shown in (masked(f"failed at {uri} (2 tries)"), str(TrackingAddress(uri))):
        assert "s3cr3t" not in shown
        assert "ada" not in shown
    assert "s3cr3t" not in repr(TrackingAddress(uri))
