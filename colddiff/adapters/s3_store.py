"""A store in an S3 bucket, AWS's or another's: whole objects, conditional puts, retries."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from colddiff.adapters.s3_errors import UNREACHABLE, code, retried, status, store_error
from colddiff.adapters.store_keys import checked_key, checked_prefix
from colddiff.errors import ColddiffError, Exists, Missing, SpecError
from colddiff.ports import StoredObject

FAILURES = (ClientError, BotoCoreError)


class S3Store:
    """Implements ``Store`` below ``s3://bucket/prefix``; safe to share between threads.

    Credentials and region come from where boto3 looks for them; ``endpoint_url``, else
    AWS_ENDPOINT_URL, names a service that is not AWS. Objects are put in one piece (at most 5 GB):
    some services ignore the condition of ``put_new`` when a multipart upload completes. The
    service must know ``If-None-Match``.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        max_attempts: int = 5,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 60.0,
    ) -> None:
        self.bucket = bucket
        self.prefix = checked_key(prefix.strip("/")) if prefix.strip("/") else ""
        self._attempts = max_attempts
        self._bucket_seen = False
        endpoint = endpoint_url or _endpoint_of_environment()
        config = Config(
            retries={"mode": "standard", "total_max_attempts": max_attempts},
            connect_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
            max_pool_connections=32,
            **_dialect(endpoint),
        )
        try:
            session = boto3.session.Session()
            self._client: Any = session.client("s3", endpoint_url=endpoint, config=config)
        except ValueError:
            raise SpecError(
                f"AWS_ENDPOINT_URL {_shown(endpoint)!r} is no address; write http://host:port"
            ) from None
        except BotoCoreError as error:
            raise self._error(error, self.uri) from None

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def get(self, key: str) -> bytes:
        for attempt in range(1, self._attempts + 1):
            try:
                response = self._client.get_object(Bucket=self.bucket, Key=self._key(key))
                return bytes(response["Body"].read())
            except UNREACHABLE as error:
                # The client tries requests again by itself, but not a body that broke off.
                if attempt == self._attempts:
                    raise self._error(error, f"{self.uri}/{key}") from None
                time.sleep(min(0.1 * 2**attempt, 5.0))
            except FAILURES as error:
                raise self._error(error, f"{self.uri}/{key}") from None
        raise AssertionError("the last attempt returned or raised")

    def put(self, key: str, data: bytes) -> None:
        try:
            self._put(key, data)
        except FAILURES as error:
            raise self._error(error, f"{self.uri}/{key}") from None

    def put_new(self, key: str, data: bytes) -> None:
        for attempt in range(1, self._attempts + 1):
            try:
                self._put(key, data, IfNoneMatch="*")
                return
            except FAILURES as error:
                if not isinstance(error, ClientError):
                    raise self._error(error, f"{self.uri}/{key}") from None
                if status(error) == 412:
                    # A put of ours that timed out may have been stored: then the retry lost to us.
                    if retried(error) and self._holds(key, data):
                        return
                    raise Exists(f"{self.uri}/{key}: is already there") from None
                # 409: another conditional write is under way; its outcome decides ours.
                if status(error) != 409 or attempt == self._attempts:
                    raise self._error(error, f"{self.uri}/{key}") from None
                time.sleep(min(0.1 * 2**attempt, 5.0))

    def size(self, key: str) -> int | None:
        try:
            response = self._client.head_object(Bucket=self.bucket, Key=self._key(key))
        except FAILURES as error:
            if isinstance(error, ClientError) and status(error) == 404:
                self._check_bucket()
                return None
            raise self._error(error, f"{self.uri}/{key}") from None
        return int(response["ContentLength"])

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        full = f"{self.prefix}/" if self.prefix else ""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=full + checked_prefix(prefix)
        )
        try:
            for page in pages:
                for item in page.get("Contents", ()):
                    # Some tools leave ``folder/`` objects behind: they stand for nothing.
                    if not item["Key"].endswith("/"):
                        yield StoredObject(item["Key"].removeprefix(full), int(item["Size"]))
        except FAILURES as error:
            raise self._error(error, self.uri) from None

    def delete(self, key: str) -> None:
        try:
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key))
        except FAILURES as error:
            raise self._error(error, f"{self.uri}/{key}") from None

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{checked_key(key)}" if self.prefix else checked_key(key)

    def _put(self, key: str, data: bytes, **condition: str) -> None:
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        self._client.put_object(
            Bucket=self.bucket,
            Key=self._key(key),
            Body=data,
            ContentMD5=base64.b64encode(digest).decode(),
            **condition,
        )

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.get(key) == data
        except Missing:
            return False

    def _check_bucket(self) -> None:
        # HEAD has no body, so a missing bucket and a missing object look the same.
        if not self._bucket_seen:
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except FAILURES as error:
                if isinstance(error, ClientError) and status(error) == 404:
                    error.response["Error"]["Code"] = "NoSuchBucket"
                raise self._error(error, self.uri) from None
            self._bucket_seen = True

    def _error(self, error: Exception, what: str) -> ColddiffError:
        if isinstance(error, ClientError) and code(error) in ("NoSuchKey", "404"):
            return Missing(f"{what}: no such object")
        client = getattr(self, "_client", None)
        endpoint = _shown(client.meta.endpoint_url) if client is not None else "S3"
        return store_error(error, what, self.bucket, endpoint)


def _endpoint_of_environment() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def _dialect(endpoint: str | None) -> dict[str, Any]:
    """Client settings for services that speak S3 but are not AWS."""
    if endpoint is None or (urlsplit(endpoint).hostname or "").endswith("amazonaws.com"):
        return {}
    # The newer checksums are unknown to many of them, and their buckets have no host names.
    checksums = {
        name: os.environ.get(f"AWS_{name}".upper(), "when_required")
        for name in ("request_checksum_calculation", "response_checksum_validation")
    }
    return {**checksums, "s3": {"addressing_style": "path"}}


def _shown(endpoint: str | None) -> str:
    """An endpoint without what may be a password in it."""
    if endpoint is None:
        return "S3"
    scheme, at, host = endpoint.rpartition("@")
    return f"{scheme.split('//')[0]}//{host}" if at else endpoint
