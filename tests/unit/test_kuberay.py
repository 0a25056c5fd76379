"""`infra/kuberay` is what KubeRay and Kubernetes accept, and keeps its promises about security."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from colddiff.cli.submit import Request, read_job

ROOT = Path(__file__).resolve().parents[2]
KUBERAY = ROOT / "infra" / "kuberay"
FILES = sorted(p for p in KUBERAY.rglob("*.yaml") if "resources" not in p.name)
RESOURCES = [p for p in FILES if p.name not in ("kustomization.yaml", "images-of-ray.yaml")]
KUBERNETES = "1.31.0"


def _documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def _all() -> list[dict[str, Any]]:
    return [document for path in RESOURCES for document in _documents(path)]


def _of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for document in _all() if document["kind"] == kind]


def _cluster_specs() -> list[dict[str, Any]]:
    jobs = [job["spec"]["rayClusterSpec"] for job in _of_kind("RayJob")]
    return [*(cluster["spec"] for cluster in _of_kind("RayCluster")), *jobs]


def _pod_templates() -> Iterator[dict[str, Any]]:
    for spec in _cluster_specs():
        yield spec["headGroupSpec"]["template"]
        yield from (group["template"] for group in spec["workerGroupSpecs"])
    yield from (job["spec"]["submitterPodTemplate"] for job in _of_kind("RayJob"))


def _strict(schema: Any) -> Any:
    """An OpenAPI schema as JSON schema in which a misspelt field is an error."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {key: _strict(value) for key, value in schema.items()}
    closed = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


def _crd_schema(folder: Path, kind: str) -> dict[str, Any]:
    path = folder / f"ray.io_{kind.lower()}s.yaml"
    # The fast loader: these are a megabyte each.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load(path.read_text(), Loader=loader)
    (found,) = (v for v in crd["spec"]["versions"] if v["name"] == "v1")
    schema = dict(_strict(found["schema"]["openAPIV3Schema"]))
    # Kubernetes adds what every object has.
    schema["properties"] = {**schema["properties"], "metadata": {"type": "object"}}
    return schema


@pytest.fixture(scope="module")
def crds(shared: Path) -> Path:
    if not (folder := shared / "schemas").is_dir():
        pytest.skip(f"{folder} is absent: KubeRay's schemas are not part of this repository")
    return folder


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob"])
def test_kuberay_accepts_it_and_refuses_a_misspelt_field(crds: Path, kind: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(_crd_schema(crds, kind))
    (document,) = _of_kind(kind)
    assert [f"{e.json_path}: {e.message[:200]}" for e in validator.iter_errors(document)] == []
    wrong = {**document, "spec": {**document["spec"], "rayVersions": "2.60.0"}}
    (error,) = validator.iter_errors(wrong)
    assert "rayVersions" in error.message


@pytest.mark.parametrize("path", RESOURCES, ids=lambda p: p.name)
def test_kubernetes_accepts_its_own_kinds(path: Path) -> None:
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate, which has the schemas, is absent"
    )
    for document in _documents(path):
        if document["apiVersion"] != "ray.io/v1":
            validate.validate(document, KUBERNETES, strict=True)
    for template in _pod_templates():
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        pod["metadata"] = {"name": "x", **template.get("metadata", {})}
        validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("folder", [KUBERAY, KUBERAY / "job"], ids=lambda p: p.name)
def test_a_kustomization_names_what_is_there(folder: Path) -> None:
    (kustomization,) = _documents(folder / "kustomization.yaml")
    named = {*kustomization["resources"], *kustomization["configurations"]}
    assert named == {p.name for p in folder.glob("*.yaml")} - {"kustomization.yaml"}
    used = {
        container["image"] for pod in _pod_templates() for container in pod["spec"]["containers"]
    }
    assert used == {image["name"] for image in kustomization["images"]}
    for image in kustomization["images"]:
        assert image["newTag"].startswith(f"{version('colddiff')}-")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", [KUBERAY, KUBERAY / "job"], ids=lambda p: p.name)
def test_kustomize_builds_it_with_images_of_the_registry(folder: Path) -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    images = re.findall(r"image: (\S+)", built.stdout)
    assert images
    assert all(image.startswith("registry.example.com/colddiff:") for image in images)
    objects = list(yaml.safe_load_all(built.stdout))
    namespaces = {o["metadata"].get("namespace") for o in objects if o["kind"] != "Namespace"}
    assert namespaces == {"colddiff"}


def test_every_container_is_limited_and_not_root() -> None:
    for template in _pod_templates():
        security = template["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == 1000
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in template["spec"]["containers"]:
            assert container["resources"]["limits"] == container["resources"]["requests"]
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    for spec in _cluster_specs():
        assert spec["autoscalerOptions"]["resources"]["limits"]
        assert spec["autoscalerOptions"]["securityContext"]["allowPrivilegeEscalation"] is False


def test_clusters_want_a_token_and_the_pinned_ray() -> None:
    for spec in _cluster_specs():
        assert spec["authOptions"] == {"mode": "token"}
        assert spec["rayVersion"] == version("ray")
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert spec["enableInTreeAutoscaling"] is True
        (group,) = spec["workerGroupSpecs"]
        assert (group["minReplicas"], group["replicas"]) == (0, 0)
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        keys = {toleration["key"] for toleration in group["template"]["spec"]["tolerations"]}
        assert {"nvidia.com/gpu", "cloud.google.com/gke-spot"} <= keys


def test_the_cluster_and_the_job_are_of_one_mould() -> None:
    cluster, of_job = _cluster_specs()
    assert cluster == of_job


def test_credentials_come_from_a_secret_and_from_service_accounts() -> None:
    accounts = {account["metadata"]["name"]: account for account in _of_kind("ServiceAccount")}
    for account in accounts.values():
        assert account["automountServiceAccountToken"] is False
        assert "eks.amazonaws.com/role-arn" in account["metadata"]["annotations"]
    for spec in _cluster_specs():
        for pod in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            pod_spec = pod["template"]["spec"]
            assert pod_spec["serviceAccountName"] in accounts
            (container,) = pod_spec["containers"]
            assert {"secretRef": {"name": "colddiff-mlflow"}} in container["envFrom"]
        for group in spec["workerGroupSpecs"]:
            assert "automountServiceAccountToken" not in group["template"]["spec"]
    text = "".join(path.read_text() for path in FILES)
    assert not re.search(r"AWS_SECRET|PASSWORD:|kind: Secret\b", text)


def test_the_namespace_is_there_before_the_secret_in_it() -> None:
    readme = (KUBERAY / "README.md").read_text()
    applied = readme.index("kubectl apply -f infra/kuberay/namespace.yaml")
    assert applied < readme.index("create secret generic colddiff-mlflow")
    assert (KUBERAY / "namespace.yaml") in FILES


def test_only_rays_pods_submitters_and_the_operator_reach_the_cluster() -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in _of_kind("NetworkPolicy")}
    assert policies["nothing-in-by-default"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    ray = policies["ray"]
    label = {"app.kubernetes.io/part-of": "colddiff"}
    assert ray["podSelector"]["matchLabels"] == label
    for template in _pod_templates():
        assert template["metadata"]["labels"].items() >= label.items()
    own, others = ray["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": label}}]}
    assert others["ports"] == [{"protocol": "TCP", "port": 8265}]
    (outside,) = (to["ipBlock"] for rule in ray["egress"] for to in rule["to"] if "ipBlock" in to)
    assert outside["except"] == ["169.254.169.254/32"]  # the node's own credentials


def test_the_job_of_the_example_is_valid() -> None:
    (job,) = _of_kind("RayJob")
    words = job["spec"]["entrypoint"].split()
    assert words[:3] == ["colddiff", "submit", "train"]
    assert words[-2:] == ["--address", "http://127.0.0.1:8265"]
    _, found = read_job("train", Request(words=tuple(words[3:-2])))
    assert found.to_dict()["resources"]["gpus"] == 1
