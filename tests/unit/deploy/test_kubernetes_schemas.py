"""The manifests for Kubernetes beside the schemas that the API server goes by."""

import copy
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from tests.unit.deploy.manifests import KUBERNETES, Document, read

# The oldest that deploy/kubernetes/README.md names, and the newest that there are schemas of.
VERSIONS = ("1.29", kubernetes_validate.latest_version())
FILES = sorted(file for file in KUBERNETES.rglob("*.yaml") if file.name != "kustomization.yaml")
# Of cert-manager, not of Kubernetes: `kubectl` itself has no schemas for them without its server.
ELSEWHERE = {"cert-manager.io/v1"}


def resources(file: Path) -> list[Document]:
    return [each for each in read(file) if each["apiVersion"] not in ELSEWHERE]


RESOURCES = [
    pytest.param(
        each, id=f"{file.relative_to(KUBERNETES)}:{each['kind']}/{each['metadata']['name']}"
    )
    for file in FILES
    for each in resources(file)
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", RESOURCES)
def test_a_resource_is_what_its_schema_says(resource: Document, version: str) -> None:
    """Strict: keys that the schema does not know, which a server drops or refuses, are errors."""
    kubernetes_validate.validate(resource, version, strict=True)


def test_every_file_has_something_to_check() -> None:
    assert {file for file in FILES if not resources(file)} == {
        KUBERNETES / "components" / "cert-manager" / "certificates.yaml"
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_mistakes_would_be_found(version: str) -> None:
    (deployment,) = [
        each for each in resources(KUBERNETES / "base" / "kv.yaml") if each["kind"] == "Deployment"
    ]
    for key, wrong in (("terminationGracePeriodSecond", 30), ("volumes", {"name": "pki"})):
        spoiled = copy.deepcopy(deployment)
        spoiled["spec"]["template"]["spec"][key] = wrong
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(spoiled, version, strict=True)
