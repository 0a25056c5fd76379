"""The user's own settings of boto3 hold, and a refusal names its true reason."""

from __future__ import annotations

import socket
from pathlib import Path

import boto3.session
import pytest

from colddiff import slow_calls
from colddiff.errors import StoreError
from colddiff.stores.s3_store import S3Store
from tests.conftest import S3Service
from tests.faulty_s3 import Answer, Proxy, Relay
from tests.unit.test_s3_store import every_call, s3


def test_no_credentials(
    s3_service: S3Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket = s3_service.new_bucket()
    client = boto3.session.Session().client("s3", endpoint_url=s3_service.endpoint)
    client.put_object(Bucket=bucket, Key="p/k", Body=b"x", ACL="public-read")
    client.close()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def private(handler: Relay) -> None:
        assert "Authorization" not in handler.headers
        handler.refuse(403, "AccessDenied")

    with Proxy(s3_service.endpoint, private) as proxy:
        for call in every_call(s3(proxy.endpoint)):
            with pytest.raises(StoreError, match=r"no credentials for .*AWS_ACCESS_KEY_ID"):
                call()
    # A public bucket needs none.
    assert s3(s3_service.endpoint, bucket).get("k") == b"x"


CONFIGS = {
    "endpoint_url": "[default]\nendpoint_url = {}\n",
    "services": "[default]\nservices = mine\n[services mine]\ns3 =\n  endpoint_url = {}\n",
    "a profile": "[default]\n[profile mine]\nendpoint_url = {}\n",
}


@pytest.mark.parametrize("written", CONFIGS)
def test_an_endpoint_of_the_config_file_is_like_one_of_the_environment(
    s3_service: S3Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str
) -> None:
    seen: list[str] = []

    def old(handler: Relay) -> None:
        """A service that knows no newer checksums."""
        marks = [name for name in handler.headers if name.lower().startswith("x-amz-checksum")]
        seen.extend(marks)
        if marks:
            handler.refuse(501, "NotImplemented")
        else:
            handler.respond(handler.forward())

    with Proxy(s3_service.endpoint, old) as proxy:
        config = tmp_path / "config"
        config.write_text(CONFIGS[written].format(proxy.endpoint))
        monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        if written == "a profile":
            monkeypatch.setenv("AWS_PROFILE", "mine")
        store = S3Store(s3_service.new_bucket(), "p", max_attempts=2)
        store.put("k", b"x")
        assert (store.get("k"), store.size("k"), seen) == (b"x", 1, [])


@pytest.mark.parametrize(
    ("setting", "host", "path"),
    [
        ("", "{endpoint}", "/bkt/p/k"),
        ("s3 =\n  addressing_style = virtual\n", "bkt.{endpoint}", "/p/k"),
    ],
)
def test_the_users_addressing_style_holds(
    s3_service: S3Service,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    setting: str,
    host: str,
    path: str,
) -> None:
    config = tmp_path / "config"
    config.write_text(f"[default]\nendpoint_url = http://localhost:9\n{setting}")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    store = S3Store("bkt", "p")
    url = store._client.generate_presigned_url("get_object", {"Bucket": "bkt", "Key": "p/k"})
    assert url.startswith(f"http://{host.format(endpoint='localhost:9')}{path}?")


def test_a_profile_that_does_not_exist_is_named(
    s3_service: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreError, match=r"nobody.*AWS_PROFILE"):
        S3Store("bucket")


@pytest.mark.parametrize(
    ("status", "name", "message", "says"),
    [
        (403, "RequestTimeTooSkewed", "too large", "this machine's clock is wrong"),
        (400, "ExpiredToken", "expired", "session token has expired.*AWS_SESSION_TOKEN"),
        (
            400,
            "AuthorizationHeaderMalformed",
            "the region 'us-east-1' is wrong; expecting 'eu-central-1'",
            "another region.*AWS_DEFAULT_REGION=eu-central-1",
        ),
        (
            301,
            "PermanentRedirect",
            "use the endpoint",
            "another region.*AWS_DEFAULT_REGION=eu-west-2",
        ),
        (
            403,
            "AccessDenied",
            "no",
            r"no permission to (read .*s3:GetObject and s3:ListBucket|write to .*s3:PutObject"
            r"|list .*s3:ListBucket|delete .*s3:DeleteObject) in the role's policy",
        ),
    ],
)
def test_every_call_names_the_true_reason_also_where_a_head_has_none(
    s3_service: S3Service, status: int, name: str, message: str, says: str
) -> None:
    text = f"<Error><Code>{name}</Code><Message>{message}</Message></Error>".encode()

    def refuse(handler: Relay) -> None:
        body = b"" if handler.command == "HEAD" else text
        region = [("x-amz-bucket-region", "eu-west-2")] if status == 301 else []
        handler.respond(Answer(status, region, body, len(text)))

    with Proxy(s3_service.endpoint, refuse) as proxy:
        for call in every_call(s3(proxy.endpoint)):
            with pytest.raises(StoreError, match=says) as raised:
                call()
            assert raised.value.exit_code == 3


def test_a_server_that_redirects_everything_is_named(s3_service: S3Service) -> None:
    def redirect(handler: Relay) -> None:
        handler.respond(Answer(301, [("Location", "https://elsewhere/")], b"", 0))

    with Proxy(s3_service.endpoint, redirect) as proxy:
        for call in every_call(s3(proxy.endpoint)):
            with pytest.raises(StoreError, match=r"redirects every request|another region"):
                call()


def test_a_service_that_is_silent_is_named_while_it_is_waited_for(
    s3_service: S3Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(slow_calls, "SAY_S", 0.5)
    monkeypatch.setattr(slow_calls, "LOOK_S", 0.1)
    monkeypatch.setattr(slow_calls.SLOW_CALLS, "_said", {})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(StoreError, match="does not respond"):
            s3(endpoint, read_timeout_s=2.0).get("k")
    (said,) = [item.message for item in caplog.records if "waiting for" in item.message]
    assert f"waiting for {endpoint} (s3://bucket/p/k)" in said
