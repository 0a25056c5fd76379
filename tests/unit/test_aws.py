"""`infra/aws` parses, its bucket is closed, its roles permit what the store does and no more."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3.session
import pytest

import colddiff
from colddiff.data.pack import pack
from colddiff.data.pack_settings import PackSettings
from colddiff.data.sources.sklearn_digits import DigitsSource
from colddiff.stores import s3_store
from colddiff.stores.open import open_store
from tests.conftest import S3Service
from tests.tiny_checkpoint import tiny_job

hcl2 = pytest.importorskip("hcl2")
AWS = Path(__file__).resolve().parents[2] / "infra" / "aws"
# The permission that each call of the S3 API needs.
PERMISSION = {
    "DeleteObject": "s3:DeleteObject",
    "GetObject": "s3:GetObject",
    "HeadBucket": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
}


def _plain(value: Any) -> Any:
    """Parsed HCL without what marks strings and blocks."""
    if isinstance(value, str):
        return value.removeprefix('"').removesuffix('"')
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items() if not k.startswith("__")}
    return value


@pytest.fixture(scope="module")
def blocks() -> dict[tuple[str, str, str], dict[str, Any]]:
    """Resources and data of all files by (resource or data, type, name)."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for path in sorted(AWS.glob("*.tf")):
        with path.open() as file:
            parsed = _plain(hcl2.load(file))
        for sort in ("resource", "data"):
            for block in parsed.get(sort, []):
                for kind, named in block.items():
                    found |= {(sort, kind, name): body for name, body in named.items()}
    return found


def _statements(blocks: dict[tuple[str, str, str], Any], role: str) -> Iterator[dict[str, Any]]:
    """The statements of a role's policy, with those of the policies that it includes."""
    document = blocks["data", "aws_iam_policy_document", role]
    for source in document.get("source_policy_documents", []):
        yield from _statements(blocks, source.split(".")[2])
    yield from document.get("statement", [])


@dataclass
class Recorded:
    """The S3 calls that were made, and where something was deleted below STORAGE."""

    calls: set[str] = field(default_factory=set)
    deleted_in: set[str] = field(default_factory=set)

    def __call__(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.calls.add(model.name)
        if model.name == "DeleteObject":
            _, _, key = params["url_path"].partition("/storage/")
            self.deleted_in.add(key.partition("/")[0])


@pytest.fixture(scope="module")
def recorded(
    moto_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Recorded]]:
    """What a submitter does (packing, probing) and what a job does (a training), by botocore."""
    folder = tmp_path_factory.mktemp("aws")
    found = {"submitter": Recorded(), "worker": Recorded()}
    current = found["submitter"]
    client = boto3.session.Session.client

    def recorded_client(session: Any, *args: Any, **kwargs: Any) -> Any:
        made = client(session, *args, **kwargs)
        made.meta.events.register("before-call.s3", lambda **known: current(**known))
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("COLDDIFF_CACHE", str(folder / "cache"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("AWS_ENDPOINT_URL", moto_endpoint)
        storage = f"{S3Service(moto_endpoint).new_bucket()}/storage"
        patch.setenv("COLDDIFF_STORAGE", f"s3://{storage}")
        patch.setattr(boto3.session.Session, "client", recorded_client)
        data = open_store(f"s3://{storage}/data/digits")
        settings = PackSettings(image_size=16, channels=1, limit=12)
        pack(DigitsSource(), data, settings)
        current = found["worker"]
        job = tiny_job(
            data=data.uri,
            num_steps=2,
            checkpoint_every=1,
            keep=1,
            global_batch_size=4,
            evaluation={"num_images": 2, "batch_size": 2},
            tracking={"images": False, "system_every_s": None},
        )
        colddiff.train(job, name="recorded")
        yield found


def test_every_call_in_the_source_of_the_store_was_recorded(
    recorded: dict[str, Recorded],
) -> None:
    source = ast.parse(Path(s3_store.__file__).read_text())
    written = {
        node.attr.replace("_", "")
        for node in ast.walk(source)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self._client"
    } - {"meta"}
    made = recorded["submitter"].calls | recorded["worker"].calls
    assert {name.lower() for name in made} == written


@pytest.mark.parametrize("role", ["worker", "head", "submitter"])
def test_a_role_permits_what_was_recorded_and_no_more(
    blocks: dict[tuple[str, str, str], Any], recorded: dict[str, Recorded], role: str
) -> None:
    made = recorded["worker"].calls | recorded["submitter"].calls
    statements = list(_statements(blocks, role))
    granted = {action for statement in statements for action in statement["actions"]}
    assert {a for a in granted if a.startswith("s3:")} == {PERMISSION[call] for call in made}
    deletable = {
        place.removeprefix("${local.").removesuffix("}")
        for statement in statements
        if "s3:DeleteObject" in statement["actions"]
        for place in statement["resources"]
    }
    needed = set(recorded["worker"].deleted_in)
    if role == "submitter":
        needed |= recorded["submitter"].deleted_in
    assert deletable == needed


def test_roles_reach_the_prefix_alone(blocks: dict[tuple[str, str, str], Any]) -> None:
    reach = {
        action: statement["resources"]
        for statement in _statements(blocks, "worker")
        for action in statement["actions"]
    }
    assert reach["s3:GetObject"] == reach["s3:PutObject"] == ["${local.objects}"]
    # HeadBucket carries no prefix: a condition on it would refuse the call.
    (listing,) = (s for s in _statements(blocks, "worker") if "s3:ListBucket" in s["actions"])
    assert "condition" not in listing
    text = (AWS / "roles.tf").read_text()
    assert 'objects = "${aws_s3_bucket.storage.arn}/${var.prefix}/*"' in text
    for place in ("jobs", "probes", "data"):
        assert f'"${{aws_s3_bucket.storage.arn}}/${{var.prefix}}/{place}/*"' in text


def test_no_role_has_a_wildcard_where_aws_knows_resources(
    blocks: dict[tuple[str, str, str], Any],
) -> None:
    for role in ("worker", "head", "submitter", "image"):
        for statement in _statements(blocks, role):
            assert not [action for action in statement["actions"] if "*" in action]
            if statement["resources"] == ["*"]:
                names = {action.partition(":")[2] for action in statement["actions"]}
                assert all(name.startswith("Describe") for name in names) or names == {
                    "GetAuthorizationToken"
                }
    passing = [s for s in _statements(blocks, "head") if "iam:PassRole" in s["actions"]]
    assert [s["resources"] for s in passing] == [["${aws_iam_role.worker.arn}"]]
    (ending,) = (s for s in _statements(blocks, "head") if "ec2:TerminateInstances" in s["actions"])
    (condition,) = ending["condition"]
    assert condition["variable"] == "aws:ResourceTag/project"


def test_the_bucket_is_encrypted_closed_and_swept(
    blocks: dict[tuple[str, str, str], Any],
) -> None:
    block = blocks["resource", "aws_s3_bucket_public_access_block", "storage"]
    closed = ("block_public_acls", "block_public_policy", "ignore_public_acls")
    assert all(block[name] is True for name in (*closed, "restrict_public_buckets"))
    kind = "aws_s3_bucket_server_side_encryption_configuration"
    (rule,) = blocks["resource", kind, "storage"]["rule"]
    (default,) = rule["apply_server_side_encryption_by_default"]
    assert default["sse_algorithm"] == "AES256"
    (statement,) = blocks["data", "aws_iam_policy_document", "tls_only"]["statement"]
    assert (statement["effect"], statement["actions"]) == ("Deny", ["s3:*"])
    (condition,) = statement["condition"]
    assert (condition["variable"], condition["values"]) == ("aws:SecureTransport", ["false"])
    (rule,) = blocks["resource", "aws_s3_bucket_lifecycle_configuration", "storage"]["rule"]
    assert rule["abort_incomplete_multipart_upload"]
