"""`infra/mlflow` is what compose and Kubernetes accept, and no secret is in a file."""

from __future__ import annotations

import configparser
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MLFLOW = ROOT / "infra" / "mlflow"
KUBERNETES = MLFLOW / "kubernetes"
FILES = sorted(path for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml")


def _documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def _of_kind(kind: str) -> list[dict[str, Any]]:
    found = [document for path in FILES for document in _documents(path)]
    return [document for document in found if document["kind"] == kind]


def _needed() -> set[str]:
    """The variables that the server does not start without."""
    found = set(re.findall(r"\$\{([A-Z_]+):\?\}", (MLFLOW / "serve").read_text()))
    assert "PGPASSWORD" in found
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_kubernetes_accepts_it_and_refuses_a_misspelt_field(path: Path) -> None:
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate, which has the schemas, is absent"
    )
    for document in _documents(path):
        validate.validate(document, "1.31.0", strict=True)
    wrong = {**_documents(path)[0], "specs": {}}
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, "1.31.0", strict=True)


def test_the_kustomization_names_what_is_there() -> None:
    (kustomization,) = _documents(KUBERNETES / "kustomization.yaml")
    assert set(kustomization["resources"]) == {path.name for path in FILES}
    (image,) = kustomization["images"]
    assert image["newTag"] == version("colddiff")
    (server,) = _of_kind("Deployment")
    (container,) = server["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image["name"]


def test_every_container_is_limited_and_not_root() -> None:
    pods = [found["spec"]["template"]["spec"] for found in _of_kind("Deployment")]
    pods += [found["spec"]["template"]["spec"] for found in _of_kind("StatefulSet")]
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_server_in_kubernetes_has_all_that_it_needs_and_secrets_from_the_secret() -> None:
    (settings,) = _of_kind("ConfigMap")
    readme = (MLFLOW / "README.md").read_text()
    command = readme[readme.index("create secret generic mlflow ") :].split("\n\n")[0]
    secret = set(re.findall(r"--from-(?:literal|file)=([A-Z_]+)=", command))
    assert set(settings["data"]) & _needed() | secret == _needed()
    assert not any(re.search("PASSWORD|SECRET", name) for name in settings["data"])
    (server,) = _of_kind("Deployment")
    (container,) = server["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [
        {"configMapRef": {"name": "mlflow-settings"}},
        {"secretRef": {"name": "mlflow"}},
    ]
    assert not _of_kind("Secret")


def test_only_the_server_reaches_the_database_and_only_jobs_and_people_the_server() -> None:
    policies = {found["metadata"]["name"]: found["spec"] for found in _of_kind("NetworkPolicy")}
    assert policies["nothing-in-by-default"]["podSelector"] == {}
    (database,) = policies["database"]["ingress"]
    assert database["from"] == [
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "mlflow"}}}
    ]
    assert policies["database"]["policyTypes"] == ["Ingress", "Egress"]  # and nothing out
    assert "egress" not in policies["database"]
    (server,) = policies["server"]["ingress"]
    names = [
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for peer in server["from"]
    ]
    assert names == ["colddiff", "ingress-nginx"]


def test_compose_gives_the_server_what_it_needs_and_holds_no_secret() -> None:
    (compose,) = _documents(MLFLOW / "compose.yaml")
    server, database = compose["services"]["mlflow"], compose["services"]["postgres"]
    assert _needed() <= set(server["environment"])
    for name, value in {**server["environment"], **database["environment"]}.items():
        if re.search("PASSWORD|SECRET|ACCESS_KEY", name):
            assert re.fullmatch(r"\$\{[A-Z_]+(:[?-].*)?\}", value), name
    assert server["image"].endswith(f":{version('colddiff')}")
    assert (MLFLOW / server["build"]["context"] / server["build"]["dockerfile"]).resolve().exists()
    assert server["ports"] == ["127.0.0.1:5000:5000"]
    assert "ports" not in database
    assert compose["networks"]["database"] == {"internal": True}
    assert database["networks"] == ["database"]


@pytest.mark.parametrize("missing", ["PGPASSWORD", "MLFLOW_TRACKING_PASSWORD"])
def test_a_server_without_a_secret_names_it(missing: str) -> None:
    env = dict.fromkeys(_needed() - {missing}, "x") | {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([MLFLOW / "serve"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert missing in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_password_is_not_hashed_for_each_request() -> None:
    """What MLflow reads; without it each request costs the server a tenth of a second of CPU."""
    written = (MLFLOW / "serve").read_text().partition("<<INI\n")[2].partition("\nINI\n")[0]
    settings = configparser.ConfigParser()
    settings.read_string(written)
    assert 0 < settings.getint("mlflow", "auth_cache_ttl_seconds") <= 60
