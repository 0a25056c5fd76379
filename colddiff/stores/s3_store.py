"""A store in an S3 bucket, on AWS or another service: whole objects, conditional puts, retries."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import cache, partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3.session
import botocore.loaders
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from colddiff.errors import ColddiffError, Exists, Missing, SpecError, StoreError
from colddiff.ports import StoredObject
from colddiff.retry import Backoff
from colddiff.slow_calls import SLOW_CALLS
from colddiff.stores.keys import checked_key, checked_prefix
from colddiff.stores.s3_errors import (
    FAILURES,
    DamagedBodyError,
    code,
    is_transient,
    status,
    store_error,
)

T = TypeVar("T")

RETRY = Backoff(first_s=0.2, longest_s=5.0, jitter=0.5)
SHA256, TOKEN = "colddiff-sha256", "colddiff-put"
"""Metadata of our objects: the hash of the body, and a token of the put that stored it."""
AWS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
"""Ends of the host names of AWS itself."""


class S3Store:
    """Implements ``Store`` below ``s3://bucket/prefix``; safe to share between threads.

    Credentials, region, endpoint, profile and the rest are those that boto3 finds in the
    environment and in its files; without credentials requests are anonymous, as public buckets
    need. ``endpoint_url`` overrides the endpoint. Objects are put in one request (at most 5 GB):
    some services ignore the condition of ``put_new`` when a multipart upload completes. The service
    must support ``If-None-Match``.

    Transient failures (no response, a truncated or damaged body, a 5xx, throttling) are retried
    with backoff, up to ``max_attempts`` in all, none started later than ``retry_for_s`` seconds
    after the first.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        max_attempts: int = 6,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 60.0,
        retry_for_s: float = 180.0,
    ) -> None:
        self.bucket = bucket
        self.prefix = checked_key(prefix.strip("/")) if prefix.strip("/") else ""
        self._attempts, self._retry_for_s = max_attempts, retry_for_s
        self._bucket_seen = False
        config = Config(
            # Our own retries also cover truncated bodies, and puts whose response was lost.
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
            max_pool_connections=32,
        )
        self._anonymous = False
        try:
            self._client, self._anonymous = _connected(endpoint_url, config)
        except ValueError as error:
            raise SpecError(
                f"S3: {_shown(str(error))}; give AWS_ENDPOINT_URL, or endpoint_url in the AWS "
                "config file, as http://host:port"
            ) from None
        except BotoCoreError as error:
            raise self._error(error, self.uri) from None

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def get(self, key: str) -> bytes:
        def read() -> bytes:
            response = self._client.get_object(Bucket=self.bucket, Key=self._key(key))
            with closing(response["Body"]) as body:
                data = bytes(body.read())
            # The client has checked the length; only a hash finds a body with wrong bytes.
            expected = response.get("Metadata", {}).get(SHA256)
            if expected is not None and expected != hashlib.sha256(data).hexdigest():
                raise DamagedBodyError
            return data

        return self._retried(f"{self.uri}/{key}", read)

    def put(self, key: str, data: bytes) -> None:
        self._retried(f"{self.uri}/{key}", partial(self._put, key, data, uuid.uuid4().hex))

    def put_new(self, key: str, data: bytes) -> None:
        token, lost = uuid.uuid4().hex, False

        def put() -> None:
            nonlocal lost
            try:
                self._put(key, data, token, IfNoneMatch="*")
            except FAILURES as error:
                if not (isinstance(error, ClientError) and status(error) == 412):
                    lost = True
                    raise
                # If the response to an earlier try was lost, the existing object may be ours.
                if lost and self._is_ours(key, data, token):
                    return
                raise Exists(f"{self.uri}/{key}: is already there") from None

        self._retried(f"{self.uri}/{key}", put)

    def size(self, key: str) -> int | None:
        response = self._head(key)
        return None if response is None else int(response["ContentLength"])

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        full = self._full("")
        for page in self._pages({"Prefix": full + checked_prefix(prefix)}):
            for item in page.get("Contents", ()):
                # Some tools create ``folder/`` objects, which carry no data.
                if not item["Key"].endswith("/"):
                    modified = item["LastModified"].timestamp()
                    key = item["Key"].removeprefix(full)
                    yield StoredObject(key, int(item["Size"]), modified, item.get("ETag", ""))

    def folders(self, prefix: str) -> Iterator[str]:
        full = self._full(checked_prefix(prefix))
        for page in self._pages({"Prefix": full, "Delimiter": "/"}):
            for item in page.get("CommonPrefixes", ()):
                yield item["Prefix"].removeprefix(full).removesuffix("/")

    def delete(self, key: str) -> None:
        call = partial(self._client.delete_object, Bucket=self.bucket, Key=self._key(key))
        self._retried(f"{self.uri}/{key}", call)

    def clear(self, prefix: str) -> None:
        listed = self._pages({"Prefix": self._full(checked_prefix(prefix))})
        keys = [item["Key"] for page in listed for item in page.get("Contents", ())]
        # Folders first: with its objects gone, a folder would be listed, and nothing be in it.
        for key in sorted(keys, key=lambda key: (not key.endswith("/"), key)):
            call = partial(self._client.delete_object, Bucket=self.bucket, Key=key)
            self._retried(f"{self.uri}/{prefix}", call)

    def _key(self, key: str) -> str:
        return self._full(checked_key(key))

    def _full(self, below: str) -> str:
        return f"{self.prefix}/{below}" if self.prefix else below

    def _pages(self, wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
        wanted = {"Bucket": self.bucket, **wanted}
        page: dict[str, Any] = {"IsTruncated": True}
        while page.get("IsTruncated"):
            if "NextContinuationToken" in page:
                wanted["ContinuationToken"] = page["NextContinuationToken"]
            page = self._retried(self.uri, partial(self._page, wanted))
            yield page

    def _put(self, key: str, data: bytes, token: str, **condition: str) -> None:
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        self._client.put_object(
            Bucket=self.bucket,
            Key=self._key(key),
            Body=data,
            ContentMD5=base64.b64encode(digest).decode(),
            Metadata={SHA256: hashlib.sha256(data).hexdigest(), TOKEN: token},
            **condition,
        )

    def _page(self, wanted: dict[str, Any]) -> dict[str, Any]:
        page: dict[str, Any] = self._client.list_objects_v2(**wanted)
        # A response whose body was lost is parsed as an empty listing.
        if "Name" not in page:
            raise DamagedBodyError
        return page

    def _head(self, key: str) -> dict[str, Any] | None:
        def head() -> dict[str, Any] | None:
            try:
                found: dict[str, Any] = self._client.head_object(
                    Bucket=self.bucket, Key=self._key(key)
                )
            except ClientError as error:
                if status(error) != 404:
                    raise self._explained(error, key) from None
                self._check_bucket()
                return None
            return found

        return self._retried(f"{self.uri}/{key}", head)

    def _is_ours(self, key: str, data: bytes, token: str) -> bool:
        response = self._head(key)
        if response is None:
            return False
        stored = response.get("Metadata", {}).get(TOKEN)
        # If the service stores no metadata, compare the bytes.
        return bool(stored == token) if stored is not None else self.get(key) == data

    def _explained(self, error: ClientError, key: str) -> ClientError:
        """The error of a HEAD, whose answer has no body, with the reason that a GET is given."""
        if is_transient(error):
            return error
        try:
            response = self._client.get_object(
                Bucket=self.bucket, Key=self._key(key), Range="bytes=0-0"
            )
        except ClientError as explained:
            return error if status(explained) in (404, 416) else explained
        response["Body"].close()
        return error

    def _check_bucket(self) -> None:
        # HEAD has no body, so a missing bucket and a missing object look the same.
        if not self._bucket_seen:
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                if status(error) == 403:
                    return  # it exists; these credentials may not list it
                if status(error) == 404:
                    error.response["Error"]["Code"] = "NoSuchBucket"
                raise
            self._bucket_seen = True

    def _retried(self, what: str, call: Callable[[], T]) -> T:
        """``call()``, retried with backoff after transient failures; says so if that is long."""
        with SLOW_CALLS.watched(_shown(self._client.meta.endpoint_url), what):
            return self._tried(what, call)

    def _tried(self, what: str, call: Callable[[], T]) -> T:
        began = time.monotonic()
        for attempt in RETRY.attempts(self._attempts):
            try:
                return call()
            except FAILURES as error:
                late = time.monotonic() - began > self._retry_for_s
                if attempt == self._attempts or late or not is_transient(error):
                    raise self._error(error, what) from None
            except RecursionError:
                # botocore asks the bucket for its region, whose answer is a redirect again.
                raise StoreError(
                    f"{what}: {_shown(self._client.meta.endpoint_url)} redirects every request; is "
                    "AWS_ENDPOINT_URL right, with http or https, and AWS_DEFAULT_REGION?"
                ) from None
        raise AssertionError("the last attempt returned or raised")

    def _error(self, error: Exception, what: str) -> ColddiffError:
        if isinstance(error, ClientError) and code(error) in ("NoSuchKey", "404"):
            return Missing(f"{what}: no such object")
        client = getattr(self, "_client", None)
        endpoint = _shown(client.meta.endpoint_url) if client is not None else "S3"
        return store_error(error, what, self.bucket, endpoint, anonymous=self._anonymous)


def _connected(endpoint_url: str | None, config: Config) -> tuple[Any, bool]:
    """A client with the user's own settings, and whether it has no credentials.

    Raises ValueError if the endpoint is not an address, BotoCoreError for unusable settings.
    """
    own = botocore.session.Session()
    loader = _descriptions(own.get_config_variable("data_path"))
    own.register_component("data_loader", loader)
    session = boto3.session.Session(botocore_session=own)
    # boto3 adds its folder for each session, also where it is there.
    loader.search_paths[:] = dict.fromkeys(loader.search_paths)
    anonymous = session.get_credentials() is None
    if anonymous:
        config = config.merge(Config(signature_version=UNSIGNED))
    client: Any = session.client("s3", endpoint_url=endpoint_url, config=config)
    # The client knows its endpoint, wherever it was set: a variable, a profile, a services section.
    if not (urlsplit(client.meta.endpoint_url).hostname or "").endswith(AWS):
        dialect = _dialect(session._session.get_scoped_config())
        client.close()
        client = session.client("s3", endpoint_url=endpoint_url, config=config.merge(dialect))
    return client, anonymous


@cache
def _descriptions(places: str | None) -> botocore.loaders.Loader:
    """The descriptions of AWS's services, read once per process: 0.1 s of a core each time.

    ``places``: AWS_DATA_PATH, or its field in the AWS config file.
    """
    return botocore.loaders.create_loader(places)


def _dialect(chosen: Mapping[str, Any]) -> Config:
    """Settings for services other than AWS, where the user's config file has not ``chosen`` any."""
    # Many do not support the newer checksums, and their buckets have no host names.
    settings: dict[str, Any] = {
        name: "when_required"
        for name in ("request_checksum_calculation", "response_checksum_validation")
        if name not in chosen and f"AWS_{name}".upper() not in os.environ
    }
    section = chosen.get("s3")
    if not isinstance(section, Mapping) or "addressing_style" not in section:
        settings["s3"] = {"addressing_style": "path"}
    return Config(**settings)


def _shown(text: str) -> str:
    """An endpoint, or a message that holds one, without user name and password."""
    return re.sub(r"(?<=//)[^/\s]*@", "", text)
