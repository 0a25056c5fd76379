"""Errors of an S3 service or its client as one line that names the bucket and the fix."""

from __future__ import annotations

import re

from botocore import exceptions as client_errors
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from colddiff.errors import ColddiffError, StoreDenied, StoreError

CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL for a store that is not "
    "AWS), or assign this machine a role"
)
REFUSED_CREDENTIALS = frozenset(
    {"AccountProblem", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
)
EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
)
SKEWED = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"})
OTHER_REGION = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "Redirect",
        "TemporaryRedirect",
    }
)
ACTIONS = {
    "DeleteObject": ("delete objects in", "s3:DeleteObject"),
    "GetObject": ("read", "s3:GetObject"),
    "HeadBucket": ("list", "s3:ListBucket"),
    "HeadObject": ("read", "s3:GetObject"),
    "ListObjectsV2": ("list", "s3:ListBucket"),
    "PutObject": ("write to", "s3:PutObject"),
}
"""What each operation does to a bucket, and the permission that a role needs for it."""
_REGION = re.compile(r"expecting '([a-z0-9-]+)'")
DAMAGED = frozenset(
    {"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
)
UNREACHABLE = (
    client_errors.HTTPClientError,
    client_errors.ConnectionError,
    client_errors.ResponseStreamingError,
    client_errors.IncompleteReadError,
)


class DamagedBodyError(Exception):
    """A response whose body is damaged."""


DAMAGED_ANSWERS = (DamagedBodyError, ResponseParserError)
FAILURES = (ClientError, BotoCoreError, *DAMAGED_ANSWERS)
"""Everything that the client raises for errors of the service or the network."""
TRANSIENT = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)


def status(error: ClientError) -> int:
    """The HTTP status of a response."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code(error: ClientError) -> str:
    """S3's error code, such as ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed when it is retried after a pause."""
    if isinstance(error, ClientError):
        number = status(error)
        # 409: another conditional write is in progress; its outcome decides ours.
        return (
            (number >= 500 and number != 501)
            or number in (408, 409, 429)
            or code(error) in TRANSIENT
        )
    return isinstance(error, (*UNREACHABLE, *DAMAGED_ANSWERS))


def store_error(
    error: Exception, what: str, bucket: str, endpoint: str, *, anonymous: bool = False
) -> ColddiffError:
    """StoreError for an exception of the client during ``what``; contains no credentials.

    ``anonymous``: no credentials were found, so the request was sent without any.
    """
    where = f"{what}: {endpoint}"
    if isinstance(error, ClientError):
        if anonymous and status(error) in (401, 403):
            return StoreDenied(
                f"{what}: no credentials for {endpoint}, which denies access without; {CREDENTIALS}"
            )
        denied = code(error) in REFUSED_CREDENTIALS or status(error) in (401, 403)
        text = f"{where} {_response(error, bucket)}"
        return StoreDenied(text) if denied else StoreError(text)
    if isinstance(error, client_errors.NoCredentialsError | client_errors.PartialCredentialsError):
        return StoreDenied(f"{what}: no credentials for {endpoint}; {CREDENTIALS}")
    if isinstance(error, client_errors.ParamValidationError):
        return StoreError(f"{what}: {bucket!r} is not a bucket name; use s3://bucket/prefix")
    if isinstance(error, UNREACHABLE):
        kind = type(error).__name__
        return StoreError(
            f"{where} does not respond ({kind}); is it running, and is AWS_ENDPOINT_URL right?"
        )
    if isinstance(error, DAMAGED_ANSWERS):
        return StoreError(
            f"{where} repeatedly returns other bytes than were stored; the network or the store "
            "damages data"
        )
    if isinstance(error, BotoCoreError):
        reason = " ".join(str(error).split())[:200]
        return StoreError(
            f"{where} cannot be used ({type(error).__name__}: {reason}); see AWS_PROFILE and the "
            "AWS config file"
        )
    raise error


def _response(error: ClientError, bucket: str) -> str:
    name, number = code(error), status(error)
    if name == "NoSuchBucket":
        return f"has no bucket {bucket!r}; create it, or use another in the s3:// address"
    if name in REFUSED_CREDENTIALS:
        return f"rejects the credentials ({name}); {CREDENTIALS}"
    if name in EXPIRED:
        return (
            f"reports that the session token has expired ({name}); sign in again, or set a new "
            "AWS_SESSION_TOKEN with its keys"
        )
    if name in SKEWED:
        return f"reports that this machine's clock is wrong ({name}); set the clock, such as by NTP"
    if name in OTHER_REGION or number in (301, 307):
        return (
            f"reports that bucket {bucket!r} is in another region ({name or number}); set "
            f"AWS_DEFAULT_REGION={_region(error)}, or the endpoint of that region"
        )
    if number == 403:
        called = str(getattr(error, "operation_name", ""))
        action, needed = ACTIONS.get(called, ("use", f"the permission for {called or 'it'}"))
        # Without it S3 denies what is not there, too.
        needed += " and s3:ListBucket" if needed == "s3:GetObject" else ""
        return (
            f"denies access ({name or number}): these credentials have no permission to {action} "
            f"bucket {bucket!r}; allow {needed} in the role's policy, or {CREDENTIALS}"
        )
    if name in DAMAGED:
        return f"received other bytes than were sent ({name}); the network damages data, try again"
    if name == "EntityTooLarge":
        return "accepts objects of at most 5 GB in one request; use smaller shards"
    message = str(error.response.get("Error", {}).get("Message", ""))
    return f"responded {number} {name}" + (f" ({message[:200]})" if message else "")


def _region(error: ClientError) -> str:
    """The region that an answer names, else a word for it."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    found = headers.get("x-amz-bucket-region") or error.response.get("Error", {}).get("Region")
    message = str(error.response.get("Error", {}).get("Message", ""))
    named = _REGION.search(message)
    return str(found or (named.group(1) if named else "REGION"))
