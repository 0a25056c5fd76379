"""An S3 store where the service, the network or the credentials misbehave."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import boto3.session
import pytest
from botocore.loaders import JSONFileLoader

from colddiff.errors import Exists, Missing, SpecError, StoreDenied, StoreError
from colddiff.ports import Store
from colddiff.stores import s3_store
from colddiff.stores.s3_store import S3Store
from tests.conftest import S3Service
from tests.faulty_s3 import FAILURES, TRUNCATIONS, Answer, FaultyS3, Proxy, Relay


def test_more_objects_than_one_page_of_a_listing(s3_service: S3Service) -> None:
    store = S3Store(s3_service.new_bucket(), "p")
    asked: list[str | None] = []

    def of_ten(params: dict[str, Any], **_: Any) -> dict[str, Any]:
        """A page has a thousand objects, which would take a while to store."""
        asked.append(params.get("ContinuationToken"))
        return {**params, "MaxKeys": 10}

    store._client.meta.events.register("provide-client-params.s3.ListObjectsV2", of_ten)
    for n in range(25):
        store.put(f"many/{n:04d}", b"")
    found = [item.key for item in store.list("many/")]
    assert found == [f"many/{n:04d}" for n in range(25)]
    assert [token is None for token in asked] == [True, False, False]


def test_folder_markers_of_other_tools_are_not_objects(s3_service: S3Service) -> None:
    bucket = s3_service.new_bucket()
    client = boto3.session.Session().client("s3", endpoint_url=s3_service.endpoint)
    for key in ("p/folder/", "p/folder/within/", "p/other/"):
        client.put_object(Bucket=bucket, Key=key, Body=b"")
    store = S3Store(bucket, "p")
    assert list(store.list()) == []
    store.clear("folder/")
    assert list(store.folders("")) == ["other"]
    client.close()


def test_the_services_descriptions_are_read_once(
    s3_service: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    S3Store("first")
    read: list[str] = []
    monkeypatch.setattr(JSONFileLoader, "load_file", lambda self, path: read.append(path))
    S3Store("second")
    assert read == []
    paths = s3_store._descriptions(None).search_paths
    assert len(paths) == len(set(paths))


def s3(endpoint: str, bucket: str = "bucket", **settings: float) -> S3Store:
    return S3Store(bucket, "p", endpoint_url=endpoint, max_attempts=2, **settings)


def every_call(store: Store) -> list[Callable[[], object]]:
    return [
        lambda: store.get("k"),
        lambda: store.put("k", b"x"),
        lambda: store.put_new("k", b"x"),
        lambda: store.size("k"),
        lambda: list(store.list()),
        lambda: store.delete("k"),
    ]


def test_a_missing_bucket_is_named_by_every_call(s3_service: S3Service) -> None:
    for call in every_call(s3(s3_service.endpoint, "no-such-bucket")):
        with pytest.raises(
            StoreError, match=rf"{s3_service.endpoint} has no bucket 'no-such-bucket'; create it"
        ):
            call()


def test_an_endpoint_that_does_not_answer_is_named_by_every_call(s3_service: S3Service) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
    for call in every_call(s3(endpoint)):
        with pytest.raises(StoreError, match=rf"{endpoint} does not respond .*AWS_ENDPOINT_URL"):
            call()


def test_a_service_that_hangs_is_given_up(s3_service: S3Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(StoreError, match="does not respond"):
            s3(endpoint, read_timeout_s=0.2).get("k")


@pytest.mark.parametrize(
    ("status", "name", "said"),
    [
        (403, "SignatureDoesNotMatch", "rejects the credentials"),
        (403, "InvalidAccessKeyId", "rejects the credentials"),
        (403, "AccessDenied", "denies access"),
        (400, "BadDigest", "the network damages data"),
        (400, "EntityTooLarge", "at most 5 GB"),
        (501, "NotImplemented", "responded 501 NotImplemented"),
    ],
)
def test_a_refusal_is_one_line_without_the_secret(
    s3_service: S3Service, status: int, name: str, said: str
) -> None:
    with (
        Proxy(s3_service.endpoint, lambda handler: handler.refuse(status, name)) as proxy,
        pytest.raises(StoreError, match=said) as caught,
    ):
        s3(proxy.endpoint).put("k", b"x")
    line = str(caught.value)
    assert isinstance(caught.value, StoreDenied) == (status == 403)
    assert proxy.endpoint in line
    assert "s3://bucket/p/k" in line
    assert "\n" not in line
    assert s3_service.secret not in line


def test_passwords_in_an_endpoint_are_not_shown(s3_service: S3Service) -> None:
    with pytest.raises(StoreError) as caught:
        s3("http://user:hunter2@127.0.0.1:9").get("k")
    assert "hunter2" not in str(caught.value)


def test_an_address_that_is_none(s3_service: S3Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not an address")
    with pytest.raises(SpecError, match="AWS_ENDPOINT_URL"):
        S3Store("bucket")


def test_a_put_whose_answer_was_lost_is_ours(s3_service: S3Service) -> None:
    bucket = s3_service.new_bucket()
    dropped: list[object] = []

    def lose_the_first_answer(handler: Relay) -> None:
        answer = handler.forward()
        if handler.command == "PUT" and not dropped:
            dropped.append(answer)
            handler.close_connection = True
        else:
            handler.respond(answer)

    with Proxy(s3_service.endpoint, lose_the_first_answer) as proxy:
        store = s3(proxy.endpoint, bucket)
        store.put_new("claim", b"mine")
        assert dropped
        assert store.get("claim") == b"mine"
        dropped.clear()
        store.put("theirs", b"theirs")
        dropped.clear()
        with pytest.raises(Exists):
            store.put_new("theirs", b"mine")


def test_where_a_service_keeps_no_metadata_the_bytes_tell_whose_a_put_was(
    s3_service: S3Service,
) -> None:
    bucket = s3_service.new_bucket()
    dropped: list[object] = []

    def lose_the_first_answer(handler: Relay) -> None:
        answer = handler.forward()
        if handler.command == "PUT" and not dropped:
            dropped.append(answer)
            handler.close_connection = True
            return
        kept = [item for item in answer.headers if not item[0].lower().startswith("x-amz-meta-")]
        handler.respond(replace(answer, headers=kept))

    with Proxy(s3_service.endpoint, lose_the_first_answer) as proxy:
        store = s3(proxy.endpoint, bucket)
        store.put_new("claim", b"mine")
        assert dropped
        dropped.clear()
        with pytest.raises(Exists):
            store.put_new("claim", b"other")
        assert dropped
        assert store.get("claim") == b"mine"


def test_a_conditional_conflict_is_tried_again(s3_service: S3Service) -> None:
    bucket = s3_service.new_bucket()
    conflicts: list[object] = []

    def conflict_once(handler: Relay) -> None:
        if handler.command == "PUT" and not conflicts:
            conflicts.append(handler.path)
            handler.refuse(409, "ConditionalRequestConflict")
        else:
            handler.respond(handler.forward())

    with Proxy(s3_service.endpoint, conflict_once) as proxy:
        store = s3(proxy.endpoint, bucket)
        store.put_new("claim", b"mine")
        assert conflicts
        assert store.get("claim") == b"mine"


def test_a_body_that_breaks_off_is_read_again(s3_service: S3Service) -> None:
    bucket = s3_service.new_bucket()
    broken: list[object] = []

    def break_off_once(handler: Relay) -> None:
        answer = handler.forward()
        if handler.command == "GET" and not broken:
            broken.append(handler.path)
            handler.respond(replace(answer, body=answer.body[: len(answer.body) // 2]))
            handler.close_connection = True
        else:
            handler.respond(answer)

    with Proxy(s3_service.endpoint, break_off_once) as proxy:
        store = s3(proxy.endpoint, bucket)
        store.put("object", b"x" * 100_000)
        assert store.get("object") == b"x" * 100_000
        assert broken


def test_a_body_that_is_merely_wrong_is_read_again_and_then_named(s3_service: S3Service) -> None:
    bucket = s3_service.new_bucket()
    wrong: list[object] = []

    def spoil(handler: Relay) -> None:
        answer = handler.forward()
        if handler.command == "GET" and len(wrong) < times:
            wrong.append(handler.path)
            answer = Answer(answer.status, answer.headers, answer.body[:-1] + b"?", answer.length)
        handler.respond(answer)

    with Proxy(s3_service.endpoint, spoil) as proxy:
        store = s3(proxy.endpoint, bucket)
        store.put("object", b"x" * 1000)
        times = 1
        assert store.get("object") == b"x" * 1000
        assert len(wrong) == 1
        times = 99
        with pytest.raises(
            StoreError, match=rf"/p/object: {proxy.endpoint} repeatedly returns other bytes"
        ):
            store.get("object")


@pytest.mark.parametrize("left", [0, 60])
def test_a_listing_that_was_cut_short_is_not_taken_for_a_shorter_one(
    s3_service: S3Service, left: int
) -> None:
    bucket = s3_service.new_bucket()
    cut: list[object] = []

    def cut_once(handler: Relay) -> None:
        answer = handler.forward()
        if handler.command == "GET" and not cut:
            cut.append(handler.path)
            answer = Answer(answer.status, answer.headers, answer.body[:left], left)
        handler.respond(answer)

    with Proxy(s3_service.endpoint, cut_once) as proxy:
        store = s3(proxy.endpoint, bucket)
        store.put("object", b"x")
        assert [item.key for item in store.list()] == ["object"]
        assert cut


def test_a_claim_that_somebody_else_made_with_the_same_words_is_not_ours(
    s3_service: S3Service,
) -> None:
    bucket = s3_service.new_bucket()
    lost: list[object] = []

    def lose_the_first_put(handler: Relay) -> None:
        if handler.command == "PUT" and not lost:
            lost.append(handler.path)
            handler.reset()  # never reached the service
            s3(s3_service.endpoint, bucket).put("claim", b"the same words")
        else:
            handler.respond(handler.forward())

    with Proxy(s3_service.endpoint, lose_the_first_put) as proxy, pytest.raises(Exists):
        s3(proxy.endpoint, bucket).put_new("claim", b"the same words")
    assert lost


def test_retries_come_to_an_end_in_time(s3_service: S3Service) -> None:
    asked: list[float] = []

    def fail_late(handler: Relay) -> None:
        asked.append(time.monotonic())
        time.sleep(0.1)
        handler.refuse(503, "SlowDown")

    with (
        Proxy(s3_service.endpoint, fail_late) as proxy,
        pytest.raises(StoreError, match="responded 503 SlowDown"),
    ):
        S3Store("bucket", endpoint_url=proxy.endpoint, max_attempts=99, retry_for_s=0.3).get("k")
    assert 2 <= len(asked) <= 4


@pytest.mark.parametrize(
    "service", ["s3_service", pytest.param("real_s3_service", marks=pytest.mark.system)]
)
def test_a_service_that_often_fails_gives_the_same_results(
    request: pytest.FixtureRequest, service: str
) -> None:
    upstream: S3Service = request.getfixturevalue(service)
    bucket = upstream.new_bucket()

    def use(n: int) -> None:
        data = f"object {n} ".encode() * 200
        store.put_new(f"new/{n:03d}", data)
        with pytest.raises(Exists):
            store.put_new(f"new/{n:03d}", data)
        store.put(f"put/{n:03d}", data)
        assert store.get(f"put/{n:03d}") == data
        assert store.size(f"new/{n:03d}") == len(data)
        assert store.size(f"none/{n:03d}") is None
        with pytest.raises(Missing):
            store.get(f"none/{n:03d}")
        store.delete(f"put/{n:03d}")

    with FaultyS3(upstream.endpoint, seed=3, fail=0.25, truncate=0.25) as faulty:
        store = S3Store(bucket, "p", endpoint_url=faulty.endpoint, max_attempts=20)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(use, range(25)))
        assert [item.key for item in store.list()] == [f"new/{n:03d}" for n in range(25)]
        # Without each of them having happened, this would say nothing.
        assert all(faulty.counts[kind] >= 3 for kind in (*FAILURES, *TRUNCATIONS))


@pytest.mark.system
@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"),
        ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"),
    ],
)
def test_a_real_service_refuses_wrong_credentials(
    real_s3_service: S3Service, monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    bucket = real_s3_service.new_bucket()
    monkeypatch.setenv(variable, "wrong" * 8)
    for call in every_call(s3(real_s3_service.endpoint, bucket)):
        with pytest.raises(StoreError) as caught:
            call()
        line = str(caught.value)
        assert "rejects the credentials" in line or "denies access" in line  # HEAD has no words
        assert real_s3_service.endpoint in line
        assert real_s3_service.secret not in line
    with pytest.raises(StoreError, match=name):
        s3(real_s3_service.endpoint, bucket).get("k")


@pytest.mark.system
def test_a_real_service_refuses_bytes_that_were_damaged_on_the_way(
    real_s3_service: S3Service,
) -> None:
    def damage(handler: Relay) -> None:
        if handler.command == "PUT":
            handler.body = b"X" + handler.body[1:]
        handler.respond(handler.forward())

    bucket = real_s3_service.new_bucket()
    with Proxy(real_s3_service.endpoint, damage) as proxy:
        for put in (s3(proxy.endpoint, bucket).put, s3(proxy.endpoint, bucket).put_new):
            with pytest.raises(StoreError, match="the network damages data"):
                put("k", b"some bytes")
    assert s3(real_s3_service.endpoint, bucket).size("k") is None


@pytest.mark.system
def test_a_missing_bucket_of_a_real_service(real_s3_service: S3Service) -> None:
    for call in every_call(s3(real_s3_service.endpoint, "no-such-bucket")):
        with pytest.raises(StoreError, match="has no bucket 'no-such-bucket'"):
            call()
